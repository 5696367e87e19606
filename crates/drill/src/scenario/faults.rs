//! What happens in each scenario.

use std::time::Duration;

use async_nats::jetstream::stream;
use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection};
use testkit::postgres::Pooler;
use testkit::{Answer, Shutdown};

use super::{IN_FLIGHT, Scenario, Scene};
use crate::Error;
use crate::system::{ENVIRONMENT, Plan, environment, terminate};

const ONE_BROADCASTER: Plan = Plan {
    broadcasters: 1,
    ..Plan::PLAIN
};

const THREE_BROADCASTERS: Plan = Plan {
    broadcasters: 3,
    ..Plan::PLAIN
};

const SIX_BROADCASTERS: Plan = Plan {
    broadcasters: 6,
    ..Plan::PLAIN
};

const TWO_BACKENDS: Plan = Plan {
    backends: 2,
    ..Plan::PLAIN
};

/// Little more than the account's limit.
const SMALL_STORE: Plan = Plan {
    nats_store: Some("300M"),
    ..Plan::PLAIN
};

/// How many events are delivered before the relay learns of it: at most those of one second at
/// the rate of [`super::Scale`].
const UNCONFIRMED: usize = 50;

const fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// No fault.
const CALM: Scenario = Scenario {
    name: "nothing is broken",
    plan: Plan::PLAIN,
    duplicates: 0,
    dead_letters: 0,
    recovery: seconds(1),
    fault: |scene| Box::pin(scene.more()),
};

/// Recovers within two seconds of the end of the fault.
const TRANSIENT: Scenario = Scenario {
    recovery: seconds(2),
    ..CALM
};

