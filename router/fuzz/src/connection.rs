//! A client's HTTP/1.1 connection: whatever comes, the requests that are handed on are the ones that the second reader
//! finds, in their order and with their bodies, up to where the connection is closed for a reason.

use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::LazyLock;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use cell_router::config::{Config, Place, Settings};
use cell_router::http1::connection::Body;
use cell_router::http1::io::Io;
use cell_router::http1::{Fault, Piece};
use cell_router::inbound::Terms;
use cell_router::inbound::http1::serve;
use cell_router::live::drain::Drain;
use cell_router::live::room::Room;
use clap::{Args as _, FromArgMatches as _};
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::runtime::{Builder, Runtime};
use tokio::time::Instant;

use super::{pieces, strict};

/// A request that was handed on.
#[derive(Debug, PartialEq)]
struct Handed {
    method: String,
    target: String,
    /// The body and its count of trailers, if it was read: to its end, or to where it broke off.
    body: Option<Result<(Vec<u8>, usize), ()>>,
}

impl Handed {
    fn is_refused(&self) -> bool {
        self.target.contains("refuse")
    }
}

/// All that became of a connection.
#[derive(Debug, Default, PartialEq)]
struct Seen {
    handed: Vec<Handed>,
    fault: Option<Fault>,
    written: Vec<u8>,
}

/// A client that sends its bytes in pieces, and reads whatever it gets.
struct Client {
    pieces: Vec<Bytes>,
    next: usize,
    seen: Rc<RefCell<Seen>>,
}

