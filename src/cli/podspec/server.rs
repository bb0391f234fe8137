//! Which container is the server, on which port it listens, and whether there is room for the
//! sidecar beside it. Pure.

use serde_json::{Map, Value};

use super::{ADMIN_PORT, CONTAINER};

/// The names under which MCP servers offer their port; the first that is there counts.
const NAMES: [&str; 2] = ["mcp", "http"];

/// The server as its pod describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Server {
    /// Of the pod's `containers`.
    pub container: usize,
    /// Of the container's `ports`, unless it does not declare it.
    pub port: Option<usize>,
    pub number: u16,
    /// What Services call it.
    pub name: Option<String>,
}

/// Finds the server by the port that was asked for (a number or a name), else by the usual names.
pub fn find(spec: &Value, asked: Option<&str>) -> Result<Server, String> {
    containers(spec)?;
    let containers: Vec<_> = others(spec).collect();
    let named = |name: &str| {
        all(&containers).filter(|found| found.name.as_deref() == Some(name)).collect::<Vec<_>>()
    };
    let (what, found) = match asked {
        None => {
            let found = NAMES.iter().map(|name| (*name, named(name)));
            found
                .into_iter()
                .find(|(_, found)| !found.is_empty())
                .ok_or_else(|| no_port(&containers))?
        }
        Some(asked) => match asked.parse::<u16>() {
            Ok(number) => {
                let found: Vec<_> =
                    all(&containers).filter(|found| found.number == number).collect();
                match (found.is_empty(), containers.as_slice()) {
                    (true, [(container, _)]) if number > 0 => {
                        let container = *container;
                        return Ok(Server { container, port: None, number, name: None });
                    }
                    _ => (asked, found),
                }
            }
            Err(_) => (asked, named(asked)),
        },
    };
    match found.as_slice() {
        [one] => Ok(one.clone()),
        [] => Err(format!("no container has the port `{what}`; {}", ports_there(&containers))),
        several => {
            let names: Vec<_> = several
                .iter()
                .map(|found| {
                    let name = spec["containers"][found.container]["name"].as_str();
                    format!("{} ({})", name.unwrap_or_default(), found.number)
                })
                .collect();
            Err(format!(
                "several containers have the port `{what}`: {}; those that are not the server's \
                 need another name: the sidecar's port takes this one, and Services find the first",
                names.join(", ")
            ))
        }
    }
}

/// Whether a container's port has one of the usual names.
pub fn is_named(spec: &Value) -> bool {
    let containers: Vec<_> = others(spec).collect();
    all(&containers).any(|found| NAMES.iter().any(|name| found.name.as_deref() == Some(*name)))
}

/// Why a port, by number or name, that every pod was told of is none of this one's, where it says
/// which ports it has.
pub fn lacks(spec: &Value, port: &str) -> Option<String> {
    let containers: Vec<_> = others(spec).collect();
    let is_it =
        |found: Server| found.name.as_deref() == Some(port) || found.number.to_string() == port;
    let mut declared = all(&containers).peekable();
    declared.peek()?;
    (!declared.any(is_it)).then(|| format!("no port of it is {port}; {}", ports_there(&containers)))
}

fn others(spec: &Value) -> impl Iterator<Item = (usize, &Value)> {
    let list = spec["containers"].as_array().into_iter().flatten().enumerate();
    list.filter(|(_, container)| container["name"] != CONTAINER)
}

/// The containers of a pod that is well-formed as far as it matters here.
pub fn containers(spec: &Value) -> Result<&Vec<Value>, String> {
    match spec["containers"].as_array() {
        Some(list) if !list.is_empty() && list.iter().all(Value::is_object) => Ok(list),
        _ => Err("`containers` is no list of containers: this is no pod".into()),
    }
}

/// Whether a preStop hook returns only when the sidecar has drained: ours, or one that ends with
/// `ebbtide drain --wait`.
pub fn waits(hook: &Value, admin: u16) -> bool {
    let get = &hook["httpGet"];
    (get["path"] == "/prestop" && get["port"] == admin) || runs_to_wait(hook, admin)
}

/// The same, of what it runs: `ebbtide drain --wait`, alone or in a script, or whatever gets
/// `/prestop`.
pub fn runs_to_wait(hook: &Value, admin: u16) -> bool {
    let says = |text: &str| {
        let words = hook["exec"]["command"].as_array().into_iter().flatten();
        words.filter_map(Value::as_str).any(|word| word.contains(text))
    };
    let drains = ["ebbtide", "drain", "--wait"].iter().all(|text| says(text));
    // It runs where nobody tells it that the sidecar's port is another.
    (drains && (admin == ADMIN_PORT || says(&format!(":{admin}"))))
        || says(&format!(":{admin}/prestop"))
}

