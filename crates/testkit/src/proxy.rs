//! A network between a program and a server that can go silent.

use std::net::SocketAddr;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::{Error, ReservedPort};

/// How many bytes are forwarded at a time.
const CHUNK: usize = 16 * 1024;

/// A TCP proxy on 127.0.0.1 that stands for the network, and can do what a network does when a
/// machine vanishes or a cable is pulled: it drops everything and closes nothing, so that neither
/// side notices.
///
/// The kernel's buffers may still accept a write, as they do when packets are dropped.
/// Dropping the value closes every connection.
#[derive(Debug)]
pub struct Proxy {
    port: ReservedPort,
    network: watch::Sender<Network>,
    _connections: JoinSet<()>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Network {
    /// Connections of an older generation stay silent.
    generation: u64,
    is_silent: bool,
}

impl Network {
    /// Whether bytes of a connection of this generation are forwarded.
    fn carries(self, generation: u64) -> bool {
        !self.is_silent && self.generation == generation
    }
}

impl Proxy {
    /// Starts a proxy to the port `server` of 127.0.0.1.
    ///
    /// # Errors
    /// [`Error::Io`] when no port is free.
    pub async fn start(server: u16) -> Result<Self, Error> {
        let port = ReservedPort::reserve()?;
        let listener = TcpListener::bind(port.address())
            .await
            .map_err(Error::io("listen on the port of a proxy"))?;
        let (network, state) = watch::channel(Network::default());
        let target = SocketAddr::from(([127, 0, 0, 1], server));
        Ok(Self {
            port,
            network,
            _connections: JoinSet::from_iter([serve(listener, target, state)]),
        })
    }

    /// The port to use in place of that of the server.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port.number()
    }

    /// `url` with the port of the server `server` replaced by that of the proxy.
    #[must_use]
    pub fn url(&self, url: &str, server: u16) -> String {
        url.replace(&format!(":{server}"), &format!(":{}", self.port()))
    }

    /// From now on nothing gets through, on open connections and on new ones.
    pub fn silence(&self) {
        self.network.send_modify(|network| network.is_silent = true);
    }

    /// Everything gets through again. What was held back on open connections does too, as when
    /// packets are sent once more.
    pub fn resume(&self) {
        self.network
            .send_modify(|network| network.is_silent = false);
    }

    /// Lets new connections through. Open ones stay silent, as when the machine in between
    /// has forgotten them.
    pub fn forget(&self) {
        self.network.send_modify(|network| {
            network.generation += 1;
            network.is_silent = false;
        });
    }
}

async fn serve(listener: TcpListener, target: SocketAddr, network: watch::Receiver<Network>) {
    let mut connections = JoinSet::new();
    while let Ok((client, _)) = listener.accept().await {
        connections.spawn(connect(client, target, network.clone()));
        while connections.try_join_next().is_some() {}
    }
}

async fn connect(client: TcpStream, target: SocketAddr, mut network: watch::Receiver<Network>) {
    let generation = network.borrow().generation;
    // The TCP handshake was completed on behalf of the server; nothing else was.
    carried(&mut network, generation).await;
    let Ok(server) = TcpStream::connect(target).await else {
        return;
    };
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let (client_reader, client_writer) = client.into_split();
    let (server_reader, server_writer) = server.into_split();
    // When one side closes, the other one is closed at once.
    tokio::select! {
        () = pass(client_reader, server_writer, network.clone(), generation) => {}
        () = pass(server_reader, client_writer, network, generation) => {}
    }
}

/// Forwards bytes until one side closes.
async fn pass(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    mut network: watch::Receiver<Network>,
    generation: u64,
) {
    let mut chunk = vec![0; CHUNK];
    loop {
        let length = from.read(&mut chunk).await.unwrap_or(0);
        // A silent network does not forward a close either.
        carried(&mut network, generation).await;
        if length == 0 || to.write_all(&chunk[..length]).await.is_err() {
            return;
        }
    }
}

/// Waits until the network forwards bytes of this generation, possibly forever.
async fn carried(network: &mut watch::Receiver<Network>, generation: u64) {
    let carried = network.wait_for(|network| network.carries(generation));
    if carried.await.is_err() {
        // The proxy is being dropped, and this task with it.
        std::future::pending::<()>().await;
    }
}
