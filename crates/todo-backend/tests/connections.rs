//! Partial failures between the program and its data: a network that goes
//! silent, a pooler that shares sessions, a full disk.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::time::{Duration, Instant};

use futures::future::join_all;
use reqwest::StatusCode;
use serde_json::json;
use sqlx::{Connection, Executor, PgConnection};
use testkit::postgres::Pooler;
use testkit::service::Builder;
use testkit::{Postgres, Proxy, Service, TestDatabase, eventually};
use todo_backend::store::{Change, Guard, MAX_CONNECTIONS, MAX_TODOS, Origin, Store, open};
use todo_domain::{TodoPatch, TodoText};

/// Far more than anything here takes, even on a busy machine.
const SOON: Duration = Duration::from_mins(1);

/// A `PostgreSQL` database, and the network to it.
async fn over_a_network() -> (Store, Proxy, TestDatabase) {
    let server = Postgres::shared().await.unwrap();
    let database = server.empty_database().await.unwrap();
    let proxy = Proxy::start(server.port()).await.unwrap();
    let url = proxy.url(database.url(), server.port());
    let store = open(&url.parse().unwrap()).await.unwrap();
    store.todos.migrate(&text("first")).await.unwrap();
    (store, proxy, database)
}

fn text(text: &str) -> TodoText {
    TodoText::new(text).unwrap()
}

/// Creates `count` todos concurrently; returns how many succeeded.
async fn create(store: &Store, count: usize) -> usize {
    let requests = (0..count).map(|number| async move {
        let key = format!("{number} {:?}", Instant::now());
        let origin = Origin::now(None);
        let todos = &store.todos;
        let created = todos
            .create_once(&key, &text("one of many"), MAX_TODOS, &origin)
            .await;
        created.is_ok()
    });
    let created = join_all(requests).await;
    created.into_iter().filter(|created| *created).count()
}

/// Waits until many concurrent creations all succeed.
async fn recovers(store: &Store) {
    eventually(SOON, async || match create(store, 20).await {
        20 => Ok(()),
        created => Err(format!("{created} of 20")),
    })
    .await
    .unwrap();
}

/// As when a firewall restarts: open connections go silent forever, without a
/// reset.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_dropped_by_the_network_are_replaced_without_an_error() {
    let (store, proxy, _database) = over_a_network().await;
    assert_eq!(create(&store, 20).await, 20);
    // Longer than an idle connection is trusted without a ping.
    tokio::time::sleep(Duration::from_millis(200)).await;
    proxy.forget();
    let forgotten = Instant::now();
    assert_eq!(create(&store, 20).await, 20);
    // One ping has to time out. Without a limit that would take a quarter of an
    // hour.
    let took = forgotten.elapsed();
    assert!(took < Duration::from_secs(8), "{took:?}");
    assert!(store.outbox.is_led().await.is_ok());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn operations_in_flight_on_a_silent_network_hold_no_pool_slot() {
    let (store, proxy, _database) = over_a_network().await;
    for _ in 0..3 {
        // Connections are caught in every state: idle, busy, being returned.
        let making = async {
            while create(&store, 20).await == 20 {}
            Instant::now()
        };
        let silencing = async {
            tokio::time::sleep(Duration::from_millis(50)).await;
            proxy.silence();
        };
        let (_, ()) = tokio::time::timeout(SOON, async { tokio::join!(making, silencing) })
            .await
            .unwrap();
        proxy.forget();
        recovers(&store).await;
    }
}

/// Waits until that many sessions wait for a lock.
async fn waiting_for_locks(database: &TestDatabase, sessions: u32) {
    let mut observer = PgConnection::connect(database.url()).await.unwrap();
    eventually(SOON, async || {
        let waiting = "SELECT count(*) FROM pg_stat_activity
                       WHERE datname = current_database() AND wait_event_type = 'Lock'";
        let waiting: i64 = sqlx::query_scalar(waiting)
            .fetch_one(&mut observer)
            .await
            .unwrap();
        if waiting >= i64::from(sessions) {
            Ok(())
        } else {
            Err(waiting)
        }
    })
    .await
    .unwrap();
}

