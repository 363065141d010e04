//! The sockets that a connection can be made of.

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;

/// A socket, or what is wrapped around one.
pub trait Io: AsyncRead + AsyncWrite + Unpin {
    /// Makes its closing a reset, which no reader can take for an end.
    fn reset_on_close(&self);
}

impl Io for TcpStream {
    fn reset_on_close(&self) {
        // Where the system refuses, the socket is broken already.
        let _ = socket2::SockRef::from(self).set_linger(Some(std::time::Duration::ZERO));
    }
}

impl<I: Io> Io for TlsStream<I> {
    fn reset_on_close(&self) {
        self.get_ref().0.reset_on_close();
    }
}

impl Io for tokio::io::Empty {
    fn reset_on_close(&self) {}
}
