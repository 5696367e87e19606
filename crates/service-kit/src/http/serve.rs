//! The server: axum's router on hyper, within the budget of the process.

use std::collections::{HashMap, VecDeque};
use std::convert::Infallible;
use std::future::poll_fn;
use std::io::{self, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use axum::http::{HeaderName, HeaderValue, Request, Response, StatusCode, Version, header};
use axum::response::IntoResponse;
use axum::routing::future::RouteFuture;
use hyper::body::{Body as _, Incoming};
use hyper::server::conn::http1;
use hyper_util::server::graceful::GracefulShutdown;
use pin_project_lite::pin_project;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::task::{AbortHandle, Id, JoinSet};
use tokio_util::sync::CancellationToken;
use tower::Service as _;
use tracing::{debug, warn};

use super::ErrorBody;
use super::budget::{Budget, Outcome, Resource};
use super::connection::{AnswerBody, RequestBody, Socket, Watch};
use super::within::{is_event_stream, take_charge};
use crate::TaskError;

/// How many connections may wait to be accepted.
const BACKLOG: u32 = 4096;

/// The kernel's send buffer for one connection, in bytes; it uses twice as much
/// internally. Without a limit, each client that does not read takes megabytes
/// of the pod's memory.
const SEND_BUFFER: u32 = 64 * 1024;

/// How long sent data may stay unacknowledged (RFC 5482). It ends event streams
/// to machines that have vanished.
const USER_TIMEOUT: Duration = Duration::from_secs(30);

/// The largest head of a request, in bytes; a larger one gets 431. It is also
/// the most that is written into one buffer before it is sent.
const HEAD_LIMIT: usize = 16 * 1024;

/// Maximum number of fields in the head of a request.
const MAX_HEADERS: usize = 100;

/// How often overdue connections are closed.
const SWEEP: Duration = Duration::from_millis(250);

/// How long a client may keep the server waiting while others need its memory.
const PRESSED_PATIENCE: Duration = Duration::from_millis(200);

/// How long a client may keep the server waiting while most other connections
/// are busy: a busy machine reads bytes late.
const GRACE: Duration = Duration::from_millis(100);

/// One in this many connections may exceed the limit, for clients that connect
/// while others receive their last response.
const LEAVING: usize = 32;

/// How long to wait before searching again for a connection to close: in a flood
/// of clients, each search would scan all connections.
const FULL_FOR: Duration = Duration::from_millis(5);

/// How long a rejected connection stays open so that its client can read the
/// response.
const LINGER: Duration = Duration::from_millis(500);

/// Maximum number of these.
const REFUSED: usize = 32;

/// How many connections are closed at once when memory is needed.
const RELIEF: usize = 16;

/// How many connections are accepted at a time.
const BURST: usize = 1024;

/// How long to wait before accepting again when the kernel refuses.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// At shutdown: how long established connections may take to appear in the
/// listener's queue.
const LAST_CONNECTIONS: Duration = Duration::from_millis(100);

/// After the listener is closed: how long a new connection may take to send its
/// request.
const LAST_REQUEST: Duration = Duration::from_secs(1);

/// Headers that are one value and decide what a request may do. Of two, a proxy
/// may have read the one and we the other (RFC 9110, section 5.3).
static SINGLE: [(HeaderName, &str); 5] = [
    (
        header::CONTENT_TYPE,
        "Content-Type should be given once at most",
    ),
    (
        HeaderName::from_static("idempotency-key"),
        "Idempotency-Key should be given once at most",
    ),
    (header::ORIGIN, "Origin should be given once at most"),
    (header::RANGE, "Range should be given once at most"),
    (
        HeaderName::from_static("sec-fetch-site"),
        "Sec-Fetch-Site should be given once at most",
    ),
];

/// The response to a client when every connection is busy.
const FULL: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/json\r\n\
    retry-after: 1\r\ncontent-length: 43\r\nconnection: close\r\n\r\n\
    {\"detail\":\"The service is busy; try again\"}";

/// Opens a listener on `address` with a queue that takes a burst of clients.
///
/// # Errors
/// If the port is taken, or needs privileges that the process lacks.
pub fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4(),
        SocketAddr::V6(_) => TcpSocket::new_v6(),
    }?;
    // A port whose last connections are still being closed is free.
    socket.set_reuseaddr(true)?;
    // The connections have it from their listener.
    socket.set_send_buffer_size(SEND_BUFFER)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// Serves `router` on `listener` until `shutdown` is cancelled, and for `delay`
/// after that; then stops accepting, lets the requests in flight finish, and
/// returns. Dropping the future cuts every connection.
///
/// Every client is accepted. Beyond the connections that `budget` allows, the one
/// that has waited longest for its client is closed; if all are busy, the oldest
/// closes with its response. A connection whose client is too slow to send the
/// head or the body of a request, or to read the response, is closed. One that
/// the server is working for never is.
///
/// # Errors
/// None today: a failed connection is logged and affects no other.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    budget: Budget,
    shutdown: CancellationToken,
    delay: Duration,
) -> Result<(), TaskError> {
    let mut server = Server::new(router, budget);
    let mut stop = pin!(async {
        shutdown.cancelled().await;
        tokio::time::sleep(delay).await;
    });
    loop {
        tokio::select! {
            () = &mut stop => break,
            () = server.tend() => {}
            accepted = listener.accept() => {
                server.accepted(accepted).await;
                server.accept_the_queue(&listener).await;
            }
        }
    }
    server.accept_the_last(listener).await;
    server.drain().await;
    Ok(())
}

