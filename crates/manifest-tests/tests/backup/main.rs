//! The backup scripts with PostgreSQL's own programs, restic, and an S3 server: dump, destroy, restore, compare.

mod offsite;
mod rehearsal;
mod upgrade;

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use manifest_tests::Tree;
use sqlx::{Connection, Executor, PgConnection};
use testkit::Shutdown;

use crate::rehearsal::{DATABASE, Outcome, ROW_COUNT, Rehearsal};

const HOUR: Duration = Duration::from_hours(1);
const DAY: Duration = Duration::from_hours(24);
const MEANWHILE: &str =
    "INSERT INTO todos (text, completed, created_at) VALUES ('meanwhile', false, now())";

#[tokio::test]
async fn a_restore_brings_back_every_row() -> Outcome {
    let rehearsal = Rehearsal::start().await?;
    let before = rehearsal.rows().await?;
    let said = rehearsal.run("postgres-backup", &[]).await?;
    for table in ["outbox|3", "todos|200"] {
        assert!(said.lines().any(|line| line == table), "{said}");
    }

    let mut server = PgConnection::connect(&rehearsal.postgres.url()).await?;
    let drop = format!("DROP DATABASE \"{DATABASE}\" WITH (FORCE)");
    server.execute(sqlx::AssertSqlSafe(drop)).await?;
    // What a new installation would have created.
    rehearsal.create_database().await?;
    let said = rehearsal.run("postgres-restore", &[]).await?;

    assert_eq!(rehearsal.rows().await?, before);
    assert!(
        said.contains("todos-production is now backup-full-"),
        "{said}"
    );
    // IDs continue where they were.
    let mut database = rehearsal.connect().await?;
    let id: i64 = sqlx::query_scalar("INSERT INTO todos (text, completed, created_at) VALUES ('next', false, now()) RETURNING id")
        .fetch_one(&mut database)
        .await?;
    assert_eq!(id, 201);
    Ok(())
}

#[tokio::test]
async fn a_restore_works_without_a_database_to_replace() -> Outcome {
    let rehearsal = Rehearsal::start().await?;
    let before = rehearsal.rows().await?;
    rehearsal.run("postgres-backup", &[]).await?;
    let mut server = PgConnection::connect(&rehearsal.postgres.url()).await?;
    let drop = format!("DROP DATABASE \"{DATABASE}\" WITH (FORCE)");
    server.execute(sqlx::AssertSqlSafe(drop)).await?;

    rehearsal.run("postgres-restore", &[]).await?;

    assert_eq!(rehearsal.rows().await?, before);
    Ok(())
}

#[tokio::test]
async fn a_restore_keeps_the_replaced_database() -> Outcome {
    let rehearsal = Rehearsal::start().await?;
    rehearsal
        .backup_of("backup-full-20260101-000000.dump", DAY)
        .await?;
    let mut session = rehearsal.connect().await?;
    session.execute("DELETE FROM todos").await?;

    let chosen = [("BACKUP_FILE", "backup-full-20260101-000000.dump")];
    rehearsal.run("postgres-restore", &chosen).await?;

    assert_eq!(rehearsal.rows().await?.len(), ROW_COUNT);
    let databases = rehearsal.databases().await?;
    assert_eq!(databases.len(), 2, "{databases:?}");
    assert!(
        databases[1].starts_with("todos-production-before-"),
        "{databases:?}"
    );
    Ok(())
}

#[tokio::test]
async fn a_damaged_dump_is_refused_and_the_live_database_stays() -> Outcome {
    let rehearsal = Rehearsal::start().await?;
    rehearsal.run("postgres-backup", &[]).await?;
    let dump = rehearsal.path("backups").join(&rehearsal.backups()?[0]);
    let mut bytes = fs::read(&dump)?;
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&dump, bytes)?;
    let mut session = rehearsal.connect().await?;
    session.execute("DELETE FROM todos WHERE id > 10").await?;

    let refusal = rehearsal.run("postgres-restore", &[]).await;

    assert!(refusal.is_err(), "{refusal:?}");
    assert_eq!(rehearsal.rows().await?.len(), 13);
    assert_eq!(rehearsal.databases().await?, [DATABASE]);
    Ok(())
}

