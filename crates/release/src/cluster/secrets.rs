//! The Secrets that are never in git; docs/kubernetes.md lists them. Existing
//! ones stay; missing ones get random values.

use std::fs;
use std::path::Path;

use serde_json::json;

use super::{apply, ask_kubectl, kubectl};
use crate::Error;

const ENVIRONMENTS: [&str; 2] = ["staging", "production"];

/// Where production posts if no webhook is given: `.invalid` never resolves
/// (RFC 6761).
const NO_WEBHOOK: &str = "https://slack.invalid/";

/// Creates the missing Secrets.
pub(super) fn ensure(webhook: Option<&Path>) -> Result<(), Error> {
    kubectl(&[
        "apply",
        "--server-side",
        "--filename",
        "kustomize/namespaces.yaml",
    ])?;
    for environment in ENVIRONMENTS {
        if !exists(environment, "postgres-db-secret")? {
            create(
                environment,
                "postgres-db-secret",
                "POSTGRES_PASSWORD",
                &password(),
            )?;
        }
    }
    ensure_nats()?;
    match webhook {
        Some(file) => {
            let url = fs::read_to_string(file).map_err(Error::file(file))?;
            create(
                "production",
                "slack-webhook-secret",
                "webhook_url",
                url.trim(),
            )
        }
        None if exists("production", "slack-webhook-secret")? => Ok(()),
        None => create(
            "production",
            "slack-webhook-secret",
            "webhook_url",
            NO_WEBHOOK,
        ),
    }
}

/// Server and clients must agree, so their Secrets are created together.
fn ensure_nats() -> Result<(), Error> {
    let mut complete = exists("default", "nats-accounts")?;
    for environment in ENVIRONMENTS {
        complete &= exists(environment, "nats-client-secret")?;
    }
    if complete {
        return Ok(());
    }
    let mut accounts = String::new();
    for environment in ENVIRONMENTS {
        let password = password();
        // Quoted: in NATS's configuration, an unquoted password could be a number.
        accounts.extend([environment, "_password: \"", &password, "\"\n"]);
        create(environment, "nats-client-secret", "password", &password)?;
    }
    create("default", "nats-accounts", "passwords.conf", &accounts)
}

fn exists(namespace: &str, name: &str) -> Result<bool, Error> {
    Ok(ask_kubectl(&["-n", namespace, "get", "secret", name, "--output", "name"])?.is_some())
}

fn create(namespace: &str, name: &str, key: &str, value: &str) -> Result<(), Error> {
    let secret = json!({
        "apiVersion": "v1", "kind": "Secret", "type": "Opaque",
        "metadata": {"namespace": namespace, "name": name},
        "stringData": {key: value},
    });
    apply(&secret.to_string())
}

/// 24 random bytes as hexadecimal digits, after a letter.
fn password() -> String {
    let bytes: [u8; 24] = rand::random();
    let digits: Vec<String> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("p{}", digits.concat())
}
