//! A client and a certificate for measuring: all who are compared use the same key and the same cipher.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::crypto::ring::{cipher_suite, default_provider, kx_group};
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// A certificate of a P-256 key, in files as servers read them, and a client that believes it and offers one cipher.
#[derive(Debug, Clone)]
pub struct Tls {
    /// The certificate and its key in one file.
    pub file: PathBuf,
    certificate: CertificateDer<'static>,
}

impl Tls {
    /// Writes a new certificate for these names into a folder.
    ///
    /// # Errors
    /// The folder cannot be written, or a name is none.
    pub fn issue(folder: &Path, names: &[&str]) -> io::Result<Self> {
        let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
        let issued = rcgen::generate_simple_self_signed(names).map_err(io::Error::other)?;
        let file = folder.join("all.pem");
        let text = issued.cert.pem() + &issued.signing_key.serialize_pem();
        std::fs::write(&file, text)?;
        Ok(Self {
            file,
            certificate: issued.cert.der().clone(),
        })
    }

    /// Connects by TLS 1.3 with AES-128-GCM and X25519, and speaks `protocol`.
    ///
    /// # Errors
    /// Nobody listens, or there is another certificate, cipher or protocol.
    pub async fn connect(
        &self,
        address: SocketAddr,
        host: &str,
        protocol: &str,
    ) -> io::Result<TlsStream<TcpStream>> {
        let mut provider = default_provider();
        provider.cipher_suites = vec![cipher_suite::TLS13_AES_128_GCM_SHA256];
        provider.kx_groups = vec![kx_group::X25519];
        let mut roots = RootCertStore::empty();
        roots
            .add(self.certificate.clone())
            .map_err(io::Error::other)?;
        let mut config = ClientConfig::builder_with_provider(Arc::new(provider))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(io::Error::other)?
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = vec![protocol.into()];
        let socket = TcpStream::connect(address).await?;
        socket.set_nodelay(true)?;
        let name = ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
        TlsConnector::from(Arc::new(config))
            .connect(name, socket)
            .await
    }
}
