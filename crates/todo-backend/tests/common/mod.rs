//! Both stores, for tests that hold them to the same behaviour.

use tempfile::TempDir;
use testkit::{Postgres, TestDatabase};
use todo_backend::store::{Store, open};
use todo_domain::TodoText;

/// A store, and whatever must live as long as it.
pub(crate) struct Fixture {
    pub(crate) store: Store,
    _keep: Keep,
}

#[expect(dead_code, reason = "kept for its destructor")]
enum Keep {
    Postgres(TestDatabase),
    Sqlite(TempDir),
}

pub(crate) fn text(text: &str) -> TodoText {
    TodoText::new(text).unwrap()
}

pub(crate) fn first_todo() -> TodoText {
    text("Staging Todo App Ready!")
}

/// A migrated PostgreSQL database, with its first row.
pub(crate) async fn postgres() -> Fixture {
    let database = Postgres::shared()
        .await
        .unwrap()
        .database_from_template("todos", async |url| {
            let store = open(&url.parse().unwrap()).await?;
            let migrated = store.todos.migrate(&first_todo()).await;
            store.todos.close().await;
            migrated
        })
        .await
        .unwrap();
    Fixture {
        store: open(&database.url().parse().unwrap()).await.unwrap(),
        _keep: Keep::Postgres(database),
    }
}

/// A migrated SQLite file, with its first row.
pub(crate) async fn sqlite() -> Fixture {
    let fixture = empty_sqlite().await;
    fixture.store.todos.migrate(&first_todo()).await.unwrap();
    fixture
}

/// A PostgreSQL database without tables.
pub(crate) async fn empty_postgres() -> Fixture {
    let server = Postgres::shared().await.unwrap();
    let database = server.empty_database().await.unwrap();
    Fixture {
        store: open(&database.url().parse().unwrap()).await.unwrap(),
        _keep: Keep::Postgres(database),
    }
}

/// A SQLite file that does not exist yet; neither does its folder.
pub(crate) async fn empty_sqlite() -> Fixture {
    let folder = tempfile::tempdir().unwrap();
    let url = format!("sqlite:{}/new/todos.db", folder.path().display());
    Fixture {
        store: open(&url.parse().unwrap()).await.unwrap(),
        _keep: Keep::Sqlite(folder),
    }
}

/// Defines a test of each named function on each store.
#[macro_export]
macro_rules! on_both_stores {
    ($($test:ident),+ $(,)?) => { $crate::on_both_stores!(postgres, sqlite: $($test),+); };
    ($postgres:ident, $sqlite:ident: $($test:ident),+ $(,)?) => {
        mod on_postgres {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $test() {
                let fixture = $crate::common::$postgres().await;
                super::$test(fixture.store.clone()).await;
            })+
        }
        mod on_sqlite {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $test() {
                let fixture = $crate::common::$sqlite().await;
                super::$test(fixture.store.clone()).await;
            })+
        }
    };
}
