//! TCP ports that a server keeps across restarts, and that nobody else takes meanwhile.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::ops::Range;

use tokio::net::TcpSocket;

use crate::Error;

/// Below the ports that kernels assign to outgoing connections (Linux: from 32768, macOS: from
/// 49152). A port in that range can be taken by any client while its server is down; on loopback a
/// retrying client can even connect to itself there and so keep the server from coming back.
const RANGE: Range<u16> = 20_000..30_000;

/// A TCP port of 127.0.0.1 that is free, and reserved among all test processes of this machine
/// until dropped.
///
/// The reservation is a UDP socket bound to the same number. It does not block TCP, it conflicts
/// with every other [`ReservedPort`], and the kernel closes it however the process dies.
#[derive(Debug)]
pub struct ReservedPort {
    number: u16,
    _claim: UdpSocket,
}

impl ReservedPort {
    /// Reserves a free port.
    ///
    /// # Errors
    /// [`Error::Io`] when a thousand attempts found none.
    pub fn reserve() -> Result<Self, Error> {
        let mut outcome = Err(io::ErrorKind::AddrInUse.into());
        for _ in 0..1000 {
            outcome = Self::claim(rand::random_range(RANGE));
            if outcome.is_ok() {
                break;
            }
        }
        outcome.map_err(Error::io("find a free port"))
    }

    fn claim(number: u16) -> io::Result<Self> {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, number));
        let claim = UdpSocket::bind(address)?;
        // A program that knows nothing of claims may listen on the port; binding alone detects it.
        // A socket that had listened would keep listening until its last copy is closed, and a
        // program that is being started holds a copy until it calls `exec`.
        let probe = TcpSocket::new_v4()?;
        probe.set_reuseaddr(true)?;
        probe.bind(address)?;
        Ok(Self {
            number,
            _claim: claim,
        })
    }

    /// The number of the port.
    #[must_use]
    pub fn number(&self) -> u16 {
        self.number
    }

    /// `127.0.0.1` with this port.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        SocketAddr::from((Ipv4Addr::LOCALHOST, self.number))
    }
}
