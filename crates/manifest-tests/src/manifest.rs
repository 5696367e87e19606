use std::collections::BTreeMap;
use std::fmt;

use serde_json::Value;

use crate::Failure;

/// The objects of a render.
#[derive(Debug, Clone, Default)]
pub struct Manifests(Vec<Object>);

/// One Kubernetes object.
#[derive(Debug, Clone)]
pub struct Object(pub Value);

/// The pods that a Deployment, `StatefulSet` or `CronJob` creates.
#[derive(Debug, Clone, Copy)]
pub struct Pod<'a> {
    /// The object that creates them.
    pub owner: &'a Object,
    template: &'a Value,
}

/// A container of a pod.
#[derive(Debug, Clone, Copy)]
pub struct Container<'a> {
    /// Its pod.
    pub pod: Pod<'a>,
    /// Whether it is an init container.
    pub is_init: bool,
    value: &'a Value,
}

impl Manifests {
    /// Reads the output of kustomize.
    ///
    /// # Errors
    /// [`Failure::Yaml`].
    pub fn parse(yaml: &str) -> Result<Self, Failure> {
        let values: Vec<Value> = serde_saphyr::from_multiple(yaml)?;
        Ok(Self(values.into_iter().map(Object).collect()))
    }

    /// Adds the objects of `others`.
    #[must_use]
    pub fn and(mut self, others: Self) -> Self {
        self.0.extend(others.0);
        self
    }

    /// All objects.
    pub fn iter(&self) -> impl Iterator<Item = &Object> {
        self.0.iter()
    }

    /// The objects of a kind.
    pub fn of_kind(&self, kind: &str) -> impl Iterator<Item = &Object> {
        self.iter().filter(move |object| object.kind() == kind)
    }

    /// An object by kind, namespace (empty for those without one) and name.
    #[must_use]
    pub fn find(&self, kind: &str, namespace: &str, name: &str) -> Option<&Object> {
        self.of_kind(kind)
            .find(|object| object.namespace() == namespace && object.name() == name)
    }

    /// Like [`Self::find`], but mutable and in any namespace.
    pub fn find_mut(&mut self, kind: &str, name: &str) -> Option<&mut Value> {
        let mut objects = self.0.iter_mut();
        objects
            .find(|object| object.kind() == kind && object.name() == name)
            .map(|object| &mut object.0)
    }

    /// Like [`Self::find`], but mutable.
    pub fn find_mut_in(&mut self, kind: &str, namespace: &str, name: &str) -> Option<&mut Value> {
        let mut objects = self.0.iter_mut();
        objects
            .find(|object| {
                object.kind() == kind && object.namespace() == namespace && object.name() == name
            })
            .map(|object| &mut object.0)
    }

    /// Removes the objects of this kind and name.
    pub fn remove(&mut self, kind: &str, name: &str) {
        self.0
            .retain(|object| object.kind() != kind || object.name() != name);
    }

    /// Adds an object.
    pub fn push(&mut self, value: Value) {
        self.0.push(Object(value));
    }

    /// The pods of all objects that create some.
    pub fn pods(&self) -> impl Iterator<Item = Pod<'_>> {
        self.iter().filter_map(Object::pod)
    }

    /// The containers of all pods, including init containers.
    pub fn containers(&self) -> impl Iterator<Item = Container<'_>> {
        self.pods().flat_map(Pod::containers)
    }
}

impl Object {
    /// `Deployment`, `Service` and so on; empty when there is none.
    #[must_use]
    pub fn kind(&self) -> &str {
        self.text("/kind")
    }

    /// The name.
    #[must_use]
    pub fn name(&self) -> &str {
        self.text("/metadata/name")
    }

    /// The namespace, empty for cluster-scoped objects.
    #[must_use]
    pub fn namespace(&self) -> &str {
        self.text("/metadata/namespace")
    }

    /// When Argo CD applies the object: lower first.
    #[must_use]
    pub fn wave(&self) -> i64 {
        self.text("/metadata/annotations/argocd.argoproj.io~1sync-wave")
            .parse()
            .unwrap_or(0)
    }

