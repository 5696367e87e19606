//! The pages as a browser without JavaScript uses them.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::time::Duration;

use axum::body::Body;
use axum::extract::Request;
use axum::http::{StatusCode, header};

use support::Pages;

fn done(todos: &[(&str, bool)]) -> Vec<(String, bool)> {
    let owned = |(text, completed): &(&str, bool)| ((*text).to_owned(), *completed);
    todos.iter().map(owned).collect()
}

#[tokio::test]
async fn the_page_has_a_heading_a_picture_a_form_and_the_list() {
    let pages = Pages::start().await;
    pages.api.add("Water the plants", false);
    let page = pages.get("/").await;
    assert_eq!(page.status, StatusCode::OK);
    assert_eq!(
        page.header(header::CONTENT_TYPE),
        "text/html; charset=utf-8"
    );
    let html = page.text();
    for part in [
        r#"<h1 class="brand">"#,
        "The Project App</a></h1>",
        r#"src="/staging/image""#,
        r#"action="/staging/add""#,
        "Water the plants",
        "1 item left",
        "A new picture every 10 minutes",
        r#"data-api="/staging/todos/""#,
        "Staging",
        "0123456",
    ] {
        assert!(html.contains(part), "{part} is missing in {html}");
    }
}

#[tokio::test]
async fn pages_load_nothing_from_other_origins_and_run_nothing_inline() {
    let pages = Pages::start().await;
    let page = pages.get("/").await;
    let policy = page.header(header::CONTENT_SECURITY_POLICY);
    assert!(policy.starts_with("default-src 'none'"), "{policy}");
    assert!(!policy.contains("unsafe"), "{policy}");
    let html = page.text();
    assert!(
        !html.contains("http://") && !html.contains("https://"),
        "{html}"
    );
    assert!(
        !html.contains(" style=") && !html.contains("<style"),
        "{html}"
    );
    assert!(!html.contains(" onclick="), "{html}");
}

#[tokio::test]
async fn a_posted_todo_is_on_the_page_after_the_redirect() {
    let pages = Pages::start().await;
    let answer = pages.post("/add", "text=Buy+milk").await;
    let page = pages.get(answer.redirect()).await;
    assert!(page.text().contains("Buy milk"));
}

#[tokio::test]
async fn the_same_form_sent_twice_creates_one_todo() {
    let pages = Pages::start().await;
    pages.post("/add", "text=Buy+milk&key=a").await;
    pages.post("/add", "text=Buy+milk&key=a").await;
    pages.post("/add", "text=Buy+bread&key=a").await;
    assert_eq!(
        pages.api.todos(),
        done(&[("Buy milk", false), ("Buy bread", false)])
    );
}

#[tokio::test]
async fn deleting_twice_offers_the_same_undo_twice() {
    let pages = Pages::start().await;
    pages.api.add("Milk & <honey>", true);
    let page = pages.get("/").await.text();
    for _ in 0..2 {
        let answer = pages.submit(&page, "/delete/1").await;
        let page = pages.follow(&answer).await.text();
        assert!(
            page.contains("Deleted “<bdi>Milk &#38; &#60;honey&#62;</bdi>”"),
            "{page}"
        );
    }
}

