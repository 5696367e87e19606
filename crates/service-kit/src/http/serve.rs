//! The server: axum's router on hyper, with the bounds that a public listener
//! needs.

use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use futures::FutureExt;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use crate::TaskError;

/// How many connections may be open at once; further ones wait in the backlog.
const MAX_CONNECTIONS: usize = 4096;

/// How long a client may take to send the head of its next request. It covers
/// the idle time of a keep-alive connection too, so it is longer than the 90 s
/// after which Traefik gives up an idle one: the proxy closes first, and no
/// request is sent into a connection that is being closed.
const HEAD_TIMEOUT: Duration = Duration::from_mins(2);

/// How long to wait before accepting again when the process is out of file
/// descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// After the listener is closed: how long a connection that was just accepted
/// has to show the request that its client has sent already.
const LAST_REQUEST: Duration = Duration::from_millis(100);

/// Serves `router` on `listener` until `shutdown` is cancelled, and for `delay`
/// after that; then stops accepting, lets the requests in flight finish, and
/// returns. Dropping the future cuts every connection.
///
/// # Errors
/// None today: what goes wrong with one connection is logged and costs no other.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    shutdown: CancellationToken,
    delay: Duration,
) -> Result<(), TaskError> {
    let mut server = Server::new(router);
    let mut stop = pin!(async {
        shutdown.cancelled().await;
        tokio::time::sleep(delay).await;
    });
    loop {
        tokio::select! {
            () = &mut stop => break,
            Some(_) = server.connections.join_next() => {}
            (slot, accepted) = accept(&listener, &server.slots) => match accepted {
                Ok(stream) => server.spawn(stream, slot),
                Err(error) => {
                    warn!(%error, "cannot accept");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
        }
    }
    // Who is in the backlog has connected; closing the listener would cut them.
    while let Some((slot, Ok(stream))) = accept(&listener, &server.slots).now_or_never() {
        server.spawn(stream, slot);
    }
    drop(listener);
    tokio::time::sleep(LAST_REQUEST).await;
    server.drain().await;
    Ok(())
}

/// A connection and the right to hold it, or the listener's error.
async fn accept(
    listener: &TcpListener,
    slots: &Arc<Semaphore>,
) -> (Option<OwnedSemaphorePermit>, io::Result<TcpStream>) {
    // The semaphore is never closed, so the slot is always there.
    let slot = Arc::clone(slots).acquire_owned().await.ok();
    let accepted = listener.accept().await.map(|(stream, _)| stream);
    (slot, accepted)
}

struct Server {
    http: http1::Builder,
    router: Router,
    graceful: GracefulShutdown,
    slots: Arc<Semaphore>,
    connections: JoinSet<()>,
}

impl Server {
    fn new(router: Router) -> Self {
        let mut http = http1::Builder::new();
        http.timer(TokioTimer::new())
            .header_read_timeout(HEAD_TIMEOUT);
        Self {
            http,
            router,
            graceful: GracefulShutdown::new(),
            slots: Arc::new(Semaphore::new(MAX_CONNECTIONS)),
            connections: JoinSet::new(),
        }
    }

    fn spawn(&mut self, stream: TcpStream, slot: Option<OwnedSemaphorePermit>) {
        if let Err(error) = stream.set_nodelay(true) {
            debug!(%error, "TCP_NODELAY cannot be set");
        }
        let service = TowerToHyperService::new(self.router.clone());
        let connection = self.http.serve_connection(TokioIo::new(stream), service);
        let connection = self.graceful.watch(connection);
        self.connections.spawn(async move {
            let _slot = slot;
            if let Err(error) = connection.await {
                debug!(%error, "connection failed");
            }
        });
    }

    async fn drain(mut self) {
        self.graceful.shutdown().await;
        while self.connections.join_next().await.is_some() {}
    }
}
