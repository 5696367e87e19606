//! What every store does, whichever database it is on.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::collections::{BTreeMap, BTreeSet};

use common::{first_todo, text};
use futures::future::join_all;
use time::{Duration, OffsetDateTime};
use todo_backend::store::{Change, CreatedOnce, Cursor, Origin, Page, Store};
use todo_domain::{EventKind, TodoId, TodoPatch};

on_both_stores!(
    an_empty_database_gets_one_first_todo,
    a_created_todo_is_read_back,
    the_list_is_newest_first_then_by_falling_id,
    pages_show_every_todo_once,
    an_update_changes_what_it_names,
    a_change_that_changes_nothing_writes_nothing,
    a_guard_decides_by_the_version,
    a_missing_todo_is_missing_for_all,
    the_id_of_a_deleted_todo_is_not_used_again,
    every_change_writes_its_event_in_order,
    completed_todos_are_deleted_together,
    a_key_makes_one_todo,
    a_key_used_at_once_makes_one_todo,
    an_old_key_is_forgotten,
    concurrent_changes_of_a_todo_keep_their_order,
    removed_rows_leave_the_outbox,
);

mod from_nothing {
    use super::{migrations_apply_once_however_many_start, the_first_todo_never_comes_back};

    crate::on_both_stores!(
        empty_postgres, empty_sqlite:
        migrations_apply_once_however_many_start,
        the_first_todo_never_comes_back,
    );
}

fn origin() -> Origin {
    Origin::now(Some(
        "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".to_owned(),
    ))
}

fn always(_: i64) -> bool {
    true
}

fn done(completed: bool) -> TodoPatch {
    TodoPatch {
        completed: Some(completed),
        text: None,
    }
}

async fn create(store: &Store, todo: &str) -> TodoId {
    let created = store.todos.create(&text(todo), &origin()).await.unwrap();
    created.todo.id
}

async fn texts(store: &Store, page: &Page) -> Vec<String> {
    let todos = store.todos.list(page).await.unwrap();
    todos.into_iter().map(|todo| todo.text.into()).collect()
}

async fn update(
    store: &Store,
    id: TodoId,
    patch: &TodoPatch,
    guard: impl Fn(i64) -> bool + Send + Sync,
) -> Change {
    let change = store.todos.update(id, patch, &guard, &origin()).await;
    change.unwrap()
}

async fn delete(store: &Store, id: TodoId, guard: impl Fn(i64) -> bool + Send + Sync) -> Change {
    store.todos.delete(id, &guard, &origin()).await.unwrap()
}

/// Kind, id and text of the waiting events.
async fn events(store: &Store) -> Vec<(EventKind, i64, String)> {
    let rows = store.outbox.pending(1000).await.unwrap();
    let row = |row: &todo_backend::store::OutboxRow| {
        let todo = &row.event.todo;
        (row.event.kind, todo.id.0, todo.text.to_string())
    };
    rows.iter().map(row).collect()
}

async fn an_empty_database_gets_one_first_todo(store: Store) {
    store.todos.migrate(&first_todo()).await.unwrap();
    assert_eq!(
        texts(&store, &Page::default()).await,
        ["Staging Todo App Ready!"]
    );
    assert!(!store.todos.migration_pending().await.unwrap());
}

async fn a_created_todo_is_read_back(store: Store) {
    let origin = origin();
    let created = store
        .todos
        .create(&text("<b>&\u{1}\u{1f600}</b> "), &origin)
        .await
        .unwrap();
    assert_eq!(created.todo.created_at, origin.at);
    assert_eq!(created.version, 1);
    let read = store.todos.get(created.todo.id).await.unwrap();
    assert_eq!(read, Some(created));
}

async fn the_list_is_newest_first_then_by_falling_id(store: Store) {
    let now = Origin::now(None);
    let later = Origin {
        at: now.at + Duration::hours(1),
        traceparent: None,
    };
    for (todo, origin) in [("later", &later), ("tie 1", &now), ("tie 2", &now)] {
        store.todos.create(&text(todo), origin).await.unwrap();
    }
    assert_eq!(
        texts(&store, &Page::default()).await[..3],
        ["later", "tie 2", "tie 1"]
    );
}

