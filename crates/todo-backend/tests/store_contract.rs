//! The behaviour that every store shares, whatever its database.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::collections::{BTreeMap, BTreeSet};

use common::{first_todo, text};
use futures::future::join_all;
use time::{Duration, OffsetDateTime};
use todo_backend::store::bulk::{self, Named};
use todo_backend::store::{
    Bulk, BulkChange, Change, Count, CreatedOnce, Cursor, Guard, List, Origin, OutboxRow, Page,
    Progress, Row, Seen, Store, Versioned, search, sweep,
};
use todo_domain::{EventKind, SearchTerm, Todo, TodoId, TodoPatch};

on_both_stores!(
    an_empty_database_gets_one_first_todo,
    a_created_todo_is_read_back,
    the_list_is_newest_first_then_by_descending_id,
    pages_show_every_todo_once,
    an_update_changes_only_the_given_fields,
    a_no_op_change_writes_nothing,
    a_guard_checks_the_version,
    every_method_reports_a_missing_todo,
    the_id_of_a_deleted_todo_is_not_reused,
    every_change_writes_its_event_in_order,
    every_event_names_the_author_of_its_change,
    completed_todos_are_deleted_together,
    a_key_creates_one_todo,
    a_key_used_concurrently_creates_one_todo,
    an_old_key_is_forgotten,
    old_keys_are_swept_and_new_ones_kept,
    a_full_list_accepts_no_more_todos,
    counts_and_the_version_follow_every_change,
    counts_are_right_after_concurrent_changes,
    a_known_list_is_not_read_again,
    a_search_reads_on_until_it_finds_enough,
    bulk_changes_write_their_events_in_order,
    a_bulk_change_skips_todos_changed_by_others,
    concurrent_changes_of_a_todo_keep_their_order,
    concurrent_requests_get_their_own_outcomes,
    removed_rows_leave_the_outbox,
);

mod from_nothing {
    use super::{concurrent_migrations_apply_once, the_first_todo_never_comes_back};

    crate::on_both_stores!(
        empty_postgres, empty_sqlite:
        concurrent_migrations_apply_once,
        the_first_todo_never_comes_back,
    );
}

fn origin() -> Origin {
    Origin::now(Some(
        "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".to_owned(),
    ))
}

/// More than any test creates.
const MAX: u64 = 10_000;

/// A page with all of a test's todos.
fn full_page() -> Page {
    Page {
        completed: None,
        after: None,
        limit: 10_000,
        known: None,
    }
}

fn done(completed: bool) -> TodoPatch {
    TodoPatch {
        completed: Some(completed),
        text: None,
    }
}

async fn create(store: &Store, todo: &str) -> TodoId {
    make(store, todo, &origin()).await.todo.id
}

async fn make(store: &Store, todo: &str, origin: &Origin) -> Versioned {
    let created = store.todos.create(&text(todo), MAX, origin).await;
    created.unwrap().expect("the list is not full")
}

async fn create_once(store: &Store, key: &str, todo: &str, origin: &Origin) -> CreatedOnce {
    let created = store.todos.create_once(key, &text(todo), MAX, origin).await;
    created.unwrap()
}

async fn list(store: &Store, page: &Page) -> Vec<Todo> {
    let mut todos = Vec::new();
    let mut each = |row: Row<'_>| {
        todos.push(Todo {
            id: row.id,
            text: text(row.text),
            completed: row.completed,
            created_at: row.created_at,
        });
    };
    store.todos.list(page, &mut each).await.unwrap();
    todos
}

/// The list's counts and version.
async fn summary(store: &Store) -> List {
    let page = Page {
        limit: 1,
        ..full_page()
    };
    store.todos.list(&page, &mut |_| ()).await.unwrap()
}

async fn texts(store: &Store, page: &Page) -> Vec<String> {
    let todos = list(store, page).await;
    todos.into_iter().map(|todo| todo.text.into()).collect()
}

async fn update(store: &Store, id: TodoId, patch: &TodoPatch, guard: Guard) -> Change {
    let change = store.todos.update(id, patch, &guard, &origin()).await;
    change.unwrap()
}

async fn delete(store: &Store, id: TodoId, guard: Guard) -> Change {
    store.todos.delete(id, &guard, &origin()).await.unwrap()
}

