//! Log lines for machines: one JSON object a line, with the level, the target,
//! the time, the fields of the event and those of the spans around it.
//!
//! A request writes a line, so a line is written straight into its bytes,
//! without a map of values before.

use std::cell::Cell;
use std::fmt;
use std::io::Write;

use serde::Serialize;
use time::OffsetDateTime;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::Context;
use tracing_subscriber::registry::LookupSpan;

/// A longer line gives its memory back.
const KEPT_LINE: usize = 4096;

/// Writes a line for each event.
pub(crate) struct JsonLines<W> {
    writer: W,
}

impl<W> JsonLines<W> {
    pub(crate) fn new(writer: W) -> Self {
        Self { writer }
    }
}

/// The fields of a span: names, and values as JSON.
#[derive(Default)]
struct SpanFields(Vec<(&'static str, Vec<u8>)>);

impl<S, W> Layer<S> for JsonLines<W>
where
    S: Subscriber + for<'span> LookupSpan<'span>,
    W: for<'writer> MakeWriter<'writer> + 'static,
{
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let Some(span) = context.span(id) else { return };
        let mut fields = SpanFields::default();
        attributes.record(&mut fields);
        span.extensions_mut().insert(fields);
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, context: Context<'_, S>) {
        let Some(span) = context.span(id) else { return };
        if let Some(fields) = span.extensions_mut().get_mut::<SpanFields>() {
            values.record(fields);
        }
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        thread_local! {
            static BUFFER: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
        }
        // Taken, not borrowed: the `Debug` of a value may log itself.
        let mut line = Line::begin(BUFFER.take());
        let metadata = event.metadata();
        line.member("timestamp", &Timestamp(OffsetDateTime::now_utc()));
        line.member("level", metadata.level().as_str());
        line.member("target", metadata.target());
        event.record(&mut line);
        if let Some(scope) = context.event_scope(event) {
            for span in scope {
                if let Some(SpanFields(fields)) = span.extensions().get() {
                    for (name, value) in fields {
                        line.raw_member(name, value);
                    }
                }
            }
        }
        let mut bytes = line.end();
        // A log that cannot be written is nothing that could be logged.
        let _ = self.writer.make_writer_for(metadata).write_all(&bytes);
        if bytes.capacity() <= KEPT_LINE {
            bytes.clear();
            BUFFER.set(bytes);
        }
    }
}

/// The object that a line is. A name that comes again is left out: what is
/// nearer to the event came first.
struct Line {
    bytes: Vec<u8>,
    names: Vec<&'static str>,
}

impl Line {
    fn begin(mut bytes: Vec<u8>) -> Self {
        bytes.push(b'{');
        let names = Vec::with_capacity(16);
        Self { bytes, names }
    }

    /// Whether `name` is new, and then its place in the object.
    fn name(&mut self, name: &'static str) -> bool {
        // A field that is called like a keyword of Rust.
        let name = name.strip_prefix("r#").unwrap_or(name);
        if self.names.contains(&name) {
            return false;
        }
        if !self.names.is_empty() {
            self.bytes.push(b',');
        }
        self.names.push(name);
        write_json(&mut self.bytes, name);
        self.bytes.push(b':');
        true
    }

    fn member<T: Serialize + ?Sized>(&mut self, name: &'static str, value: &T) {
        if self.name(name) {
            write_json(&mut self.bytes, value);
        }
    }

    fn raw_member(&mut self, name: &'static str, value: &[u8]) {
        if self.name(name) {
            self.bytes.extend_from_slice(value);
        }
    }

    fn end(mut self) -> Vec<u8> {
        self.bytes.extend_from_slice(b"}\n");
        self.bytes
    }
}

/// Strings, numbers and truth values go into memory without an error.
fn write_json<T: Serialize + ?Sized>(bytes: &mut Vec<u8>, value: &T) {
    let _ = serde_json::to_writer(bytes, value);
}

/// Takes fields with their values.
trait Fields {
    fn take<T: Serialize + ?Sized>(&mut self, name: &'static str, value: &T);
}

impl Fields for Line {
    fn take<T: Serialize + ?Sized>(&mut self, name: &'static str, value: &T) {
        self.member(name, value);
    }
}

impl Fields for SpanFields {
    fn take<T: Serialize + ?Sized>(&mut self, name: &'static str, value: &T) {
        let mut json = Vec::new();
        write_json(&mut json, value);
        match self.0.iter_mut().find(|(known, _)| *known == name) {
            Some((_, value)) => *value = json,
            None => self.0.push((name, json)),
        }
    }
}

macro_rules! visit {
    ($($fields:ty),+) => {$(
        impl Visit for $fields {
            fn record_f64(&mut self, field: &Field, value: f64) {
                self.take(field.name(), &value);
            }

            fn record_i64(&mut self, field: &Field, value: i64) {
                self.take(field.name(), &value);
            }

            fn record_u64(&mut self, field: &Field, value: u64) {
                self.take(field.name(), &value);
            }

            fn record_bool(&mut self, field: &Field, value: bool) {
                self.take(field.name(), &value);
            }

            fn record_str(&mut self, field: &Field, value: &str) {
                self.take(field.name(), value);
            }

            fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
                self.take(field.name(), &format_args!("{value:?}"));
            }
        }
    )+};
}

visit!(Line, SpanFields);

/// An instant as RFC 3339 has it, always with six digits after the second.
struct Timestamp(OffsetDateTime);

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(at) = self;
        write!(
            f,
            "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}.{:06}Z",
            at.year(),
            u8::from(at.month()),
            at.day(),
            at.hour(),
            at.minute(),
            at.second(),
            at.microsecond()
        )
    }
}