pub(super) const ALL: &[Scenario] = &[
    CALM,
    Scenario {
        name: "clients make as many changes as they can",
        // Clients make changes faster than events are posted one by one: a backlog builds up.
        recovery: seconds(30),
        fault: |scene| Box::pin(clients_exceed_their_rate(scene)),
        ..CALM
    },
    // The broker.
    Scenario {
        name: "NATS is restarted",
        fault: |scene| Box::pin(nats_is_restarted(scene)),
        ..TRANSIENT
    },
    Scenario {
        name: "NATS is killed and restarted later",
        fault: |scene| Box::pin(nats_is_down(scene)),
        ..TRANSIENT
    },
    Scenario {
        name: "NATS loses its store while the webhook is down",
        duplicates: UNCONFIRMED,
        fault: |scene| Box::pin(nats_loses_its_store(scene)),
        ..TRANSIENT
    },
    Scenario {
        name: "NATS comes back with an older store",
        duplicates: UNCONFIRMED,
        fault: |scene| Box::pin(nats_has_an_older_store(scene)),
        ..TRANSIENT
    },
    Scenario {
        name: "the account of NATS is full",
        plan: SMALL_STORE,
        recovery: seconds(3),
        fault: |scene| Box::pin(account_is_full(scene)),
        ..CALM
    },
    Scenario {
        name: "the stream of events is removed",
        duplicates: UNCONFIRMED,
        recovery: seconds(5),
        fault: |scene| Box::pin(stream_is_removed(scene)),
        ..CALM
    },
    Scenario {
        name: "the stream of events is recreated",
        duplicates: UNCONFIRMED,
        recovery: seconds(5),
        fault: |scene| Box::pin(stream_is_recreated(scene)),
        ..CALM
    },
    Scenario {
        name: "the consumer is removed",
        recovery: seconds(5),
        fault: |scene| Box::pin(consumer_is_removed(scene)),
        ..CALM
    },
    Scenario {
        name: "the bucket and the dead letters are removed",
        dead_letters: 1,
        recovery: seconds(5),
        fault: |scene| Box::pin(bucket_and_dead_letters_are_removed(scene)),
        ..CALM
    },
    Scenario {
        name: "messages arrive that are not todos",
        dead_letters: POISONOUS.len() as u64,
        fault: |scene| Box::pin(poison(scene)),
        ..CALM
    },
    // The webhook.
    Scenario {
        name: "the webhook answers 500",
        fault: |scene| Box::pin(webhook_answers(scene, Answer::status(500))),
        ..TRANSIENT
    },
    Scenario {
        name: "the webhook refuses connections",
        // The response to a request accepted just before may be lost.
        duplicates: IN_FLIGHT,
        fault: |scene| Box::pin(webhook_refuses_connections(scene)),
        ..TRANSIENT
    },
    Scenario {
        name: "the webhook hangs",
        // A request that hangs at the end of the outage times out after ten seconds.
        recovery: seconds(12),
        fault: |scene| Box::pin(webhook_answers(scene, Answer::hang())),
        ..CALM
    },
    Scenario {
        name: "the webhook answers 429, Retry-After: 2",
        // The last `Retry-After` starts when the outage ends.
        recovery: seconds(4),
        fault: |scene| Box::pin(webhook_answers(scene, Answer::too_many_requests(2))),
        ..CALM
    },
    Scenario {
        name: "the webhook answers 429, Retry-After: 0",
        fault: |scene| Box::pin(webhook_limits_without_a_delay(scene, "0")),
        ..TRANSIENT
    },
    Scenario {
        name: "the webhook answers 429 with a date in the past",
        fault: |scene| {
            let past = "Sun, 06 Nov 1994 08:49:37 GMT";
            Box::pin(webhook_limits_without_a_delay(scene, past))
        },
        ..TRANSIENT
    },
    Scenario {
        name: "one todo is always refused, NATS is restarted",
        plan: SIX_BROADCASTERS,
        fault: |scene| Box::pin(one_todo_is_refused(scene)),
        ..TRANSIENT
    },
    // The broadcasters.
    Scenario {
        name: "the broadcaster is killed and restarted later",
        plan: ONE_BROADCASTER,
        duplicates: IN_FLIGHT,
        fault: |scene| Box::pin(broadcaster_is_killed(scene)),
        ..TRANSIENT
    },
    Scenario {
        name: "the broadcaster is stopped and restarted later",
        plan: ONE_BROADCASTER,
        fault: |scene| Box::pin(broadcaster_is_stopped(scene)),
        ..TRANSIENT
    },
    Scenario {
        name: "the active one of 3 broadcasters is killed",
        plan: THREE_BROADCASTERS,
        duplicates: IN_FLIGHT,
        recovery: seconds(1),
        fault: |scene| Box::pin(active_is_killed(scene)),
        ..CALM
    },
    Scenario {
        name: "the active one of 3 broadcasters is frozen",
        plan: THREE_BROADCASTERS,
        duplicates: IN_FLIGHT,
        recovery: seconds(3),
        fault: |scene| Box::pin(active_is_frozen(scene)),
        ..CALM
    },
    Scenario {
        name: "the active one of 3 broadcasters is cut off",
        plan: THREE_BROADCASTERS,
        duplicates: IN_FLIGHT,
        recovery: seconds(3),
        fault: |scene| Box::pin(active_is_cut_off(scene)),
        ..CALM
    },
    // The backends.
    Scenario {
        name: "the backend is killed and restarted later",
        recovery: seconds(5),
        fault: |scene| Box::pin(backend_is_killed(scene)),
        ..CALM
    },
    Scenario {
        name: "the backend is stopped while events wait",
        fault: |scene| Box::pin(backend_is_stopped_with_events_waiting(scene)),
        ..TRANSIENT
    },
    Scenario {
        name: "the relay is killed, then its successor",
        plan: TWO_BACKENDS,
        recovery: seconds(5),
        fault: |scene| Box::pin(relays_are_killed(scene)),
        ..CALM
    },
    Scenario {
        name: "the relay's machine vanishes, connections open",
        plan: TWO_BACKENDS,
        recovery: seconds(5),
        fault: |scene| Box::pin(relay_vanishes(scene)),
        ..CALM
    },
    Scenario {
        name: "the network forgets all connections",
        duplicates: IN_FLIGHT,
        // A statement that gets no response has to time out first.
        recovery: seconds(6),
        fault: |scene| Box::pin(network_forgets(scene)),
        ..CALM
    },
    // The database.
    Scenario {
        name: "PostgreSQL is killed and restarted later",
        recovery: seconds(3),
        fault: |scene| Box::pin(postgres_is_killed(scene)),
        ..CALM
    },
    Scenario {
        name: "PostgreSQL is read-only for a while",
        fault: |scene| Box::pin(postgres_is_read_only(scene)),
        ..TRANSIENT
    },
    Scenario {
        name: "a row of the outbox cannot be read",
        fault: |scene| Box::pin(row_cannot_be_read(scene)),
        ..TRANSIENT
    },
    Scenario {
        name: "a backend is started without privileges",
        fault: |scene| Box::pin(backend_lacks_privileges(scene)),
        ..CALM
    },
    Scenario {
        name: "a backend is started behind a shared session",
        fault: |scene| Box::pin(backend_shares_sessions(scene)),
        ..CALM
    },
];

