//! Calls to others.

use std::sync::OnceLock;
use std::time::Duration;

use rustls::ClientConfig;
use rustls_platform_verifier::ConfigVerifierExt;

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
    let mut builder = reqwest::Client::builder();
    if let Some(tls) = tls() {
        builder = builder.tls_backend_preconfigured(tls);
    }
    builder
        .user_agent(user_agent)
        .connect_timeout(CONNECT_TIMEOUT.min(timeout))
        .timeout(timeout)
        .redirect(reqwest::redirect::Policy::limited(3))
        .build()
}

/// The TLS of all clients of the process: the roots of trust of the system are
/// some hundred files, which are read once. `None` where they cannot be read;
/// the client then says why.
fn tls() -> Option<ClientConfig> {
    static TLS: OnceLock<Option<ClientConfig>> = OnceLock::new();
    TLS.get_or_init(|| ClientConfig::with_platform_verifier().ok())
        .clone()
}
