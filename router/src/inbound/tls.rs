//! TLS to clients, off Fly or for domains of one's own.

use std::sync::Arc;

use rustls::ServerConfig;
use rustls::server::ResolvesServerCert;
use tokio_rustls::TlsAcceptor;

/// TLS 1.2 and 1.3 with the certificates that `chooser` chooses; HTTP/2 and HTTP/1.1 by ALPN (RFC 7301).
///
/// # Errors
/// Where the TLS library cannot be set up, which only a build of the wrong features would cause.
pub fn acceptor(chooser: Arc<dyn ResolvesServerCert>) -> Result<TlsAcceptor, rustls::Error> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_cert_resolver(chooser);
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    config.ticketer = rustls::crypto::ring::Ticketer::new()?;
    Ok(TlsAcceptor::from(Arc::new(config)))
}
