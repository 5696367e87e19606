//! The floor program: the same statements under axum, and nothing else. No
//! middleware, no log, no checks, one pipelining connection per core.

use std::fmt::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::body::Bytes;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde_json::{Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_postgres::{Client, NoTls, Statement};

use crate::Error;
use crate::case::{CREATE, list};

const CONNECTIONS: usize = 2;

/// The size of a photograph of 500 pixels square.
const PICTURE_BYTES: usize = 40 * 1024;

/// The environment variables of the floor program.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Where to listen
    #[arg(long, env = "LISTEN_ADDR")]
    listen_addr: String,

    /// The database
    #[arg(long, env = "DATABASE_URL")]
    database_url: String,
}

struct Connection {
    client: Client,
    list: Statement,
    create: Statement,
}

#[derive(Clone)]
struct Database {
    connections: Arc<[Connection]>,
    turn: Arc<AtomicUsize>,
}

impl Database {
    fn next(&self) -> &Connection {
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        &self.connections[turn % self.connections.len()]
    }
}

pub(crate) async fn serve(arguments: &Arguments) -> Result<(), Error> {
    let mut drivers = JoinSet::new();
    let mut connections = Vec::new();
    for _ in 0..CONNECTIONS {
        let (client, connection) = tokio_postgres::connect(&arguments.database_url, NoTls).await?;
        drivers.spawn(connection);
        connections.push(Connection {
            list: client.prepare(list!("501")).await?,
            create: client.prepare(CREATE).await?,
            client,
        });
    }
    let database = Database {
        connections: connections.into(),
        turn: Arc::default(),
    };
    let routes = Router::new()
        .route("/todos/", get(list_todos).post(create))
        .route("/picture", get(picture))
        .with_state(database);
    let address = arguments.listen_addr.as_str();
    let listener = TcpListener::bind(address)
        .await
        .map_err(Error::io(address))?;
    axum::serve(listener, routes)
        .await
        .map_err(Error::io(address))
}

/// A fake picture of the usual size, for todo-app to fetch.
async fn picture() -> Response {
    let mut gif = b"GIF89a\xf4\x01\xf4\x01".to_vec();
    gif.resize(PICTURE_BYTES, 0);
    ([(header::CONTENT_TYPE, "image/gif")], gif).into_response()
}

async fn list_todos(State(database): State<Database>) -> Response {
    let connection = database.next();
    let Ok(rows) = connection.client.query(&connection.list, &[]).await else {
        return StatusCode::SERVICE_UNAVAILABLE.into_response();
    };
    let mut json = String::from("[");
    for row in rows.iter().take(500) {
        let Some(id) = row.get::<_, Option<i64>>(3) else {
            break;
        };
        if json.len() > 1 {
            json.push(',');
        }
        let text = serde_json::to_string(row.get::<_, &str>(4)).unwrap_or_default();
        let at: OffsetDateTime = row.get(6);
        let at = at.format(&Rfc3339).unwrap_or_default();
        // Writing to a string does not fail.
        let _ = write!(
            json,
            r#"{{"id":{id},"text":{text},"completed":{},"created_at":"{at}"}}"#,
            row.get::<_, bool>(5)
        );
    }
    json.push(']');
    ([(header::CONTENT_TYPE, "application/json")], json).into_response()
}

async fn create(State(database): State<Database>, body: Bytes) -> Response {
    let body: Value = serde_json::from_slice(&body).unwrap_or_default();
    let text = body["text"].as_str().unwrap_or_default();
    let connection = database.next();
    match connection
        .client
        .query_one(&connection.create, &[&text])
        .await
    {
        Ok(row) => {
            let todo = json!({"id": row.get::<_, i64>(0), "text": text, "completed": false});
            (StatusCode::CREATED, Json(todo)).into_response()
        }
        Err(_) => StatusCode::SERVICE_UNAVAILABLE.into_response(),
    }
}
