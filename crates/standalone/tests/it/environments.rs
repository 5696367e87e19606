//! Two environments on one port.

use reqwest::{Response, StatusCode};
use serde_json::{Value, json};
use sqlx::{Connection, PgConnection};
use tempfile::TempDir;
use testkit::{Postgres, Service};

use crate::support::{STOP_DEADLINE, client, create, program, start, texts};

#[tokio::test]
async fn each_environment_starts_with_its_own_first_todo() {
    let data = TempDir::new().unwrap();
    let service = start(&data).await;
    assert_eq!(
        texts(&service, "staging").await,
        ["Staging Todo App Ready!"]
    );
    assert_eq!(
        texts(&service, "production").await,
        ["Production Todo App Ready!"]
    );
}

#[tokio::test]
async fn a_todo_is_created_updated_and_deleted_in_each_environment() {
    let data = TempDir::new().unwrap();
    let service = start(&data).await;
    for environment in ["staging", "production"] {
        let id = create(&service, environment, "Water the plants").await;
        let url = service.url(&format!("/{environment}/todos/{id}"));
        let put = client().put(&url).json(&json!({"completed": true}));
        let todo: Value = put.send().await.unwrap().json().await.unwrap();
        assert_eq!(todo["completed"], true);
        let page = client().get(service.url(&format!("/{environment}/")));
        let page = page.send().await.unwrap().text().await.unwrap();
        assert!(page.contains("Water the plants"), "{page}");
        let delete = client().delete(&url).send().await.unwrap();
        assert_eq!(delete.status(), StatusCode::OK);
        let gone = client().get(&url).send().await.unwrap();
        assert_eq!(gone.status(), StatusCode::NOT_FOUND);
    }
}

#[tokio::test]
async fn the_environments_never_mix() {
    let data = TempDir::new().unwrap();
    let service = start(&data).await;
    create(&service, "staging", "only in staging").await;
    create(&service, "production", "only in production").await;
    assert_eq!(texts(&service, "staging").await[0], "only in staging");
    assert_eq!(texts(&service, "production").await[0], "only in production");
    assert_eq!(texts(&service, "staging").await.len(), 2);
    assert_eq!(texts(&service, "production").await.len(), 2);
}

#[tokio::test]
async fn todos_survive_a_restart_after_a_clean_stop_and_after_a_kill() {
    let data = TempDir::new().unwrap();
    let mut service = start(&data).await;
    create(&service, "staging", "kept").await;
    let status = service.terminate(STOP_DEADLINE).await.unwrap();
    assert!(status.success(), "{status}");
    service.restart().await.unwrap();
    create(&service, "staging", "kept too").await;
    service.kill().await.unwrap();
    service.restart().await.unwrap();
    assert_eq!(texts(&service, "staging").await[..2], ["kept too", "kept"]);
}

#[tokio::test]
async fn the_addresses_are_printed_and_linked_from_the_start_page() {
    let data = TempDir::new().unwrap();
    let service = start(&data).await;
    for environment in ["staging", "production"] {
        let path = format!("/{environment}/");
        assert!(service.stdout().contains(&path));
        let home = client().get(service.url("/")).send().await.unwrap();
        assert!(
            home.text()
                .await
                .unwrap()
                .contains(&format!("href=\"{path}\""))
        );
        let without_slash = client().get(service.url(&format!("/{environment}")));
        let page = without_slash.send().await.unwrap();
        assert_eq!(page.status(), StatusCode::OK);
    }
}

#[tokio::test]
async fn every_configuration_error_is_reported_before_a_port_opens() {
    let service = Service::builder(env!("CARGO_BIN_EXE_standalone"))
        .env("LOG_LEVEL", "loud")
        .env("IMG_TTL_SECONDS", "soon")
        .env("IMG_URL", "picture")
        .env("DATABASE_URL", "mysql://root:hunter2@db/todos")
        .spawn()
        .unwrap();
    let status = service.wait(STOP_DEADLINE).await.unwrap();
    assert_eq!(status.code(), Some(64));
    let stderr = service.stderr();
    for variable in ["LOG_LEVEL", "IMG_TTL_SECONDS", "IMG_URL", "DATABASE_URL"] {
        assert!(stderr.contains(&format!("  {variable}: ")), "{stderr}");
    }
    assert!(!stderr.contains("hunter2"));
    assert!(!service.stdout().contains("serving"));
}

