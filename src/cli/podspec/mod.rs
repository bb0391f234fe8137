//! What a drained pod looks like: the one place that knows. `inject`, `check` and the webhook all
//! ask here. Pure.
//!
//! Never changes what it does not name, and can take back whatever it changed.

mod asked;
pub mod kinds;
mod record;
pub mod resources;
pub mod server;
pub mod services;
mod sidecar;
#[cfg(test)]
pub mod tests;

use std::collections::HashSet;

use serde_json::{Value, json};

use self::{
    asked::Asked,
    record::{Moved, Raised, Record, ensure},
    resources::Resources,
    server::Server,
    sidecar::Sidecar,
};
use crate::config::{Raw, Settings, value};

/// The sidecar's container.
pub const CONTAINER: &str = "ebbtide";
/// Its volumes: with the token, and with the files of a Secret.
const TOKEN: &str = "ebbtide-token";
const SECRET: &str = "ebbtide-secret";
/// `enabled` or `disabled`, on the pod or, for all of them, on its namespace.
pub const LABEL: &str = "ebbtide.dev/inject";
/// Before the name of a setting of `run`, and before `port`, `after`, `secret`, `requests` and
/// `limits`.
pub const SETTING: &str = "config.ebbtide.dev/";
pub const VERSION: &str = "ebbtide.dev/injected-version";
/// What injection changed.
pub const RECORD: &str = "ebbtide.dev/injected-changes";
/// Where the sidecar's admin port is unless somebody says otherwise.
const ADMIN_PORT: u16 = 7071;
/// What we call a port that had no name.
const PORT_NAME: &str = "mcp";
/// What Kubernetes takes where a pod says nothing.
pub const DEFAULT_GRACE: u64 = 30;
/// A year, in seconds.
const LONGEST_GRACE: u64 = 366 * 24 * 60 * 60;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// An init container that restarts: it starts before the server and ends after it.
    Native,
    /// A container beside the server.
    Classic,
}

/// What holds for every pod that says nothing else.
#[derive(Debug, Clone)]
pub struct Options {
    pub mode: Mode,
    pub image: String,
    /// The server's port, by number or name.
    pub port: Option<String>,
    /// The sidecar's, where the pod does not say otherwise.
    pub resources: Resources,
    /// Resources that do not fit are told in a note, and those above are taken: nobody is there to
    /// mend the annotation.
    pub forgives: bool,
}

/// The image of this version.
pub fn image() -> String {
    format!("ghcr.io/ebbtide/ebbtide:{}", env!("CARGO_PKG_VERSION"))
}

/// What became of a pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Became {
    Injected(Injected),
    /// Nothing, and why.
    Left(String),
}

/// What Services and people have to know of an injected pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Injected {
    /// The server's port, and the name under which clients now come to the sidecar's.
    pub number: u16,
    pub name: String,
    /// Whether the server's port had that name before.
    pub was_named: bool,
    pub data: u16,
    /// The server has a preStop hook that does not wait for the drain.
    pub is_unprotected: bool,
    pub notes: Vec<String>,
}

/// Adds the sidecar to a pod, or to the template of one, of an object of that kind; over an older
/// injection as if that had never been. An error leaves the pod in pieces.
pub fn inject(pod: &mut Value, kind: &str, options: &Options) -> Result<Became, String> {
    if pod["metadata"]["labels"][LABEL] == "disabled" {
        return Ok(Became::Left(format!("its label says `{LABEL}: disabled`")));
    }
    has_shape(pod)?;
    let before = record::server_port(pod);
    record::undo(pod)?;
    if let Some(container) = by_hand(&pod["spec"]) {
        return Ok(Became::Left(format!("its container `{container}` runs ebbtide already")));
    }
    let asked = Asked::read(pod)?;
    let spec = &pod["spec"];
    let port = match (&asked.port, &options.port, &before) {
        (Some(asked), _, _) => Some(asked),
        _ if server::is_named(spec) => None,
        // What all pods are told holds for those that say nothing themselves.
        (None, Some(told), _) => match server::lacks(spec, told) {
            Some(why) => return Ok(Became::Left(why)),
            None => Some(told),
        },
        (None, None, before) => before.as_ref().filter(|port| server::lacks(spec, port).is_none()),
    };
    let server = server::find(spec, port.map(String::as_str))?;
    let (raw, grace) = asked.settings(&pod["spec"], server.number)?;
    let settings = Settings::parse(&raw, false);
    // That ports meet is said better by who has the pod before his eyes.
    let own = |name: &str, or: u16| match raw.get(name).map(|(text, _)| value::address(text)) {
        Some(Ok(address)) => address.port(),
        _ => or,
    };
    let (data, admin) = (own("listen", 7070), own("admin", ADMIN_PORT));
    if let Some((setting, port)) =
        [("listen", data), ("admin", admin)].into_iter().find(|(_, port)| *port == server.number)
    {
        return Err(format!(
            "the server listens on {port}, as ebbtide would: give ebbtide another port, as in the \
             annotation {SETTING}{setting}: \"0.0.0.0:{}\"",
            port.saturating_add(1000)
        ));
    }
    server::has_room(&pod["spec"], [("listen", data), ("admin", admin)])?;
    let settings = settings.map_err(|error| error.to_string())?;
    for (name, address) in [("listen", settings.listen), ("admin", settings.admin)] {
        if address.ip().is_loopback() || address.port() == 0 {
            return Err(format!(
                "annotation {SETTING}{name}: {address} is where neither clients nor the kubelet \
                 find it; expected a fixed port on all addresses, as in 0.0.0.0:{}",
                if name == "listen" { 7070 } else { 7071 }
            ));
        }
    }
    if options.mode == Mode::Classic && kinds::ends(kind, &pod["spec"]) {
        return Err("the pod is to end by itself, and a classic sidecar would keep it running; \
                    use --mode native"
            .into());
    }
    let (resources, misfit) = match asked.resources(&options.resources) {
        Ok(resources) => (resources, None),
        Err(error) if options.forgives => (options.resources.clone(), Some(error)),
        Err(error) => return Err(error),
    };
    let plan = Plan { raw, grace, data, admin, resources, misfit };
    change(pod, options, &asked, &server, &plan)
}