/// As when somebody leaves a transaction open in psql and goes for lunch.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_locked_todo_blocks_no_other() {
    let (store, _proxy, database) = over_a_network().await;
    let todos = &store.todos;
    let origin = Origin::now(None);
    let mut ids = Vec::new();
    for _ in 0..20 {
        let created = todos.create(&text("todo"), MAX_TODOS, &origin).await;
        ids.push(created.unwrap().unwrap().todo.id);
    }
    let locked = ids[0];
    let mut owner = PgConnection::connect(database.url()).await.unwrap();
    owner.execute("BEGIN").await.unwrap();
    sqlx::query("SELECT FROM todos WHERE id = $1 FOR UPDATE")
        .bind(locked.0)
        .execute(&mut owner)
        .await
        .unwrap();
    let change = async |id, text: TodoText| {
        let patch = TodoPatch {
            text: Some(text),
            completed: None,
        };
        let changed = todos.update(id, &patch, &Guard::Any, &origin).await;
        assert!(matches!(changed.unwrap(), Change::Done(_)));
    };
    // More than there are connections.
    let blocked = join_all((0..20).map(|n| change(locked, text(&n.to_string()))));
    let others = async {
        waiting_for_locks(&database, 2).await;
        for round in ["first", "second"] {
            join_all(ids[1..].iter().map(|id| change(*id, text(round)))).await;
        }
        let deleted = todos.delete(ids[1], &Guard::Any, &origin).await;
        assert!(matches!(deleted.unwrap(), Change::Done(_)));
    };
    let mut blocked = std::pin::pin!(blocked);
    tokio::select! {
        _ = &mut blocked => panic!("the changes ignored the lock"),
        () = others => {}
    }
    owner.execute("ROLLBACK").await.unwrap();
    blocked.await;
}

/// They stay in the pool waiting for an answer that never comes, and no
/// operation is left to notice.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cancelled_operations_on_a_silent_network_hold_no_pool_slot() {
    let (store, proxy, database) = over_a_network().await;
    let mut owner = PgConnection::connect(database.url()).await.unwrap();
    let locked = "BEGIN; LOCK TABLE todos IN ACCESS EXCLUSIVE MODE";
    owner.execute(locked).await.unwrap();
    let all_wait = waiting_for_locks(&database, MAX_CONNECTIONS);
    tokio::select! {
        created = create(&store, 20) => panic!("{created} were created"),
        () = all_wait => {}
    }
    proxy.silence();
    owner.execute("ROLLBACK").await.unwrap();
    proxy.forget();
    recovers(&store).await;
}

fn backend(database: &str) -> Builder {
    Service::builder(env!("CARGO_BIN_EXE_todo-backend"))
        .env("DATABASE_URL", database)
        .env("POD_NAMESPACE", "staging")
        .env("SHUTDOWN_DELAY_SECONDS", "0")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pooler_that_shares_sessions_is_refused_at_startup() {
    let server = Postgres::shared().await.unwrap();
    let database = server.empty_database().await.unwrap();
    for mode in ["transaction", "statement"] {
        let pooler = Pooler::start(server, &database, mode).unwrap();
        for argument in ["--migrate", "migrate"] {
            let service = backend(pooler.url()).arg(argument).spawn().unwrap();
            let status = service.wait(SOON).await.unwrap();
            assert!(!status.success());
            let said = service.stdout() + &service.stderr();
            let sentence = "let it use pool_mode = session, or name PostgreSQL itself";
            assert!(said.contains(sentence), "{said}{}", pooler.log());
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pooler_that_keeps_sessions_is_accepted() {
    let server = Postgres::shared().await.unwrap();
    let database = server.empty_database().await.unwrap();
    let pooler = Pooler::start(server, &database, "session").unwrap();
    let service = backend(pooler.url())
        .arg("--migrate")
        .start()
        .await
        .unwrap();
    assert_eq!(post(&service).await, 201);
}

async fn post(service: &Service) -> StatusCode {
    let client = service_kit::http::client("tests", SOON).unwrap();
    let body = json!({ "text": "a todo" });
    let answer = client.post(service.url("/todos/")).json(&body).send().await;
    answer.unwrap().status()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changes_succeed_again_after_the_disk_was_full() {
    // With SIGXFSZ ignored, writes beyond the limit fail with an error.
    let service = Service::builder("sh")
        .arg("-c")
        .arg("trap '' XFSZ; exec \"$0\" --migrate")
        .arg(env!("CARGO_BIN_EXE_todo-backend"))
        .env("DATABASE_URL", "sqlite:todos.db")
        .env("POD_NAMESPACE", "staging")
        .env("SHUTDOWN_DELAY_SECONDS", "0")
        .start()
        .await
        .unwrap();
    assert_eq!(post(&service).await, 201);
    for _ in 0..3 {
        service.limit_files(Some(8 * 1024)).unwrap();
        eventually(SOON, async || match post(&service).await {
            StatusCode::SERVICE_UNAVAILABLE => Ok(()),
            other => Err(other),
        })
        .await
        .unwrap();
        service.limit_files(None).unwrap();
        for _ in 0..10 {
            assert_eq!(post(&service).await, 201, "{}", service.stdout());
        }
    }
}
