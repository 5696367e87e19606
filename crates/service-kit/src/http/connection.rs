//! One connection: what it waits for, since when, and how much memory it holds.
//!
//! The socket and the bodies record in a [`Watch`] when the server starts and
//! stops waiting for the client. This distinguishes a client that keeps the
//! server waiting from a request in progress, so that the server can close the
//! former when it exceeds its time or others need its memory.

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use axum::body::Body;
use bytes::Bytes;
use hyper::body::{Frame, Incoming, SizeHint};
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use super::budget::{Counted, Held};

/// Deadline for the head of a request, counted from its first byte or, for the
/// first request, from the start of the connection.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a connection may be idle. Traefik closes idle connections after
/// 90 s, so the proxy closes first and never sends a request into a connection
/// that is being closed.
const IDLE_TIMEOUT: Duration = Duration::from_mins(2);

/// Total time that the server waits for a client within a body or a response
/// before the client must reach the rate [`SLOWEST`].
const PROGRESS_TIMEOUT: Duration = Duration::from_secs(20);

/// Minimum rate, in bytes per second, for a response that does not fit into the
/// buffers on its way. A modem is fast enough.
const SLOWEST: u64 = 8 * 1024;

/// Minimum rate, in bytes per second, at which a client is not the first to be
/// disconnected under memory pressure.
const UNNOTICED: u64 = 32 * 1024;

/// What the server waits for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[repr(u8)]
pub(super) enum Awaited {
    /// Nothing yet: the connection was accepted but not read.
    Start,
    /// The head of the first request.
    FirstHead,
    /// The first byte of another request.
    Request,
    /// The rest of its head.
    Head,
    /// More of its body.
    Body,
    /// The client, to read more of the response.
    Reader,
    /// Nothing from the client: a handler, or the next event.
    Us,
}

impl Awaited {
    /// How long.
    fn limit(self) -> Option<Duration> {
        match self {
            Self::FirstHead | Self::Head => Some(HEAD_TIMEOUT),
            Self::Request => Some(IDLE_TIMEOUT),
            Self::Body | Self::Reader => Some(PROGRESS_TIMEOUT),
            Self::Start | Self::Us => None,
        }
    }

    /// Whether the client causes the wait.
    pub(super) fn is_client(self) -> bool {
        !matches!(self, Self::Start | Self::Us)
    }

    /// Whether no request has arrived so far.
    pub(super) fn is_new(self) -> bool {
        matches!(self, Self::Start | Self::FirstHead)
    }

    /// Whether the client is in the middle of a body or a response.
    pub(super) fn is_transfer(self) -> bool {
        matches!(self, Self::Body | Self::Reader)
    }
}

/// The state of a connection. All but the held memory is stored in single words,
/// as it changes several times per request.
#[derive(Debug)]
pub(super) struct Watch {
    opened: Instant,
    /// An [`Awaited`] in the last three bits, and since when before that, in
    /// milliseconds after `opened`.
    state: AtomicU64,
    /// How long the server waited for this body or response before the current
    /// wait, in milliseconds.
    waited: AtomicU64,
    /// Bytes of it that were transferred since the first wait.
    moved: AtomicU64,
    /// The response is complete except for what is still to be written.
    answered: AtomicBool,
    /// Whether `held` is set.
    holds: AtomicBool,
    /// The response's share of the budget, until it is written.
    held: Mutex<Option<Held>>,
    /// The event streams of this server; counted here once this is one.
    streams: Arc<AtomicUsize>,
    is_stream: AtomicBool,
    /// The connection closes with its next response.
    leaves: AtomicBool,
    _counted: Counted,
}

impl Watch {
    pub(super) fn new(streams: Arc<AtomicUsize>, counted: Counted) -> Self {
        Self {
            opened: Instant::now(),
            state: AtomicU64::new(Awaited::Start as u64),
            waited: AtomicU64::new(0),
            moved: AtomicU64::new(0),
            answered: AtomicBool::new(false),
            holds: AtomicBool::new(false),
            held: Mutex::new(None),
            streams,
            is_stream: AtomicBool::new(false),
            leaves: AtomicBool::new(false),
            _counted: counted,
        }
    }