/// Takes the sidecar out again; `false` where `inject` did not put it in.
pub fn uninject(pod: &mut Value) -> Result<bool, String> {
    record::undo(pod)
}

/// Whether what is to be changed is what it has to be.
fn has_shape(pod: &Value) -> Result<(), String> {
    server::containers(&pod["spec"])?;
    let fits = |value: Option<&Value>, is: fn(&Value) -> bool, at: &str, what: &str| match value {
        Some(value) if !value.is_null() && !is(value) => Err(format!("`{at}` is no {what}")),
        _ => Ok(()),
    };
    for at in ["/metadata", "/metadata/annotations", "/metadata/labels"] {
        fits(pod.pointer(at), Value::is_object, &at[1..], "mapping")?;
    }
    let grace = &pod["spec"]["terminationGracePeriodSeconds"];
    match (grace.as_u64(), grace.as_i64()) {
        (Some(seconds), _) if seconds > LONGEST_GRACE => {
            return Err(format!(
                "`terminationGracePeriodSeconds: {seconds}` is longer than any call: expected at \
                 most {LONGEST_GRACE}"
            ));
        }
        (Some(_), _) => {}
        (None, Some(seconds)) => {
            return Err(format!(
                "`terminationGracePeriodSeconds: {seconds}` is below zero, which Kubernetes takes \
                 for 1"
            ));
        }
        (None, None) if grace.is_null() => {}
        (None, None) => {
            return Err("`terminationGracePeriodSeconds` is no whole number of seconds".into());
        }
    }
    for list in ["initContainers", "volumes"] {
        fits(pod["spec"].get(list), Value::is_array, list, "list")?;
    }
    let mut names = HashSet::new();
    for list in ["containers", "initContainers"] {
        for (index, container) in pod["spec"][list].as_array().into_iter().flatten().enumerate() {
            let name = container["name"].as_str().filter(|name| !name.is_empty());
            let name = name.ok_or_else(|| {
                format!("`{list}[{index}]` has no name, by which it could be found again")
            })?;
            if !names.insert(name) {
                return Err(format!("two containers are called `{name}`"));
            }
        }
    }
    for container in server::containers(&pod["spec"])? {
        fits(container.get("lifecycle"), Value::is_object, "lifecycle", "mapping")?;
        fits(container.get("ports"), Value::is_array, "ports", "list")?;
    }
    Ok(())
}

/// The container that somebody made run ebbtide without us.
pub fn by_hand(spec: &Value) -> Option<&str> {
    let lists = [&spec["initContainers"], &spec["containers"]];
    let mut all = lists.into_iter().filter_map(Value::as_array).flatten();
    all.find(|container| container["name"] == CONTAINER || is_ebbtide(container))?["name"].as_str()
}

fn is_ebbtide(container: &Value) -> bool {
    let is_named_so = |path: &str| path == "ebbtide" || path.ends_with("/ebbtide");
    if let Some(program) = container["command"][0].as_str() {
        return is_named_so(program);
    }
    // The image's entry point.
    let image = container["image"].as_str().unwrap_or_default();
    let image = image.split('@').next().unwrap_or_default();
    let name = image.rsplit_once(':').map_or(image, |(name, _)| name);
    (is_named_so(image) || is_named_so(name)) && container["args"][0] == "run"
}

/// All that is known before the first change.
struct Plan {
    raw: Raw,
    grace: u64,
    data: u16,
    admin: u16,
    resources: Resources,
    /// Why these are not what the pod asks for.
    misfit: Option<String>,
}

