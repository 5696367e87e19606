//! What is left of traces in a program without the feature `otel`.

use std::borrow::Cow;
use std::convert::Infallible;

use prometheus_client::registry::Registry;
use tokio::runtime::Handle;

use super::{Kind, TraceParent, Value};
use crate::config::RuntimeConfig;

/// There is none.
#[derive(Debug)]
pub(super) enum Recorded {}

impl Recorded {
    pub(super) fn start(
        _: Kind,
        _: impl Into<Cow<'static, str>>,
        _: Option<TraceParent>,
    ) -> Option<Self> {
        None
    }

    pub(super) fn context(&self) -> TraceParent {
        match *self {}
    }

    pub(super) fn is_sampled(&self) -> bool {
        match *self {}
    }

    pub(super) fn set(&mut self, _: &'static str, _: Value) {
        match *self {}
    }

    pub(super) fn link(&mut self, _: TraceParent) {
        match *self {}
    }

    pub(super) fn fail(&mut self) {
        match *self {}
    }
}

/// Whether spans are exported, which this program cannot do.
#[must_use]
pub fn is_exporting() -> bool {
    false
}

#[expect(clippy::unnecessary_wraps, reason = "as with the feature")]
pub(crate) fn start(
    _: &'static str,
    _: &RuntimeConfig,
    _: &Handle,
) -> Result<Option<Infallible>, Infallible> {
    Ok(None)
}

pub(crate) fn register(_: &mut Registry) {}
