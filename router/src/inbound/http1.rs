//! An HTTP/1.1 connection of a client: one request after the other, each with its answer.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::task::Poll;
use std::time::Duration;

use bytes::BytesMut;
use http::header::{self, HeaderValue};
use http::{Method, Request, Response, StatusCode, Version};
use http_body::Body;
use hyper::ext::ReasonPhrase;
use tokio::time::{Instant, Sleep, sleep, timeout, timeout_at};

use super::Terms;
use crate::http1::connection::{self, Connection};
use crate::http1::head::{self, Framing, Gap, Head, Limits, Scanner};
use crate::http1::io::Io;
use crate::http1::{Fault, HasLines, Piece, encode};
use crate::live::drain::{Signal, Stop};
use crate::live::room::Room;

/// What is read on of a body that nobody wanted, or after the last answer, and for how long: enough for a client to see
/// its answer before it sees its connection close (RFC 9112 section 9.6).
const LINGER_BYTES: usize = 16 * 1024 * 1024;
const LINGER_TIME: Duration = Duration::from_secs(5);

/// What becomes of a connection after an answer.
#[derive(Debug, PartialEq, Eq)]
enum After {
    /// The next request.
    Next,
    /// The client is to see the end of what was written, and then the connection closes.
    Close,
    /// Nothing more can be said on it.
    Gone,
}

/// Serves a connection, from which `ahead` was read already, until it ends. Its first head is to have come by `first`. After
/// a stop signal the request under way is finished, or one that comes at once, and no more are taken.
///
/// `handle` answers a request; it is dropped if the client leaves. `refuse` answers what is none.
pub async fn serve<R, B>(
    io: Box<dyn Io>,
    ahead: BytesMut,
    first: Instant,
    terms: Terms<'_>,
    handle: impl Fn(Request<connection::Body>) -> R,
    refuse: impl Fn(Fault) -> Response<B>,
) where
    R: Future<Output = Response<B>>,
    B: Body<Data = Piece> + HasLines + 'static,
{
    let Terms {
        config,
        signal,
        room,
    } = terms;
    let connection = Connection::new(io, ahead);
    let limits = Limits {
        bytes: config.max_head_bytes,
        lines: config.max_headers,
    };
    let mut stopping = pin!(signal.last_words());
    let mut idle = pin!(sleep(config.idle_timeout));
    let mut first = Some(first);
    loop {
        connection.rest();
        let mut gap = Gap::default();
        let mut since = None;
        while connection.with_read(|read| gap.pass(read)) {
            let idle_since = *since.get_or_insert_with(Instant::now);
            let until = first.unwrap_or(idle_since + config.idle_timeout);
            tokio::select! {
                biased;
                filled = connection.fill() => match filled {
                    Ok(true) => {}
                    // A connection without a request is nobody's loss.
                    Ok(false) | Err(_) => return,
                },
                () = passed(idle.as_mut(), until) => {
                    // Who still takes the last of an answer has as long for it as for the rest.
                    if !connection.is_unwritten() {
                        return;
                    }
                    (since, first) = (None, None);
                }
                // Its end is said before it closes: a request that crosses it on the way finds no reset.
                () = &mut stopping => return Box::pin(linger(&connection)).await,
                () = wanted(&connection, room, idle_since) => return,
            }
        }
        let first = first.take();
        let mut scanner = Scanner::default();
        let head = match connection.with_read(|read| take_head(read, &mut scanner, limits)) {
            // Nearly always it came at once.
            Ok(Some(head)) => Ok(head),
            Ok(None) => {
                let reading = read_head(&connection, scanner, limits);
                let by = first.unwrap_or_else(|| Instant::now() + config.head_timeout);
                match timeout_at(by, reading).await {
                    Ok(Ok(Some(head))) => Ok(head),
                    Ok(Ok(None)) => return,
                    Ok(Err(fault)) => Err(fault),
                    Err(_) => Err(Fault::TimedOut),
                }
            }
            Err(fault) => Err(fault),
        };
        // What the answer before has left to be written, nearly always it is.
        if poll_fn(|context| connection.poll_flush(context))
            .await
            .is_err()
        {
            return;
        }
        let after = match head {
            // In a box of its own: while the connection is idle, nothing is kept of it.
            Ok(head) => made_in_box(|| exchange(&connection, head, signal, &handle)).await,
            Err(fault) => {
                connection.begin(Framing::None, Version::HTTP_11);
                let response = refuse(fault);
                let shape = Shape {
                    head_only: false,
                    version: Version::HTTP_11,
                    keep_alive: false,
                };
                Box::pin(answer(&connection, response, shape)).await
            }
        };
        match after {
            After::Next => {}
            After::Close => return Box::pin(linger(&connection)).await,
            After::Gone => return,
        }
    }
}

