//! What arrives from the broker, where others may have published as well.

use std::sync::Arc;

use broadcaster::message::{Format, Messages, Piece, pieces};
use broadcaster::queue::Event;
use time::OffsetDateTime;
use url::Url;

/// A subject on the first line, a payload after it: what the webhook shows.
pub fn event(data: &[u8]) {
    let mut parts = data.splitn(2, |byte| *byte == b'\n');
    let subject = String::from_utf8_lossy(parts.next().unwrap_or_default()).into_owned();
    let payload = parts.next().unwrap_or_default().to_vec();
    let event = Arc::new(Event::new(
        "id".into(),
        1,
        subject,
        payload.into(),
        OffsetDateTime::UNIX_EPOCH,
        (),
    ));
    let _ = event.kind();
    let public = Url::parse("https://todo.example/?a=1&b=%7C").unwrap();
    let messages = |format, url| Messages::new("staging".parse().unwrap(), format, url);
    let one = std::slice::from_ref(&event);

    let json = messages(Format::Json, None).text(one);
    assert!(!json.contains(['<', '>']), "{json:?}");

    let readable = messages(Format::Readable, None);
    let line = readable.text(one);
    assert!(!line.contains(['<', '>']), "{line:?}");
    assert!(!line.contains(char::is_control), "{line:?}");
    assert!(matches!(&pieces(&line)[..], [Piece::Text(_)]));
    let several = readable.text(&[event.clone(), event.clone()]);
    assert_eq!(several.split('\n').count(), 3, "{several:?}");

    let linked = messages(Format::Readable, Some(&public)).text(one);
    let links = pieces(&linked)
        .into_iter()
        .filter(|piece| matches!(piece, Piece::Link { url, .. } if *url == public.as_str()));
    assert_eq!(links.count(), 1, "{linked:?}");
    assert_eq!(linked.matches(['<', '>']).count(), 2, "{linked:?}");
}