/// Whether the sidecar fits in: its ports, the network.
pub fn has_room(spec: &Value, own: [(&str, u16); 2]) -> Result<(), String> {
    if spec["hostNetwork"] == true {
        return Err("hostNetwork: the sidecar's ports would be the node's, and two pods on one \
                    node would take them from each other; leave hostNetwork out, or label the \
                    pod `ebbtide.dev/inject: disabled`"
            .into());
    }
    if spec["os"]["name"] == "windows" || spec["nodeSelector"]["kubernetes.io/os"] == "windows" {
        return Err("a Windows pod: ebbtide runs on Linux".into());
    }
    for list in ["containers", "initContainers"] {
        for container in spec[list].as_array().into_iter().flatten() {
            for port in container["ports"].as_array().into_iter().flatten() {
                let taken = own.iter().find(|(_, number)| port["containerPort"] == *number);
                if let Some((setting, number)) = taken {
                    return Err(format!(
                        "port {number} is taken by the container `{}`; give ebbtide another, as \
                         in the annotation config.ebbtide.dev/{setting}: \"0.0.0.0:{}\"",
                        container["name"].as_str().unwrap_or_default(),
                        number.saturating_add(1000)
                    ));
                }
            }
        }
    }
    Ok(())
}

/// Whether Services that ask for that name find the sidecar: a container's port of the same name
/// would be found before it.
pub fn is_unique(spec: &Value, name: &str, server: &Server) -> Result<(), String> {
    for (index, container) in containers(spec)?.iter().enumerate() {
        for (port, value) in container["ports"].as_array().into_iter().flatten().enumerate() {
            let own = index == server.container && Some(port) == server.port;
            if !own && value["name"] == name {
                return Err(format!(
                    "the port {} of the container `{}` is called `{name}`, which is what the \
                     sidecar's would be called: Services would lead past it; give one of them \
                     another name",
                    value["containerPort"],
                    container["name"].as_str().unwrap_or_default()
                ));
            }
        }
    }
    Ok(())
}

/// Takes name and host port off the server's port: they are the sidecar's now.
pub fn take(container: &mut Value, port: usize) -> Map<String, Value> {
    let mut taken = Map::new();
    if let Some(port) = container["ports"][port].as_object_mut() {
        for field in ["name", "hostPort", "hostIP"] {
            taken.extend(port.remove_entry(field));
        }
    }
    taken
}

/// Where the container's own probes and hooks name a port, as JSON pointers.
pub fn named_ports(container: &Value, name: &str) -> Vec<String> {
    let all = handler_ports(container);
    all.filter(|(_, port)| *port == name).map(|(pointer, _)| pointer).collect()
}

/// What the kubelet itself calls of a container: where it says the port, as a JSON pointer, and
/// which.
pub fn handler_ports(container: &Value) -> impl Iterator<Item = (String, &Value)> {
    let handlers = [
        "livenessProbe",
        "readinessProbe",
        "startupProbe",
        "lifecycle/preStop",
        "lifecycle/postStart",
    ];
    handlers.into_iter().flat_map(move |handler| {
        ["httpGet", "tcpSocket"].into_iter().filter_map(move |way| {
            let pointer = format!("/{handler}/{way}/port");
            container.pointer(&pointer).map(|port| (pointer, port))
        })
    })
}

/// Every port that could be an HTTP server's.
fn all<'a>(containers: &'a [(usize, &'a Value)]) -> impl Iterator<Item = Server> + 'a {
    containers.iter().flat_map(|(container, value)| {
        let ports = value["ports"].as_array().into_iter().flatten().enumerate();
        ports.filter_map(|(index, port)| {
            let tcp = port["protocol"].as_str().is_none_or(|protocol| protocol == "TCP");
            let number = port["containerPort"].as_u64().and_then(|port| u16::try_from(port).ok());
            Some(Server {
                container: *container,
                port: Some(index),
                number: number.filter(|number| tcp && *number > 0)?,
                name: port["name"].as_str().map(str::to_owned),
            })
        })
    })
}

fn no_port(containers: &[(usize, &Value)]) -> String {
    format!(
        "no port is named mcp or http; {}; say which one is the server's in the annotation \
         config.ebbtide.dev/port, or to `inject` with --port; a pod that is no MCP server gets \
         the label `ebbtide.dev/inject: disabled`",
        ports_there(containers)
    )
}

fn ports_there(containers: &[(usize, &Value)]) -> String {
    let ports: Vec<String> = all(containers)
        .map(|found| match found.name {
            Some(name) => format!("{name} ({})", found.number),
            None => found.number.to_string(),
        })
        .collect();
    match ports.as_slice() {
        [] => "no container declares a port".into(),
        ports => format!("there are {}", ports.join(", ")),
    }
}
