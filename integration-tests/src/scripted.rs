//! A cell that does what a test tells it, byte by byte.

use std::net::{Ipv4Addr, SocketAddr};

use tokio::net::{TcpListener, TcpSocket};

use crate::client::Raw;

/// A listener whose connections a test answers itself.
#[derive(Debug)]
pub struct ScriptedCell {
    listener: TcpListener,
    address: SocketAddr,
}

impl From<TcpListener> for ScriptedCell {
    fn from(listener: TcpListener) -> Self {
        let address = listener
            .local_addr()
            .expect("a bound socket has an address");
        Self { listener, address }
    }
}

impl ScriptedCell {
    /// Listens on the loopback interface.
    ///
    /// # Panics
    /// It has no free port.
    pub async fn listen() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
            .await
            .expect("the loopback interface has a free port");
        listener.into()
    }

    /// Listens, with about so many bytes of room in the kernel for what has not been read yet.
    ///
    /// # Panics
    /// The loopback interface has no free port.
    pub fn listen_with_room(bytes: u32) -> Self {
        let listening = || {
            let socket = TcpSocket::new_v4()?;
            socket.set_recv_buffer_size(bytes)?;
            socket.bind((Ipv4Addr::LOCALHOST, 0).into())?;
            socket.listen(4096)
        };
        listening()
            .expect("the loopback interface has a free port")
            .into()
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.address
    }

    /// The next connection. Cancel safe.
    ///
    /// # Panics
    /// The system has no room for another connection.
    pub async fn accept(&self) -> Raw {
        let (stream, _) = self
            .listener
            .accept()
            .await
            .expect("a connection can be accepted");
        // A hint to the kernel; without it the socket works all the same.
        let _ = stream.set_nodelay(true);
        stream.into()
    }

    /// The next connection with the head of the first request on it.
    ///
    /// # Panics
    /// The connection ended before.
    pub async fn request(&self) -> (Raw, String) {
        let mut connection = self.accept().await;
        let head = connection
            .head()
            .await
            .expect("a connection carries a request");
        (connection, head)
    }
}
