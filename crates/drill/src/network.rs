//! The network between a replica and its servers.

use testkit::Proxy;

/// The network of one replica: all its connections to the servers.
#[derive(Debug, Default)]
pub struct Network {
    proxies: Vec<(u16, Proxy)>,
}

impl Network {
    /// A network to the servers at these ports. Others are reached directly.
    ///
    /// # Errors
    /// As [`Proxy::start`].
    pub async fn to(ports: &[u16]) -> Result<Self, testkit::Error> {
        let mut proxies = Vec::with_capacity(ports.len());
        for &port in ports {
            proxies.push((port, Proxy::start(port).await?));
        }
        Ok(Self { proxies })
    }

    /// `url` as reached through this network.
    #[must_use]
    pub fn url(&self, url: &str) -> String {
        let reached = |url: String, (port, proxy): &(u16, Proxy)| proxy.url(&url, *port);
        self.proxies.iter().fold(url.to_owned(), reached)
    }

    /// See [`Proxy::silence`].
    pub fn silence(&self) {
        self.each(Proxy::silence);
    }

    /// See [`Proxy::resume`].
    pub fn resume(&self) {
        self.each(Proxy::resume);
    }

    /// See [`Proxy::forget`].
    pub fn forget(&self) {
        self.each(Proxy::forget);
    }

    fn each(&self, change: impl Fn(&Proxy)) {
        self.proxies.iter().for_each(|(_, proxy)| change(proxy));
    }
}