    /// What is awaited, and for how long it has been. In the middle of a body
    /// or an answer it is as if all the waiting for it had been in one piece,
    /// less what a client that nobody notices would have taken: a byte now and
    /// then does not start the clock anew.
    pub(super) fn awaited(&self) -> (Awaited, Duration) {
        let (awaited, waited) = self.present_wait();
        (awaited, waited.max(self.behind(UNNOTICED)))
    }

    /// Whether the client has kept the server waiting too long.
    pub(super) fn is_overdue(&self) -> bool {
        let (awaited, waited) = self.present_wait();
        let waited = waited.max(self.behind(SLOWEST));
        awaited.limit().is_some_and(|limit| waited > limit)
    }

    fn present_wait(&self) -> (Awaited, Duration) {
        let state = self.state.load(Ordering::Relaxed);
        let since = Duration::from_millis(state >> 3);
        (awaited(state), self.opened.elapsed().saturating_sub(since))
    }

    /// How much longer the server has waited for this body or response than a
    /// client with `rate` bytes per second would take. An event stream has no
    /// rate.
    fn behind(&self, rate: u64) -> Duration {
        let (awaited, waited) = self.present_wait();
        if !awaited.is_transfer() || self.is_stream.load(Ordering::Relaxed) {
            return Duration::ZERO;
        }
        let before = Duration::from_millis(self.waited.load(Ordering::Relaxed));
        let moved = self.moved.load(Ordering::Relaxed);
        let granted = Duration::from_millis(moved.saturating_mul(1000) / rate);
        (before + waited).saturating_sub(granted)
    }

    fn is_awaiting(&self, what: Awaited) -> bool {
        awaited(self.state.load(Ordering::Relaxed)) == what
    }

    /// Records that the server starts to wait for `what`.
    fn wait_for(&self, what: Awaited) {
        let millis = u64::try_from(self.opened.elapsed().as_millis()).unwrap_or(u64::MAX >> 3);
        self.state
            .store(millis << 3 | what as u64, Ordering::Relaxed);
    }

    /// Notes that it is the server's turn, with a body or an answer of which
    /// nothing has come or gone.
    pub(super) fn work(&self) {
        self.state.store(Awaited::Us as u64, Ordering::Relaxed);
        self.waited.store(0, Ordering::Relaxed);
        self.moved.store(0, Ordering::Relaxed);
    }

    /// Records the result of a transfer: the number of bytes, or that the server
    /// waits for `what`.
    fn transfer(&self, what: Awaited, moved: Poll<usize>) {
        let blocked = self.is_awaiting(what);
        match moved {
            Poll::Pending if blocked => {}
            Poll::Pending => self.wait_for(what),
            Poll::Ready(bytes) => {
                if blocked {
                    let (_, waited) = self.present_wait();
                    let waited = u64::try_from(waited.as_millis()).unwrap_or(u64::MAX);
                    add(&self.waited, waited);
                    self.state.store(Awaited::Us as u64, Ordering::Relaxed);
                }
                // Bytes that fit into the buffers on the way say nothing about the client.
                if blocked || self.waited.load(Ordering::Relaxed) > 0 {
                    add(&self.moved, u64::try_from(bytes).unwrap_or(u64::MAX));
                }
            }
        }
    }

    /// Keeps `held` until the response is written.
    pub(super) fn hold(&self, held: Held) {
        *self.held.lock().unwrap_or_else(PoisonError::into_inner) = Some(held);
        self.holds.store(true, Ordering::Relaxed);
    }