#[tokio::test]
async fn a_refused_text_stays_in_its_field_beside_the_reason() {
    let pages = Pages::start().await;
    let answer = pages.post("/add", "text=++").await;
    assert_eq!(answer.status, StatusCode::UNPROCESSABLE_ENTITY);
    assert!(answer.text().contains("Enter what needs to be done."));

    let long = "é".repeat(141);
    let answer = pages.post("/add", &format!("text={long}")).await;
    assert_eq!(answer.status, StatusCode::UNPROCESSABLE_ENTITY);
    assert!(answer.text().contains(&format!(r#"value="{long}""#)));
    assert!(
        answer
            .text()
            .contains("Too long: 141 characters, the limit is 140")
    );
    assert!(answer.text().contains(r#"aria-invalid="true""#));
    assert_eq!(pages.api.todos(), []);
}

#[tokio::test]
async fn a_todo_is_ticked_edited_and_deleted_by_forms() {
    let pages = Pages::start().await;
    pages.api.add("Milk", false);
    let answer = pages
        .post("/toggle/1?filter=active", "completed=true")
        .await;
    assert_eq!(answer.redirect(), "/?filter=active#todo-1");
    assert_eq!(pages.api.todos(), done(&[("Milk", true)]));

    let editing = pages.get("/?edit=1").await.text();
    assert!(editing.contains(r#"aria-label="Edit Milk""#), "{editing}");
    pages.post("/edit/1", "text=+Oat+milk+&was=Milk").await;
    assert_eq!(pages.api.todos(), done(&[("Oat milk", true)]));

    let answer = pages.post("/delete/1", "").await;
    assert_eq!(answer.redirect(), "/");
    assert_eq!(pages.api.todos(), []);
}

#[tokio::test]
async fn every_change_except_a_new_todo_can_be_undone_once() {
    let pages = Pages::start().await;
    let milk = "Milk & \"honey\" <שלום>";
    pages.api.add(milk, true);
    let before = pages.api.todos();

    let answer = pages.post("/toggle/1", "completed=false").await;
    let page = pages.follow(&answer).await.text();
    assert!(page.contains("Unticked"), "{page}");
    let undone = pages.submit(&page, "/toggle/1\" data-form=\"restore").await;
    assert_eq!(pages.api.todos(), before);
    assert!(!pages.follow(&undone).await.text().contains(">Undo<"));

    let editing = pages.get("/?edit=1").await.text();
    let was = "was=Milk+%26+%22honey%22+%3C%D7%A9%D7%9C%D7%95%D7%9D%3E";
    assert!(editing.contains("name=\"was\""), "{editing}");
    let answer = pages.post("/edit/1", &format!("text=Bread&{was}")).await;
    assert_eq!(pages.api.todos(), done(&[("Bread", true)]));
    let page = pages.follow(&answer).await.text();
    assert!(page.contains("Changed to “<bdi>Bread</bdi>”"), "{page}");
    pages.submit(&page, "/edit/1").await;
    assert_eq!(pages.api.todos(), before);

    let answer = pages.post("/delete/1", "").await;
    let page = pages.follow(&answer).await.text();
    assert_eq!(pages.api.todos(), []);
    for _ in 0..2 {
        pages.submit(&page, "/restore").await;
        assert_eq!(pages.api.todos(), before);
    }
}

#[tokio::test]
async fn undoing_a_clear_restores_the_order() {
    let pages = Pages::start().await;
    for n in 0..5 {
        pages.api.add(&format!("Done {n}"), true);
    }
    let before = pages.api.todos();
    let html = pages.get("/").await.text();
    let answer = pages.submit(&html, "/clear-completed").await;
    assert_eq!(pages.api.todos(), []);
    let page = pages.follow(&answer).await.text();
    assert!(page.contains("Cleared 5 completed todos"), "{page}");
    pages.submit(&page, "/restore").await;
    assert_eq!(pages.api.todos(), before);
}

#[tokio::test]
async fn a_form_sent_twice_offers_the_same_undo_both_times() {
    for (action, said, undo) in [
        ("/delete/4", "Deleted “<bdi>Todo 3</bdi>”", "/restore"),
        ("/clear-completed", "Cleared 2 completed todos", "/restore"),
        ("/complete-all", "Completed 2 todos", "/untick-all"),
    ] {
        let pages = Pages::start().await;
        for n in 0..4 {
            pages.api.add(&format!("Todo {n}"), n < 2);
        }
        let mut before = pages.api.todos();
        before.sort();
        let html = pages.get("/").await.text();
        pages.submit(&html, action).await;
        let second = pages.submit(&html, action).await;
        let page = pages.follow(&second).await.text();
        assert!(page.contains(said), "{page}");
        pages.submit(&page, undo).await;
        let mut after = pages.api.todos();
        after.sort();
        assert_eq!(after, before);
    }
}

#[tokio::test]
async fn an_unreadable_form_is_answered_with_a_page() {
    let pages = Pages::start().await;
    pages.api.add("Milk", false);
    let before = pages.api.todos();
    for (path, form) in [
        ("/toggle/1", "completed=perhaps"),
        ("/edit/1", "text=a&undo=perhaps"),
        ("/restore", ""),
        ("/clear-completed", "confirmed=perhaps"),
        ("/complete-all", "confirmed=perhaps"),
        ("/untick-all", ""),
    ] {
        let answer = pages.post(path, form).await;
        assert!(answer.status.is_client_error(), "{path}: {answer:?}");
        let page = answer.text();
        assert!(page.contains("The form could not be read"), "{page}");
        assert_eq!(pages.api.todos(), before);
    }
}

#[tokio::test]
async fn a_bulk_form_applies_to_the_todos_that_its_page_showed() {
    let pages = Pages::start().await;
    for n in 0..3 {
        pages.api.add(&format!("Done {n}"), true);
    }
    let html = pages.get("/").await.text();
    // Meanwhile somebody unticks one and adds another completed todo.
    pages.post("/toggle/2", "completed=false").await;
    pages.api.add("Done by others", true);
    let answer = pages.submit(&html, "/clear-completed").await;
    let left = done(&[("Done 1", false), ("Done by others", true)]);
    assert_eq!(pages.api.todos(), left);
    let page = pages.follow(&answer).await.text();
    assert!(page.contains("Cleared 2 completed todos"), "{page}");
}

#[tokio::test]
async fn bulk_changes_beyond_the_page_ask_first_and_can_be_undone() {
    for (path, action, question, said) in [
        (
            "/?filter=active",
            "/clear-completed",
            "Clear 5 completed todos?",
            "Cleared 5 completed todos",
        ),
        (
            "/",
            "/complete-all",
            "Complete 60 todos?",
            "Completed 60 todos",
        ),
    ] {
        let pages = Pages::start().await;
        for n in 0..65 {
            pages.api.add(&format!("{n}"), n < 5);
        }
        let before = pages.api.todos();
        let html = pages.get(path).await.text();
        let asked = pages.submit(&html, action).await.text();
        assert!(asked.contains(question), "{asked}");
        assert!(asked.contains("You can undo it afterwards."), "{asked}");
        assert_eq!(pages.api.todos(), before);
        for _ in 0..2 {
            let answer = pages.submit(&asked, action).await;
            assert_ne!(pages.api.todos(), before);
            let page = pages.follow(&answer).await.text();
            assert!(page.contains(said), "{page}");
        }
    }
    let pages = Pages::start().await;
    let nothing = pages.post("/clear-completed", "").await;
    assert_eq!(nothing.redirect(), "/");
}

#[tokio::test]
async fn undoing_complete_all_keeps_changes_by_others() {
    let pages = Pages::start().await;
    for n in 0..3 {
        pages.api.add(&format!("Todo {n}"), n == 0);
    }
    let html = pages.get("/").await.text();
    let answer = pages.submit(&html, "/complete-all").await;
    let completed = done(&[("Todo 0", true), ("Todo 1", true), ("Todo 2", true)]);
    assert_eq!(pages.api.todos(), completed);
    let page = pages.follow(&answer).await.text();
    assert!(page.contains("Completed 2 todos"), "{page}");
    // Somebody else deletes one before the undo.
    pages.post("/delete/2", "").await;
    pages.submit(&page, "/untick-all").await;
    assert_eq!(
        pages.api.todos(),
        done(&[("Todo 0", true), ("Todo 2", false)])
    );
}

#[tokio::test]
async fn changes_that_cannot_be_undone_ask_first() {
    let pages = Pages::start().await;
    for n in 0..150 {
        pages.api.add(&format!("Done {n}"), true);
    }
    let asked = pages.post("/clear-completed?filter=active", "").await;
    assert_eq!(asked.status, StatusCode::OK);
    assert!(asked.text().contains("Clear 150 completed todos?"));
    assert_eq!(pages.api.todos().len(), 150);
    let answer = pages
        .post("/clear-completed?filter=active", "confirmed=true")
        .await;
    assert_eq!(answer.redirect(), "/?filter=active");
    assert_eq!(pages.api.todos(), []);
    assert!(!pages.follow(&answer).await.text().contains(">Undo<"));

    for n in 0..150 {
        pages.api.add(&format!("Todo {n}"), false);
    }
    let asked = pages.post("/complete-all", "").await;
    assert!(asked.text().contains("Complete 150 todos?"));
    pages.submit(&asked.text(), "/complete-all").await;
    assert!(
        !pages.api.todos()[0].1,
        "a form without its button asks again"
    );
    pages.post("/complete-all", "confirmed=true").await;
    assert!(pages.api.todos().iter().all(|(_, completed)| *completed));
}

#[tokio::test]
async fn an_edit_of_a_concurrently_changed_todo_shows_both_texts() {
    let pages = Pages::start().await;
    pages.api.add("Milk", false);
    pages.api.rename(1, "Oat milk");
    let answer = pages.post("/edit/1", "text=Soy+milk&was=Milk").await;
    assert_eq!(answer.status, StatusCode::CONFLICT);
    assert_eq!(pages.api.todos(), done(&[("Oat milk", false)]));
    let html = answer.text();
    assert!(html.contains("Somebody changed this todo"), "{html}");
    assert!(html.contains(r#"value="Soy milk""#), "{html}");
    assert!(html.contains(">Oat milk<"), "{html}");
    // The person has seen both, so their choice wins.
    pages.submit(&html, "/edit/1").await;
    assert_eq!(pages.api.todos(), done(&[("Soy milk", false)]));
}

#[tokio::test]
async fn a_tick_by_somebody_else_does_not_conflict_with_an_edit() {
    let pages = Pages::start().await;
    pages.api.add("Milk", false);
    pages.post("/toggle/1", "completed=true").await;
    pages.post("/edit/1", "text=Oat+milk&was=Milk").await;
    assert_eq!(pages.api.todos(), done(&[("Oat milk", true)]));
}

#[tokio::test]
async fn an_edit_of_a_deleted_todo_can_be_added_again() {
    let pages = Pages::start().await;
    pages.api.add("Milk", false);
    pages.post("/delete/1", "").await;
    let answer = pages.post("/edit/1", "text=Oat+milk&was=Milk").await;
    assert_eq!(answer.status, StatusCode::NOT_FOUND);
    let html = answer.text();
    assert!(html.contains("“<bdi>Oat milk</bdi>”"), "{html}");
    let (_, again) = html.split_once("class=\"astray\"").unwrap();
    pages.submit(again, "/add").await;
    assert_eq!(pages.api.todos(), done(&[("Oat milk", false)]));
}

#[tokio::test]
async fn an_edit_whose_todo_is_on_another_page_keeps_its_text() {
    let pages = Pages::start().await;
    pages.api.add("Milk", false);
    let answer = pages
        .post("/edit/1?filter=completed", "text=&was=Milk")
        .await;
    let html = answer.text();
    assert!(html.contains("Enter what needs to be done."), "{html}");
    assert!(html.contains(r#"name="was" value="Milk""#), "{html}");
    let gone = pages.get("/?edit=1&filter=completed").await.text();
    assert!(gone.contains("This todo no longer exists."), "{gone}");
}

#[tokio::test]
async fn no_url_can_inject_text_into_the_page() {
    let pages = Pages::start().await;
    pages.api.add("Milk", false);
    for path in [
        "/?undo=Buy+gold&was=1",
        "/?alert=Buy+gold",
        "/?cursor=Buy+gold",
        "/?filter=Buy+gold",
        "/?edit=Buy+gold",
    ] {
        let html = pages.get(path).await.text();
        assert!(!html.contains("Buy"), "{path}: {html}");
    }
    let long = format!("/?cursor={}1-1", "0".repeat(6000));
    assert!(!pages.get(&long).await.text().contains("0000000000"));
    let long = format!("/?q={}", "x".repeat(6000));
    assert!(!pages.get(&long).await.text().contains(&"x".repeat(141)));
}

#[tokio::test]
async fn a_search_is_kept_across_filters_actions_and_pages() {
    let pages = Pages::start().await;
    for n in 0..60 {
        pages.api.add(&format!("Milk & honey {n}"), false);
        pages.api.add(&format!("Bread {n}"), false);
    }
    let html = pages.get("/?q=+Milk+%26&filter=active").await.text();
    assert!(html.contains("Milk &#38; honey 59") && !html.contains("Bread"));
    for part in [
        r#"href="/staging/?q=Milk+%26""#,
        r#"href="/staging/?filter=completed&#38;q=Milk+%26""#,
        r#"action="/staging/toggle/119?filter=active&#38;q=Milk+%26""#,
        r#"href="/staging/?filter=active&#38;q=Milk+%26&#38;cursor=1-50""#,
        r#"<input type="hidden" name="q" value="Milk &#38;">"#,
        "Todos with “<bdi>Milk &#38;</bdi>”",
    ] {
        assert!(html.contains(part), "{part} is missing in {html}");
    }
    let answer = pages.post("/toggle/119?q=Milk+%26", "completed=true").await;
    assert_eq!(answer.redirect(), "/?q=Milk+%26#todo-119");
    let nothing = pages.get("/?q=nowhere").await.text();
    assert!(nothing.contains("No todo matches."), "{nothing}");
}

#[tokio::test]
async fn a_time_is_hidden_while_recent_and_never_empty() {
    let pages = Pages::start().await;
    pages.api.add("Old", false);
    pages.api.add("New", false);
    pages.api.age(1, Duration::from_hours(49));
    let html = pages.get("/").await.text();
    assert!(html.contains(">2 days ago</time>"), "{html}");
    assert!(html.contains(" hidden>just now</time>"), "{html}");
    assert!(!html.contains(r#"datetime="""#), "{html}");
}

#[tokio::test]
async fn the_print_page_has_the_whole_list() {
    let pages = Pages::start().await;
    for n in 0..1200 {
        pages.api.add(&format!("Todo number {n}."), n == 7);
    }
    let html = pages.get("/print").await.text();
    assert_eq!(html.matches("Todo number").count(), 1200);
    assert_eq!(html.matches("☑").count(), 1);
    let some = pages.get("/print?filter=completed").await.text();
    assert_eq!(some.matches("Todo number").count(), 1);
    let some = pages.get("/print?q=number+11").await.text();
    assert!(some.contains("with “<bdi>number 11</bdi>”"), "{some}");

    for n in 1200..5100 {
        pages.api.add(&format!("Todo number {n}."), false);
    }
    let html = pages.get("/print").await.text();
    assert_eq!(html.matches("Todo number").count(), 5000);
    assert!(html.contains("These are the newest 5000"));
}

#[tokio::test]
async fn a_refused_edit_stays_in_its_field() {
    let pages = Pages::start().await;
    pages.api.add("Milk", false);
    let answer = pages.post("/edit/1", "text=&was=Milk").await;
    assert_eq!(answer.status, StatusCode::UNPROCESSABLE_ENTITY);
    let html = answer.text();
    assert!(html.contains(r#"aria-describedby="edit-error""#), "{html}");
    assert_eq!(pages.api.todos(), done(&[("Milk", false)]));
}

#[tokio::test]
async fn filters_are_in_the_url_and_count_the_whole_list() {
    let pages = Pages::start().await;
    pages.api.add("Open one", false);
    pages.api.add("Closed one", true);
    let active = pages.get("/?filter=active").await.text();
    assert!(active.contains("Open one") && !active.contains("Closed one"));
    let completed = pages.get("/?filter=completed").await.text();
    assert!(!completed.contains("Open one") && completed.contains("Closed one"));
    assert!(completed.contains("1 item left"));
    assert!(completed.contains(r#"href="/staging/?filter=completed" aria-current="page""#));

    pages.submit(&completed, "/clear-completed").await;
    assert_eq!(pages.api.todos(), done(&[("Open one", false)]));
}

#[tokio::test]
async fn a_long_list_comes_in_pages() {
    let pages = Pages::start().await;
    for n in 0..120 {
        pages.api.add(&format!("Todo number {n}."), false);
    }
    let first = pages.get("/").await.text();
    assert!(first.contains("Todo number 119.") && !first.contains("Todo number 60."));
    assert!(first.contains(r#"href="/staging/?cursor=1-50""#), "{first}");
    let second = pages.get("/?cursor=0001-0050").await.text();
    assert!(second.contains("Todo number 60.") && !second.contains("Todo number 119."));
    assert!(second.contains(r#"action="/staging/toggle/61?cursor=1-50""#));
}

#[tokio::test]
async fn todo_text_is_escaped() {
    let pages = Pages::start().await;
    let probe = r#"<script>alert(1)</script>"><img src=x onerror=alert(1)>"#;
    pages.api.add(probe, false);
    for path in ["/", "/?edit=1", "/?q=%3Cscript%3E", "/print"] {
        let html = pages.get(path).await.text();
        assert!(!html.contains("<script>"), "{html}");
        assert!(!html.contains("<img src=x"), "{html}");
    }
}

#[tokio::test]
async fn without_the_backend_the_page_says_so_and_keeps_the_input() {
    let pages = Pages::start().await;
    pages.api.set_down(true);
    let page = pages.get("/").await;
    assert_eq!(page.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(page.header(header::RETRY_AFTER), "5");
    assert!(page.text().contains("The todos are unavailable"));

    let answer = pages.post("/add", "text=Not+lost").await;
    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(answer.text().contains(r#"value="Not lost""#));
    let answer = pages.post("/edit/1", "text=Not+lost&was=Milk").await;
    assert!(answer.text().contains(r#"value="Not lost""#));
    assert!(answer.text().contains(r#"name="was" value="Milk""#));

    pages.api.set_down(false);
    assert_eq!(pages.get("/").await.status, StatusCode::OK);
}

#[tokio::test]
async fn changing_a_deleted_todo_is_reported() {
    let pages = Pages::start().await;
    pages.api.add("Milk", false);
    pages.post("/delete/1", "").await;
    let answer = pages.post("/toggle/1", "completed=true").await;
    assert_eq!(answer.status, StatusCode::NOT_FOUND);
    assert!(answer.text().contains("Somebody else deleted this todo"));
}

#[tokio::test]
async fn a_form_from_another_site_changes_nothing() {
    let pages = Pages::start().await;
    let request = Request::post("/add")
        .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
        .header("sec-fetch-site", "cross-site")
        .body(Body::from("text=Evil"))
        .unwrap();
    let answer = pages.send(request).await;
    assert_eq!(answer.status, StatusCode::FORBIDDEN);
    assert_eq!(pages.api.todos(), []);
}

#[tokio::test]
async fn the_ingress_prefix_is_in_every_url() {
    let pages = Pages::start().await;
    let request = Request::get("/")
        .header("x-forwarded-prefix", "/elsewhere")
        .body(Body::empty())
        .unwrap();
    let html = pages.send(request).await.text();
    assert!(html.contains(r#"action="/elsewhere/add""#));
    assert!(!html.contains("/staging/"), "{html}");
}

#[tokio::test]
async fn static_files_are_immutable_and_named_by_content_hash() {
    let pages = Pages::start().await;
    let html = pages.get("/").await.text();
    let (_, rest) = html
        .split_once(r#"rel="stylesheet" href="/staging"#)
        .unwrap();
    let (path, _) = rest.split_once('"').unwrap();
    let file = pages.get(path).await;
    assert_eq!(file.header(header::CONTENT_TYPE), "text/css; charset=utf-8");
    assert_eq!(
        file.header(header::CACHE_CONTROL),
        "public, max-age=31536000, immutable"
    );
    let again = Request::get(path)
        .header(header::IF_NONE_MATCH, file.header(header::ETAG))
        .body(Body::empty())
        .unwrap();
    assert_eq!(pages.send(again).await.status, StatusCode::NOT_MODIFIED);
    assert_eq!(
        pages.get("/static/app.css").await.status,
        StatusCode::NOT_FOUND
    );
}

#[tokio::test]
async fn healthz_answers_ready_without_the_backend() {
    let pages = Pages::start().await;
    pages.api.set_down(true);
    let answer = pages.get("/healthz").await;
    assert_eq!(answer.status, StatusCode::OK);
    assert_eq!(answer.text(), r#"{"status":"ready"}"#);
}

#[tokio::test]
async fn an_unknown_url_is_a_page_for_browsers_and_json_for_programs() {
    let pages = Pages::start().await;
    for path in ["/nope", "/nope/nope", "/static/../Cargo.toml", "/static/x"] {
        let answer = pages.get(path).await;
        assert_eq!(answer.status, StatusCode::NOT_FOUND);
        assert_eq!(answer.text(), r#"{"detail":"Not Found"}"#);
        let person = Request::get(path).header(header::ACCEPT, "text/html,*/*;q=0.8");
        let answer = pages.send(person.body(Body::empty()).unwrap()).await;
        assert_eq!(answer.status, StatusCode::NOT_FOUND);
        assert_eq!(
            answer.header(header::CONTENT_TYPE),
            "text/html; charset=utf-8"
        );
        assert!(answer.text().contains("Page not found"));
        assert!(answer.text().contains(r#"href="/staging/""#));
    }
    for path in ["/add", "/toggle/x", "/?edit=x", "/?filter=x&cursor=%00"] {
        assert!(pages.get(path).await.status.as_u16() < 500);
        assert!(pages.post(path, "completed=maybe").await.status.as_u16() < 500);
    }
}

#[tokio::test]
async fn overlong_input_from_a_url_or_a_proxy_is_not_echoed() {
    let pages = Pages::start().await;
    for number in 0..50 {
        pages.api.add(&format!("todo {number}"), false);
    }
    let usual = pages.get("/").await.bytes.len();
    let zeros = "0".repeat(60_000);
    let cursor = format!("/?cursor={zeros}");
    let prefix =
        Request::get("/").header("x-forwarded-prefix", format!("/{}", "a".repeat(390_000)));
    for answer in [
        pages.get(&cursor).await,
        pages.send(prefix.body(Body::empty()).unwrap()).await,
    ] {
        assert_eq!(answer.status, StatusCode::OK);
        assert!(answer.bytes.len() < usual + 1000, "{}", answer.bytes.len());
    }
}

#[tokio::test]
async fn the_prefix_is_that_of_the_nearest_proxy() {
    let pages = Pages::start().await;
    let request = Request::get("/")
        .header("x-forwarded-prefix", "/from-the-client")
        .header("x-forwarded-prefix", "/production");
    let page = pages
        .send(request.body(Body::empty()).unwrap())
        .await
        .text();
    assert!(page.contains("\"/production/") && !page.contains("from-the-client"));
}