    /// The text at a JSON pointer, empty when there is none.
    #[must_use]
    pub fn text(&self, pointer: &str) -> &str {
        text(&self.0, pointer)
    }

    /// The list at a JSON pointer, empty when there is none.
    #[must_use]
    pub fn list(&self, pointer: &str) -> &[Value] {
        list(&self.0, pointer)
    }

    /// The pods that the object creates, if any.
    #[must_use]
    pub fn pod(&self) -> Option<Pod<'_>> {
        let pointer = match self.kind() {
            "Deployment" | "Job" | "StatefulSet" => "/spec/template",
            "CronJob" => "/spec/jobTemplate/spec/template",
            _ => return None,
        };
        let template = self.0.pointer(pointer)?;
        Some(Pod {
            owner: self,
            template,
        })
    }
}

impl fmt::Display for Object {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind(), self.name())
    }
}

impl<'a> Pod<'a> {
    /// Labels of the pods.
    #[must_use]
    pub fn labels(self) -> BTreeMap<&'a str, &'a str> {
        labels(self.template.pointer("/metadata/labels"))
    }

    /// `spec` of the pods.
    #[must_use]
    pub fn spec(self) -> &'a Value {
        &self.template["spec"]
    }

    /// Its containers, init containers first.
    pub fn containers(self) -> impl Iterator<Item = Container<'a>> {
        let of = move |pointer, is_init| {
            list(self.spec(), pointer)
                .iter()
                .map(move |value| Container {
                    pod: self,
                    is_init,
                    value,
                })
        };
        of("/initContainers", true).chain(of("/containers", false))
    }

    /// The number of a named container port.
    #[must_use]
    pub fn port(self, name: &str) -> Option<u64> {
        self.containers()
            .flat_map(|container| container.list("/ports"))
            .find(|port| port["name"] == name)
            .and_then(|port| port["containerPort"].as_u64())
    }
}

impl<'a> Container<'a> {
    /// The name.
    #[must_use]
    pub fn name(self) -> &'a str {
        self.text("/name")
    }

    /// The value at a JSON pointer.
    #[must_use]
    pub fn get(self, pointer: &str) -> Option<&'a Value> {
        self.value.pointer(pointer)
    }

    /// The text at a JSON pointer, empty when there is none.
    #[must_use]
    pub fn text(self, pointer: &str) -> &'a str {
        text(self.value, pointer)
    }

    /// The list at a JSON pointer, empty when there is none.
    #[must_use]
    pub fn list(self, pointer: &str) -> &'a [Value] {
        list(self.value, pointer)
    }

    /// The environment as the kubelet expands it: `$(NAME)` stands for an earlier variable, and is left as it is if
    /// there is none.
    #[must_use]
    pub fn environment(self) -> BTreeMap<&'a str, String> {
        let mut known = BTreeMap::new();
        for variable in self.list("/env") {
            let value = if text(variable, "/valueFrom/fieldRef/fieldPath") == "metadata.namespace" {
                self.pod.owner.namespace().to_owned()
            } else {
                known.iter().fold(
                    text(variable, "/value").to_owned(),
                    |value, (name, known): (&&str, &String)| {
                        value.replace(&format!("$({name})"), known)
                    },
                )
            };
            known.insert(text(variable, "/name"), value);
        }
        known
    }
}

impl fmt::Display for Container<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, container {}", self.pod.owner, self.name())
    }
}

pub(crate) fn text<'a>(value: &'a Value, pointer: &str) -> &'a str {
    value
        .pointer(pointer)
        .and_then(Value::as_str)
        .unwrap_or_default()
}

pub(crate) fn list<'a>(value: &'a Value, pointer: &str) -> &'a [Value] {
    value
        .pointer(pointer)
        .and_then(Value::as_array)
        .map_or(&[], Vec::as_slice)
}

pub(crate) fn labels(value: Option<&Value>) -> BTreeMap<&str, &str> {
    let entries = value.and_then(Value::as_object).into_iter().flatten();
    entries
        .filter_map(|(name, value)| Some((name.as_str(), value.as_str()?)))
        .collect()
}
