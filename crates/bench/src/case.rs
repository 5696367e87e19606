//! The cases to measure.

/// A request, and the statement that it runs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Case {
    pub(crate) name: &'static str,
    pub(crate) server: Server,
    /// How many todos there are.
    pub(crate) rows: u32,
    pub(crate) request: Request,
    /// The statement that the service runs for one request, as a pgbench script
    /// where `:rows` is the number of todos; `None` if there is nothing to
    /// compare.
    pub(crate) statement: Option<&'static str>,
    /// Whether the floor program answers it.
    pub(crate) has_floor: bool,
}

/// Which program gets the requests.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Server {
    /// todo-backend.
    Api,
    /// todo-app, which calls todo-backend.
    Pages,
}

/// A request, as wrk sends it. `ID` in a path is the ID of a random todo.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Request {
    pub(crate) method: &'static str,
    pub(crate) path: &'static str,
    /// `N` stands for a number that differs each time.
    pub(crate) body: &'static str,
    /// Sends the `ETag` of an earlier response as `If-None-Match`.
    pub(crate) is_conditional: bool,
}

const fn get(path: &'static str) -> Request {
    Request {
        method: "GET",
        path,
        body: "",
        is_conditional: false,
    }
}

/// The statement of a list, with its limit: as in todo-backend's
/// `store/postgres/read.rs`.
macro_rules! list {
    ($limit:literal) => {
        list!($limit, "NULL::bigint")
    };
    ($limit:literal, $known:literal) => {
        concat!(
            "SELECT list.total, list.active, list.version,
                todo.id, todo.text, todo.completed, todo.created_at
             FROM (SELECT sum(total)::bigint AS total, sum(active)::bigint AS active,
                          sum(version)::bigint AS version
                   FROM todo_counts) AS list
             LEFT JOIN LATERAL (
                 SELECT id, text, completed, created_at FROM todos
                 WHERE list.version IS DISTINCT FROM ",
            $known,
            " ORDER BY created_at DESC, id DESC LIMIT ",
            $limit,
            ") AS todo ON true
             ORDER BY todo.created_at DESC, todo.id DESC;"
        )
    };
}

pub(crate) use list;

/// One todo and its event: what `POST /todos/` has to write.
pub(crate) const CREATE: &str = "WITH todo AS (
        INSERT INTO todos (text, completed, created_at)
        VALUES ($1, false, now()) RETURNING id, created_at
    )
    INSERT INTO outbox
        (event_id, kind, todo_id, text, completed, created_at, occurred_at, traceparent)
    SELECT gen_random_uuid(), 'created', id, $1, false, created_at, created_at,
        '00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01'
    FROM todo RETURNING todo_id";

impl Case {
    /// The case of this name.
    ///
    /// # Panics
    ///
    /// If there is none.
    pub(crate) fn named(name: &str) -> &'static Self {
        let case = CASES.iter().find(|case| case.name == name);
        case.expect("the case exists")
    }
}

pub(crate) const CASES: &[Case] = &[
    Case {
        name: "list of 0",
        server: Server::Api,
        rows: 0,
        request: get("/todos/"),
        statement: Some(list!("501")),
        has_floor: true,
    },
    Case {
        name: "list of 20",
        server: Server::Api,
        rows: 20,
        request: get("/todos/"),
        statement: Some(list!("501")),
        has_floor: true,
    },
    Case {
        name: "page of 20",
        server: Server::Api,
        rows: 1000,
        request: get("/todos/?limit=20"),
        statement: Some(list!("21")),
        has_floor: false,
    },
    Case {
        name: "page of 20 of 100000",
        server: Server::Api,
        rows: 100_000,
        request: get("/todos/?limit=20"),
        statement: Some(list!("21")),
        has_floor: false,
    },
    Case {
        name: "page of 1000",
        server: Server::Api,
        rows: 1001,
        request: get("/todos/?limit=1000"),
        statement: Some(list!("1001")),
        has_floor: false,
    },
    Case {
        name: "known list",
        server: Server::Api,
        rows: 1000,
        request: Request {
            is_conditional: true,
            ..get("/todos/?limit=20")
        },
        statement: Some(list!(
            "21",
            "(SELECT sum(version)::bigint FROM todo_counts)"
        )),
        has_floor: false,
    },
    Case {
        name: "one todo",
        server: Server::Api,
        rows: 1000,
        request: get("/todos/ID"),
        statement: Some(
            "\\set id random(1, :rows)
            SELECT id, text, completed, created_at, version FROM todos WHERE id = :id;",
        ),
        has_floor: false,
    },
    Case {
        name: "create",
        server: Server::Api,
        rows: 1000,
        request: Request {
            method: "POST",
            path: "/todos/",
            body: r#"{\"text\": \"Water the plants\"}"#,
            is_conditional: false,
        },
        statement: Some(
            "WITH todo AS (
                INSERT INTO todos (text, completed, created_at)
                VALUES ('Water the plants', false, now()) RETURNING id, created_at
            )
            INSERT INTO outbox (event_id, kind, todo_id, text, completed, created_at,
                                occurred_at, traceparent)
            SELECT gen_random_uuid(), 'created', id, 'Water the plants', false, created_at,
                created_at, '00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01'
            FROM todo RETURNING todo_id;",
        ),
        has_floor: true,
    },
    Case {
        name: "change",
        server: Server::Api,
        rows: 1000,
        request: Request {
            method: "PUT",
            path: "/todos/ID",
            body: r#"{\"text\": \"Water plant N\"}"#,
            is_conditional: false,
        },
        statement: Some(
            "\\set id random(1, :rows)
            \\set n random(1, 1000000000)
            WITH changed AS (
                UPDATE todos SET text = 'Water plant ' || :n, version = version + 1
                WHERE id = :id RETURNING id, text, completed, created_at, version
            ), event AS (
                INSERT INTO outbox (event_id, kind, todo_id, text, completed, created_at,
                                    occurred_at, traceparent)
                SELECT gen_random_uuid(), 'updated', id, text, completed, created_at, now(),
                    '00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01' FROM changed
            )
            SELECT id, text, completed, created_at, version FROM changed;",
        ),
        has_floor: false,
    },
    Case {
        name: "the page, 20 todos",
        server: Server::Pages,
        rows: 20,
        request: get("/"),
        statement: None,
        has_floor: false,
    },
    Case {
        name: "the picture",
        server: Server::Pages,
        rows: 20,
        request: get("/image"),
        statement: None,
        has_floor: false,
    },
];