#[tokio::test]
async fn database_url_gives_each_environment_its_own_database() {
    let postgres = Postgres::start().await.unwrap();
    let mut url: url::Url = postgres.url().parse().unwrap();
    let mut connection = PgConnection::connect(&postgres.url()).await.unwrap();
    for statement in [
        "CREATE DATABASE \"todos-staging\"",
        "CREATE DATABASE \"todos-production\"",
    ] {
        sqlx::query(statement)
            .execute(&mut connection)
            .await
            .unwrap();
    }
    url.set_path("/todos");
    let data = TempDir::new().unwrap();
    let service = program(&data).env("DATABASE_URL", url.as_str());
    let service = service.start().await.unwrap();
    create(&service, "staging", "on the server").await;
    assert_eq!(texts(&service, "staging").await.len(), 2);
    assert_eq!(texts(&service, "production").await.len(), 1);
    assert!(!data.path().join("staging.db").exists());
}

/// Opens the stream of changes of `environment`.
async fn follow(service: &Service, environment: &str, last_event_id: Option<&str>) -> Response {
    let url = service.url(&format!("/{environment}/todos/events"));
    let mut request = client().get(url);
    if let Some(id) = last_event_id {
        request = request.header("Last-Event-ID", id);
    }
    request.send().await.unwrap()
}

/// Reads until the event that contains `end` is complete.
async fn read_to(events: &mut Response, end: &str) -> String {
    let mut read = String::new();
    while !(read.contains(end) && read.ends_with("\n\n")) {
        let chunk = events.chunk().await.unwrap().unwrap();
        read += std::str::from_utf8(&chunk).unwrap();
    }
    read
}

#[tokio::test]
async fn a_page_sees_only_the_changes_of_its_environment() {
    let data = TempDir::new().unwrap();
    let service = start(&data).await;
    let mut events = follow(&service, "staging", None).await;
    read_to(&mut events, "id: ").await;
    create(&service, "production", "Elsewhere").await;
    create(&service, "staging", "Here").await;
    let read = read_to(&mut events, "Here").await;
    assert!(read.contains("event: created"), "{read}");
    assert!(!read.contains("Elsewhere"), "{read}");
}

#[tokio::test]
async fn a_reconnecting_page_gets_what_it_missed_but_not_from_another_process() {
    let data = TempDir::new().unwrap();
    let mut service = start(&data).await;
    let mut events = follow(&service, "staging", None).await;
    create(&service, "staging", "Seen").await;
    // The id of an event precedes its data.
    let read = read_to(&mut events, "\"Seen\"").await;
    let id = read.rsplit("id: ").next().unwrap().lines().next().unwrap();
    drop(events);
    create(&service, "staging", "Missed").await;
    let mut events = follow(&service, "staging", Some(id)).await;
    let read = read_to(&mut events, "\"Missed\"").await;
    assert!(
        !read.contains("\"Seen\"") && !read.contains("reset"),
        "{read}"
    );

    service.restart().await.unwrap();
    let mut events = follow(&service, "staging", Some(id)).await;
    read_to(&mut events, "event: reset").await;
}