/// Waits until a connection on which nothing has been asked since then is to end for another, all of its last answer being
/// written. Who polls this flushes before.
async fn wanted(connection: &Connection, room: &Room, since: Instant) {
    let mut wanted = pin!(room.wanted(since));
    poll_fn(|context| {
        if connection.is_unwritten() {
            // What it has been told, if anything, goes to the next one.
            wanted.set(room.wanted(since));
            return Poll::Pending;
        }
        wanted.as_mut().poll(context)
    })
    .await;
}

/// As `Box::pin`, which makes it elsewhere and moves all the room that it will ever need.
fn made_in_box<F>(make: impl FnOnce() -> F) -> Pin<Box<F>> {
    Box::into_pin(Box::write(Box::new_uninit(), make()))
}

/// Waits until then. `timer` goes on from one wait to the next and is only looked at when it runs out: to set it anew for
/// each request would cost more than the rest of waiting for one.
async fn passed(mut timer: Pin<&mut Sleep>, until: Instant) {
    if timer.deadline() > until {
        timer.as_mut().reset(until);
    }
    loop {
        timer.as_mut().await;
        if Instant::now() >= until {
            return;
        }
        timer.as_mut().reset(until);
    }
}

/// Takes a head, if all of it has been read.
fn take_head(
    read: &mut BytesMut,
    scanner: &mut Scanner,
    limits: Limits,
) -> Result<Option<Head>, Fault> {
    let Some(length) = scanner.scan(read, limits)? else {
        return Ok(None);
    };
    head::parse(&read.split_to(length).freeze(), limits).map(Some)
}

/// Reads on until there is a head; `None` where the connection ended first.
async fn read_head(
    connection: &Connection,
    mut scanner: Scanner,
    limits: Limits,
) -> Result<Option<Head>, Fault> {
    while connection.fill().await.unwrap_or(false) {
        let head = connection.with_read(|read| take_head(read, &mut scanner, limits))?;
        if head.is_some() {
            return Ok(head);
        }
    }
    Ok(None)
}

/// What the request says of the form of its answer.
#[derive(Debug, Clone, Copy)]
struct Shape {
    head_only: bool,
    version: Version,
    keep_alive: bool,
}

async fn exchange<R, B>(
    connection: &Connection,
    head: Head,
    signal: &Signal,
    handle: &impl Fn(Request<connection::Body>) -> R,
) -> After
where
    R: Future<Output = Response<B>>,
    B: Body<Data = Piece> + HasLines + 'static,
{
    let Head {
        parts,
        framing,
        keep_alive,
    } = head;
    let shape = Shape {
        head_only: parts.method == Method::HEAD,
        version: parts.version,
        keep_alive,
    };
    let expects = framing != Framing::None && parts.headers.contains_key(header::EXPECT);
    let body = connection.begin(framing, parts.version);
    let response = {
        let mut handled = pin!(handle(Request::from_parts(parts, body)));
        poll_fn(|context| {
            if let Poll::Ready(response) = handled.as_mut().poll(context) {
                return Poll::Ready(Some(response));
            }
            connection.poll_gone(context).map(|()| None)
        })
        .await
    };
    let Some(response) = response else {
        return After::Gone;
    };
    // A client that was not asked for its body may send it or not: what comes next could be either.
    let unasked = expects && !connection.continued();
    if !unasked {
        // A small body that nobody wanted has come with its head, as a rule.
        connection.forget_body();
    }
    let unread = !connection.read_whole();
    let unasked = unread && unasked;
    // One that is refused in the middle of its body had better stop than send the rest.
    let refused = unread && !response.status().is_success();
    let shape = Shape {
        keep_alive: shape.keep_alive && !unasked && !refused && !signal.has(Stop::Draining),
        ..shape
    };
    if refused {
        // Some clients read nothing before they have sent all: what they send is read, and the cell has had enough.
        connection.take_body_back();
    }
    let after = answer(connection, response, shape).await;
    connection.take_body_back();
    if after == After::Next && !connection.read_whole() && !discard(connection).await {
        return After::Close;
    }
    after
}

