//! What the rules look at: the pods that serve clients, with sidecar and server told apart, and
//! what stands beside them. Pure.

use std::{collections::HashMap, time::Duration};

use serde_json::Value;

use crate::{
    cli::{
        manifest::Object,
        podspec::{self, CONTAINER, DEFAULT_GRACE, LABEL, SETTING, kinds, server, services},
    },
    config::{self, value},
};

/// What the operator knows and no manifest says.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    pub slowest_call: Duration,
    /// Connections that the database behind the servers takes.
    pub database: Option<u64>,
}

pub struct World<'a> {
    pub objects: &'a [Object],
    pub workloads: Vec<Workload<'a>>,
    /// Makers of pods that serve no MCP client, as far as can be seen.
    pub left_out: Vec<usize>,
    pub limits: Limits,
    /// By kind and namespace.
    by_kind: HashMap<[&'a str; 2], Vec<usize>>,
    /// Services, by what `services::key` finds them by.
    by_label: HashMap<[&'a str; 3], Vec<usize>>,
    /// All makers of pods and their pods, by each label.
    pods: HashMap<[&'a str; 3], Vec<(usize, &'a Value)>>,
}

/// An object that makes pods which serve clients.
pub struct Workload<'a> {
    pub index: usize,
    pub object: &'a Object,
    /// Where in the object the pod is described.
    pub at: &'static str,
    pub pod: &'a Value,
    pub spec: &'a Value,
    pub sidecar: Option<Sidecar<'a>>,
    pub server: Option<Container<'a>>,
}

/// How many pods there are, in quiet times and in busy ones.
#[derive(Debug, Clone, Copy)]
pub struct Replicas {
    pub least: u64,
    pub most: u64,
}

#[derive(Clone, Copy)]
pub struct Container<'a> {
    pub list: &'static str,
    pub index: usize,
    pub value: &'a Value,
}

pub struct Sidecar<'a> {
    pub container: Container<'a>,
    pub data: u16,
    pub admin: u16,
    /// It starts the server itself, in one container.
    pub wraps: bool,
}

impl<'a> World<'a> {
    pub fn of(objects: &'a [Object], limits: Limits) -> Self {
        let mut world = Self {
            objects,
            workloads: Vec::new(),
            left_out: Vec::new(),
            limits,
            by_kind: HashMap::new(),
            by_label: HashMap::new(),
            pods: HashMap::new(),
        };
        for (index, object) in objects.iter().enumerate() {
            let kind = [object.kind(), object.namespace().unwrap_or("default")];
            world.by_kind.entry(kind).or_default().push(index);
            if kinds::is_service(&object.value)
                && let Some(key) = services::key(&object.value)
            {
                world.by_label.entry(key).or_default().push(index);
            }
            let other = kinds::resembles(&object.value).then_some("/spec/template");
            if let Some(at) = kinds::template(&object.value).or(other)
                && let Some(pod) = object.value.pointer(at)
            {
                for key in services::keys(object.namespace(), &pod["metadata"]["labels"]) {
                    world.pods.entry(key).or_default().push((index, pod));
                }
            }
            if let Some(at) = kinds::template(&object.value) {
                match Workload::of(index, object, at) {
                    Some(workload) => world.workloads.push(workload),
                    None => world.left_out.push(index),
                }
            }
        }
        world
    }