impl Serialize for Timestamp {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::{Arc, Mutex};

    use proptest::prelude::*;
    use serde_json::{Value, json};
    use tracing::{info, info_span, warn};
    use tracing_subscriber::layer::SubscriberExt;

    use super::*;

    /// What `log` writes, without the time.
    fn lines(log: impl FnOnce()) -> Vec<Value> {
        let written = Arc::new(Mutex::new(Vec::new()));
        let subscriber =
            tracing_subscriber::registry().with(JsonLines::new(Shared(written.clone())));
        tracing::subscriber::with_default(subscriber, log);
        let written = String::from_utf8(written.lock().unwrap().clone()).unwrap();
        written
            .lines()
            .map(|line| {
                let mut line: Value = serde_json::from_str(line).unwrap();
                let at = line.as_object_mut().unwrap().remove("timestamp").unwrap();
                let at = at.as_str().unwrap();
                assert_eq!(at.len(), "2026-11-26T23:15:03.123456Z".len(), "{at}");
                OffsetDateTime::parse(at, &time::format_description::well_known::Rfc3339).unwrap();
                line
            })
            .collect()
    }

    #[derive(Clone)]
    struct Shared(Arc<Mutex<Vec<u8>>>);

    impl Write for Shared {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl MakeWriter<'_> for Shared {
        type Writer = Self;

        fn make_writer(&self) -> Self {
            self.clone()
        }
    }

    #[test]
    fn a_line_has_the_fields_of_the_event_and_of_its_spans() {
        let lines = lines(|| {
            let outer = info_span!(
                "outer",
                trace_id = "t",
                depth = 1,
                late = tracing::field::Empty
            );
            outer.record("late", "now");
            let _outer = outer.enter();
            let _inner = info_span!("inner", depth = 2, failed = true).entered();
            warn!(status = 200_u16, ratio = 0.5, odd = f64::NAN, cause = ?Some("x"), "request");
        });
        let expected = json!({
            "level": "WARN",
            "target": module_path!(),
            "message": "request",
            "status": 200,
            "ratio": 0.5,
            "odd": null,
            "cause": "Some(\"x\")",
            "depth": 2,
            "failed": true,
            "trace_id": "t",
            "late": "now",
        });
        assert_eq!(lines, [expected]);
    }

    #[test]
    fn a_value_that_logs_while_it_is_written_gets_a_line_of_its_own() {
        struct Talks;
        impl fmt::Debug for Talks {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                info!("within");
                f.write_str("done")
            }
        }
        let lines = lines(|| info!(value = ?Talks, "around"));
        let messages: Vec<_> = lines.iter().map(|line| &line["message"]).collect();
        // A subscriber gets no event while it is at one.
        assert_eq!(messages.last().unwrap(), &"around");
        assert_eq!(lines.last().unwrap()["value"], "done");
    }

    proptest! {
        #[test]
        fn any_text_stays_one_line(text in any::<String>()) {
            let lines = lines(|| info!(text, shown = ?text, "request"));
            prop_assert_eq!(lines.len(), 1);
            prop_assert_eq!(&lines[0]["text"], &text);
            prop_assert_eq!(&lines[0]["shown"], &format!("{text:?}"));
        }
    }
}