#[tokio::test]
async fn a_backup_is_consistent_while_rows_are_written() -> Outcome {
    let rehearsal = Rehearsal::start().await?;
    let stop = Arc::new(AtomicBool::new(false));
    let mut session = rehearsal.connect().await?;
    let stopped = Arc::clone(&stop);
    let mut tasks = tokio::task::JoinSet::new();
    tasks.spawn(async move {
        let mut written = 0;
        while !stopped.load(Ordering::Relaxed) {
            session.execute(MEANWHILE).await?;
            written += 1;
        }
        Ok::<_, sqlx::Error>(written)
    });

    let outcome = rehearsal.run("postgres-backup", &[]).await;
    stop.store(true, Ordering::Relaxed);
    let written = tasks.join_next().await.ok_or("no writer")???;

    assert!(outcome.is_ok(), "{outcome:?}");
    assert!(written > 0);
    Ok(())
}

#[tokio::test]
async fn the_last_good_backup_survives_every_failing_run() -> Outcome {
    let rehearsal = Rehearsal::start().await?;
    rehearsal
        .backup_of("backup-full-20260101-000000.dump", 30 * DAY)
        .await?;
    let good = rehearsal.backups()?;

    // The dump aborts, the restore loses the rows, the disk is full, and the server is down.
    let failures = [
        ("pg_dump", "\"$real\" \"$@\"; exit 1"),
        ("pg_restore", "exec \"$real\" --schema-only \"$@\""),
        ("sha256sum", "echo 'No space left on device' >&2; exit 1"),
        ("createdb", "exit 1"),
    ];
    for (program, script) in failures {
        rehearsal.replace(program, script)?;
        let outcome = rehearsal.run("postgres-backup", &[]).await;
        assert!(outcome.is_err(), "{program}: {outcome:?}");
        assert_eq!(rehearsal.backups()?, good, "{program}");
        assert_eq!(rehearsal.databases().await?, [DATABASE], "{program}");
        fs::remove_file(rehearsal.path("bin").join(program))?;
    }
    let outcome = rehearsal.run("postgres-backup", &[("PGPORT", "1")]).await;
    assert!(outcome.is_err(), "{outcome:?}");
    assert_eq!(rehearsal.backups()?, good);
    Ok(())
}

/// The ages of the dumps after a run every quarter of an hour.
fn ages() -> impl Iterator<Item = u64> {
    (1..=10 * 24 * 4).map(|quarters| quarters * 15 * 60)
}

#[tokio::test]
async fn older_dumps_are_thinned_out() -> Outcome {
    let rehearsal = Rehearsal::start().await?;
    let now = SystemTime::now();
    for age in ages() {
        for suffix in ["", ".sha256"] {
            let name = format!("backups/backup-full-{age}.dump{suffix}");
            let file = File::create(rehearsal.path(&name))?;
            file.set_modified(now - Duration::from_secs(age))?;
        }
    }

    rehearsal.run("postgres-backup", &[]).await?;

    let time = |age: u64| {
        let time = now
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default();
        time.as_secs() - age
    };
    let backups = rehearsal.backups()?;
    let left = |age: &u64| backups.contains(&format!("backup-full-{age}.dump"));
    let (day, hours, days) = (86_400, 3 * 86_400, 7 * 86_400);
    // A minute to either side, as the run took some seconds.
    let between = |from: u64, to: u64| ages().filter(move |age| (from + 60..to - 60).contains(age));
    assert!(between(0, day).all(|age| left(&age)));
    for (from, to, slot) in [(day, hours, 3600), (hours, days, 86_400)] {
        let slots: BTreeSet<_> = between(from, to).map(|age| time(age) / slot).collect();
        let kept: Vec<_> = between(from, to)
            .filter(left)
            .map(|age| time(age) / slot)
            .collect();
        let each: BTreeSet<_> = kept.iter().copied().collect();
        assert_eq!(each.len(), kept.len(), "more than one of {slot} s");
        // The first and last slots may have theirs outside the range.
        assert!(each.len() + 2 >= slots.len(), "{each:?} of {slots:?}");
    }
    assert!(!between(days, 11 * 86_400).any(|age| left(&age)));
    let sums = backups.iter().filter(|name| name.ends_with(".sha256"));
    assert_eq!(sums.count() * 2, backups.len(), "each dump has its sum");
    Ok(())
}