async fn pages_show_every_todo_once(store: Store) {
    let at = Origin::now(None);
    for n in 0..25 {
        // Ties, so that the second key is needed.
        let id = store
            .todos
            .create(&text(&n.to_string()), &at)
            .await
            .unwrap();
        if n % 3 == 0 {
            let id = id.todo.id;
            store
                .todos
                .update(id, &done(true), &always, &at)
                .await
                .unwrap();
        }
    }
    for completed in [None, Some(false), Some(true)] {
        let whole = Page {
            completed,
            ..Page::default()
        };
        let expected = texts(&store, &whole).await;
        let mut page = Page {
            limit: Some(4),
            ..whole
        };
        let mut seen = Vec::new();
        loop {
            let todos = store.todos.list(&page).await.unwrap();
            let Some(last) = todos.last() else { break };
            page.after = Some(Cursor {
                created_at: last.created_at,
                id: last.id,
            });
            seen.extend(todos.into_iter().map(|todo| String::from(todo.text)));
        }
        assert_eq!(seen, expected);
    }
    let count = store.todos.count().await.unwrap();
    assert_eq!((count.total, count.active), (26, 17));
}

async fn an_update_changes_what_it_names(store: Store) {
    let id = create(&store, "before").await;
    let patch = TodoPatch {
        text: Some(text("after")),
        completed: None,
    };
    let change = update(&store, id, &patch, always).await;
    let Change::Done(changed) = change else {
        panic!("the todo was there");
    };
    assert_eq!(changed.todo.text, text("after"));
    assert!(!changed.todo.completed);
    assert_eq!(changed.version, 2);
    assert_eq!(store.todos.get(id).await.unwrap(), Some(changed));
}

async fn a_change_that_changes_nothing_writes_nothing(store: Store) {
    let id = create(&store, "same").await;
    let before = events(&store).await;
    let same = TodoPatch {
        text: Some(text("same")),
        completed: Some(false),
    };
    for patch in [same, TodoPatch::default()] {
        let change = update(&store, id, &patch, always).await;
        assert!(matches!(change, Change::Done(todo) if todo.version == 1));
    }
    assert_eq!(events(&store).await, before);
}

async fn a_guard_decides_by_the_version(store: Store) {
    let id = create(&store, "guarded").await;
    let second = |version| version == 2;
    let updated = update(&store, id, &done(true), second).await;
    assert_eq!(updated, Change::Refused);
    let deleted = delete(&store, id, second).await;
    assert_eq!(deleted, Change::Refused);
    let updated = update(&store, id, &done(true), always).await;
    assert!(matches!(updated, Change::Done(_)));
    let deleted = delete(&store, id, second).await;
    assert!(matches!(deleted, Change::Done(_)));
}

async fn a_missing_todo_is_missing_for_all(store: Store) {
    for id in [0, -1, i64::from(i32::MAX) + 1, i64::MAX, i64::MIN].map(TodoId) {
        assert_eq!(store.todos.get(id).await.unwrap(), None);
        let update = update(&store, id, &done(true), always).await;
        assert_eq!(update, Change::Missing);
        let delete = delete(&store, id, always).await;
        assert_eq!(delete, Change::Missing);
    }
}

async fn the_id_of_a_deleted_todo_is_not_used_again(store: Store) {
    let first = create(&store, "first").await;
    delete(&store, first, always).await;
    assert!(create(&store, "second").await > first);
}

async fn every_change_writes_its_event_in_order(store: Store) {
    let id = create(&store, "a").await;
    let patch = TodoPatch {
        text: Some(text("b")),
        completed: Some(true),
    };
    let origin = origin();
    store
        .todos
        .update(id, &patch, &always, &origin)
        .await
        .unwrap();
    store.todos.delete(id, &always, &origin).await.unwrap();

    let rows = store.outbox.pending(10).await.unwrap();
    let seen: Vec<_> = rows
        .iter()
        .map(|row| (row.event.kind, row.event.todo.text.as_str()))
        .collect();
    assert_eq!(
        seen,
        [
            (EventKind::Created, "a"),
            (EventKind::Updated, "b"),
            (EventKind::Deleted, "b"),
        ]
    );
    let last = &rows[2].event;
    assert_eq!(last.traceparent, origin.traceparent);
    assert_eq!(last.occurred_at, origin.at);
    assert!(last.todo.completed);
    let ids: BTreeSet<_> = rows.iter().map(|row| row.event.id).collect();
    assert_eq!(ids.len(), 3);
}

async fn completed_todos_are_deleted_together(store: Store) {
    let ids = [
        create(&store, "1").await,
        create(&store, "2").await,
        create(&store, "3").await,
    ];
    for id in [ids[2], ids[0]] {
        update(&store, id, &done(true), always).await;
    }
    assert_eq!(store.todos.delete_completed(&origin()).await.unwrap(), 2);
    assert_eq!(store.todos.delete_completed(&origin()).await.unwrap(), 0);
    assert_eq!(
        texts(&store, &Page::default()).await,
        ["2", "Staging Todo App Ready!"]
    );
    let deleted: Vec<_> = events(&store)
        .await
        .into_iter()
        .filter(|event| event.0 == EventKind::Deleted)
        .map(|event| event.1)
        .collect();
    assert_eq!(deleted, [ids[0].0, ids[2].0]);
}