impl AsyncRead for Client {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let next = self.next;
        if let Some(piece) = self.pieces.get_mut(next) {
            let taken = piece.split_to(piece.len().min(into.remaining()));
            into.put_slice(&taken);
            if piece.is_empty() {
                self.next += 1;
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Client {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.seen.borrow_mut().written.extend_from_slice(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

impl Io for Client {
    fn reset_on_close(&self) {}
}

/// The settings of a router to which nothing was said.
pub static CONFIG: LazyLock<Config> = LazyLock::new(|| {
    let matches = Settings::augment_args(clap::Command::new("serve")).get_matches_from(["serve"]);
    let settings = Settings::from_arg_matches(&matches).expect("settings have defaults");
    settings.into_config(Place::Elsewhere, false)
});

thread_local! {
    /// Whatever runs here is driven by it.
    pub static RUNTIME: Runtime = Builder::new_current_thread().enable_time().build().expect("a runtime");
}

/// What must hold for the bytes of a client's connection.
pub fn holds(data: &[u8]) {
    let whole = served(&[data]);
    for way in pieces::ways(data) {
        let pieces = served(&way);
        judge(data, &pieces);
        let (less, more) = match pieces.handed.len() <= whole.handed.len() {
            true => (&pieces, &whole),
            false => (&whole, &pieces),
        };
        // Who is refused before all of the body has come is served no further.
        if less.fault.is_none() && less.handed.last().is_some_and(Handed::is_refused) {
            assert!(more.handed.starts_with(&less.handed), "in pieces {way:?}");
            continue;
        }
        assert_eq!(pieces.handed, whole.handed, "in pieces {way:?}");
        assert_eq!(pieces.fault, whole.fault, "in pieces {way:?}");
    }
    judge(data, &whole);
}

fn served(pieces: &[&[u8]]) -> Seen {
    let seen = Rc::new(RefCell::new(Seen::default()));
    let client = Client {
        pieces: pieces
            .iter()
            .filter(|piece| !piece.is_empty())
            .map(|piece| Bytes::copy_from_slice(piece))
            .collect(),
        next: 0,
        seen: Rc::clone(&seen),
    };
    let drain = Drain::default();
    let refuse = |fault: Fault| {
        let before = seen.borrow_mut().fault.replace(fault);
        assert_eq!(before, None, "a connection is refused once");
        let mut response = Response::new(Full::new(Piece::default()));
        *response.status_mut() = fault.status();
        response
    };
    let handle = |request| hand(request, &seen);
    RUNTIME.with(|runtime| {
        runtime.block_on(serve(
            Box::new(client),
            BytesMut::new(),
            Instant::now() + CONFIG.head_timeout,
            Terms {
                config: &CONFIG,
                signal: &drain.signal(),
                room: &Room::new(1, 1),
            },
            handle,
            refuse,
        ));
    });
    drop(drain);
    seen.take()
}

/// Answers a request: after its body, or without it where the target says so.
async fn hand(request: Request<Body>, seen: &RefCell<Seen>) -> Response<Full<Piece>> {
    let (head, mut body) = request.into_parts();
    let target = head.uri.to_string();
    let mut response = Response::new(Full::new(Bytes::from_static(b"ok").into()));
    if target.contains("refuse") {
        *response.status_mut() = StatusCode::PAYLOAD_TOO_LARGE;
    }
    let index = seen.borrow().handed.len();
    let leave = target.contains("leave") || target.contains("refuse");
    seen.borrow_mut().handed.push(Handed {
        method: head.method.to_string(),
        target,
        body: None,
    });
    if leave {
        return response;
    }
    let (mut data, mut trailers) = (Vec::new(), 0);
    let end = loop {
        match body.frame().await {
            None => break Ok((data, trailers)),
            Some(Err(_)) => break Err(()),
            Some(Ok(frame)) => match frame.into_data() {
                Ok(some) => data.extend_from_slice(&some.into_bytes()),
                Err(frame) => trailers = frame.trailers_ref().map_or(0, http::HeaderMap::len),
            },
        }
    };
    seen.borrow_mut().handed[index].body = Some(end);
    response
}

fn judge(data: &[u8], seen: &Seen) {
    let mut at = 0;
    for (index, handed) in seen.handed.iter().enumerate() {
        let last = index + 1 == seen.handed.len();
        at += strict::passed_over(&data[at..]);
        let head = strict::head(&data[at..]).expect("the second reader takes it for a head");
        assert_eq!(handed.method.as_bytes(), head.method);
        if head.target.starts_with(b"/") {
            assert_eq!(handed.target.as_bytes(), head.target);
        }
        at += head.bytes;
        match (strict::body(&data[at..], head.framing), &handed.body) {
            (Ok(body), Some(Ok((read, trailers)))) => {
                assert_eq!((&body.data, body.trailers.len()), (read, *trailers));
                at += body.bytes;
            }
            (Ok(body), None) => at += body.bytes,
            // Its framing is beyond a limit of size, or it never came whole.
            (Ok(_) | Err(_), Some(Err(()))) | (Err(_), None) => {
                assert!(last, "nothing comes after a body that broke off");
                return;
            }
            (Err(stop), Some(Ok(_))) => panic!("{stop:?}, but the router takes it for whole"),
        }
        let close = head.lists("connection", "close");
        let stays = !close && (head.modern || head.lists("connection", "keep-alive"));
        assert!(last || stays, "nothing comes after the last request");
        let unread = handed.body.is_none() && head.framing != strict::Framing::Length(0);
        if last && (!stays || unread) {
            return;
        }
    }
    // It was not closed for a reason of its own: what comes next is none, or is refused.
    at += strict::passed_over(&data[at..]);
    match (strict::head(&data[at..]), seen.fault) {
        (
            Ok(_),
            Some(Fault::Target | Fault::UnknownCoding | Fault::TargetTooLong | Fault::HeadTooLarge),
        ) => {}
        (Ok(head), fault) => {
            panic!("{fault:?}, but the second reader takes it for a head: {head:?}")
        }
        (Err(_), _) => {}
    }
    let answers = seen
        .written
        .windows(9)
        .filter(|part| part == b"HTTP/1.1 ")
        .count();
    assert_eq!(
        answers,
        seen.handed.len() + usize::from(seen.fault.is_some()),
        "each has its answer"
    );
}
