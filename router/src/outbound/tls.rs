//! TLS to a cell: what comes over the socket is not believed before the certificate is.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::dial::private_name;
use crate::http1::tcp::Tcp;
use crate::live::trust::Trust;
use crate::registry::{Cell, Placement, Protocol, Tls};

/// HTTP/2 as ALPN names it (RFC 9113 section 3.1).
const HTTP2: &[u8] = b"h2";

/// Why there is no TLS with the cell. Not a byte of a request has been sent.
#[derive(Debug)]
pub enum TlsError {
    /// Nothing was read of what its certificate must be.
    Untold,
    /// The name to ask for is none.
    Name(String),
    /// The handshake failed: most often, the certificate is not the one that the cell's entry asks for.
    Handshake(io::Error),
    /// It does not speak HTTP/2, or does not say so by ALPN (RFC 9113 section 3.2).
    NoHttp2,
    /// The handshake did not end in the time that connecting may take.
    TimedOut(Duration),
}

impl fmt::Display for TlsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Untold => f.write_str("it is not known what its certificate must be"),
            Self::Name(name) => write!(f, "{name:?} is no name for TLS"),
            Self::Handshake(_) => f.write_str("the TLS handshake failed"),
            Self::NoHttp2 => {
                f.write_str("it did not choose HTTP/2, which the cell's entry says that it speaks")
            }
            Self::TimedOut(after) => {
                write!(f, "no TLS handshake in {} ms", after.as_millis())
            }
        }
    }
}

impl std::error::Error for TlsError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Handshake(error) => Some(error),
            Self::Untold | Self::Name(_) | Self::NoHttp2 | Self::TimedOut(_) => None,
        }
    }
}

/// Speaks TLS on a fresh socket, within the time that connecting to the cell may take. Cancel safe.
///
/// # Errors
/// `TlsError`.
pub async fn secure(
    socket: TcpStream,
    cell: &Cell,
    tls: &Tls,
    trust: Option<&Trust>,
) -> Result<TlsStream<Tcp>, TlsError> {
    let trust = trust.ok_or(TlsError::Untold)?;
    let name = name_of(cell, tls);
    let server = ServerName::try_from(name.clone()).map_err(|_| TlsError::Name(name))?;
    let patience = cell.policy.limits.connect_timeout;
    let mut config = trust.config();
    let http2 = cell.policy.protocol == Protocol::Http2;
    if http2 {
        Arc::make_mut(&mut config).alpn_protocols = vec![HTTP2.to_vec()];
    }
    let handshake = TlsConnector::from(config).connect(server, Tcp::near(socket));
    let stream = timeout(patience, handshake)
        .await
        .map_err(|_| TlsError::TimedOut(patience))?
        .map_err(TlsError::Handshake)?;
    if http2 && stream.get_ref().1.alpn_protocol() != Some(HTTP2) {
        return Err(TlsError::NoHttp2);
    }
    Ok(stream)
}

/// The name that is asked for, and that the certificate must be for.
fn name_of(cell: &Cell, tls: &Tls) -> String {
    match (&tls.name, &cell.placement) {
        (Some(name), _) => name.to_string(),
        (None, Placement::Address { host, .. }) => host.to_string(),
        (None, Placement::Machine { .. }) => private_name(cell).trim_end_matches('.').to_owned(),
    }
}