async fn a_key_makes_one_todo(store: Store) {
    let first = store.todos.create_once("key", &text("a"), &origin()).await;
    let CreatedOnce::New(made) = first.unwrap() else {
        panic!("the key is new");
    };
    let again = store.todos.create_once("key", &text("a"), &origin()).await;
    assert_eq!(again.unwrap(), CreatedOnce::Replayed(made));
    let other = store.todos.create_once("key", &text("b"), &origin()).await;
    assert_eq!(other.unwrap(), CreatedOnce::Mismatch);
    assert_eq!(store.todos.count().await.unwrap().total, 2);
    assert_eq!(events(&store).await.len(), 1);
}

async fn a_key_used_at_once_makes_one_todo(store: Store) {
    let text = text("once");
    let origin = origin();
    let calls = (0..8).map(|_| store.todos.create_once("key", &text, &origin));
    let made: BTreeSet<_> = join_all(calls)
        .await
        .into_iter()
        .map(|result| match result.unwrap() {
            CreatedOnce::New(todo) | CreatedOnce::Replayed(todo) => todo.todo.id,
            CreatedOnce::Mismatch => panic!("the text is the same"),
        })
        .collect();
    assert_eq!(made.len(), 1);
    assert_eq!(events(&store).await.len(), 1);
}

async fn an_old_key_is_forgotten(store: Store) {
    let yesterday = Origin {
        at: OffsetDateTime::now_utc() - Duration::hours(25),
        traceparent: None,
    };
    store
        .todos
        .create_once("key", &text("a"), &yesterday)
        .await
        .unwrap();
    let today = store.todos.create_once("key", &text("b"), &origin()).await;
    assert!(matches!(today.unwrap(), CreatedOnce::New(_)));
}

async fn concurrent_changes_of_a_todo_keep_their_order(store: Store) {
    let ids = [create(&store, "x").await, create(&store, "y").await];
    let change = async |n: usize| {
        let patch = TodoPatch {
            text: Some(text(&n.to_string())),
            completed: None,
        };
        let update = update(&store, ids[n % 2], &patch, always).await;
        match update {
            Change::Done(changed) => changed,
            refused => panic!("{refused:?}"),
        }
    };
    let changes = join_all((0..40).map(change)).await;

    let mut by_version: BTreeMap<_, BTreeMap<_, _>> = BTreeMap::new();
    for changed in changes {
        let versions = by_version.entry(changed.todo.id).or_default();
        versions.insert(changed.version, changed.todo.text.to_string());
    }
    for id in ids {
        let published: Vec<_> = events(&store)
            .await
            .into_iter()
            .filter(|event| event.0 == EventKind::Updated && event.1 == id.0)
            .map(|event| event.2)
            .collect();
        let written: Vec<_> = by_version[&id].values().cloned().collect();
        assert_eq!(published, written);
    }
}

async fn removed_rows_leave_the_outbox(store: Store) {
    for todo in ["1", "2", "3"] {
        create(&store, todo).await;
    }
    let backlog = store.outbox.backlog().await.unwrap();
    assert_eq!(backlog.depth, 3);
    let rows = store.outbox.pending(2).await.unwrap();
    assert_eq!(rows.len(), 2);
    assert_eq!(backlog.oldest, Some(rows[0].event.occurred_at));
    let positions: Vec<_> = rows.iter().map(|row| row.position).collect();
    store.outbox.remove(&positions).await.unwrap();
    let left = events(&store).await;
    assert_eq!(left.len(), 1);
    assert_eq!(left[0].2, "3");
}

async fn migrations_apply_once_however_many_start(store: Store) {
    assert!(store.todos.migration_pending().await.unwrap());
    let first = first_todo();
    for result in join_all((0..4).map(|_| store.todos.migrate(&first))).await {
        result.unwrap();
    }
    assert!(!store.todos.migration_pending().await.unwrap());
    assert_eq!(store.todos.count().await.unwrap().total, 1);
}

async fn the_first_todo_never_comes_back(store: Store) {
    store.todos.migrate(&first_todo()).await.unwrap();
    let first = store.todos.list(&Page::default()).await.unwrap()[0].id;
    delete(&store, first, always).await;
    store.todos.migrate(&first_todo()).await.unwrap();
    assert_eq!(store.todos.count().await.unwrap().total, 0);
}