    /// The objects of a kind in the workload's namespace.
    pub fn beside(
        &self,
        workload: &Workload<'_>,
        kind: &str,
    ) -> impl Iterator<Item = (usize, &'a Object)> + use<'a> {
        let namespace = workload.object.namespace().unwrap_or("default");
        let found = self.by_kind.get(&[kind, namespace]).cloned().unwrap_or_default();
        let objects = self.objects;
        found.into_iter().map(|index| (index, &objects[index]))
    }

    /// The Services that lead to a workload's pods.
    pub fn services(&self, workload: &Workload<'_>) -> Vec<(usize, &'a Object)> {
        let labels = &workload.pod["metadata"]["labels"];
        let namespace = workload.object.namespace();
        let mut found: Vec<_> = services::keys(namespace, labels)
            .filter_map(|key| self.by_label.get(&key))
            .flatten()
            .map(|index| (*index, &self.objects[*index]))
            .filter(|(_, object)| services::selects(&object.value, namespace, labels))
            .collect();
        found.sort_by_key(|(index, _)| *index);
        found
    }

    /// The pods that a Service leads to, and what makes them.
    pub fn selected(&self, service: &Object) -> Vec<(&'a Object, &'a Value)> {
        let near = services::key(&service.value).and_then(|key| self.pods.get(&key));
        let all = near.into_iter().flatten();
        let all = all.map(|(index, pod)| (&self.objects[*index], *pod));
        all.filter(|(object, pod)| {
            services::selects(&service.value, object.namespace(), &pod["metadata"]["labels"])
        })
        .collect()
    }

    /// How many pods a workload has; `None` where something else decides, or none is to run.
    pub fn replicas(&self, workload: &Workload<'_>) -> Option<Replicas> {
        if !matches!(workload.object.kind(), "Deployment" | "StatefulSet" | "ReplicaSet") {
            return None;
        }
        let written = workload.object.value["spec"]["replicas"].as_u64();
        // What is scaled to nothing no HorizontalPodAutoscaler touches.
        if written == Some(0) {
            return None;
        }
        let Some((_, scaler)) = self.scaler(workload) else {
            let count = written.unwrap_or(1);
            return Some(Replicas { least: count, most: count });
        };
        let of = |field: &str| scaler.value["spec"][field].as_u64().map(|count| count.max(1));
        let least = of("minReplicas").unwrap_or(1);
        Some(Replicas { least, most: of("maxReplicas").unwrap_or(least).max(least) })
    }

    /// What scales a workload by itself.
    pub fn scaler(&self, workload: &Workload<'_>) -> Option<(usize, &'a Object)> {
        self.beside(workload, "HorizontalPodAutoscaler").find(|(_, object)| {
            let target = &object.value["spec"]["scaleTargetRef"];
            target["kind"] == workload.object.kind()
                && target["name"] == workload.object.value["metadata"]["name"]
        })
    }
}

impl<'a> Workload<'a> {
    /// `None` where nothing says that its pods serve clients.
    pub fn of(index: usize, object: &'a Object, at: &'static str) -> Option<Self> {
        let pod = object.value.pointer(at)?;
        let spec = &pod["spec"];
        server::containers(spec).ok()?;
        let sidecar = sidecar(spec);
        let asked = pod["metadata"]["annotations"][format!("{SETTING}port").as_str()].as_str();
        let found = server::find(spec, asked).ok();
        let meant = pod["metadata"]["labels"][LABEL] == "enabled";
        if sidecar.is_none() && found.is_none() && !meant {
            return None;
        }
        let others =
            || containers(spec, "containers").filter(|found| found.value["name"] != CONTAINER);
        let server = match &sidecar {
            Some(sidecar) if sidecar.wraps => Some(sidecar.container),
            Some(sidecar) => {
                let upstream = sidecar.container.setting("upstream");
                let port =
                    upstream.and_then(|text| value::upstream(&text).ok()).map(|at| at.port());
                others().find(|found| found.waits_for_us(sidecar.admin)).or_else(|| {
                    others().find(|found| port.is_some_and(|port| found.declares(port)))
                })
            }
            None => found.map(|found| Container {
                list: "containers",
                index: found.container,
                value: &spec["containers"][found.container],
            }),
        };
        let server = server.or_else(|| others().next());
        Some(Self { index, object, at, pod, spec, sidecar, server })
    }

    /// Kubernetes takes a grace below zero for a second.
    pub fn grace(&self) -> u64 {
        let grace = &self.spec["terminationGracePeriodSeconds"];
        let below_zero = grace.as_i64().is_some_and(i64::is_negative);
        grace.as_u64().unwrap_or(if below_zero { 1 } else { DEFAULT_GRACE })
    }

