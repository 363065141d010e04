//! The way of one request to its cell: a connection of its own, or its place on one that is shared.

use std::fmt;
use std::net::SocketAddr;
use std::pin::Pin;

use http::request::Parts;
use http::{HeaderMap, Response, StatusCode};
use tokio::time::{Instant, Sleep, sleep_until};

use super::http2::Stream;
use super::pool::Connection;
use crate::account::body::{Cut, Incoming, Relayed};
use crate::http1::Switched;
use crate::http1::exchange::ExchangeError;
use crate::wire::lines::Lines;

/// A way to send one request. Dropping it takes back what is not done.
#[derive(Debug)]
pub enum Channel {
    /// HTTP/1.1.
    Alone(Box<Connection>),
    /// HTTP/2.
    Shared(Stream),
}

/// A request on its way to a cell.
#[derive(Debug)]
pub struct Message<'m> {
    /// Its head.
    pub head: &'m mut Parts,
    /// The rest of its head.
    pub lines: Lines,
    /// Whether the answer's header lines may be left as they come (see [`HasLines`](crate::http1::HasLines)).
    pub as_is: bool,
    /// Its body; none once a connection has taken it, which gives it back where nothing of the request was sent.
    pub body: Option<Relayed>,
}

/// Why there is no answer.
#[derive(Debug)]
pub struct Failed {
    /// What went wrong.
    pub error: ChannelError,
    /// The cell provably did nothing with the request, and all of it is still here.
    pub unsent: bool,
}

/// What went wrong on the way to a cell.
#[derive(Debug)]
pub enum ChannelError {
    /// With one that speaks HTTP/1.
    Http1(ExchangeError<Cut>),
    /// With one that speaks HTTP/2.
    Http2(hyper::Error),
}

impl fmt::Display for ChannelError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Http1(error) => error.fmt(f),
            Self::Http2(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for ChannelError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Http1(error) => error.source(),
            Self::Http2(error) => error.source(),
        }
    }
}

impl Channel {
    /// Whether the cell may be sent what is in pipes of the kernel.
    pub fn takes_pipes(&self) -> bool {
        match self {
            Self::Alone(connection) => connection.takes_pipes(),
            Self::Shared(_) => false,
        }
    }

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

    /// A timer that runs out at `until` or before, to be set anew then; [`Channel::keep_timer`] takes it back.
    ///
    /// To make one for each request and to take it away again would cost more than the rest of waiting for its answer: that of
    /// a connection goes on from one request to the next, and is only looked at when it runs out.
    pub fn take_timer(&mut self, until: Instant) -> Pin<Box<Sleep>> {
        let kept = match self {
            Self::Alone(connection) => connection.timer.take(),
            Self::Shared(_) => None,
        };
        let Some(mut timer) = kept else {
            return Box::pin(sleep_until(until));
        };
        if timer.deadline() > until {
            timer.as_mut().reset(until);
        }
        timer
    }

    /// Keeps a timer for the next request.
    pub fn keep_timer(&mut self, timer: Pin<Box<Sleep>>) {
        if let Self::Alone(connection) = self {
            connection.timer = Some(timer);
        }
    }

    /// Sends a client's request, all of which is there, and returns its final answer, whose body is read as it is asked. `herald` gets those that
    /// come before it; HTTP/2 has none here. Cancelling takes the request back.
    ///
    /// # Errors
    /// `Failed`.
    pub async fn send(
        &mut self,
        message: &mut Message<'_>,
        herald: impl FnMut(StatusCode, HeaderMap),
    ) -> Result<Response<Incoming>, Failed> {
        match self {
            Self::Alone(connection) => connection.send(message, herald).await,
            Self::Shared(stream) => {
                stream.carries();
                // In a box: what HTTP/2 keeps of it is no part of a request by HTTP/1.1.
                Box::pin(stream.send(message)).await
            }
        }
    }

    /// Asks a question that is no request of a client's.
    ///
    /// # Errors
    /// `ChannelError`.
    pub async fn ask(
        &mut self,
        message: &mut Message<'_>,
    ) -> Result<Response<Incoming>, ChannelError> {
        let answered = match self {
            Self::Alone(connection) => connection.send(message, |_, _| ()).await,
            Self::Shared(stream) => stream.send(message).await,
        };
        answered.map_err(|failed| failed.error)
    }

    /// Waits until it can carry a request, the cell having proven who it is; none if the cell closed it.
    pub async fn proven(self) -> Option<Self> {
        match self {
            Self::Alone(connection) => connection.proven().map(Self::Alone),
            Self::Shared(stream) => stream.proven().await.ok().map(Self::Shared),
        }
    }

    /// Leaves the connection to the next request, both bodies having come to their ends.
    pub fn release(self, now: Instant) {
        match self {
            Self::Alone(connection) => connection.release(now),
            Self::Shared(stream) => drop(stream),
        }
    }

    /// The socket, for a tunnel, once a cell has switched protocols after all of a request. There are no upgrades in HTTP/2
    /// (RFC 9113 section 8.6).
    pub fn switch(self) -> Option<Switched> {
        match self {
            Self::Alone(connection) => connection.switch(),
            Self::Shared(_) => None,
        }
    }
}
