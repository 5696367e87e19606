//! Valid and invalid bodies.

use serde_json::{Value, json};
use todo_backend::store::Store;

use crate::client::Client;

crate::on_both_stores!(
    a_text_is_kept_verbatim,
    a_text_has_1_to_140_code_points,
    line_breaks_become_spaces,
    a_text_without_visible_characters_is_refused,
    fields_that_a_client_may_not_set_are_ignored,
    a_body_without_a_text_is_refused,
    a_body_that_is_not_json_is_refused,
    a_body_in_another_encoding_is_refused,
    a_state_is_parsed_leniently,
    an_invalid_state_is_refused,
    a_refused_change_changes_nothing,
    all_faults_of_a_body_are_reported_at_once,
    a_refusal_never_echoes_the_input,
);

/// Posts `text` and returns the text that is read back.
async fn read_back(client: &Client, text: &str) -> String {
    let id = client.create(text).await;
    let todo = client.get(&format!("/todos/{id}")).await.json();
    todo["text"].as_str().unwrap().to_owned()
}

async fn a_text_is_kept_verbatim(store: Store) {
    let client = Client::new(&store);
    for text in [
        "  pad  ",
        "\ttab, \u{1} and \u{7f}",
        "<script>alert('1')</script> & \"quotes\" \\",
        "'; DROP TABLE todos; --",
        "\u{feff}\u{202e}\u{fffd}\u{10ffff}",
        "e\u{301} and \u{e9} stay apart",
        "%_$1 ?1 {}",
    ] {
        assert_eq!(read_back(&client, text).await, text);
    }
    let pair = client.post(r#"{"text": "\ud83d\ude00"}"#).await;
    assert_eq!(pair.json()["text"], "\u{1f600}", "a surrogate pair");
    let twice = client.post(r#"{"text": "first", "text": "last"}"#).await;
    assert_eq!(twice.json()["text"], "last", "of a duplicate key");
    let bom = client.post("\u{feff}{\"text\": \"after a BOM\"}").await;
    assert_eq!(bom.json()["text"], "after a BOM");
}

async fn a_text_has_1_to_140_code_points(store: Store) {
    const FAMILY: &str = "\u{1f468}\u{200d}\u{1f469}\u{200d}\u{1f467}\u{200d}\u{1f466}";
    let client = Client::new(&store);
    for (unit, most) in [
        ("a", 140),
        ("\u{e9}", 140),
        ("\u{1f600}", 140),
        ("e\u{301}", 70),
        (FAMILY, 20),
    ] {
        let longest = unit.repeat(most);
        assert_eq!(read_back(&client, &longest).await, longest);
        let longer = json!({"text": unit.repeat(most + 1)}).to_string();
        let refused = client.post(longer).await;
        assert_eq!(refused.faults(), [r#"string_too_long ["body","text"]"#]);
    }
    let long = client
        .post(json!({"text": "a".repeat(141)}).to_string())
        .await;
    insta::allow_duplicates!(insta::assert_snapshot!(
        long.text(),
        @r#"{"detail":[{"type":"string_too_long","loc":["body","text"],"msg":"Text should have at most 140 characters"}]}"#
    ));
    let empty = client.post(r#"{"text": ""}"#).await;
    insta::allow_duplicates!(insta::assert_snapshot!(
        empty.text(),
        @r#"{"detail":[{"type":"string_too_short","loc":["body","text"],"msg":"Text should have at least 1 visible character"}]}"#
    ));
    let nul = client.post(r#"{"text": "a\u0000b"}"#).await;
    insta::allow_duplicates!(insta::assert_snapshot!(
        nul.text(),
        @r#"{"detail":[{"type":"value_error","loc":["body","text"],"msg":"Text should not contain the NUL character"}]}"#
    ));
}

async fn line_breaks_become_spaces(store: Store) {
    let client = Client::new(&store);
    let id = client.create("Buy milk\r\nand\u{2028}bread").await;
    let path = format!("/todos/{id}");
    assert_eq!(client.get(&path).await.json()["text"], "Buy milk and bread");
    let etag = client.get(&path).await.header("etag").to_owned();
    let same = json!({"text": "Buy\nmilk and\u{b}bread"}).to_string();
    let changed = client.put(&path, same).await;
    assert_eq!(changed.json()["text"], "Buy milk and bread");
    assert_eq!(changed.header("etag"), etag, "a no-op kept the version");
}

async fn a_text_without_visible_characters_is_refused(store: Store) {
    let client = Client::new(&store);
    for text in [
        " ",
        "\n",
        "\t\u{1}",
        "\u{200b}",
        "\u{2060}",
        "\u{3164}",
        "\u{2800}",
        "\u{ad}\u{a0}",
        "\u{fe0f}",
        "\u{e0041}",
    ] {
        let body = json!({"text": text}).to_string();
        for answer in [
            client.post(body.clone()).await,
            client.put("/todos/1", body).await,
        ] {
            assert_eq!(
                answer.faults(),
                [r#"string_too_short ["body","text"]"#],
                "{text:?}"
            );
        }
    }
}

async fn fields_that_a_client_may_not_set_are_ignored(store: Store) {
    let client = Client::new(&store);
    let body = json!({
        "text": "Water the plants", "id": 1, "completed": true,
        "created_at": "2000-01-01T00:00:00Z", "colour": null,
    });
    let created = client.post(body.to_string()).await;
    assert_eq!(created.status, 201);
    let todo = created.json();
    assert_ne!(todo["id"], 1);
    assert_eq!(todo["completed"], false);
    assert_ne!(todo["created_at"], body["created_at"]);
}

async fn a_body_without_a_text_is_refused(store: Store) {
    let client = Client::new(&store);
    for (body, faults) in [
        ("", r#"missing ["body"]"#),
        ("{}", r#"missing ["body","text"]"#),
        (r#"{"Text": "case matters"}"#, r#"missing ["body","text"]"#),
        (r#"{"text": null}"#, r#"string_type ["body","text"]"#),
        (r#"{"text": 7}"#, r#"string_type ["body","text"]"#),
        (r#"{"text": 1e308}"#, r#"string_type ["body","text"]"#),
        (r#"{"text": true}"#, r#"string_type ["body","text"]"#),
        (r#"{"text": ["a"]}"#, r#"string_type ["body","text"]"#),
        (r#"{"text": {"a": 1}}"#, r#"string_type ["body","text"]"#),
        ("null", r#"model_attributes_type ["body"]"#),
        ("[]", r#"model_attributes_type ["body"]"#),
        (r#""text""#, r#"model_attributes_type ["body"]"#),
        ("7", r#"model_attributes_type ["body"]"#),
    ] {
        assert_eq!(client.post(body).await.faults(), [faults], "{body}");
    }
    let missing = client.post("{}").await;
    insta::allow_duplicates!(insta::assert_snapshot!(
        missing.text(),
        @r#"{"detail":[{"type":"missing","loc":["body","text"],"msg":"Field required"}]}"#
    ));
    assert_eq!(client.get("/todos/").await.header("x-total-count"), "1");
}

async fn a_body_that_is_not_json_is_refused(store: Store) {
    let client = Client::new(&store);
    let deep = format!(r#"{{"text": {}"#, "[".repeat(60_000));
    for (body, offset) in [
        (r#"{"text": "a",}"#, 13),
        (r#"{"text": "a"} x"#, 14),
        (r#"{"text": "a""#, 11),
        ("{'text': 'a'}", 1),
        (r#"{"text": NaN}"#, 9),
        (r#"{"text": "\ud83d"}"#, 16),
        (r#"{"text": "\ude00"}"#, 15),
        ("{\"text\": \"a\nb\"}", 12),
        (r#"{"text": "a", "n": 1e999}"#, 23),
        (" ", 0),
        ("text=a", 1),
    ] {
        for answer in [client.post(body).await, client.put("/todos/1", body).await] {
            let faults = answer.faults();
            assert_eq!(
                faults,
                [format!(r#"json_invalid ["body",{offset}]"#)],
                "{body}"
            );
        }
    }
    let answer = client.post(deep).await;
    assert!(answer.faults()[0].starts_with("json_invalid"), "{answer:?}");
    let answer = client.post(r#"{"text": NaN}"#).await;
    insta::allow_duplicates!(insta::assert_snapshot!(
        answer.text(),
        @r#"{"detail":[{"type":"json_invalid","loc":["body",9],"msg":"JSON decode error"}]}"#
    ));
    let number = |digits: usize| format!(r#"{{"text": "a", "n": {}}}"#, "9".repeat(digits));
    assert_eq!(client.post(number(300)).await.status, 201, "it is ignored");
    let beyond = client.post(number(5000)).await;
    assert!(beyond.faults()[0].starts_with("json_invalid"), "{beyond:?}");
}

async fn a_body_in_another_encoding_is_refused(store: Store) {
    let client = Client::new(&store);
    let utf_16 = r#"{"text": "a"}"#.encode_utf16().flat_map(u16::to_be_bytes);
    let utf_16: Vec<u8> = [0xfe, 0xff].into_iter().chain(utf_16).collect();
    for body in [
        b"{\"text\": \"\xff\"}".to_vec(),
        b"{\"text\": \"\xed\xa0\x80\"}".to_vec(),
        b"\xc0\x80".to_vec(),
        utf_16,
    ] {
        for answer in [
            client.post(body.clone()).await,
            client.put("/todos/1", body.clone()).await,
        ] {
            assert_eq!(answer.status, 400, "{answer:?}");
            insta::allow_duplicates!(insta::assert_snapshot!(
                answer.text(),
                @r#"{"detail":"There was an error parsing the body"}"#
            ));
        }
    }
}

async fn a_state_is_parsed_leniently(store: Store) {
    let client = Client::new(&store);
    let yes = [
        "true",
        r#""true""#,
        r#""YES""#,
        r#""on""#,
        r#""1""#,
        r#""t""#,
        "1",
        "1.0",
    ];
    let no = [
        "false",
        r#""False""#,
        r#""no""#,
        r#""off""#,
        r#""0""#,
        r#""f""#,
        "0",
        "-0.0",
    ];
    for (words, state) in [(yes, true), (no, false), (yes, true)] {
        for word in words {
            let answer = client
                .put("/todos/1", format!(r#"{{"completed": {word}}}"#))
                .await;
            assert_eq!(answer.json()["completed"], state, "{word}");
        }
    }
}

async fn an_invalid_state_is_refused(store: Store) {
    let client = Client::new(&store);
    for word in [
        "null",
        "2",
        "-1",
        "1.5",
        "1e300",
        r#""maybe""#,
        r#""""#,
        "[]",
        "{}",
        "[true]",
    ] {
        let answer = client
            .put("/todos/1", format!(r#"{{"completed": {word}}}"#))
            .await;
        assert_eq!(
            answer.faults(),
            [r#"bool_parsing ["body","completed"]"#],
            "{word}"
        );
    }
    // In the earlier system this made the whole list unreadable.
    assert_eq!(client.get("/todos/").await.json()[0]["completed"], false);
}

async fn a_refused_change_changes_nothing(store: Store) {
    let client = Client::new(&store);
    let before = client.get("/todos/1").await;
    for body in [
        "",
        "null",
        "[]",
        r#"{"text": "", "completed": true}"#,
        r#"{"text": null, "completed": true}"#,
        r#"{"text": "new", "completed": null}"#,
        &json!({"text": "a".repeat(141), "completed": true}).to_string(),
    ] {
        let body = body.to_owned();
        assert_eq!(
            client.put("/todos/1", body.clone()).await.status,
            422,
            "{body}"
        );
        // The body is checked before the todo is looked up.
        assert_eq!(
            client.put("/todos/999", body.clone()).await.status,
            422,
            "{body}"
        );
    }
    let after = client.get("/todos/1").await;
    assert_eq!(after.body, before.body);
    assert_eq!(after.header("etag"), before.header("etag"));
}

async fn all_faults_of_a_body_are_reported_at_once(store: Store) {
    let client = Client::new(&store);
    let answer = client
        .put("/todos/1", r#"{"text": null, "completed": "maybe"}"#)
        .await;
    insta::allow_duplicates!(insta::assert_json_snapshot!(answer.json(), @r#"
    {
      "detail": [
        {
          "loc": [
            "body",
            "text"
          ],
          "msg": "Input should be a valid string",
          "type": "string_type"
        },
        {
          "loc": [
            "body",
            "completed"
          ],
          "msg": "Input should be a valid boolean",
          "type": "bool_parsing"
        }
      ]
    }
    "#));
}

async fn a_refusal_never_echoes_the_input(store: Store) {
    const MARK: &str = "hunter2";
    let client = Client::new(&store);
    for body in [
        json!({"text": MARK.repeat(100)}),
        json!({"text": [MARK]}),
        json!({"text": format!("{MARK}\0")}),
        json!({"completed": MARK, "text": {"a": MARK}}),
        json!([MARK]),
        Value::from(MARK),
    ] {
        for body in [body.to_string(), format!("{body}{MARK}")] {
            for answer in [
                client.post(body.clone()).await,
                client.put("/todos/1", body.clone()).await,
            ] {
                assert_eq!(answer.status, 422, "{answer:?}");
                assert!(!answer.text().contains(MARK), "{answer:?}");
            }
        }
    }
    for path in [
        "/todos/hunter2",
        "/todos/?limit=hunter2",
        "/todos/?cursor=hunter2",
    ] {
        let answer = client.get(path).await;
        assert_eq!(answer.status, 422, "{answer:?}");
        assert!(!answer.text().contains(MARK), "{answer:?}");
    }
}
