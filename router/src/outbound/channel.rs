//! The way of one request to its cell: a connection of its own, or its place on one that is shared.

use std::net::SocketAddr;

use http::{Request, Response};
use hyper::body::Incoming;

use super::http2::{Failed, Stream};
use super::pool::Connection;
use crate::account::body::Relayed;

/// A way to send one request. Dropping it takes back what is not done.
#[derive(Debug)]
pub enum Channel {
    /// HTTP/1.1.
    Alone(Connection),
    /// HTTP/2.
    Shared(Stream),
}

impl Channel {
    /// Where it leads.
    pub fn address(&self) -> SocketAddr {
        match self {
            Self::Alone(connection) => connection.address,
            Self::Shared(stream) => stream.address(),
        }
    }

    /// Whether its connection has carried a request before: such a one may be closed by the cell at any moment.
    pub fn used(&self) -> bool {
        match self {
            Self::Alone(connection) => connection.used(),
            Self::Shared(stream) => stream.used(),
        }
    }

    /// How many bytes have come over its connection.
    pub fn heard(&self) -> u64 {
        match self {
            Self::Alone(connection) => connection.heard(),
            Self::Shared(stream) => stream.heard(),
        }
    }

    /// Sends a client's request, and returns the head of its answer. Cancelling takes the request back.
    ///
    /// # Errors
    /// `Failed`.
    pub async fn send(&mut self, request: Request<Relayed>) -> Result<Response<Incoming>, Failed> {
        match self {
            Self::Alone(connection) => {
                let sent = connection.sender().try_send_request(request).await;
                sent.map_err(|mut error| Failed {
                    unsent: error.take_message().map(Box::new),
                    error: error.into_error(),
                })
            }
            Self::Shared(stream) => {
                stream.carries();
                stream.send(request).await
            }
        }
    }

    /// Asks a question that is no request of a client's.
    ///
    /// # Errors
    /// As hyper's.
    pub async fn ask(&mut self, request: Request<Relayed>) -> hyper::Result<Response<Incoming>> {
        match self {
            Self::Alone(connection) => connection.ask(request).await,
            Self::Shared(stream) => stream.send(request).await.map_err(|failed| failed.error),
        }
    }

    /// Waits until it can carry a request, the cell having proven who it is.
    ///
    /// # Errors
    /// Where the cell closed the connection.
    pub async fn proven(self) -> hyper::Result<Self> {
        match self {
            Self::Alone(connection) => connection.proven().await.map(Self::Alone),
            Self::Shared(stream) => stream.proven().await.map(Self::Shared),
        }
    }

    /// Leaves the connection to the next request, both bodies having come to their ends.
    pub fn release(self) {
        match self {
            Self::Alone(connection) => connection.release(),
            Self::Shared(stream) => drop(stream),
        }
    }

    /// Leaves the socket to a tunnel.
    pub fn detach(self) {
        match self {
            Self::Alone(connection) => connection.detach(),
            // There are no upgrades in HTTP/2 (RFC 9113 section 8.6).
            Self::Shared(stream) => drop(stream),
        }
    }
}