/// Fills the volume: with dumps of a megabyte, each a quarter of an hour older than the last, or with another file.
const FILL: &str = r#"
    free() { df -Pm "$BACKUP_DIR" | awk 'NR == 2 { print $4 }'; }
    fill() {
      number=0
      while [ "$(free)" -gt 0 ]; do
        dd if=/dev/zero of="$BACKUP_DIR/$1-$number.dump" bs=1M count=1 2>/dev/null || true
        touch -d "-$((number * 15 + 15)) minutes" "$BACKUP_DIR/$1-$number.dump"
        number=$((number + 1))
      done
    }
"#;

#[tokio::test]
async fn a_volume_full_of_dumps_makes_room_for_the_next() -> Outcome {
    let rehearsal = Rehearsal::start().await?;
    let script = r#"
        fill backup-full
        sh "$1"
        ls "$BACKUP_DIR"
    "#;

    let said = rehearsal
        .run_on_small_volume(20, &[FILL, script].concat())
        .await?;

    assert!(said.contains("restores; rows by table"), "{said}");
    assert!(
        said.contains("backup-full-0.dump"),
        "the last good one: {said}"
    );
    let dumps = said.lines().filter(|line| line.starts_with("backup-full-"));
    assert!((3..15).contains(&dumps.count()), "{said}");
    Ok(())
}

#[tokio::test]
async fn a_volume_full_of_other_files_keeps_the_last_dump_until_there_is_space() -> Outcome {
    let rehearsal = Rehearsal::start().await?;
    let script = r#"
        sh "$1" >/dev/null
        before=$(ls "$BACKUP_DIR")
        fill other
        sh "$1" && { echo "a dump on a full volume"; exit 1; }
        [ "$(ls "$BACKUP_DIR" | grep -v other)" = "$before" ]
        rm "$BACKUP_DIR"/other-*
        sleep 1.1
        sh "$1"
    "#;

    let said = rehearsal
        .run_on_small_volume(20, &[FILL, script].concat())
        .await?;

    assert!(said.contains("restores; rows by table"), "{said}");
    Ok(())
}

#[tokio::test]
async fn a_run_waits_for_a_database_that_starts_late() -> Outcome {
    let mut rehearsal = Rehearsal::start().await?;
    rehearsal.postgres.stop(Shutdown::Fast).await?;
    let refusal = rehearsal.run("postgres-backup", &[]).await;
    assert!(
        refusal
            .as_ref()
            .is_err_and(|said| said.contains("no database at 127.0.0.1 for 1 s")),
        "{refusal:?}"
    );

    // The run starts while nothing listens: the server starts only after the script's first attempt.
    let asked = rehearsal.path("asked");
    rehearsal.replace(
        "pg_isready",
        &format!("touch {}\nexec \"$real\" \"$@\"", asked.display()),
    )?;
    let begun = rehearsal.begin("postgres-backup", &[("DATABASE_PATIENCE_SECONDS", "60")])?;
    testkit::eventually(HOUR, async || fs::metadata(&asked)).await?;
    rehearsal.postgres.restart().await?;
    begun.await??;
    assert_eq!(rehearsal.backups()?.len(), 2);
    Ok(())
}

#[tokio::test]
async fn a_killed_run_does_not_block_the_next() -> Outcome {
    let rehearsal = Rehearsal::start().await?;
    let rest = rehearsal.path("backups/.unverified");
    fs::create_dir(&rest)?;
    fs::write(rest.join("backup-full-20260101-000000.dump"), "half")?;
    let mut session = rehearsal.connect().await?;
    session.execute("CREATE DATABASE backup_check").await?;

    rehearsal.run("postgres-backup", &[]).await?;

    assert_eq!(rehearsal.backups()?.len(), 2);
    assert_eq!(rehearsal.databases().await?, [DATABASE]);
    Ok(())
}

#[test]
fn the_scripts_are_short_enough_to_read_in_an_emergency() -> Outcome {
    for component in ["backup", "offsite-backup"] {
        let folder = Tree::repository().path(&format!("kustomize/components/{component}"));
        for file in fs::read_dir(folder)? {
            let path = file?.path();
            if path.extension().is_some_and(|extension| extension == "sh") {
                let lines = fs::read_to_string(&path)?.lines().count();
                assert!(lines < 50, "{} has {lines} lines", path.display());
            }
        }
    }
    Ok(())
}