    /// Records that the response is an event stream.
    pub(super) fn becomes_stream(&self) {
        if !self.is_stream.swap(true, Ordering::Relaxed) {
            self.streams.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// How long the connection has been open; `None` where it does not work on
    /// an answer with which it could be asked to end, or was asked before.
    pub(super) fn age_at_work(&self) -> Option<Duration> {
        let works = self.is_awaiting(Awaited::Us) && !self.is_stream.load(Ordering::Relaxed);
        (works && !self.leaves()).then(|| self.opened.elapsed())
    }

    /// Makes the connection close with its next response.
    pub(super) fn leave(&self) {
        self.leaves.store(true, Ordering::Relaxed);
    }

    /// Whether the connection closes with its next response.
    pub(super) fn leaves(&self) -> bool {
        self.leaves.load(Ordering::Relaxed)
    }

    fn begin(&self) {
        if self.is_awaiting(Awaited::Start) {
            self.wait_for(Awaited::FirstHead);
        }
    }

    fn read(&self) {
        if self.is_awaiting(Awaited::Request) {
            self.wait_for(Awaited::Head);
        }
    }

    fn write(&self, result: &Poll<io::Result<usize>>) {
        let written = match result {
            Poll::Pending => Poll::Pending,
            Poll::Ready(written) => Poll::Ready(*written.as_ref().unwrap_or(&0)),
        };
        self.transfer(Awaited::Reader, written);
    }

    fn flushed(&self) {
        if self.answered.swap(false, Ordering::Relaxed) {
            if self.holds.swap(false, Ordering::Relaxed) {
                *self.held.lock().unwrap_or_else(PoisonError::into_inner) = None;
            }
            self.wait_for(Awaited::Request);
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        if *self.is_stream.get_mut() {
            self.streams.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

/// Adds to a value that has no other writer.
fn add(to: &AtomicU64, amount: u64) {
    let sum = to.load(Ordering::Relaxed).saturating_add(amount);
    to.store(sum, Ordering::Relaxed);
}

fn awaited(state: u64) -> Awaited {
    const ALL: [Awaited; 7] = [
        Awaited::Start,
        Awaited::FirstHead,
        Awaited::Request,
        Awaited::Head,
        Awaited::Body,
        Awaited::Reader,
        Awaited::Us,
    ];
    let index = usize::try_from(state & 7).unwrap_or(0);
    ALL.get(index).copied().unwrap_or(Awaited::Us)
}

/// The socket of a connection.
pub(super) struct Socket {
    io: TokioIo<TcpStream>,
    watch: Arc<Watch>,
}

impl Socket {
    pub(super) fn new(stream: TcpStream, watch: Arc<Watch>) -> Self {
        Self {
            io: TokioIo::new(stream),
            watch,
        }
    }
}

impl Read for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        self.watch.begin();
        ready!(Pin::new(&mut self.io).poll_read(cx, buf))?;
        self.watch.read();
        Poll::Ready(Ok(()))
    }
}

impl Write for Socket {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.io).poll_write(cx, buf);
        self.watch.write(&result);
        result
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.io).poll_write_vectored(cx, bufs);
        self.watch.write(&result);
        result
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.io).poll_flush(cx))?;
        self.watch.flushed();
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

/// The body of a request, as it arrives.
pub(super) struct RequestBody {
    pub(super) body: Incoming,
    pub(super) watch: Arc<Watch>,
}

impl hyper::body::Body for RequestBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let frame = Pin::new(&mut self.body).poll_frame(cx);
        let come = match &frame {
            Poll::Pending => Poll::Pending,
            Poll::Ready(Some(Ok(frame))) => Poll::Ready(frame.data_ref().map_or(0, Bytes::len)),
            Poll::Ready(_) => Poll::Ready(0),
        };
        self.watch.transfer(Awaited::Body, come);
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// The body of a response, until the server has read all of it.
pub(super) struct AnswerBody {
    body: Body,
    watch: Arc<Watch>,
}

impl AnswerBody {
    pub(super) fn new(body: Body, watch: Arc<Watch>) -> Self {
        watch.work();
        Self { body, watch }
    }
}

impl hyper::body::Body for AnswerBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for AnswerBody {
    fn drop(&mut self) {
        self.watch.answered.store(true, Ordering::Relaxed);
    }
}
