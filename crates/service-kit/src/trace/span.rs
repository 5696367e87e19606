//! A span, recorded or not.

use std::borrow::Cow;

use super::recorder::Recorded;
use super::{Exemplar, TraceParent, names};

/// What a span says of its two ends.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Kind {
    /// A request that this process answers.
    Server,
    /// A call that this process makes, and waits for.
    Client,
    /// A message that this process sends.
    Producer,
    /// A message that this process works on.
    Consumer,
}

/// The value of an attribute.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Value {
    /// A text.
    Text(Cow<'static, str>),
    /// A number.
    Number(i64),
}

impl From<&'static str> for Value {
    fn from(text: &'static str) -> Self {
        Self::Text(text.into())
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::Text(text.into())
    }
}

impl From<u16> for Value {
    fn from(number: u16) -> Self {
        Self::Number(number.into())
    }
}

impl From<u32> for Value {
    fn from(number: u32) -> Self {
        Self::Number(number.into())
    }
}

/// A part of a trace, from its start until it is dropped. Where nothing is
/// exported, and where the sampler says so, it records nothing and costs next
/// to nothing.
#[derive(Debug)]
pub struct Span {
    context: Option<TraceParent>,
    recorded: Option<Recorded>,
}

impl Span {
    /// Starts a span under `parent`, or a trace where there is none.
    pub fn start(
        kind: Kind,
        name: impl Into<Cow<'static, str>>,
        parent: Option<TraceParent>,
    ) -> Self {
        match Recorded::start(kind, name, parent) {
            Some(recorded) => Self {
                context: Some(recorded.context()),
                recorded: recorded.is_sampled().then_some(recorded),
            },
            None => Self {
                context: parent,
                recorded: None,
            },
        }
    }

    /// Where what follows from this span stands in the trace: what is to be
    /// passed on. Without an exporter it is the parent.
    #[must_use]
    pub fn context(&self) -> Option<TraceParent> {
        self.context
    }

    /// What leads from a metric to it; `None` where it is not recorded.
    #[must_use]
    pub fn exemplar(&self) -> Option<Exemplar> {
        self.context
            .filter(|_| self.is_recorded())
            .map(Exemplar::of)
    }

    /// Whether attributes are of any use.
    #[must_use]
    pub fn is_recorded(&self) -> bool {
        self.recorded.is_some()
    }

    /// Sets an attribute, one of [`names`].
    pub fn set(&mut self, name: &'static str, value: impl Into<Value>) {
        if let Some(recorded) = &mut self.recorded {
            recorded.set(name, value.into());
        }
    }

    /// Says that the span has to do with `other`, which is not its parent.
    pub fn link(&mut self, other: TraceParent) {
        if let Some(recorded) = &mut self.recorded {
            recorded.link(other);
        }
    }

    /// Says that what the span is about failed: `error.type`, of which there
    /// are few.
    pub fn fail(&mut self, error: impl Into<Value>) {
        if let Some(recorded) = &mut self.recorded {
            recorded.set(names::ERROR_TYPE, error.into());
            recorded.fail();
        }
    }
}

tokio::task_local! {
    static CURRENT: Option<TraceParent>;
}

/// Runs `work` as a part of the span with this context, for those who ask for
/// it by [`current`].
pub async fn within<F: Future>(context: Option<TraceParent>, work: F) -> F::Output {
    CURRENT.scope(context, work).await
}

/// The context of the span that this task works for, where there is one.
#[must_use]
pub fn current() -> Option<TraceParent> {
    CURRENT.try_with(|context| *context).ok().flatten()
}
