//! Everything that fills a volume is bounded, and the bounds fit the volume.

use serde_json::Value;

use super::mebibytes;
use crate::manifest::list;
use crate::{Container, Manifests, Object};

/// Size of a database whose tables are filled to their quotas with the largest rows, in MiB. tests/storage.rs fills one
/// and compares.
pub const DATABASE_AT_ITS_QUOTAS: u64 = 600;

/// The database itself, the one that a backup restores to verify its dump, and the one that a restore leaves behind.
const DATABASES: u64 = 3;

/// `template0`, `template1`, `postgres` and what they share, in MiB.
const EMPTY_SERVER: u64 = 40;

/// `max_wal_size` is where a checkpoint begins, not where the log ends (PostgreSQL 17, "WAL Configuration").
const OVERSHOOT: u64 = 2;

/// The dump being written, the last good one, and the one before it. A dump is never larger than its database.
const DUMPS: u64 = 3;

pub(super) fn database(manifests: &Manifests) -> Vec<String> {
    let mut found = Vec::new();
    for container in manifests.containers() {
        let set = container.pod.owner;
        let is_server = set.kind() == "StatefulSet" && container.text("/args/0") == "postgres";
        if !is_server {
            continue;
        }
        let setting = |name| setting(container, name);
        let settings = ["max_wal_size", "wal_keep_size", "max_slot_wal_keep_size"].map(setting);
        let [Some(wal), Some(kept), Some(slots)] = settings else {
            found.push(format!("{container}: its log has no bound"));
            continue;
        };
        let Some(temporary) = setting("temp_file_limit") else {
            found.push(format!(
                "{container}: a query may write temporary files without limit"
            ));
            continue;
        };
        let needed = EMPTY_SERVER
            + DATABASES * DATABASE_AT_ITS_QUOTAS
            + OVERSHOOT * wal
            + kept
            + slots
            + temporary;
        for template in set.list("/spec/volumeClaimTemplates") {
            let volume = size(template);
            if needed > volume / 10 * 9 {
                found.push(format!(
                    "{set}: may need {needed} MiB, which leaves less than a tenth of its {volume} MiB free"
                ));
            }
        }
    }
    found
}

pub(super) fn backups(manifests: &Manifests) -> Vec<String> {
    let claims = manifests
        .of_kind("PersistentVolumeClaim")
        .filter(|claim| claim.name().ends_with("postgres-backup-claim"));
    claims
        .filter(|claim: &&Object| size(&claim.0) < DUMPS * DATABASE_AT_ITS_QUOTAS)
        .map(|claim| format!("{claim}: too small for {DUMPS} dumps of a full database"))
        .collect()
}

/// What the volume of a claim holds, in MiB.
fn size(claim: &Value) -> u64 {
    match claim["spec"]["resources"]["requests"]["storage"].as_str() {
        Some(size) => mebibytes(size),
        None => 0,
    }
}

/// A setting of PostgreSQL in megabytes, which are MiB there, from its command line.
fn setting(container: Container<'_>, name: &str) -> Option<u64> {
    let arguments = list(container.get("")?, "/args");
    let mut texts = arguments.iter().filter_map(Value::as_str);
    let value = texts.find_map(|text| text.strip_prefix(name)?.strip_prefix('='))?;
    value.strip_suffix("MB").unwrap_or(value).parse().ok()
}
