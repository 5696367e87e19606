//! Single values: texts, ids, cursors, names, pictures.

use std::str::from_utf8;

use service_kit::TraceParent;
use service_kit::config::PublicPrefix;
use service_kit::http::AllowedHosts;
use todo_app::ImageType;
use todo_backend::store::Cursor;
use todo_domain::{
    Environment, EventKind, InvalidText, MAX_TEXT_CODE_POINTS, SearchTerm, TodoId, TodoText,
};
use url::Url;

/// The text of a todo, and a search for it.
pub fn text(data: &[u8]) {
    let Ok(text) = from_utf8(data) else { return };
    let kept = match TodoText::new(text) {
        Ok(kept) => kept,
        Err(InvalidText::Empty) => {
            // Some letters are blank, such as U+3164.
            assert!(!text.contains(|c: char| c.is_ascii_graphic()));
            return;
        }
        Err(InvalidText::Nul) => return assert!(text.contains('\0')),
        Err(InvalidText::TooLong) => {
            return assert!(text.chars().count() > MAX_TEXT_CODE_POINTS);
        }
    };
    assert!((1..=MAX_TEXT_CODE_POINTS).contains(&kept.as_str().chars().count()));
    assert!(
        !kept
            .as_str()
            .contains(['\n', '\r', '\u{85}', '\u{2028}', '\0'])
    );
    assert_eq!(TodoText::new(kept.as_str()), Ok(kept.clone()));
    let json = serde_json::to_string(&kept).unwrap();
    assert_eq!(serde_json::from_str::<TodoText>(&json).unwrap(), kept);
    if let Some(term) = SearchTerm::new(text).unwrap() {
        assert!(term.is_in(kept.as_str(), &mut String::new()));
        let same = SearchTerm::new(term.as_str()).unwrap().unwrap();
        assert_eq!(same, term);
    }
}

/// Ids and names that are parts of paths, subjects and headers.
pub fn id(data: &[u8]) {
    let Ok(text) = from_utf8(data) else { return };
    if let Ok(id) = text.parse::<TodoId>() {
        assert_eq!(id.to_string().parse(), Ok(id));
    }
    if let Ok(kind) = text.parse::<EventKind>() {
        assert_eq!(kind.as_str(), text);
    }
    if let Ok(environment) = text.parse::<Environment>() {
        assert_eq!(environment.as_str(), text);
        assert_eq!(environment.todo_subjects().split('.').count(), 3);
        assert!(!environment.title().is_empty());
        TodoText::new(environment.first_todo()).unwrap();
    }
    if let Ok(trace) = text.parse::<TraceParent>() {
        assert_eq!(trace.to_string().parse(), Ok(trace));
        assert_eq!(trace.trace_id().len(), 32);
        assert!(text.contains(&trace.trace_id()));
    }
}

/// The place in a list where a part of it starts.
pub fn cursor(data: &[u8]) {
    let Ok(text) = from_utf8(data) else { return };
    if let Ok(cursor) = text.parse::<Cursor>() {
        assert!(text.len() <= 42);
        let canonical = cursor.to_string();
        assert!(canonical.len() <= 42);
        assert_eq!(canonical.parse(), Ok(cursor));
    }
}

/// The prefix that a proxy says, which is written into every page.
pub fn prefix(data: &[u8]) {
    let Ok(text) = from_utf8(data) else { return };
    let Ok(prefix) = text.parse::<PublicPrefix>() else {
        return;
    };
    let prefix = prefix.as_str();
    assert!(prefix.len() <= 128 && !prefix.ends_with('/'));
    // What a browser makes of a link or a redirect with it.
    let page = Url::parse("http://todo.example/").unwrap();
    let link = page.join(&format!("{prefix}/todos/1")).unwrap();
    assert_eq!(
        link.as_str(),
        format!("http://todo.example{prefix}/todos/1")
    );
}

/// The name in a request, where only some are answered.
pub fn host(data: &[u8]) {
    let Ok(text) = from_utf8(data) else { return };
    let ours: AllowedHosts = "localhost,127.0.0.1,[::1]".parse().unwrap();
    if ours.allow(text)
        && let Ok(url) = Url::parse(&format!("http://{text}/"))
    {
        // A browser that sends this name has come to us, and to nobody else.
        let host = url.host_str().unwrap();
        let is_ours = [
            "localhost",
            "localhost.",
            "127.0.0.1",
            "[::1]",
            "[::ffff:7f00:1]",
        ];
        assert!(is_ours.contains(&host), "{host}");
        assert_eq!((url.username(), url.password()), ("", None));
    }
    if let Ok(list) = text.parse::<AllowedHosts>() {
        assert_eq!(list.to_string().parse::<AllowedHosts>().unwrap(), list);
    }
}

/// The first bytes of a picture from a server that nobody vouches for.
pub fn picture(data: &[u8]) {
    if ImageType::of(data).is_ok() {
        // Nothing that a browser could take for a page or a script.
        assert!(!data.starts_with(b"<") && !data.starts_with(b"%"));
        let first = data.iter().find(|byte| !byte.is_ascii_whitespace());
        assert_ne!(first, Some(&b'<'));
    }
}
