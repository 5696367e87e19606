//! The schemas of Kubernetes, Traefik, Argo CD and the optional operators, from their own releases.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::path::PathBuf;

use jsonschema::Validator;
use serde_json::{Map, Value, json};

use crate::manifest::{list, text};
use crate::{Object, tools};

/// Name, source and hash of each file: what `cargo xtask setup` downloads.
const PINS: &str = include_str!("../schemas.json");

/// The document in which Kubernetes describes its own kinds; the other files define third-party kinds.
const KUBERNETES: &str = "kubernetes.json";

/// Why the schemas are unavailable.
#[derive(thiserror::Error)]
pub enum Failure {
    /// A file is missing.
    #[error("{path} is needed and was not found: run `cargo xtask setup`")]
    Missing {
        /// Which file.
        path: PathBuf,
    },
    /// A file is not what it should be.
    #[error("{file}: {reason}")]
    Unreadable {
        /// Which file.
        file: String,
        /// What is wrong.
        reason: String,
    },
}

/// Test harnesses print errors with `Debug`, so that must be readable.
impl fmt::Debug for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Schemas by API version and kind.
#[derive(Debug)]
pub struct Schemas {
    kubernetes: Value,
    custom: BTreeMap<(String, String), Value>,
}

impl Schemas {
    /// Reads what `cargo xtask setup` has put into `target/tools/schemas`.
    ///
    /// # Errors
    /// [`Failure`].
    pub fn load() -> Result<Self, Failure> {
        let unreadable = |file: &str, reason: String| Failure::Unreadable {
            file: file.to_owned(),
            reason,
        };
        let mut kubernetes: Value = serde_json::from_str(&read(KUBERNETES)?)
            .map_err(|error| unreadable(KUBERNETES, error.to_string()))?;
        let definitions = kubernetes["definitions"].as_object_mut();
        for schema in definitions.into_iter().flatten() {
            close(schema.1);
        }
        let mut custom = BTreeMap::new();
        let pins: Vec<Value> = serde_json::from_str(PINS)
            .map_err(|error| unreadable("schemas.json", error.to_string()))?;
        let files = pins.iter().map(|pin| text(pin, "/file"));
        for file in files.filter(|file| *file != KUBERNETES) {
            let documents: Vec<Value> = serde_saphyr::from_multiple(&read(file)?)
                .map_err(|error| unreadable(file, error.to_string()))?;
            for definition in documents
                .iter()
                .filter(|one| one["kind"] == "CustomResourceDefinition")
            {
                for version in list(definition, "/spec/versions") {
                    let group = text(definition, "/spec/group");
                    let api = format!("{group}/{}", text(version, "/name"));
                    let mut schema = version["schema"]["openAPIV3Schema"].clone();
                    close(&mut schema);
                    // Kubernetes itself defines this for every object.
                    schema["properties"]["metadata"] = json!(true);
                    custom.insert(
                        (api, text(definition, "/spec/names/kind").to_owned()),
                        schema,
                    );
                }
            }
        }
        Ok(Self { kubernetes, custom })
    }

    /// Why the API server would reject an object.
    #[must_use]
    pub fn violations(&self, object: &Object) -> Vec<String> {
        let Some(schema) = self.schema(object) else {
            return vec![format!(
                "{object}: no API server accepts {}",
                object.text("/apiVersion")
            )];
        };
        let validator = match Validator::new(&schema) {
            Ok(validator) => validator,
            Err(error) => return vec![format!("{object}: its schema is wrong: {error}")],
        };
        validator
            .iter_errors(&object.0)
            .map(|error| format!("{object}: {}: {error}", error.instance_path()))
            .collect()
    }

    fn schema(&self, object: &Object) -> Option<Value> {
        let (api, kind) = (object.text("/apiVersion"), object.kind());
        if let Some(schema) = self.custom.get(&(api.to_owned(), kind.to_owned())) {
            return Some(schema.clone());
        }
        let (group, version) = api.split_once('/').unwrap_or(("", api));
        let wanted = json!({"group": group, "kind": kind, "version": version});
        let definitions = self.kubernetes["definitions"].as_object()?;
        let (name, _) = definitions.iter().find(|(_, definition)| {
            list(definition, "/x-kubernetes-group-version-kind").contains(&wanted)
        })?;
        Some(json!({
            "$ref": format!("#/definitions/{name}"),
            "definitions": definitions,
        }))
    }
}

fn read(file: &str) -> Result<String, Failure> {
    let path = tools().join("schemas").join(file);
    fs::read_to_string(&path).map_err(|_| Failure::Missing { path })
}

/// Converts a schema from Kubernetes' dialect to JSON Schema, and rejects fields that it does not name: the API server
/// would drop them silently.
fn close(schema: &mut Value) {
    match schema {
        Value::Array(items) => items.iter_mut().for_each(close),
        Value::Object(fields) => {
            let is_closed = fields.get("properties").is_some_and(Value::is_object)
                && !fields.contains_key("additionalProperties")
                && fields.get("x-kubernetes-preserve-unknown-fields") != Some(&json!(true));
            if is_closed {
                fields.insert("additionalProperties".into(), json!(false));
            }
            if is_integer_or_string(fields) {
                fields.remove("format");
                fields.insert("type".into(), json!(["integer", "string"]));
            }
            if fields.get("nullable") == Some(&json!(true))
                && let Some(Value::String(only)) = fields.get("type").cloned()
            {
                fields.insert("type".into(), json!([only, "null"]));
            }
            fields.values_mut().for_each(close);
        }
        _ => {}
    }
}

fn is_integer_or_string(schema: &Map<String, Value>) -> bool {
    schema.get("format") == Some(&json!("int-or-string"))
        || schema.get("x-kubernetes-int-or-string") == Some(&json!(true))
}