/// How an answer's end is told (RFC 9112 section 6.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// It has no body.
    Head,
    /// By its length.
    Length(u64),
    /// By the last chunk.
    Chunked,
    /// By the end of the connection.
    Close,
}

/// Writes an answer. Reads on, meanwhile, what nobody wants of the request: some clients read nothing before they have
/// sent all.
async fn answer<B>(connection: &Connection, response: Response<B>, shape: Shape) -> After
where
    B: Body<Data = Piece> + HasLines + 'static,
{
    let (parts, mut body) = response.into_parts();
    let as_is = body.take_lines();
    let switches = parts.status == StatusCode::SWITCHING_PROTOCOLS;
    let field = parts.headers.get(header::CONTENT_LENGTH);
    let said = field
        .and_then(length)
        .or(as_is.as_ref().and_then(|lines| lines.length));
    let end = if shape.head_only || switches || bodiless(parts.status) {
        End::Head
    } else if let Some(length) = said.or(body.size_hint().exact()) {
        End::Length(length)
    } else if shape.version == Version::HTTP_11 {
        End::Chunked
    } else {
        End::Close
    };
    let keep_alive = shape.keep_alive && end != End::Close;
    let reason = parts.extensions.get::<ReasonPhrase>();
    connection.queue_head(|write| {
        let reason = reason.map(ReasonPhrase::as_bytes);
        encode::head(write, parts.status, reason, &parts.headers);
        let dated = match &as_is {
            Some(as_is) => {
                write.extend_from_slice(&as_is.lines);
                as_is.dated
            }
            None => parts.headers.contains_key(header::DATE),
        };
        if !dated {
            encode::date(write);
        }
        match end {
            End::Length(length) if said.is_none() && field.is_none() => {
                encode::field(write, "content-length", length.to_string().as_bytes());
            }
            End::Chunked => encode::field(write, "transfer-encoding", b"chunked"),
            End::Head | End::Length(_) | End::Close => {}
        }
        if switches {
        } else if !keep_alive {
            encode::field(write, "connection", b"close");
        } else if shape.version != Version::HTTP_11 {
            encode::field(write, "connection", b"keep-alive");
        }
        write.extend_from_slice(b"\r\n");
    });
    // They may be parts of a buffer that was lent, and a body may take for ever.
    drop(parts);
    drop(as_is);
    let mut body = pin!(body);
    if switches {
        return match poll_fn(|context| connection.poll_flush(context)).await {
            Ok(()) => {
                connection.clone().switch();
                After::Gone
            }
            Err(_) => After::Gone,
        };
    }
    let sent = send(connection, body.as_mut(), end).await;
    match sent {
        // Where the client was told that it may go on, it may, also if the stop came meanwhile.
        Sent::Whole if keep_alive => After::Next,
        Sent::Whole => After::Close,
        // What ends with its connection must not seem to have ended.
        Sent::Cut if end == End::Close => {
            connection.reset_on_close();
            After::Gone
        }
        // It is short of its length or its last chunk: that is seen, and so is all that was written before it.
        Sent::Cut => After::Close,
        Sent::Gone => After::Gone,
    }
}

/// Statuses whose answers have no body whatever their head says (RFC 9110 section 6.4.1).
fn bodiless(status: StatusCode) -> bool {
    status.is_informational()
        || status == StatusCode::NO_CONTENT
        || status == StatusCode::NOT_MODIFIED
}

fn length(said: &HeaderValue) -> Option<u64> {
    said.to_str().ok()?.parse().ok()
}

#[derive(Debug, PartialEq, Eq)]
enum Sent {
    Whole,
    /// The body broke off.
    Cut,
    /// The client did.
    Gone,
}

