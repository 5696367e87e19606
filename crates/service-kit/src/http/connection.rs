//! One connection: whom it waits for, since when, and what it holds.
//!
//! The socket and the bodies note in a [`Watch`] when the server begins to wait
//! for the client and when that ends. So the server can tell a client that
//! keeps it waiting from a request that it is working on, and close the first
//! when its time is up or somebody else needs the room.

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

/// How long the head of a request may take, from its first byte or, for the
/// first request of a connection, from the start.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a connection may be without a request. It is longer than the 90 s
/// after which Traefik gives up an idle one: the proxy closes first, and no
/// request is sent into a connection that is being closed.
const IDLE_TIMEOUT: Duration = Duration::from_mins(2);

/// How long the server waits for a client in the middle of a body or an answer,
/// all in all, before it has to be as quick as [`SLOWEST`].
const PROGRESS_TIMEOUT: Duration = Duration::from_secs(20);

/// How quick a client has to be with an answer that does not fit into the
/// buffers on its way, in bytes a second. That of a modem is enough.
const SLOWEST: u64 = 8 * 1024;

/// How quick a client has to be so as not to be the first to go when others
/// need the room that it takes, in bytes a second.
const UNNOTICED: u64 = 32 * 1024;

/// What the server waits for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[repr(u8)]
pub(super) enum Awaited {
    /// Nothing yet: the connection was accepted, and nobody has read from it.
    Start,
    /// The head of the first request.
    FirstHead,
    /// The first byte of another request.
    Request,
    /// The rest of its head.
    Head,
    /// More of its body.
    Body,
    /// That the client takes more of the answer.
    Reader,
    /// Nothing from the client: a handler, or the next event.
    Us,
}

impl Awaited {
    /// For how long.
    fn limit(self) -> Option<Duration> {
        match self {
            Self::FirstHead | Self::Head => Some(HEAD_TIMEOUT),
            Self::Request => Some(IDLE_TIMEOUT),
            Self::Body | Self::Reader => Some(PROGRESS_TIMEOUT),
            Self::Start | Self::Us => None,
        }
    }

    /// Whether the client can be blamed for the time that passes.
    pub(super) fn is_client(self) -> bool {
        !matches!(self, Self::Start | Self::Us)
    }

    /// Whether no request has come so far.
    pub(super) fn is_new(self) -> bool {
        matches!(self, Self::Start | Self::FirstHead)
    }

    /// Whether the client takes or gives bytes of which there are more.
    pub(super) fn is_transfer(self) -> bool {
        matches!(self, Self::Body | Self::Reader)
    }
}

/// What is known of a connection. Everything but the held memory is one word,
/// as it changes several times a request.
#[derive(Debug)]
pub(super) struct Watch {
    opened: Instant,
    /// An [`Awaited`] in the last three bits, and since when before that, in
    /// milliseconds after `opened`.
    state: AtomicU64,
    /// For how long this body or answer has had the server wait before the
    /// present wait, in milliseconds.
    waited: AtomicU64,
    /// How many bytes of it have come or gone since the first wait.
    moved: AtomicU64,
    /// The answer is complete but for what is still to be written.
    answered: AtomicBool,
    /// Whether there is something in `held`.
    holds: AtomicBool,
    /// What the answer takes of the budget, until it is written.
    held: Mutex<Option<Held>>,
    /// The event streams of this server; counted here once this is one.
    streams: Arc<AtomicUsize>,
    is_stream: AtomicBool,
    /// The connection ends with its next answer.
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

    /// Whether the client has kept the server waiting for too long.
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

    /// How much longer the server has waited for this body or answer than it
    /// would have for a client of `rate` bytes a second. An event stream has
    /// no rate.
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

    /// Notes that the server begins to wait for `what`.
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

    /// Notes what became of a try to move bytes: how many, or that the server
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
                // What fits into the buffers on the way says nothing of the client.
                if blocked || self.waited.load(Ordering::Relaxed) > 0 {
                    add(&self.moved, u64::try_from(bytes).unwrap_or(u64::MAX));
                }
            }
        }
    }

    /// Keeps `held` until the answer is written.
    pub(super) fn hold(&self, held: Held) {
        *self.held.lock().unwrap_or_else(PoisonError::into_inner) = Some(held);
        self.holds.store(true, Ordering::Relaxed);
    }

    /// Notes that the answer is an event stream.
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

    /// Has the connection end with its next answer.
    pub(super) fn leave(&self) {
        self.leaves.store(true, Ordering::Relaxed);
    }

    /// Whether the connection ends with its next answer.
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

/// Adds to what nobody else writes.
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

/// The body of a request, as the client sends it.
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

/// The body of an answer, until the server has all of it.
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