async fn clear(store: &Store) -> u64 {
    let bulk = Bulk {
        completed: true,
        only: None,
        change: BulkChange::Delete,
    };
    let applied = bulk::apply(&*store.todos, &bulk, &origin()).await;
    applied.unwrap().count
}

/// The first `limit` waiting rows.
async fn waiting(store: &Store, limit: u32) -> Vec<OutboxRow> {
    let rows = store.outbox.read(&mut Progress::default(), limit).await;
    rows.unwrap().into_iter().map(Result::unwrap).collect()
}

/// Kind, id and text of the waiting events.
async fn events(store: &Store) -> Vec<(EventKind, i64, String)> {
    let rows = waiting(store, 1000).await;
    let row = |row: &OutboxRow| {
        let todo = &row.event.todo;
        (row.event.kind, todo.id.0, todo.text.to_string())
    };
    rows.iter().map(row).collect()
}

async fn an_empty_database_gets_one_first_todo(store: Store) {
    store.todos.migrate(&first_todo()).await.unwrap();
    assert_eq!(
        texts(&store, &full_page()).await,
        ["Staging Todo App Ready!"]
    );
    assert!(!store.todos.migration_pending().await.unwrap());
}

async fn a_created_todo_is_read_back(store: Store) {
    let origin = origin();
    let created = make(&store, "<b>&\u{1}\u{1f600}</b> ", &origin).await;
    assert_eq!(created.todo.created_at, origin.at);
    assert_eq!(created.version, 1);
    let read = store.todos.get(created.todo.id).await.unwrap();
    assert_eq!(read, Some(created));
}

async fn the_list_is_newest_first_then_by_descending_id(store: Store) {
    let now = Origin::now(None);
    let later = Origin {
        at: now.at + Duration::hours(1),
        ..Origin::now(None)
    };
    for (todo, origin) in [("later", &later), ("tie 1", &now), ("tie 2", &now)] {
        make(&store, todo, origin).await;
    }
    assert_eq!(
        texts(&store, &full_page()).await[..3],
        ["later", "tie 2", "tie 1"]
    );
}