    /// All containers that run beside each other or before.
    pub fn containers(&self) -> impl Iterator<Item = Container<'a>> + use<'a> {
        containers(self.spec, "initContainers").chain(containers(self.spec, "containers"))
    }

    /// A path within the pod as one within the object.
    pub fn path(&self, within: &str) -> String {
        format!("{}{within}", self.at)
    }
}

impl Container<'_> {
    pub fn name(&self) -> String {
        self.value["name"].as_str().unwrap_or_default().to_owned()
    }

    pub fn path(&self) -> String {
        format!("/spec/{}/{}", self.list, self.index)
    }

    pub fn is_native_sidecar(&self) -> bool {
        self.list == "initContainers" && self.value["restartPolicy"] == "Always"
    }

    pub fn declares(&self, port: u16) -> bool {
        self.value["ports"]
            .as_array()
            .is_some_and(|ports| ports.iter().any(|declared| declared["containerPort"] == port))
    }

    /// Where a handler's GET goes, as a number.
    pub fn port_of(&self, get: &Value) -> Option<u16> {
        let port = &get["port"];
        let number = port.as_u64().or_else(|| self.port_named(port.as_str()?));
        number.and_then(|port| port.try_into().ok())
    }

    pub fn port_named(&self, name: &str) -> Option<u64> {
        let ports = self.value["ports"].as_array()?;
        ports.iter().find(|declared| declared["name"] == name)?["containerPort"].as_u64()
    }

    /// Whether its preStop hook returns only when drained.
    pub fn waits_for_us(&self, admin: u16) -> bool {
        let hook = &self.value["lifecycle"]["preStop"];
        let get = &hook["httpGet"];
        (get["path"] == "/prestop" && self.port_of(get) == Some(admin))
            || server::runs_to_wait(hook, admin)
    }

    /// A setting that ebbtide is given, by flag or variable.
    pub fn setting(&self, name: &str) -> Option<String> {
        let flag = config::flag(name);
        let mut given = words(&self.value["command"])
            .chain(words(&self.value["args"]))
            .take_while(|word| *word != "--");
        while let Some(word) = given.next() {
            if word == flag {
                return given.next().map(str::to_owned);
            }
            if let Some(value) = word.strip_prefix(&flag).and_then(|rest| rest.strip_prefix('=')) {
                return Some(value.to_owned());
            }
        }
        let variable = config::variable(name);
        let all = self.value["env"].as_array()?;
        let found = all.iter().find(|entry| entry["name"] == *variable)?;
        found["value"].as_str().map(str::to_owned)
    }

    pub fn duration(&self, setting: &str) -> Option<Duration> {
        value::duration(&self.setting(setting)?).ok()
    }
}

pub fn words(list: &Value) -> impl Iterator<Item = &str> {
    list.as_array().into_iter().flatten().filter_map(Value::as_str)
}

fn containers<'a>(
    spec: &'a Value,
    list: &'static str,
) -> impl Iterator<Item = Container<'a>> + use<'a> {
    let all = spec[list].as_array().into_iter().flatten().enumerate();
    all.map(move |(index, value)| Container { list, index, value })
}

fn sidecar(spec: &Value) -> Option<Sidecar<'_>> {
    let name = podspec::by_hand(spec)?;
    let mut all = containers(spec, "initContainers").chain(containers(spec, "containers"));
    let container = all.find(|container| container.value["name"] == name)?;
    let port = |setting: &str, default: u16| {
        let address = container.setting(setting).and_then(|text| value::address(&text).ok());
        address.map_or(default, |address| address.port())
    };
    let mut given = words(&container.value["command"]).chain(words(&container.value["args"]));
    let wraps = given.any(|word| word == "--");
    Some(Sidecar { container, data: port("listen", 7070), admin: port("admin", 7071), wraps })
}
