//! Calls to others.

use std::time::Duration;

/// How long to wait for a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// Makes `ring` the TLS provider of the process. The static binaries are built
/// for musl, where `ring` is the one that builds without a C++ toolchain.
pub fn install_tls_provider() {
    // An error means that a provider is there already: nothing to do.
    let _ = rustls::crypto::ring::default_provider().install_default();
}

/// An HTTP client whose whole exchange, body and all, ends after `timeout`. It
/// calls itself `user_agent` and follows no more than three redirects.
///
/// # Errors
/// Where the roots of trust cannot be loaded.
pub fn client(user_agent: &'static str, timeout: Duration) -> reqwest::Result<reqwest::Client> {
    install_tls_provider();
    reqwest::Client::builder()
        .user_agent(user_agent)
        .connect_timeout(CONNECT_TIMEOUT.min(timeout))
        .timeout(timeout)
        .redirect(reqwest::redirect::Policy::limited(3))
        .build()
}
