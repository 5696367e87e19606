//! How events are rendered for the webhook.

use std::sync::Arc;
use std::time::Duration;

use todo_domain::{Environment, EventKind, Todo};
use url::Url;

use crate::queue::Event;

/// The pace that Slack asks for: "Incoming webhooks, 1 per second".
const PACE: Duration = Duration::from_secs(1);

/// The size limit of a post, in characters. Slack truncates a text at 40 000.
const ROOM: usize = 30_000;

/// How events are rendered.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Format {
    /// A line for people; several changes share a post, one post a second.
    #[default]
    Readable,
    /// The todo as JSON, one post per event, as fast as they are accepted.
    Json,
}

impl std::str::FromStr for Format {
    type Err = UnknownFormat;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        match name {
            "readable" => Ok(Self::Readable),
            "json" => Ok(Self::Json),
            _ => Err(UnknownFormat),
        }
    }
}

/// No [`Format`] has this name.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("should be readable or json")]
pub struct UnknownFormat;

/// Writes the messages of one environment.
#[derive(Clone, Debug)]
pub struct Messages {
    environment: Environment,
    format: Format,
    link: Option<String>,
}

impl Messages {
    /// Messages of `environment`, with a link to its list at `public_url`.
    #[must_use]
    pub fn new(environment: Environment, format: Format, public_url: Option<&Url>) -> Self {
        // `|` would end the address within `<address|text>`.
        let address = |url: &Url| escape(&url.as_str().replace('|', "%7C"));
        Self {
            environment,
            format,
            link: public_url.map(|url| format!(" · <{}|open the list>", address(url))),
        }
    }

    /// The shortest time between the starts of two posts.
    pub(crate) fn pace(&self) -> Duration {
        match self.format {
            Format::Readable => PACE,
            Format::Json => Duration::ZERO,
        }
    }

    /// The size limit of a post with several events; `None` allows only one.
    pub(crate) fn merge(&self) -> Option<usize> {
        (self.format == Format::Readable).then_some(ROOM)
    }

    /// How much of that limit `event` uses up.
    pub(crate) fn size<R>(&self, event: &Event<R>) -> usize {
        match self.format {
            Format::Readable => line(event).chars().count() + 1,
            Format::Json => 0,
        }
    }

    /// The text of a post with `events`, in Slack's notation: `&`, `<` and `>`
    /// are escaped, so that no todo can mention or link anything.
    #[must_use]
    pub fn text<R>(&self, events: &[Arc<Event<R>>]) -> String {
        if self.format == Format::Json {
            return events.iter().map(|event| json(event)).collect();
        }
        let Self {
            environment, link, ..
        } = self;
        let link = link.as_deref().unwrap_or_default();
        if let [event] = events {
            return format!("{} · {environment}{link}", line(event));
        }
        let mut text = format!("{} changes · {environment}{link}", events.len());
        for event in events {
            text.push('\n');
            text.push_str(&line(event));
        }
        text
    }
}

/// The message of the reference implementation.
fn json<R>(event: &Event<R>) -> String {
    let data = String::from_utf8_lossy(&event.payload);
    escape(&format!("Todo event on {}:\n{data}", event.subject))
}

/// One line about `event`. An update shows the new state, not the old one. The
/// author stands before the text, where no todo can imitate it.
fn line<R>(event: &Event<R>) -> String {
    let Ok(Todo {
        text, completed, ..
    }) = &event.todo
    else {
        return String::new();
    };
    let what = match event.kind() {
        Some(EventKind::Created) => "🆕 Added",
        Some(EventKind::Updated) if *completed => "✅ Done",
        Some(EventKind::Updated) | None => "✏️ To do",
        Some(EventKind::Deleted) => "🗑️ Deleted",
    };
    let author = event.author.as_deref().map_or_else(String::new, |author| {
        format!(" ({})", escape(&one_line(author)))
    });
    format!("{what}{author}: {}", escape(&one_line(text.as_str())))
}

/// `text` in one line, and without what would reorder its surroundings.
fn one_line(text: &str) -> String {
    let words: Vec<_> = text
        .split(|c: char| c.is_whitespace() || c.is_control())
        .filter(|word| !word.is_empty())
        .collect();
    isolated(&words.join(" "))
}

/// `text` without bidi controls that would reorder its surroundings.
/// Right-to-left text is enclosed in isolates, which keep its direction to
/// itself (Unicode Standard Annex #9, section 2.4).
fn isolated(text: &str) -> String {
    let is_mark = |c: &char| matches!(c, '\u{202A}'..='\u{202E}' | '\u{2066}'..='\u{2069}');
    let text: String = text.chars().filter(|c| !is_mark(c)).collect();
    if text.chars().any(runs_right_to_left) {
        format!("\u{2068}{text}\u{2069}")
    } else {
        text
    }
}

/// Whether `c` is in a block whose characters run from right to left unless
/// they are assigned otherwise (`DerivedBidiClass.txt`, `@missing`).
fn runs_right_to_left(c: char) -> bool {
    matches!(c,
        '\u{0590}'..='\u{08FF}' | '\u{200F}' | '\u{FB1D}'..='\u{FDFF}' | '\u{FE70}'..='\u{FEFF}'
        | '\u{10800}'..='\u{10FFF}' | '\u{1E800}'..='\u{1EFFF}')
}

/// Escapes the three characters that are markup to Slack
/// (<https://docs.slack.dev/messaging/formatting-message-text#escaping>).
fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}

/// A part of a text, as Slack shows it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Piece {
    /// Plain text.
    Text(String),
    /// A link.
    Link {
        /// Its target.
        url: String,
        /// Its label.
        text: String,
    },
}

