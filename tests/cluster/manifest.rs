//! The manifests of deploy/, as a reader would copy them, with the tests' images in place of the
//! placeholders and with what a test changes in them.

use std::path::Path;

use serde::Deserialize as _;
use serde_json::{Value, json};

/// Placeholder in deploy/, and the image that `tests/cluster/setup` made for it.
const IMAGES: [(&str, &str); 3] = [
    ("ghcr.io/ebbtide/ebbtide:0.1.0", EBBTIDE),
    ("registry.example/mcp-server:1", "ebbtide.test/mcp-server:1"),
    ("registry.example/mcp-server-with-ebbtide:1", SERVER_WITH_EBBTIDE),
];
pub const EBBTIDE: &str = "ebbtide.test/ebbtide:1";
pub const SERVER_WITH_EBBTIDE: &str = "ebbtide.test/mcp-server-with-ebbtide:1";
/// The same server by another name, for pods whose image is changed.
pub const NEXT_SERVER: &str = "ebbtide.test/mcp-server:2";

/// The objects of one file, and deploy/rbac.yaml before them.
#[derive(Debug, Clone)]
pub struct Manifest(Vec<Value>);

impl Manifest {
    pub fn native_sidecar() -> Self {
        Self::read("native-sidecar.yaml")
    }

    pub fn classic_sidecar() -> Self {
        Self::read("classic-sidecar.yaml")
    }

    pub fn wrapper() -> Self {
        Self::read("wrapper.yaml")
    }

    /// The Job that rolls the others.
    pub fn rehearsal() -> Self {
        Self::read("rehearse.yaml")
    }

    /// The same server as it was before ebbtide came.
    pub fn without_ebbtide() -> Self {
        let mut manifest = Self::native_sidecar();
        let pod = manifest.pod();
        pod["initContainers"].take();
        pod["volumes"].take();
        let server = &mut pod["containers"][0];
        server["lifecycle"].take();
        server["ports"][0]["name"] = "mcp".into();
        manifest
    }

    fn read(name: &str) -> Self {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy");
        let mut objects = Vec::new();
        for name in ["rbac.yaml", name] {
            let mut text = std::fs::read_to_string(root.join(name)).unwrap();
            for (placeholder, image) in IMAGES {
                text =
                    text.replace(&format!("image: {placeholder}\n"), &format!("image: {image}\n"));
            }
            let documents = serde_yaml::Deserializer::from_str(&text);
            objects.extend(documents.map(|document| Value::deserialize(document).unwrap()));
        }
        Self(objects)
    }

    pub fn replicas(mut self, number: u32) -> Self {
        self.of("Deployment")["spec"]["replicas"] = number.into();
        self
    }

    /// The pod's grace period, and what ebbtide is told of it.
    pub fn grace(mut self, seconds: u32) -> Self {
        self.pod()["terminationGracePeriodSeconds"] = seconds.into();
        let told = format!("{seconds}s");
        for list in ["initContainers", "containers"] {
            for container in self.pod()[list].as_array_mut().into_iter().flatten() {
                for words in ["args", "command"] {
                    let words = container[words].as_array_mut().into_iter().flatten();
                    words
                        .filter(|word| *word == "60s")
                        .for_each(|word| *word = told.clone().into());
                }
            }
        }
        self
    }

    /// Takes from ebbtide the right to look at anything.
    pub fn without_rights(mut self) -> Self {
        self.0.retain(|object| object["kind"] != "Role" && object["kind"] != "RoleBinding");
        self
    }

    /// Asks something of the sidecar.
    pub fn asks(mut self, name: &str, value: &str) -> Self {
        let template = &mut self.of("Deployment")["spec"]["template"];
        template["metadata"]["annotations"][format!("config.ebbtide.dev/{name}")] = value.into();
        self
    }

    /// The pod's specification, for what only one test changes.
    pub fn pod(&mut self) -> &mut Value {
        &mut self.of("Deployment")["spec"]["template"]["spec"]
    }

    pub fn service(&mut self) -> &mut Value {
        &mut self.of("Service")["spec"]
    }

    pub fn into_list(self) -> Value {
        json!({"apiVersion": "v1", "kind": "List", "items": self.0})
    }

    fn of(&mut self, kind: &str) -> &mut Value {
        self.0.iter_mut().find(|object| object["kind"] == kind).unwrap()
    }
}