async fn clients_exceed_their_rate(scene: &mut Scene) -> Result<(), Error> {
    scene.load.set_unlimited(true);
    scene.outage().await;
    scene.load.set_unlimited(false);
    scene.mark_over();
    Ok(())
}

async fn nats_is_restarted(scene: &mut Scene) -> Result<(), Error> {
    scene.system.nats.restart().await?;
    scene.mark_over();
    Ok(())
}

async fn nats_is_down(scene: &mut Scene) -> Result<(), Error> {
    scene.system.nats.kill().await?;
    scene.outage().await;
    scene.system.nats.restart().await?;
    scene.mark_over();
    Ok(())
}

async fn nats_loses_its_store(scene: &mut Scene) -> Result<(), Error> {
    scene.system.webhook.answer(Answer::status(500));
    scene.more().await?;
    scene.system.nats.kill().await?;
    scene.system.nats.lose_store()?;
    scene.system.nats.restart().await?;
    scene.outage().await;
    scene.system.webhook.answer(Answer::status(200));
    scene.mark_over();
    Ok(())
}

async fn nats_has_an_older_store(scene: &mut Scene) -> Result<(), Error> {
    scene.system.nats.stop().await?;
    let backup = scene.system.nats.copy_store()?;
    scene.system.nats.restart().await?;
    scene.more().await?;
    scene.system.nats.kill().await?;
    scene.system.nats.put_store(&backup)?;
    scene.system.nats.restart().await?;
    scene.mark_over();
    Ok(())
}

/// Another user fills the account.
async fn account_is_full(scene: &mut Scene) -> Result<(), Error> {
    let jetstream = scene.system.jetstream().await?;
    let config = stream::Config {
        name: "OTHERS".to_owned(),
        subjects: vec!["others".to_owned()],
        ..stream::Config::default()
    };
    let others = jetstream.create_stream(config).await;
    let others = others.map_err(Error::nats)?;
    let filler = vec![b'x'; 1_000_000];
    // Until the server refuses.
    while let Ok(stored) = jetstream.publish("others", filler.clone().into()).await
        && stored.await.is_ok()
    {}
    scene.outage().await;
    if scene.system.outbox_depth().await? == 0 {
        let found = "events were published although NATS is full".to_owned();
        return Err(Error::Unexpected(found));
    }
    others.purge().await.map_err(Error::nats)?;
    scene.mark_over();
    Ok(())
}

async fn stream_is_removed(scene: &mut Scene) -> Result<(), Error> {
    let jetstream = scene.system.jetstream().await?;
    let removed = jetstream.delete_stream(environment().stream()).await;
    scene.mark_over();
    removed.map(drop).map_err(Error::nats)
}

/// An operator deletes and recreates it, so that its sequences start again at 1.
async fn stream_is_recreated(scene: &mut Scene) -> Result<(), Error> {
    let jetstream = scene.system.jetstream().await?;
    let stream = scene.system.stream(environment().stream()).await?;
    let config = stream.cached_info().config.clone();
    let removed = jetstream.delete_stream(&config.name).await;
    removed.map_err(Error::nats)?;
    // A service may have recreated it first.
    let _ = jetstream.create_stream(config).await;
    scene.mark_over();
    Ok(())
}

async fn consumer_is_removed(scene: &mut Scene) -> Result<(), Error> {
    let stream = scene.system.stream(environment().stream()).await?;
    let consumer = environment().broadcaster_consumer();
    let removed = stream.delete_consumer(&consumer).await;
    scene.mark_over();
    removed.map(drop).map_err(Error::nats)
}

async fn bucket_and_dead_letters_are_removed(scene: &mut Scene) -> Result<(), Error> {
    let jetstream = scene.system.jetstream().await?;
    let bucket = format!("KV_{}", environment().delivered_bucket());
    for name in [bucket, environment().dead_letter_stream()] {
        jetstream.delete_stream(name).await.map_err(Error::nats)?;
    }
    scene.mark_over();
    publish(scene, POISONOUS[0]).await
}