/// Splits `text`, in Slack's notation, into the pieces that Slack shows.
#[must_use]
pub fn pieces(text: &str) -> Vec<Piece> {
    let mut pieces = Vec::new();
    let mut rest = text;
    while let Some((before, (url, text), after)) = split_link(rest) {
        pieces.push(Piece::Text(unescape(before)));
        pieces.push(Piece::Link {
            url: unescape(url),
            text: unescape(text),
        });
        rest = after;
    }
    pieces.push(Piece::Text(unescape(rest)));
    pieces
}

/// Splits at the first `<url|text>`.
fn split_link(text: &str) -> Option<(&str, (&str, &str), &str)> {
    let (before, rest) = text.split_once('<')?;
    let (link, after) = rest.split_once('>')?;
    Some((before, link.split_once('|')?, after))
}

fn unescape(text: &str) -> String {
    text.replace("&lt;", "<")
        .replace("&gt;", ">")
        .replace("&amp;", "&")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use time::OffsetDateTime;
    use todo_domain::TodoText;

    use super::*;

    fn event(kind: &str, text: &str, completed: bool) -> Arc<Event<()>> {
        let todo = Todo {
            id: todo_domain::TodoId(7),
            text: TodoText::new(text).unwrap(),
            completed,
            created_at: OffsetDateTime::UNIX_EPOCH,
        };
        Arc::new(Event::new(
            "id".into(),
            1,
            format!("staging.todos.{kind}"),
            serde_json::to_vec(&todo).unwrap().into(),
            OffsetDateTime::UNIX_EPOCH,
            (),
        ))
    }

    fn messages(format: Format, url: Option<&str>) -> Messages {
        let url = url.map(|url| Url::parse(url).unwrap());
        Messages::new("staging".parse().unwrap(), format, url.as_ref())
    }

    #[test]
    fn one_event_is_one_line_with_the_environment_and_the_link() {
        let readable = messages(Format::Readable, Some("https://todo.example/staging/"));
        let text = |kind, completed| readable.text(&[event(kind, "Water the plants", completed)]);
        let tail = "Water the plants · staging · <https://todo.example/staging/|open the list>";
        assert_eq!(text("created", false), format!("🆕 Added: {tail}"));
        assert_eq!(text("updated", true), format!("✅ Done: {tail}"));
        assert_eq!(text("updated", false), format!("✏️ To do: {tail}"));
        assert_eq!(text("deleted", true), format!("🗑️ Deleted: {tail}"));
    }

    #[test]
    fn the_pieces_of_a_message_are_what_slack_shows() {
        let readable = messages(Format::Readable, Some("https://todo.example/?a=1&b=2"));
        let text = readable.text(&[event("created", "a < b & c", false)]);
        let link = Piece::Link {
            url: "https://todo.example/?a=1&b=2".to_owned(),
            text: "open the list".to_owned(),
        };
        assert_eq!(
            pieces(&text),
            [
                Piece::Text("🆕 Added: a < b & c · staging · ".to_owned()),
                link,
                Piece::Text(String::new())
            ]
        );
    }

    #[test]
    fn several_events_share_a_post_with_a_line_each() {
        let events = [
            event("created", "one", false),
            event("deleted", "two", true),
        ];
        assert_eq!(
            messages(Format::Readable, None).text(&events),
            "2 changes · staging\n🆕 Added: one\n🗑️ Deleted: two"
        );
    }

    #[test]
    fn a_known_author_is_named_before_the_text() {
        let mut event = event("deleted", "(bob): Water the plants", true);
        Arc::get_mut(&mut event).unwrap().author = Some("<ada>\n@example.org".to_owned());
        assert_eq!(
            messages(Format::Readable, None).text(&[event]),
            "🗑️ Deleted (&lt;ada&gt; @example.org): (bob): Water the plants · staging"
        );
    }

    #[test]
    fn json_is_the_subject_and_the_payload() {
        assert_eq!(
            messages(Format::Json, None).text(&[event("created", "<b>", false)]),
            "Todo event on staging.todos.created:\n\
             {\"id\":7,\"text\":\"&lt;b&gt;\",\"completed\":false,\"created_at\":\"1970-01-01T00:00:00Z\"}"
        );
    }

    #[test]
    fn the_text_of_a_todo_does_not_reorder_its_surroundings() {
        let readable = messages(Format::Readable, None);
        let text = |text| readable.text(&[event("created", text, false)]);
        assert_eq!(text("שלום"), "🆕 Added: \u{2068}שלום\u{2069} · staging");
        assert_eq!(
            text("\u{2069}\u{202E}gnikcab Café"),
            "🆕 Added: gnikcab Café · staging"
        );
    }

    #[test]
    fn the_text_of_a_todo_cannot_mention_anyone() {
        let text =
            messages(Format::Readable, None).text(&[event("created", "<!channel> & <b>", false)]);
        assert_eq!(text, "🆕 Added: &lt;!channel&gt; &amp; &lt;b&gt; · staging");
    }

    proptest! {
        #[test]
        fn every_text_is_one_line_within_the_size_limit(text in "\\PC{1,140}") {
            if TodoText::new(text.as_str()).is_ok() {
                for format in [Format::Readable, Format::Json] {
                    let messages = messages(format, None);
                    let event = event("updated", &text, false);
                    let post = messages.text(std::slice::from_ref(&event));
                    prop_assert!(!post.contains(['<', '>']));
                    if format == Format::Readable {
                        prop_assert_eq!(post.lines().count(), 1);
                        prop_assert_eq!(pieces(&post), [Piece::Text(unescape(&post))]);
                        prop_assert!(messages.size(&event) <= ROOM);
                    }
                }
            }
        }
    }
}