fn change(
    pod: &mut Value,
    options: &Options,
    asked: &Asked,
    server: &Server,
    plan: &Plan,
) -> Result<Became, String> {
    let mut record = Record::default();
    let mut notes: Vec<String> = plan
        .misfit
        .iter()
        .map(|misfit| format!("{misfit}; the sidecar gets the default"))
        .collect();
    let name = server.name.clone().unwrap_or_else(|| PORT_NAME.into());
    server::is_unique(&pod["spec"], &name, server)?;
    let container = &mut pod["spec"]["containers"][server.container];
    record.server = container["name"].as_str().unwrap_or_default().to_owned();

    // The port moves.
    if server.port.is_none() {
        notes.push(format!(
            "its container `{}` does not declare port {}, which is taken to be the server's",
            record.server, server.number
        ));
    }
    let mut fields = json!({ "name": name }).as_object().cloned().unwrap_or_default();
    if let Some(port) = server.port {
        let taken = server::take(container, port);
        if server.name.is_some() {
            record.named = server::named_ports(container, &name);
            for at in &record.named {
                if let Some(port) = container.pointer_mut(at) {
                    *port = server.number.into();
                }
            }
        }
        fields.extend(taken.clone());
        if !taken.is_empty() {
            record.port = Some(Moved { number: server.number, fields: taken });
        }
    }

    // SIGTERM stays away from the server until ebbtide has drained.
    let mut is_unprotected = false;
    if container.pointer("/lifecycle/preStop").is_none_or(Value::is_null) {
        if container.get("lifecycle").is_none_or(Value::is_null) {
            container["lifecycle"] = json!({});
            record.created.push("lifecycle".into());
        }
        container["lifecycle"]["preStop"] =
            json!({"httpGet": {"path": "/prestop", "port": plan.admin}});
        record.prestop = true;
    } else if !server::waits(&container["lifecycle"]["preStop"], plan.admin) {
        is_unprotected = true;
        let elsewhere = match plan.admin {
            ADMIN_PORT => String::new(),
            admin => format!(" --admin 127.0.0.1:{admin}"),
        };
        notes.push(format!(
            "its container `{}` keeps its own preStop hook, so SIGTERM does not wait for the \
             drain. Let the hook end with `ebbtide drain --wait{elsewhere}`, or take it away and \
             ebbtide brings one. The binary comes into the image with `COPY --from={} /ebbtide \
             /ebbtide`",
            record.server, options.image
        ));
    }

    let spec = &mut pod["spec"];
    let has = spec["terminationGracePeriodSeconds"].as_u64();
    if has.unwrap_or(DEFAULT_GRACE) < plan.grace || (has.is_none() && plan.grace != DEFAULT_GRACE) {
        spec["terminationGracePeriodSeconds"] = plan.grace.into();
        record.grace = Some(Raised { from: has, to: plan.grace });
    }
    let own = Sidecar {
        mode: options.mode,
        image: &options.image,
        settings: &plan.raw,
        data: (plan.data, fields),
        admin: plan.admin,
        resources: &plan.resources,
        has_secret: asked.secret.is_some(),
        pod_security: &spec["securityContext"],
    }
    .container();
    place(pod, options.mode, asked.after.as_deref(), own, &mut record)?;
    if let Some(Value::Array(volumes)) = ensure(pod, "/spec/volumes", json!([]), &mut record) {
        let own = sidecar::volumes(asked.secret.as_deref());
        for name in own.iter().filter_map(|own| own["name"].as_str()) {
            if volumes.iter().any(|volume| volume["name"] == name) {
                return Err(format!("a volume is called `{name}` already; give it another name"));
            }
        }
        volumes.extend(own);
    }
    ensure(pod, "/metadata", json!({}), &mut record);
    ensure(pod, "/metadata/annotations", json!({}), &mut record);
    let annotations = &mut pod["metadata"]["annotations"];
    annotations[VERSION] = env!("CARGO_PKG_VERSION").into();
    annotations[RECORD] = serde_json::to_string(&record).map_err(|error| error.to_string())?.into();
    let was_named = server.name.is_some();
    Ok(Became::Injected(Injected {
        number: server.number,
        name,
        was_named,
        data: plan.data,
        is_unprotected,
        notes,
    }))
}

/// Puts the container first, or where it was asked to stand.
fn place(
    pod: &mut Value,
    mode: Mode,
    after: Option<&str>,
    own: Value,
    record: &mut Record,
) -> Result<(), String> {
    let at = match mode {
        Mode::Native => "/spec/initContainers",
        Mode::Classic => "/spec/containers",
    };
    let Some(Value::Array(list)) = ensure(pod, at, json!([]), record) else {
        return Err(format!("`{}` is no list of containers", &at["/spec/".len()..]));
    };
    let index = match after {
        None => 0,
        Some(after) => {
            let found = list.iter().position(|container| container["name"] == after);
            found.map(|found| found + 1).ok_or_else(|| {
                format!(
                    "annotation {SETTING}after: `{after}` does not fit: expected the name of one \
                     of the {}",
                    &at["/spec/".len()..]
                )
            })?
        }
    };
    list.insert(index, own);
    Ok(())
}
