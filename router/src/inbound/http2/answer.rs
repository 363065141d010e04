//! An answer on its way to an HTTP/2 client: as much at once as the client has room for, and its end only where it is.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use h2::{Reason, RecvStream, SendStream};
use http::header::{self, HeaderMap, HeaderValue};
use http::{Response, StatusCode};
use http_body::Body;
use tokio::time::Sleep;

use crate::account::body::Told;
use crate::http1::{Piece, encode};
use crate::http2::stream::Exchange;
use crate::wire::{hop_by_hop, strict};

/// What is read on of a body that the cell has refused: some clients read nothing before they have sent all.
const FORGOTTEN_BYTES: usize = 16 * 1024 * 1024;

/// How the sending of a body ended.
#[derive(Debug, PartialEq, Eq)]
enum Sent {
    Whole,
    /// The body broke off, or is not what its head promised.
    Cut,
    /// The client took nothing of it for too long.
    Stalled,
    /// The client has left, or wants no more of it.
    Gone,
}

/// Sends an answer. `head_only` is for a request that wants no body; `patience` is how long a client may take nothing.
///
/// What ends without its end is reset, with a code that no client takes for an end: some take `CANCEL` for one.
pub(super) async fn send<B>(
    exchange: &Exchange,
    response: Response<B>,
    head_only: bool,
    patience: Duration,
) where
    B: Body<Data = Piece> + Told,
{
    let (mut parts, body) = response.into_parts();
    let mut body = pin!(body);
    let ends = head_only || bodiless(parts.status) || body.is_end_stream();
    // A client that is refused in the middle of its body had better stop than send the rest. What comes until it hears
    // of it is read, and the cell has had enough.
    let unwanted = (!parts.status.is_success() && !exchange.read_whole())
        .then(|| exchange.take_body_back())
        .flatten();
    if !ends
        && !parts.headers.contains_key(header::CONTENT_LENGTH)
        && let Some(length) = body.size_hint().exact()
    {
        let length = HeaderValue::from(length);
        parts.headers.insert(header::CONTENT_LENGTH, length);
    }
    if !parts.headers.contains_key(header::DATE) {
        parts.headers.insert(header::DATE, encode::date_value());
    }
    let left = strict::content_length(&parts.headers).ok().flatten();
    let mut head = Response::new(());
    *head.status_mut() = parts.status;
    *head.headers_mut() = parts.headers;
    let Some(stream) = exchange.answer(head, ends) else {
        return;
    };
    if ends {
        return;
    }
    let mut pump = Pump {
        stream,
        chunk: Bytes::new(),
        last: false,
        left,
        unwanted,
        forgotten: 0,
        stalled: None,
        patience,
    };
    let sent = poll_fn(|context| pump.poll(body.as_mut(), context)).await;
    match sent {
        Sent::Whole | Sent::Gone => {}
        Sent::Cut => {
            // A reset overtakes what has not been written: what came of the body is let go first.
            tokio::task::yield_now().await;
            pump.stream.send_reset(Reason::INTERNAL_ERROR);
        }
        Sent::Stalled => {
            body.client_stalled();
            pump.stream.send_reset(Reason::ENHANCE_YOUR_CALM);
        }
    }
}

/// Statuses whose answers have no body whatever their head says (RFC 9110 section 6.4.1).
fn bodiless(status: StatusCode) -> bool {
    status == StatusCode::NO_CONTENT || status == StatusCode::NOT_MODIFIED
}

struct Pump {
    stream: SendStream<Bytes>,
    /// What the client has no room for yet.
    chunk: Bytes,
    /// Whether it is the last.
    last: bool,
    /// What the head promised and has not come yet.
    left: Option<u64>,
    /// The request's body, which nobody wants.
    unwanted: Option<RecvStream>,
    forgotten: usize,
    /// Runs while there is something that the client does not take.
    stalled: Option<Pin<Box<Sleep>>>,
    patience: Duration,
}