/// Not JSON, JSON that is not a todo, and an empty message.
const POISONOUS: &[&str] = &["not a todo", r#"{"id":"1"}"#, ""];

async fn poison(scene: &mut Scene) -> Result<(), Error> {
    for poison in POISONOUS {
        publish(scene, poison).await?;
        scene.more().await?;
    }
    Ok(())
}

/// Publishes a message that no backend sent.
async fn publish(scene: &Scene, payload: &'static str) -> Result<(), Error> {
    let subject = format!("{ENVIRONMENT}.todos.updated");
    let jetstream = scene.system.jetstream().await?;
    let sent = jetstream.publish(subject, payload.into()).await;
    sent.map_err(Error::nats)?.await.map_err(Error::nats)?;
    Ok(())
}

/// The webhook gives this answer throughout the outage.
async fn webhook_answers(scene: &mut Scene, answer: Answer) -> Result<(), Error> {
    scene.system.webhook.answer(answer);
    scene.outage().await;
    scene.system.webhook.answer(Answer::status(200));
    scene.mark_over();
    Ok(())
}

async fn webhook_limits_without_a_delay(scene: &mut Scene, retry_after: &str) -> Result<(), Error> {
    scene.system.gather();
    let before = scene.system.refused();
    let answer = Answer::status(429).with_retry_after(retry_after);
    webhook_answers(scene, answer).await?;
    scene.system.gather();
    let refused = scene.system.refused() - before;
    // One per second, plus those in flight at the first 429.
    let allowed = IN_FLIGHT + usize::try_from(scene.scale.outage.as_secs()).unwrap_or(0) + 1;
    if refused > allowed {
        let found = format!("{refused} posts although the webhook asked for pauses");
        return Err(Error::Unexpected(found));
    }
    Ok(())
}

async fn webhook_refuses_connections(scene: &mut Scene) -> Result<(), Error> {
    scene.system.webhook.refuse().await;
    scene.outage().await;
    scene.system.webhook.accept()?;
    scene.mark_over();
    Ok(())
}

/// Every post of one todo is answered with 500, and no other todo may wait for it.
async fn one_todo_is_refused(scene: &mut Scene) -> Result<(), Error> {
    /// This todo starts after 30 changes of each client, later than the fault.
    const REFUSED: &str = "client 1 life 3 ";
    scene
        .system
        .webhook
        .answer_about(REFUSED, Answer::status(500));
    scene.known.refused = Some(REFUSED);
    while scene.load.acknowledged() < 8 * 35 {
        scene.more().await?;
    }
    scene.system.nats.restart().await?;
    scene.mark_over();
    Ok(())
}

async fn broadcaster_is_killed(scene: &mut Scene) -> Result<(), Error> {
    scene.system.broadcasters[0].kill().await?;
    scene.outage().await;
    scene.system.broadcasters[0].restart().await?;
    scene.mark_over();
    Ok(())
}

async fn broadcaster_is_stopped(scene: &mut Scene) -> Result<(), Error> {
    terminate(&scene.system.broadcasters[0]).await?;
    scene.outage().await;
    scene.system.broadcasters[0].restart().await?;
    scene.mark_over();
    Ok(())
}

async fn active_is_killed(scene: &mut Scene) -> Result<(), Error> {
    let active = scene.system.active().await?;
    scene.mark_over();
    scene.system.broadcasters[active].kill().await?;
    Ok(())
}

async fn active_is_frozen(scene: &mut Scene) -> Result<(), Error> {
    let active = scene.system.active().await?;
    scene.mark_over();
    scene.system.broadcasters[active].pause().await?;
    scene.outage().await;
    scene.more().await?;
    // It must do no harm when it resumes.
    scene.system.broadcasters[active].resume()?;
    Ok(())
}

async fn active_is_cut_off(scene: &mut Scene) -> Result<(), Error> {
    let active = scene.system.active().await?;
    scene.mark_over();
    scene.system.broadcaster_networks[active].silence();
    scene.outage().await;
    scene.more().await?;
    scene.system.broadcaster_networks[active].resume();
    Ok(())
}

async fn backend_is_killed(scene: &mut Scene) -> Result<(), Error> {
    scene.system.backends[0].kill().await?;
    scene.outage().await;
    scene.system.backends[0].restart().await?;
    scene.mark_over();
    Ok(())
}

async fn backend_is_stopped_with_events_waiting(scene: &mut Scene) -> Result<(), Error> {
    scene.system.nats.stop().await?;
    scene.more().await?;
    terminate(&scene.system.backends[0]).await?;
    if scene.system.outbox_depth().await? == 0 {
        let found = "no event waits, although NATS is down".to_owned();
        return Err(Error::Unexpected(found));
    }
    scene.system.nats.restart().await?;
    scene.system.backends[0].restart().await?;
    scene.mark_over();
    Ok(())
}

async fn relays_are_killed(scene: &mut Scene) -> Result<(), Error> {
    for _ in 0..2 {
        let relay = scene.system.relay().await?;
        scene.mark_over();
        scene.system.backends[relay].kill().await?;
        scene.more().await?;
        scene.system.backends[relay].restart().await?;
        scene.more().await?;
    }
    Ok(())
}

async fn relay_vanishes(scene: &mut Scene) -> Result<(), Error> {
    let relay = scene.system.relay().await?;
    scene.mark_over();
    scene.system.backend_networks[relay].silence();
    scene.outage().await;
    // It must do no harm when it is back.
    scene.system.backend_networks[relay].forget();
    scene.more().await
}

/// Like a restarted firewall: connections stay open but carry nothing.
async fn network_forgets(scene: &mut Scene) -> Result<(), Error> {
    scene.mark_over();
    for network in &scene.system.backend_networks {
        network.forget();
    }
    for network in &scene.system.broadcaster_networks {
        network.forget();
    }
    scene.outage().await;
    Ok(())
}

async fn postgres_is_killed(scene: &mut Scene) -> Result<(), Error> {
    scene.system.postgres.stop(Shutdown::Kill).await?;
    scene.outage().await;
    scene.system.postgres.restart().await?;
    scene.mark_over();
    Ok(())
}

/// As during a failover: sessions open, reject writes, and stay open.
async fn postgres_is_read_only(scene: &mut Scene) -> Result<(), Error> {
    let mut owner = scene.system.database().await?;
    for read_only in ["on", "off"] {
        let setting = format!("ALTER SYSTEM SET default_transaction_read_only = {read_only}");
        owner.execute(AssertSqlSafe(setting)).await?;
        owner.execute("SELECT pg_reload_conf()").await?;
        if read_only == "on" {
            scene.outage().await;
        }
    }
    scene.mark_over();
    Ok(())
}

/// As after a rollback: a newer version wrote the row.
async fn row_cannot_be_read(scene: &mut Scene) -> Result<(), Error> {
    let mut owner = scene.system.database().await?;
    owner
        .execute("ALTER TABLE outbox DROP CONSTRAINT outbox_kind_check")
        .await?;
    owner
        .execute(
            "INSERT INTO outbox
                 (event_id, kind, todo_id, text, completed, created_at, occurred_at)
             VALUES (gen_random_uuid(), 'archived', 0, 'of tomorrow', false, now(), now())",
        )
        .await?;
    scene.mark_over();
    scene.outage().await;
    scene.more().await?;
    let removed = owner
        .execute("DELETE FROM outbox WHERE kind = 'archived'")
        .await?;
    if removed.rows_affected() != 1 {
        let found = "the row that cannot be read is gone".to_owned();
        return Err(Error::Unexpected(found));
    }
    Ok(())
}

/// As a new role since PostgreSQL 15: it may not create tables.
async fn backend_lacks_privileges(scene: &mut Scene) -> Result<(), Error> {
    let database = scene.system.postgres.empty_database().await?;
    let mut owner = PgConnection::connect(database.url()).await?;
    owner.execute("CREATE ROLE poor LOGIN").await?;
    let url = database.url().replace("postgres@", "poor@");
    let advice = "GRANT USAGE, CREATE ON SCHEMA public TO";
    scene.system.must_not_start(&url, advice).await?;
    scene.mark_over();
    Ok(())
}

/// In transaction mode, PgBouncer may run each transaction on another session.
async fn backend_shares_sessions(scene: &mut Scene) -> Result<(), Error> {
    let database = scene.system.postgres.empty_database().await?;
    let pooler = Pooler::start(&scene.system.postgres, &database, "transaction")?;
    let advice = "let it use pool_mode = session";
    scene.system.must_not_start(pooler.url(), advice).await?;
    scene.mark_over();
    Ok(())
}
