use std::collections::HashSet;
use std::error::Error as StdError;
use std::sync::{Arc, Mutex as StdMutex, PoisonError};

use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Connection, Executor};
use tokio::sync::Mutex;
use uuid::Uuid;

use super::Postgres;
use crate::Error;

/// The databases that testkit created in one server.
#[derive(Debug, Default)]
pub(super) struct Databases {
    /// Held while a template is filled: others wait, then use it.
    templates: Mutex<HashSet<String>>,
    released: Released,
}

/// Names of databases whose [`TestDatabase`] was dropped. A destructor cannot wait for PostgreSQL,
/// so the next creation drops them, and the rest end with the server.
type Released = Arc<StdMutex<Vec<String>>>;

/// A database for one test, with a unique name. It is dropped some time after this value.
#[derive(Debug)]
pub struct TestDatabase {
    name: String,
    url: String,
    released: Released,
}

impl TestDatabase {
    /// Address of the database, for the superuser `postgres`.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Name of the database.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }
}

impl Drop for TestDatabase {
    fn drop(&mut self) {
        let mut released = self.released.lock().unwrap_or_else(PoisonError::into_inner);
        released.push(std::mem::take(&mut self.name));
    }
}

impl Postgres {
    /// Creates an empty database.
    ///
    /// # Errors
    /// [`Error::Sql`].
    pub async fn empty_database(&self) -> Result<TestDatabase, Error> {
        self.create_database("template0").await
    }

    /// Creates a database as a copy of the template `name`.
    ///
    /// The first caller of that name fills the template: `fill` gets its URL, for example to run
    /// the migrations. Later callers get a copy within some hundredths of a second.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    /// use sqlx::{Connection, Executor, PgConnection};
    /// use testkit::Postgres;
    ///
    /// let postgres = Postgres::shared().await?;
    /// let database = postgres
    ///     .database_from_template("numbers", async |url| {
    ///         let mut connection = PgConnection::connect(&url).await?;
    ///         connection.execute("CREATE TABLE numbers AS SELECT 42 AS n").await?;
    ///         connection.close().await
    ///     })
    ///     .await?;
    ///
    /// let mut connection = PgConnection::connect(database.url()).await?;
    /// let n: i32 = sqlx::query_scalar("SELECT n FROM numbers").fetch_one(&mut connection).await?;
    /// assert_eq!(n, 42);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`Error::Template`] with the failure of `fill`; the next call tries again. [`Error::Sql`].
    pub async fn database_from_template<E>(
        &self,
        name: &str,
        fill: impl AsyncFnOnce(String) -> Result<(), E>,
    ) -> Result<TestDatabase, Error>
    where
        E: Into<Box<dyn StdError + Send + Sync>>,
    {
        let template = format!("template_{name}");
        let mut templates = self.databases.templates.lock().await;
        if !templates.contains(&template) {
            self.fill_template(name, &template, fill).await?;
            templates.insert(template.clone());
        }
        drop(templates);
        self.create_database(&template).await
    }

    async fn fill_template<E>(
        &self,
        name: &str,
        template: &str,
        fill: impl AsyncFnOnce(String) -> Result<(), E>,
    ) -> Result<(), Error>
    where
        E: Into<Box<dyn StdError + Send + Sync>>,
    {
        let database = quoted(template);
        // A failed attempt may have left one behind.
        self.administer(&format!("DROP DATABASE IF EXISTS {database} WITH (FORCE)"))
            .await?;
        self.administer(&format!("CREATE DATABASE {database} TEMPLATE template0"))
            .await?;
        fill(self.url_of(template))
            .await
            .map_err(|error| Error::Template {
                name: name.to_owned(),
                source: error.into(),
            })?;
        // A database with open sessions cannot be copied. PostgreSQL waits five seconds for them to
        // end.
        self.administer(&format!(
            "ALTER DATABASE {database} ALLOW_CONNECTIONS false"
        ))
        .await
    }

    async fn create_database(&self, template: &str) -> Result<TestDatabase, Error> {
        let released = {
            let mut released = self
                .databases
                .released
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            std::mem::take(&mut *released)
        };
        for name in released {
            self.administer(&format!(
                "DROP DATABASE IF EXISTS {} WITH (FORCE)",
                quoted(&name)
            ))
            .await?;
        }
        let name = format!("test_{}", Uuid::now_v7().simple());
        let template = quoted(template);
        self.administer(&format!("CREATE DATABASE {name} TEMPLATE {template}"))
            .await?;
        Ok(TestDatabase {
            url: self.url_of(&name),
            name,
            released: Arc::clone(&self.databases.released),
        })
    }

    /// Runs a statement on a new connection: a cached one would belong to the runtime of one test.
    async fn administer(&self, statement: &str) -> Result<(), Error> {
        let run = async {
            let mut connection = PgConnection::connect(&self.url()).await?;
            connection.execute(AssertSqlSafe(statement)).await?;
            connection.close().await
        };
        run.await.map_err(Error::sql(statement))
    }
}

fn quoted(identifier: &str) -> String {
    format!("\"{}\"", identifier.replace('"', "\"\""))
}