async fn send<B>(connection: &Connection, mut body: Pin<&mut B>, end: End) -> Sent
where
    B: Body<Data = Piece> + 'static,
{
    let mut left = match end {
        End::Length(length) => Some(length),
        End::Head => Some(0),
        End::Chunked | End::Close => None,
    };
    let mut ended = end == End::Head || left == Some(0) && body.is_end_stream();
    let mut unread = LINGER_BYTES;
    poll_fn(move |context| {
        while unread > 0 {
            let Poll::Ready(count) = connection.poll_discard(context) else {
                break;
            };
            unread = if count == 0 {
                0
            } else {
                unread.saturating_sub(count)
            };
        }
        loop {
            let mut waits = false;
            while !ended && !waits && connection.may_queue() {
                match body.as_mut().poll_frame(context) {
                    Poll::Pending => waits = true,
                    Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                        Ok(data) if data.is_empty() => {}
                        Ok(data) => {
                            match &mut left {
                                Some(left) if (data.len() as u64) > *left => {
                                    return Poll::Ready(Sent::Cut);
                                }
                                Some(left) => *left -= data.len() as u64,
                                None => {}
                            }
                            queue(connection, data, end);
                            if left == Some(0) && body.is_end_stream() {
                                ended = true;
                            }
                        }
                        Err(frame) => {
                            if let (Ok(trailers), End::Chunked) = (frame.into_trailers(), end) {
                                let last = encode::last_chunk(&trailers);
                                connection.queue(&last, Piece::default(), b"");
                            }
                            ended = true;
                        }
                    },
                    Poll::Ready(Some(Err(_))) => {
                        // What came whole is still passed on, and no more: the client sees that it ends too early.
                        let _ = connection.poll_flush(context);
                        return Poll::Ready(Sent::Cut);
                    }
                    Poll::Ready(None) => {
                        if left.is_some_and(|left| left > 0) {
                            let _ = connection.poll_flush(context);
                            return Poll::Ready(Sent::Cut);
                        }
                        if end == End::Chunked {
                            connection.queue(b"", Piece::default(), b"0\r\n\r\n");
                        }
                        ended = true;
                    }
                }
            }
            let flushed = match ended {
                true => connection.poll_flush_later(context),
                false => connection.poll_flush(context),
            };
            match flushed {
                Poll::Ready(Ok(())) if ended => return Poll::Ready(Sent::Whole),
                Poll::Ready(Ok(())) if waits => {}
                Poll::Ready(Ok(())) => continue,
                Poll::Ready(Err(_)) => return Poll::Ready(Sent::Gone),
                Poll::Pending => {}
            }
            return connection.poll_gone(context).map(|()| Sent::Gone);
        }
    })
    .await
}

fn queue(connection: &Connection, data: Piece, end: End) {
    if end == End::Chunked {
        let size = encode::chunk_size(data.len());
        connection.queue(size.as_bytes(), data, b"\r\n");
    } else {
        connection.queue(b"", data, b"");
    }
}

/// Reads the rest of a body that nobody wants; whether its end came within bounds.
async fn discard(connection: &Connection) -> bool {
    let mut left = LINGER_BYTES;
    let reading = poll_fn(|context| {
        while left > 0 {
            match connection.poll_discard(context) {
                Poll::Ready(0) => return Poll::Ready(()),
                Poll::Ready(count) => left = left.saturating_sub(count),
                Poll::Pending => return Poll::Pending,
            }
        }
        Poll::Ready(())
    });
    timeout(LINGER_TIME, reading).await.is_ok() && connection.read_whole()
}

/// Writes what is left, says that the answer is over, and reads on a little until the client has closed, too.
async fn linger(connection: &Connection) {
    let mut left = LINGER_BYTES;
    // For this it has as long as for the rest of the answer. Who reads nothing before all of its own is sent is read on.
    let flushed = poll_fn(|context| {
        let _ = connection.poll_swallow(context, &mut left);
        connection.poll_flush(context)
    });
    if flushed.await.is_err() {
        return;
    }
    let closing = async {
        poll_fn(|context| connection.poll_shutdown(context)).await?;
        poll_fn(|context| connection.poll_swallow(context, &mut left)).await;
        std::io::Result::Ok(())
    };
    // Whoever does not close in time is closed.
    let _ = timeout(LINGER_TIME, closing).await;
}