#[tokio::test]
async fn requests_for_other_host_names_are_refused() {
    let data = TempDir::new().unwrap();
    let service = program(&data).env("ALLOWED_HOSTS", "127.0.0.1,todo.example");
    let service = service.start().await.unwrap();
    let ask = async |method: reqwest::Method, path: &str, host: &str| {
        let request = client().request(method, service.url(path));
        let request = request
            .header("host", host)
            // What a browser sends for a page under that name.
            .header("origin", format!("http://{host}"))
            .json(&json!({"text": "rebound"}));
        request.send().await.unwrap()
    };
    let post = || reqwest::Method::POST;
    for path in ["/staging/todos/", "/staging/", "/", "/inbox", "/nope"] {
        let answer = ask(reqwest::Method::GET, path, "evil.example").await;
        assert_eq!(answer.status(), 421, "{path}");
        let text = answer.text().await.unwrap();
        assert!(
            text.contains("ALLOWED_HOSTS=127.0.0.1,todo.example"),
            "{text}"
        );
    }
    let person = client().get(service.url("/staging/"));
    let person = person.header("host", "evil.example:8081");
    let page = person.header("accept", "text/html").send().await.unwrap();
    assert_eq!(page.status(), 421);
    assert_eq!(page.headers()["content-type"], "text/html; charset=utf-8");
    let page = page.text().await.unwrap();
    assert!(
        page.contains("ALLOWED_HOSTS=127.0.0.1,todo.example"),
        "{page}"
    );
    assert!(page.contains(r#"href="http://127.0.0.1:8081/""#), "{page}");
    assert!(!page.contains("evil.example"), "{page}");
    let rebound = ask(post(), "/staging/todos/", "evil.example:8081").await;
    assert_eq!(rebound.status(), 421);
    let ours = ask(post(), "/staging/todos/", "Todo.Example.:8081").await;
    assert_eq!(ours.status(), StatusCode::CREATED);
    assert_eq!(texts(&service, "staging").await.len(), 2);
}

#[tokio::test]
async fn a_request_is_logged_with_its_whole_path_and_route() {
    let data = TempDir::new().unwrap();
    let service = program(&data)
        .env("LOG_FORMAT", "json")
        .start()
        .await
        .unwrap();
    let asked = [
        ("/staging/", "/staging/"),
        ("/staging/todos/1", "/staging/todos/{id}"),
        ("/production/inbox", "/production/inbox"),
        ("/", "/"),
    ];
    for (path, _) in asked {
        let answer = client().get(service.url(path)).send().await.unwrap();
        assert_eq!(answer.status(), StatusCode::OK, "{path}");
    }
    service.terminate(STOP_DEADLINE).await.unwrap();
    let log = service.stdout();
    let lines = log
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let lines: Vec<_> = lines.filter(|line| line["message"] == "request").collect();
    for (path, route) in asked {
        let line = lines.iter().find(|line| line["path"] == path);
        assert_eq!(line.expect(path)["route"], route, "{path}");
    }
}

#[tokio::test]
async fn a_client_cannot_override_the_prefix() {
    let data = TempDir::new().unwrap();
    let service = start(&data).await;
    for path in [
        "/staging/",
        "/staging/todos/docs",
        "/staging/todos/?limit=1",
    ] {
        let request = client()
            .get(service.url(path))
            .header("x-forwarded-prefix", "/elsewhere")
            .header("x-forwarded-host", "evil.example");
        let answer = request.send().await.unwrap();
        let head = format!("{:?}", answer.headers());
        let text = head + &answer.text().await.unwrap();
        assert!(!text.contains("elsewhere"), "{text}");
        assert!(!text.contains("evil.example"), "{text}");
    }
}

#[tokio::test]
async fn a_data_folder_is_private_and_used_by_one_process() {
    use std::os::unix::fs::PermissionsExt;

    let parent = TempDir::new().unwrap();
    let folder = parent.path().join("data");
    let data = |builder: testkit::service::Builder| builder.env("DATA_DIR", &folder);
    let mut first = data(program(&parent)).start().await.unwrap();
    let mode = std::fs::metadata(&folder).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o700);

    let second = data(program(&parent)).spawn().unwrap();
    let status = second.wait(STOP_DEADLINE).await.unwrap();
    assert_eq!(status.code(), Some(1));
    let output = second.stdout();
    assert!(
        output.contains("another standalone uses the folder"),
        "{output}"
    );
    assert!(output.contains("DATA_DIR"), "{output}");

    // Neither a clean stop nor a kill leaves the folder locked.
    first.restart().await.unwrap();
    first.kill().await.unwrap();
    data(program(&parent)).start().await.unwrap();
}

#[tokio::test]
async fn an_unknown_address_is_a_page_for_a_person_and_json_for_a_program() {
    let data = TempDir::new().unwrap();
    let service = start(&data).await;
    for (path, back) in [
        ("/nope", "/"),
        ("/staging/nope", "/staging/"),
        ("/production/todos/nope/nope", "/production/todos/docs"),
    ] {
        let get = || client().get(service.url(path));
        let program = get().send().await.unwrap();
        assert_eq!(program.status(), StatusCode::NOT_FOUND);
        assert_eq!(program.text().await.unwrap(), r#"{"detail":"Not Found"}"#);
        let person = get().header("accept", "text/html,*/*;q=0.8").send();
        let person = person.await.unwrap();
        assert_eq!(person.status(), StatusCode::NOT_FOUND);
        let html = person.text().await.unwrap();
        assert!(html.contains("Page not found"), "{html}");
        assert!(html.contains(&format!("href=\"{back}\"")), "{html}");
        let (_, style) = html.split_once("stylesheet\" href=\"").unwrap();
        let (style, _) = style.split_once('"').unwrap();
        let style = client().get(service.url(style)).send().await.unwrap();
        assert_eq!(style.status(), StatusCode::OK);
    }
}