impl Pump {
    fn poll<B>(&mut self, mut body: Pin<&mut B>, context: &mut Context<'_>) -> Poll<Sent>
    where
        B: Body<Data = Piece>,
    {
        if self.stream.poll_reset(context).is_ready() {
            return Poll::Ready(Sent::Gone);
        }
        self.forget(context);
        loop {
            if let Some(sent) = ready!(self.poll_chunk(context)) {
                return Poll::Ready(sent);
            }
            let ended = match ready!(body.as_mut().poll_frame(context)) {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => self.take(data.into_bytes(), body.is_end_stream()),
                    Err(frame) => self.trailers(frame.into_trailers().unwrap_or_default()),
                },
                Some(Err(_)) => Some(Sent::Cut),
                None => self.take(Bytes::new(), true),
            };
            if let Some(sent) = ended {
                return Poll::Ready(sent);
            }
        }
    }

    /// Takes what comes next of the body.
    fn take(&mut self, data: Bytes, last: bool) -> Option<Sent> {
        if let Some(left) = &mut self.left {
            let Some(rest) = left.checked_sub(data.len() as u64) else {
                return Some(Sent::Cut);
            };
            *left = rest;
        }
        if last && self.left.is_some_and(|left| left > 0) {
            // As much as came; what is missing is told by a reset.
            self.last = false;
        } else {
            self.last = last;
        }
        if data.is_empty() && last {
            return Some(if self.last {
                self.write(data, true)
            } else {
                Sent::Cut
            });
        }
        self.chunk = data;
        None
    }

    fn write(&mut self, data: Bytes, last: bool) -> Sent {
        match self.stream.send_data(data, last) {
            Ok(()) => Sent::Whole,
            Err(_) => Sent::Gone,
        }
    }

    fn trailers(&mut self, mut trailers: HeaderMap) -> Option<Sent> {
        if self.left.is_some_and(|left| left > 0) {
            return Some(Sent::Cut);
        }
        hop_by_hop::strip(&mut trailers);
        Some(match self.stream.send_trailers(trailers) {
            Ok(()) => Sent::Whole,
            Err(_) => Sent::Gone,
        })
    }

    /// Sends what there is, as the client has room for it; ready with nothing once all of it is on its way.
    fn poll_chunk(&mut self, context: &mut Context<'_>) -> Poll<Option<Sent>> {
        while !self.chunk.is_empty() {
            self.stream.reserve_capacity(self.chunk.len());
            let room = self.stream.capacity();
            if room == 0 {
                match self.stream.poll_capacity(context) {
                    Poll::Ready(Some(Ok(_))) => continue,
                    Poll::Ready(Some(Err(_)) | None) => return Poll::Ready(Some(Sent::Gone)),
                    Poll::Pending => return self.poll_stalled(context),
                }
            }
            self.stalled = None;
            let part = self.chunk.split_to(room.min(self.chunk.len()));
            let last = self.last && self.chunk.is_empty();
            let sent = self.write(part, last);
            if last || sent != Sent::Whole {
                return Poll::Ready(Some(sent));
            }
        }
        Poll::Ready(None)
    }

    fn poll_stalled(&mut self, context: &mut Context<'_>) -> Poll<Option<Sent>> {
        let patience = self.patience;
        let stalled = self
            .stalled
            .get_or_insert_with(|| Box::pin(tokio::time::sleep(patience)));
        stalled.as_mut().poll(context).map(|()| Some(Sent::Stalled))
    }

    /// Reads on what nobody wants of the request.
    fn forget(&mut self, context: &mut Context<'_>) {
        while let Some(unwanted) = &mut self.unwanted {
            let data = match unwanted.poll_data(context) {
                Poll::Ready(Some(Ok(data))) if self.forgotten < FORGOTTEN_BYTES => data,
                Poll::Ready(_) => {
                    self.unwanted = None;
                    return;
                }
                Poll::Pending => return,
            };
            self.forgotten += data.len();
            // Fails only for more than has come.
            let _ = unwanted.flow_control().release_capacity(data.len());
        }
    }
}