/// Has the kernel drop the packets that ask for a new connection, so that no
/// client connects between the last look at the queue and its end. Such a
/// client asks again after a second and is refused then; it has sent nothing.
#[cfg(any(target_os = "linux", target_os = "android"))]
fn turn_away(listener: &TcpListener) -> io::Result<()> {
    use socket2::{SockFilter, SockRef};

    // Classic BPF: `A = flags; if (A & (SYN | ACK)) == SYN drop else keep`. The
    // flags are byte 13 of the TCP header (RFC 9293), where the packet begins.
    const LOAD_BYTE: u16 = 0x30;
    const AND: u16 = 0x54;
    const JUMP_IF_EQUAL: u16 = 0x15;
    const RETURN: u16 = 0x06;
    const SYN: u32 = 0x02;
    const ACK: u32 = 0x10;
    SockRef::from(listener).attach_filter(&[
        SockFilter::new(LOAD_BYTE, 0, 0, 13),
        SockFilter::new(AND, 0, 0, SYN | ACK),
        SockFilter::new(JUMP_IF_EQUAL, 0, 1, SYN),
        SockFilter::new(RETURN, 0, 0, 0),
        SockFilter::new(RETURN, 0, 0, u32::MAX),
    ])
}

fn set_options(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    #[cfg(any(target_os = "linux", target_os = "android"))]
    socket2::SockRef::from(stream).set_tcp_user_timeout(Some(USER_TIMEOUT))?;
    Ok(())
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
fn turn_away(_: &TcpListener) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

struct Server {
    http: http1::Builder,
    router: Router,
    budget: Budget,
    graceful: GracefulShutdown,
    tasks: JoinSet<()>,
    open: HashMap<Id, Open>,
    /// Number of `open` connections that are event streams.
    streams: Arc<AtomicUsize>,
    refused: Refused,
    /// Until when no connection can be closed in favour of another.
    full_until: Instant,
    sweep: tokio::time::Interval,
}

struct Open {
    watch: Arc<Watch>,
    task: AbortHandle,
}

impl Server {
    fn new(router: Router, budget: Budget) -> Self {
        let mut http = http1::Builder::new();
        http.max_buf_size(HEAD_LIMIT)
            .max_headers(MAX_HEADERS)
            // The sweep knows more of what a connection waits for.
            .header_read_timeout(None);
        let mut sweep = tokio::time::interval(SWEEP);
        sweep.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        Self {
            http,
            router,
            budget,
            graceful: GracefulShutdown::new(),
            tasks: JoinSet::new(),
            open: HashMap::new(),
            streams: Arc::default(),
            refused: Refused::default(),
            full_until: Instant::now(),
            sweep,
        }
    }

    /// Waits for the next maintenance of the connections, and does it.
    async fn tend(&mut self) {
        tokio::select! {
            Some(ended) = self.tasks.join_next_with_id() => {
                let id = ended.map_or_else(|error| error.id(), |(id, ())| id);
                self.open.remove(&id);
            }
            _ = self.sweep.tick() => {
                self.close_the_overdue();
                self.refused.close_the_old();
                if self.budget.is_pressed() {
                    self.relieve();
                }
            }
            () = self.budget.pressure() => self.relieve(),
        }
    }

    async fn accepted(&mut self, accepted: io::Result<(TcpStream, SocketAddr)>) {
        match accepted {
            Ok((stream, _)) => self.admit(stream),
            Err(error) => {
                warn!(%error, "accepting a connection failed");
                // Most likely out of files, which others will close.
                self.close_the_longest_waiting();
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }

    /// Accepts every waiting client: under load this task runs only after those of
    /// all connections.
    async fn accept_the_queue(&mut self, listener: &TcpListener) {
        for _ in 0..BURST {
            let waiting = poll_fn(|cx| Poll::Ready(listener.poll_accept(cx)));
            match tokio::task::unconstrained(waiting).await {
                Poll::Ready(Ok((stream, _))) => self.admit(stream),
                Poll::Ready(Err(_)) | Poll::Pending => break,
            }
        }
    }

    fn admit(&mut self, stream: TcpStream) {
        let streams = self.streams.load(Ordering::Relaxed);
        let limit = self.budget.limits().connections;
        let open = self.open.len().saturating_sub(streams);
        if open >= limit && !self.make_room(open - limit) {
            self.budget.count(Resource::Connections, Outcome::Refused);
            self.refused.add(stream);
            return;
        }
        self.spawn(stream);
    }

    fn spawn(&mut self, stream: TcpStream) {
        if let Err(error) = set_options(&stream) {
            debug!(%error, "setting socket options failed");
        }
        let watch = Arc::new(Watch::new(self.streams.clone(), self.budget.connection()));
        let service = Handler {
            router: self.router.clone(),
            watch: watch.clone(),
        };
        let socket = Socket::new(stream, watch.clone());
        let connection = self.http.serve_connection(socket, service);
        let connection = self.graceful.watch(connection);
        let task = self.tasks.spawn(async move {
            if let Err(error) = connection.await {
                debug!(%error, "connection failed");
            }
        });
        self.open.insert(task.id(), Open { watch, task });
    }

    /// Makes room for another connection when `above` exceed the limit; `false` if
    /// that is impossible.
    fn make_room(&mut self, above: usize) -> bool {
        let now = Instant::now();
        if now < self.full_until {
            return false;
        }
        let found = self.close_the_longest_waiting() || self.ask_the_oldest_to_leave(above);
        if !found {
            self.full_until = now + FULL_FOR;
        }
        found
    }

    /// Closes the connection that has waited longest for its client; `false` if
    /// there is none.
    fn close_the_longest_waiting(&mut self) -> bool {
        let waiting = || {
            let waits = self
                .open
                .iter()
                .map(|(id, open)| (open.watch.awaited(), *id));
            waits.filter(|((awaited, _), _)| awaited.is_client())
        };
        let Some(((_, waited), id)) = waiting().max_by_key(|((_, waited), _)| *waited) else {
            return false;
        };
        let is_busy = waiting().count() < self.open.len() / 2;
        if is_busy && waited < GRACE {
            return false;
        }
        self.budget.count(Resource::Connections, Outcome::Closed);
        self.close(id);
        true
    }

    /// Has the one of the connections at work that is open for longest end with
    /// its answer, so that busy clients take turns; `false` where `leaving` of
    /// them have yet to end.
    fn ask_the_oldest_to_leave(&mut self, leaving: usize) -> bool {
        if leaving >= self.budget.limits().connections / LEAVING {
            return false;
        }
        let ages = self.open.values().filter_map(|open| {
            let age = open.watch.age_at_work()?;
            Some((age, open))
        });
        let Some((_, oldest)) = ages.max_by_key(|(age, _)| *age) else {
            return false;
        };
        oldest.watch.leave();
        true
    }

    /// Closes some of those that keep memory and read or write slowly.
    fn relieve(&mut self) {
        let mut waiting: Vec<_> = self
            .open
            .iter()
            .map(|(id, open)| (open.watch.awaited(), *id))
            .filter(|((awaited, waited), _)| awaited.is_transfer() && *waited > PRESSED_PATIENCE)
            .map(|((_, waited), id)| (waited, id))
            .collect();
        waiting.sort_unstable_by_key(|(waited, _)| std::cmp::Reverse(*waited));
        for (_, id) in waiting.into_iter().take(RELIEF) {
            self.budget.count(Resource::BufferedBytes, Outcome::Closed);
            self.close(id);
        }
    }

    fn close_the_overdue(&mut self) {
        self.open.retain(|_, open| {
            let overdue = open.watch.is_overdue();
            if overdue {
                open.task.abort();
            }
            !overdue
        });
    }

    fn close(&mut self, id: Id) {
        if let Some(open) = self.open.remove(&id) {
            open.task.abort();
        }
    }

    /// Who is in the queue of the listener has connected; they are served, as
    /// closing the listener would cut them.
    async fn accept_the_last(&mut self, listener: TcpListener) {
        if let Err(error) = turn_away(&listener) {
            debug!(%error, "refusing new connections before the close failed");
        }
        let mut end = pin!(tokio::time::sleep(LAST_CONNECTIONS));
        loop {
            tokio::select! {
                biased;
                accepted = listener.accept() => self.accepted(accepted).await,
                () = self.tend() => {}
                () = &mut end => break,
            }
        }
        drop(listener);
        let mut end = pin!(tokio::time::sleep(LAST_REQUEST));
        let is_new = |open: &Open| open.watch.awaited().0.is_new();
        while self.open.values().any(is_new) {
            tokio::select! {
                () = self.tend() => {}
                () = &mut end => break,
            }
        }
    }

    async fn drain(mut self) {
        let graceful = std::mem::replace(&mut self.graceful, GracefulShutdown::new());
        let mut drained = pin!(graceful.shutdown());
        loop {
            tokio::select! {
                () = self.tend() => {}
                () = &mut drained => break,
            }
        }
        while self.tasks.join_next().await.is_some() {}
    }
}

/// Connections that got 503 and are no longer read. They stay open for a moment:
/// a request that arrives after the close, or is unread, makes the kernel send a
/// reset, which discards the response (RFC 9112, section 9.6).
#[derive(Default)]
struct Refused(VecDeque<(Instant, std::net::TcpStream)>);

impl Refused {
    fn add(&mut self, stream: TcpStream) {
        // The runtime does not know yet that it can be read and written.
        let Ok(stream) = stream.into_std() else {
            return;
        };
        discard(&stream);
        // If this cannot be written at once, the client is gone.
        let answered = (&stream).write(FULL);
        if answered.is_err() || stream.shutdown(Shutdown::Write).is_err() {
            return;
        }
        if self.0.len() == REFUSED
            && let Some((_, first)) = self.0.pop_front()
        {
            discard(&first);
        }
        self.0.push_back((Instant::now(), stream));
    }

    fn close_the_old(&mut self) {
        self.0.retain(|(since, stream)| {
            discard(stream);
            since.elapsed() < LINGER
        });
    }
}

/// Reads what has arrived.
fn discard(mut stream: &std::net::TcpStream) {
    let _ = stream.read(&mut [0; HEAD_LIMIT]);
}

/// Hands the requests of one connection to the router.
struct Handler {
    router: Router,
    watch: Arc<Watch>,
}

impl hyper::service::Service<Request<Incoming>> for Handler {
    type Response = Response<AnswerBody>;
    type Error = Infallible;
    type Future = Answering;

    fn call(&self, request: Request<Incoming>) -> Answering {
        self.watch.work();
        let answer = if let Some(fault) = fault(&request) {
            Answer::Refused { fault }
        } else {
            let request = request.map(|body| {
                if body.is_end_stream() {
                    Body::empty()
                } else {
                    let watch = self.watch.clone();
                    Body::new(RequestBody { body, watch })
                }
            });
            Answer::Route {
                future: self.router.clone().call(request),
            }
        };
        Answering {
            answer,
            watch: self.watch.clone(),
        }
    }
}

/// Why the head of `request` is ambiguous, if it is.
fn fault(request: &Request<Incoming>) -> Option<&'static str> {
    if !has_valid_host(request) {
        return Some("The request should have one valid Host header");
    }
    let headers = request.headers();
    // Nothing is given twice: the common case needs no more than a look.
    if headers.len() == headers.keys_len() {
        return None;
    }
    let given_twice = |(name, _): &&(HeaderName, _)| headers.get_all(name).iter().nth(1).is_some();
    let (_, fault) = SINGLE.iter().find(given_twice)?;
    Some(fault)
}

/// Whether `request` names one host and only one, as HTTP/1.1 demands
/// (RFC 9112, section 3.2).
fn has_valid_host(request: &Request<Incoming>) -> bool {
    let mut hosts = request.headers().get_all(header::HOST).iter();
    match (hosts.next(), hosts.next()) {
        (Some(host), None) => is_host(host),
        (None, _) => request.version() < Version::HTTP_11,
        (Some(_), Some(_)) => false,
    }
}

/// `uri-host [ ":" port ]` (RFC 9110, section 7.2; RFC 3986, section 3.2.2),
/// with a host that is not empty.
fn is_host(host: &HeaderValue) -> bool {
    let host = host.as_bytes();
    let (name, port) = match host.iter().rposition(|byte| b":]".contains(byte)) {
        Some(colon) if host[colon] == b':' => (&host[..colon], &host[colon + 1..]),
        _ => (host, &b""[..]),
    };
    let is_address = |byte: &u8| byte.is_ascii_hexdigit() || b":.".contains(byte);
    let is_name = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._~%!$&'()*+,;=".contains(byte);
    let is_valid_name = match name {
        [b'[', address @ .., b']'] => !address.is_empty() && address.iter().all(is_address),
        name => !name.is_empty() && name.iter().all(is_name),
    };
    is_valid_name && port.iter().all(u8::is_ascii_digit)
}

pin_project! {
    /// The response to one request, in progress.
    struct Answering {
        #[pin]
        answer: Answer,
        watch: Arc<Watch>,
    }
}

pin_project! {
    #[project = AnswerProjection]
    enum Answer {
        Route { #[pin] future: RouteFuture<Infallible> },
        Refused { fault: &'static str },
    }
}

impl Future for Answering {
    type Output = Result<Response<AnswerBody>, Infallible>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let mut response = match this.answer.project() {
            AnswerProjection::Route { future } => ready!(future.poll(cx))?,
            AnswerProjection::Refused { fault } => {
                let body = ErrorBody::new(StatusCode::BAD_REQUEST, *fault);
                ([(header::CONNECTION, "close")], body).into_response()
            }
        };
        if let Some(held) = take_charge(response.extensions_mut()) {
            this.watch.hold(held);
        }
        if is_event_stream(&response) {
            this.watch.becomes_stream();
        } else if this.watch.leaves() {
            let close = HeaderValue::from_static("close");
            response.headers_mut().insert(header::CONNECTION, close);
        }
        let watch = this.watch.clone();
        Poll::Ready(Ok(response.map(|body| AnswerBody::new(body, watch))))
    }
}