async fn pages_show_every_todo_once(store: Store) {
    let at = Origin::now(None);
    for n in 0..25_u32 {
        // Ties, so that the second sort key matters.
        let id = make(&store, &n.to_string(), &at).await;
        if n.is_multiple_of(3) {
            let id = id.todo.id;
            store
                .todos
                .update(id, &done(true), &Guard::Any, &at)
                .await
                .unwrap();
        }
    }
    for completed in [None, Some(false), Some(true)] {
        let of_state = Page {
            completed,
            ..full_page()
        };
        let expected = texts(&store, &of_state).await;
        let mut page = Page {
            limit: 4,
            ..of_state
        };
        let mut seen = Vec::new();
        loop {
            let todos = list(&store, &page).await;
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

async fn an_update_changes_only_the_given_fields(store: Store) {
    let id = create(&store, "before").await;
    let patch = TodoPatch {
        text: Some(text("after")),
        completed: None,
    };
    let change = update(&store, id, &patch, Guard::Any).await;
    let Change::Done(changed) = change else {
        panic!("{change:?}");
    };
    assert_eq!(changed.todo.text, text("after"));
    assert!(!changed.todo.completed);
    assert_eq!(changed.version, 2);
    assert_eq!(store.todos.get(id).await.unwrap(), Some(changed));
}

async fn a_no_op_change_writes_nothing(store: Store) {
    let id = create(&store, "same").await;
    let before = events(&store).await;
    let same = TodoPatch {
        text: Some(text("same")),
        completed: Some(false),
    };
    for patch in [same, TodoPatch::default()] {
        let change = update(&store, id, &patch, Guard::Any).await;
        assert!(matches!(change, Change::Done(todo) if todo.version == 1));
    }
    assert_eq!(events(&store).await, before);
}

async fn a_guard_checks_the_version(store: Store) {
    let id = create(&store, "guarded").await;
    let second = || Guard::OneOf(vec![7, 2]);
    let updated = update(&store, id, &done(true), second()).await;
    assert_eq!(updated, Change::Refused);
    let deleted = delete(&store, id, second()).await;
    assert_eq!(deleted, Change::Refused);
    let updated = update(&store, id, &done(true), Guard::Any).await;
    assert!(matches!(updated, Change::Done(_)));
    let deleted = delete(&store, id, second()).await;
    assert!(matches!(deleted, Change::Done(_)));
}

async fn every_method_reports_a_missing_todo(store: Store) {
    for id in [0, -1, i64::from(i32::MAX) + 1, i64::MAX, i64::MIN].map(TodoId) {
        assert_eq!(store.todos.get(id).await.unwrap(), None);
        let update = update(&store, id, &done(true), Guard::Any).await;
        assert_eq!(update, Change::Missing);
        let delete = delete(&store, id, Guard::Any).await;
        assert_eq!(delete, Change::Missing);
    }
}

async fn the_id_of_a_deleted_todo_is_not_reused(store: Store) {
    let first = create(&store, "first").await;
    delete(&store, first, Guard::Any).await;
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
        .update(id, &patch, &Guard::Any, &origin)
        .await
        .unwrap();
    store.todos.delete(id, &Guard::Any, &origin).await.unwrap();

    let rows = waiting(&store, 10).await;
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

async fn every_event_names_the_author_of_its_change(store: Store) {
    let by = |name: &str| Origin::now(None).by(Some(name.to_owned()));
    let id = make(&store, "a", &by("creates")).await.todo.id;
    let CreatedOnce::New(b) = create_once(&store, "key", "b", &by("creates once")).await else {
        panic!("the key is new");
    };
    let b = Named {
        id: b.todo.id,
        version: None,
    };
    let todos = &store.todos;
    let (any, patch, origin) = (Guard::Any, done(true), by("updates"));
    todos.update(id, &patch, &any, &origin).await.unwrap();
    let origin = by("deletes");
    todos.delete(id, &any, &origin).await.unwrap();
    for (change, only) in [
        (BulkChange::Toggle, None),
        (BulkChange::Delete, Some(vec![b])),
    ] {
        let bulk = Bulk {
            completed: change == BulkChange::Delete,
            only,
            change,
        };
        let origin = by(&format!("{change:?}"));
        bulk::apply(&**todos, &bulk, &origin).await.unwrap();
    }
    make(&store, "c", &Origin::now(None)).await;
    let rows = waiting(&store, 10).await;
    let authors: Vec<_> = rows.iter().map(|row| row.event.author.as_deref()).collect();
    assert_eq!(
        authors,
        [
            Some("creates"),
            Some("creates once"),
            Some("updates"),
            Some("deletes"),
            // The todo that a new list begins with is toggled, too.
            Some("Toggle"),
            Some("Toggle"),
            Some("Delete"),
            None,
        ]
    );
}

async fn completed_todos_are_deleted_together(store: Store) {
    let ids = [
        create(&store, "1").await,
        create(&store, "2").await,
        create(&store, "3").await,
    ];
    for id in [ids[2], ids[0]] {
        update(&store, id, &done(true), Guard::Any).await;
    }
    assert_eq!(clear(&store).await, 2);
    assert_eq!(clear(&store).await, 0);
    assert_eq!(
        texts(&store, &full_page()).await,
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

async fn a_key_creates_one_todo(store: Store) {
    let CreatedOnce::New(created) = create_once(&store, "key", "a", &origin()).await else {
        panic!("the key is new");
    };
    let again = create_once(&store, "key", "a", &origin()).await;
    assert_eq!(again, CreatedOnce::Replayed(created));
    let other = create_once(&store, "key", "b", &origin()).await;
    assert_eq!(other, CreatedOnce::Mismatch);
    assert_eq!(store.todos.count().await.unwrap().total, 2);
    assert_eq!(events(&store).await.len(), 1);
}

async fn a_key_used_concurrently_creates_one_todo(store: Store) {
    let origin = origin();
    let calls = (0..8).map(|_| create_once(&store, "key", "once", &origin));
    let created: BTreeSet<_> = join_all(calls)
        .await
        .into_iter()
        .map(|created| match created {
            CreatedOnce::New(todo) | CreatedOnce::Replayed(todo) => todo.todo.id,
            refused => panic!("{refused:?}"),
        })
        .collect();
    assert_eq!(created.len(), 1);
    assert_eq!(events(&store).await.len(), 1);
}

async fn an_old_key_is_forgotten(store: Store) {
    let yesterday = Origin {
        at: OffsetDateTime::now_utc() - Duration::hours(25),
        ..Origin::now(None)
    };
    create_once(&store, "key", "a", &yesterday).await;
    let today = create_once(&store, "key", "b", &origin()).await;
    let CreatedOnce::New(created) = today else {
        panic!("{today:?}");
    };
    let again = create_once(&store, "key", "b", &origin()).await;
    assert_eq!(again, CreatedOnce::Replayed(created));
}

async fn old_keys_are_swept_and_new_ones_kept(store: Store) {
    let yesterday = Origin {
        at: OffsetDateTime::now_utc() - Duration::hours(25),
        ..Origin::now(None)
    };
    for n in 0..3 {
        create_once(&store, &format!("old {n}"), "a", &yesterday).await;
        create_once(&store, &format!("new {n}"), "a", &origin()).await;
    }
    assert!(!sweep::once(&*store.todos).await.unwrap());
    // The newest three are left, of which two fit.
    let before = store.todos.count().await.unwrap().total;
    let epoch = OffsetDateTime::UNIX_EPOCH;
    assert!(!store.todos.sweep_keys(epoch, 2).await.unwrap());
    for (n, is_new) in [(0, true), (1, false), (2, false)] {
        let again = create_once(&store, &format!("new {n}"), "a", &origin()).await;
        assert_eq!(
            matches!(again, CreatedOnce::New(_)),
            is_new,
            "{n}: {again:?}"
        );
    }
    assert_eq!(store.todos.count().await.unwrap().total, before + 1);
}

async fn a_full_list_accepts_no_more_todos(store: Store) {
    let first = store.todos.create(&text("fits"), 2, &origin()).await;
    let first = first.unwrap().expect("there is room for one");
    let second = store.todos.create(&text("too many"), 2, &origin()).await;
    assert_eq!(second.unwrap(), None);
    let keyed = async |key: &str| {
        let created = store
            .todos
            .create_once(key, &text("too many"), 2, &origin())
            .await;
        created.unwrap()
    };
    assert_eq!(keyed("key").await, CreatedOnce::Full);
    assert_eq!(events(&store).await.len(), 1);
    delete(&store, first.todo.id, Guard::Any).await;
    // The refusal left no key behind.
    assert!(matches!(keyed("key").await, CreatedOnce::New(_)));
    assert_eq!(keyed("other").await, CreatedOnce::Full);
    assert!(matches!(keyed("key").await, CreatedOnce::Replayed(_)));
}

async fn counts_and_the_version_follow_every_change(store: Store) {
    let mut versions = BTreeSet::from([summary(&store).await.version]);
    let mut expect = async |total, active, is_new| {
        let list = summary(&store).await;
        let count = Count { total, active };
        assert_eq!(
            (list.count, store.todos.count().await.unwrap()),
            (count, count)
        );
        assert_eq!(versions.insert(list.version), is_new);
    };
    let a = create(&store, "a").await;
    expect(2, 2, true).await;
    create_once(&store, "key", "b", &origin()).await;
    expect(3, 3, true).await;
    create_once(&store, "key", "b", &origin()).await;
    expect(3, 3, false).await;
    update(&store, a, &done(true), Guard::Any).await;
    expect(3, 2, true).await;
    update(&store, a, &done(true), Guard::Any).await;
    expect(3, 2, false).await;
    let renamed = TodoPatch {
        text: Some(text("c")),
        completed: Some(true),
    };
    update(&store, a, &renamed, Guard::Any).await;
    expect(3, 2, true).await;
    update(&store, a, &done(false), Guard::OneOf(vec![99])).await;
    expect(3, 2, false).await;
    assert_eq!(clear(&store).await, 1);
    expect(2, 2, true).await;
    assert_eq!(clear(&store).await, 0);
    delete(&store, a, Guard::Any).await;
    expect(2, 2, false).await;
    let toggle = Bulk {
        completed: false,
        only: None,
        change: BulkChange::Toggle,
    };
    let applied = bulk::apply(&*store.todos, &toggle, &origin()).await;
    assert_eq!(applied.unwrap().count, 2);
    expect(2, 0, true).await;
    assert_eq!(clear(&store).await, 2);
    expect(0, 0, true).await;
}

async fn counts_are_right_after_concurrent_changes(store: Store) {
    let change = async |n: usize| {
        let id = create(&store, &n.to_string()).await;
        if n.is_multiple_of(2) {
            update(&store, id, &done(true), Guard::Any).await;
        }
        if n.is_multiple_of(3) {
            delete(&store, id, Guard::Any).await;
        }
    };
    join_all((0..60).map(change)).await;
    let todos = list(&store, &full_page()).await;
    let count = Count {
        total: todos.len() as u64,
        active: todos.iter().filter(|todo| !todo.completed).count() as u64,
    };
    assert_eq!(store.todos.count().await.unwrap(), count);
    assert_eq!(count.total, 41);
}

async fn a_known_list_is_not_read_again(store: Store) {
    let known = Page {
        known: Some(summary(&store).await.version),
        ..full_page()
    };
    assert_eq!(list(&store, &known).await, []);
    create(&store, "new").await;
    assert_eq!(list(&store, &known).await.len(), 2);
}

async fn a_search_reads_on_until_it_finds_enough(store: Store) {
    for n in 0..30 {
        create(
            &store,
            &format!("{n} {}", if n % 10 == 0 { "MILCH" } else { "Brot" }),
        )
        .await;
    }
    let term = SearchTerm::new("milch").unwrap().unwrap();
    let find = async |limit, known| {
        let mut found = Vec::new();
        let page = Page {
            limit,
            known,
            ..full_page()
        };
        let mut each = |row: Row<'_>| found.push(row.text.to_owned());
        let list = search::list(&*store.todos, &page, &term, &mut each).await;
        let list = list.unwrap();
        (found, list)
    };
    let (all, list) = find(100, None).await;
    assert_eq!(all, ["20 MILCH", "10 MILCH", "0 MILCH"]);
    assert_eq!(list, summary(&store).await);
    assert_eq!(find(2, None).await.0, ["20 MILCH", "10 MILCH"]);
    assert_eq!(find(100, Some(list.version)).await.0, [""; 0]);
}

/// More than one transaction of a bulk change covers.
const MANY: usize = 2300;

async fn bulk_changes_write_their_events_in_order(store: Store) {
    let before = outbox_position(&store).await;
    for _ in 0..MANY / 100 {
        join_all((0..100).map(|_| create(&store, "one of many"))).await;
    }
    for change in [BulkChange::Toggle, BulkChange::Delete] {
        let bulk = Bulk {
            completed: change == BulkChange::Delete,
            only: None,
            change,
        };
        let applied = bulk::apply(&*store.todos, &bulk, &origin()).await.unwrap();
        assert_eq!(applied.count, MANY as u64 + 1);
        assert_eq!(applied.todos, None, "too many to name");
        let kind = match change {
            BulkChange::Toggle => EventKind::Updated,
            BulkChange::Delete => EventKind::Deleted,
        };
        let rows = waiting(&store, 10_000).await;
        let events: Vec<_> = rows.iter().filter(|row| row.event.kind == kind).collect();
        assert_eq!(events.len(), MANY + 1);
        assert!(events.iter().all(|row| row.event.todo.completed));
        assert!(events.is_sorted_by_key(|row| row.event.todo.id));
        let ids: BTreeSet<_> = events.iter().map(|row| row.event.id).collect();
        assert_eq!(ids.len(), MANY + 1);
        assert!(rows.iter().all(|row| row.position > before));
    }
    assert_eq!(
        summary(&store).await.count,
        Count {
            total: 0,
            active: 0
        }
    );
}

async fn outbox_position(store: &Store) -> i64 {
    let rows = waiting(store, 1).await;
    rows.first().map_or(0, |row| row.position)
}

async fn a_bulk_change_skips_todos_changed_by_others(store: Store) {
    let ids = [
        create(&store, "seen").await,
        create(&store, "renamed").await,
        create(&store, "done").await,
        create(&store, "not named").await,
    ];
    let named = |n: usize, version| Named {
        id: ids[n],
        version,
    };
    let renamed = TodoPatch {
        text: Some(text("new name")),
        completed: None,
    };
    update(&store, ids[1], &renamed, Guard::Any).await;
    update(&store, ids[2], &done(true), Guard::Any).await;
    let tick = Bulk {
        completed: false,
        only: Some(vec![named(0, Some(1)), named(1, Some(1)), named(2, None)]),
        change: BulkChange::Toggle,
    };
    let ticked = bulk::apply(&*store.todos, &tick, &origin()).await.unwrap();
    let seen = |n: usize, version| Seen {
        id: ids[n],
        version,
    };
    assert_eq!(ticked.todos, Some(vec![seen(0, 2)]));
    // Its answer can be used to undo it.
    let back = Bulk {
        completed: true,
        only: Some(vec![named(0, Some(2))]),
        change: BulkChange::Toggle,
    };
    let back = bulk::apply(&*store.todos, &back, &origin()).await.unwrap();
    assert_eq!((back.count, back.todos), (1, Some(vec![seen(0, 3)])));
    let delete = Bulk {
        completed: true,
        only: Some(vec![named(2, None), named(0, None), named(3, None)]),
        change: BulkChange::Delete,
    };
    let deleted = bulk::apply(&*store.todos, &delete, &origin())
        .await
        .unwrap();
    assert_eq!(deleted.todos, Some(vec![seen(2, 2)]));
}

async fn concurrent_changes_of_a_todo_keep_their_order(store: Store) {
    let ids = [create(&store, "x").await, create(&store, "y").await];
    let change = async |n: usize| {
        let patch = TodoPatch {
            text: Some(text(&n.to_string())),
            completed: None,
        };
        let update = update(&store, ids[n % 2], &patch, Guard::Any).await;
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

async fn concurrent_requests_get_their_own_outcomes(store: Store) {
    let mut ids = Vec::new();
    for n in 0..30 {
        ids.push(create(&store, &n.to_string()).await);
    }
    let patch = |n: usize| TodoPatch {
        text: Some(text(&format!("changed {n}"))),
        completed: (n.is_multiple_of(2)).then_some(true),
    };
    let request = async |n: usize| {
        let id = ids[n];
        match n % 5 {
            // No-op, refused and missing ones among those that are applied.
            0 => update(&store, id, &TodoPatch::default(), Guard::Any).await,
            1 => update(&store, id, &patch(n), Guard::OneOf(vec![5, 2])).await,
            2 => delete(&store, TodoId(-id.0), Guard::Any).await,
            3 => update(&store, id, &patch(n), Guard::OneOf(vec![5, 1])).await,
            _ => delete(&store, id, Guard::OneOf(vec![1])).await,
        }
    };
    let before = events(&store).await.len();
    let outcomes = join_all((0..30).map(request)).await;
    for (n, outcome) in outcomes.into_iter().enumerate() {
        match (n % 5, outcome) {
            (1, Change::Refused) | (2, Change::Missing) => {}
            (0 | 4, Change::Done(same)) => {
                assert_eq!((same.todo.id, same.version), (ids[n], 1));
                assert_eq!(same.todo.text, text(&n.to_string()));
            }
            (3, Change::Done(changed)) => {
                assert_eq!((changed.todo.id, changed.version), (ids[n], 2));
                assert_eq!(changed.todo.text, patch(n).text.unwrap());
                assert_eq!(changed.todo.completed, n.is_multiple_of(2));
            }
            (_, outcome) => panic!("{n}: {outcome:?}"),
        }
    }
    assert_eq!(events(&store).await.len(), before + 12);
    let found = join_all(ids.iter().map(|id| store.todos.get(*id))).await;
    for (n, found) in found.into_iter().enumerate() {
        let found = found.unwrap();
        assert_eq!(found.is_none(), n % 5 == 4, "{n}");
        assert!(found.is_none_or(|found| found.todo.id == ids[n]), "{n}");
    }
}

async fn removed_rows_leave_the_outbox(store: Store) {
    for todo in ["1", "2", "3"] {
        create(&store, todo).await;
    }
    assert_eq!(store.outbox.backlog(2).await.unwrap().depth, 2);
    let backlog = store.outbox.backlog(1000).await.unwrap();
    assert_eq!(backlog.depth, 3);
    let rows = waiting(&store, 2).await;
    assert_eq!(rows.len(), 2);
    assert_eq!(backlog.oldest, Some(rows[0].event.occurred_at));
    let positions: Vec<_> = rows.iter().map(|row| row.position).collect();
    store.outbox.remove(&positions).await.unwrap();
    let left = events(&store).await;
    assert_eq!(left.len(), 1);
    assert_eq!(left[0].2, "3");
}

async fn concurrent_migrations_apply_once(store: Store) {
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
    let first = list(&store, &full_page()).await[0].id;
    delete(&store, first, Guard::Any).await;
    store.todos.migrate(&first_todo()).await.unwrap();
    assert_eq!(store.todos.count().await.unwrap().total, 0);
}
