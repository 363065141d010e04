//! Bytes out: connections to cells, relaying over them, and waking what sleeps.
//!
//! Never decides whether to stream; never speaks to the client.

pub mod absence;
pub mod channel;
pub mod dial;
pub mod files;
pub mod hold;
pub mod http2;
mod https;
pub mod identity;
pub mod loan;
pub mod machines;
pub mod pace;
pub mod pool;
pub mod sharing;
pub mod sign_in;
pub mod socket;
pub mod stream;
pub mod tls;
pub mod traces;
pub mod tunnel;
pub mod wake;
pub mod webhook;

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

pub use dial::DialError;
pub use identity::Doubt;
pub use tls::TlsError;

use self::channel::ChannelError;
use crate::live::cells::Stage;
use crate::wire::strict::Fault;

/// Why a request could not be relayed. Nothing of the answer has gone to the client.
#[derive(Debug)]
pub enum StreamError {
    /// No connection to the cell could be made, and it is not one that can be woken.
    Dial(DialError),
    /// Whoever is at the cell's address did not prove to be the cell.
    NotTheCell(SocketAddr, Doubt),
    /// Whoever is at the cell's address has no certificate of the cell.
    Untrusted(SocketAddr, TlsError),
    /// The cell proved who it is and then closed the connection.
    Closed,
    /// The cell could not be woken.
    Wake(Arc<str>),
    /// The cell was not ready in the time its entry allows.
    WakeTimeout(Duration),
    /// The cell is being woken, how far that has come and for how long it has been; who asked comes again.
    Waking(Stage, Duration),
    /// The cell sleeps, and is not woken for this request.
    Asleep,
    /// As many requests wait for cells as may.
    TooManyHeld,
    /// The cell's entry did not change in the time a request is held.
    HoldTimeout(Duration),
    /// The connection to the cell broke before it answered.
    Broken(ChannelError),
    /// What the cell answered is no HTTP/1.1, or could be read in two ways.
    BadAnswer(Fault),
    /// The client's body broke off before the cell answered.
    ClientCut(ChannelError),
    /// The client sent nothing for so long that its upload was given up.
    ClientStalled(ChannelError),
    /// The client's body turned out to be larger than the cell's entry allows.
    TooLarge(ChannelError),
    /// The cell took no byte and sent no answer for so long.
    Silent(Duration),
    /// The cell switched protocols though nobody had asked it to.
    UnaskedUpgrade,
}

impl fmt::Display for StreamError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dial(_) => f.write_str("no connection to the cell"),
            Self::NotTheCell(address, _) => write!(f, "{address} is not known to be the cell"),
            Self::Untrusted(address, _) => write!(f, "{address} has no certificate of the cell"),
            Self::Closed => f.write_str(
                "the cell closed the connection after the challenge; it has to keep it open, or needs \"identity\": \"none\" in its entry",
            ),
            Self::Wake(why) => write!(f, "the cell could not be woken: {why}"),
            Self::WakeTimeout(after) => {
                write!(f, "the cell was not ready after {} ms", after.as_millis())
            }
            Self::Waking(stage, for_so_long) => write!(
                f,
                "the cell has been woken for {} ms ({stage:?})",
                for_so_long.as_millis()
            ),
            Self::Asleep => f.write_str("the cell sleeps, and is not woken for this request"),
            Self::TooManyHeld => f.write_str("too many requests wait for cells"),
            Self::HoldTimeout(after) => write!(
                f,
                "the cell was still paused after {} ms",
                after.as_millis()
            ),
            Self::Broken(_) => f.write_str("the connection to the cell broke before it answered"),
            Self::BadAnswer(_) => f.write_str("the cell's answer is malformed"),
            Self::ClientCut(_) => f.write_str("the client's body broke off"),
            Self::ClientStalled(_) => f.write_str("the client's body made no progress"),
            Self::TooLarge(_) => f.write_str("the client's body is too large"),
            Self::Silent(after) => write!(
                f,
                "the cell neither read nor answered for {} ms",
                after.as_millis()
            ),
            Self::UnaskedUpgrade => f.write_str("the cell switched protocols unasked"),
        }
    }
}

impl std::error::Error for StreamError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Dial(error) => Some(error),
            Self::NotTheCell(_, doubt) => Some(doubt),
            Self::Untrusted(_, error) => Some(error),
            Self::BadAnswer(fault) => Some(fault),
            Self::Broken(error)
            | Self::ClientCut(error)
            | Self::ClientStalled(error)
            | Self::TooLarge(error) => Some(error),
            Self::Closed
            | Self::Wake(_)
            | Self::WakeTimeout(_)
            | Self::Waking(..)
            | Self::Asleep
            | Self::TooManyHeld
            | Self::HoldTimeout(_)
            | Self::Silent(_)
            | Self::UnaskedUpgrade => None,
        }
    }
}

impl StreamError {
    /// Whether the cell is not where it was looked for: then it may sleep, or have moved.
    fn is_absence(&self) -> bool {
        match self {
            Self::Dial(DialError::Exhausted(_)) => false,
            // A cell that is about to stop closes what it has answered.
            Self::Dial(_) | Self::Untrusted(..) | Self::NotTheCell(..) | Self::Closed => true,
            Self::Wake(_)
            | Self::WakeTimeout(_)
            | Self::Waking(..)
            | Self::Asleep
            | Self::TooManyHeld
            | Self::HoldTimeout(_)
            | Self::Broken(_)
            | Self::BadAnswer(_)
            | Self::ClientCut(_)
            | Self::ClientStalled(_)
            | Self::TooLarge(_)
            | Self::Silent(_)
            | Self::UnaskedUpgrade => false,
        }
    }
}

/// Seconds since 1970.
pub fn now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}

/// An error with all its causes.
pub fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(": ")
}
