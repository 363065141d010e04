//! HTTP/1.1: one request after the other, or all before the first answer.

use std::sync::atomic::Ordering;
use std::time::Duration;

use socket2::SockRef;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::time::{Instant, sleep, timeout};

use super::super::content::{Content, Meter};
use super::super::ledger::{End, Got};
use super::super::plan::{Dialect, Method, Request, Session, Way};
use super::super::wire::{Broken, Head, Reader, write_piece};
use super::{Clients, PIECE, SLOW, framing};

/// How long a client that expects `100 Continue` waits for it before it sends all the same.
const CONTINUE_WAIT: Duration = Duration::from_secs(3);

/// After so long without a request a fresh connection may be closed, too: half of what a router that leaves waits for.
const LATE: Duration = Duration::from_millis(500);

/// A connection of a client.
struct Line {
    reader: Reader<OwnedReadHalf>,
    writer: OwnedWriteHalf,
    /// It has carried a request before, so it may be closed at any moment.
    kept: bool,
    /// When it was opened: a router that leaves does not wait for ever for what is asked on it.
    since: Instant,
}

impl From<TcpStream> for Line {
    fn from(stream: TcpStream) -> Self {
        let (read, writer) = stream.into_split();
        Self {
            reader: Reader::new(read),
            writer,
            kept: false,
            since: Instant::now(),
        }
    }
}

impl Line {
    /// Whether it may be closed before what is sent now is read.
    fn stale(&self) -> bool {
        self.kept || self.since.elapsed() >= LATE
    }
}

/// How sending a body ended.
enum Sent {
    Whole,
    Cut,
    Broke,
}

/// Sends the requests of a session one after the other, over as few connections as it takes.
pub(super) async fn in_turn(clients: &Clients, session: Session) {
    let mut line = None;
    for request in clients.requests(session) {
        if clients.stop.load(Ordering::SeqCst) {
            break;
        }
        clients
            .book(request, async {
                let mut open = match line.take() {
                    Some(kept) => kept,
                    None => match clients.connect(session).await {
                        Ok(stream) => Line::from(stream),
                        Err(end) => return end,
                    },
                };
                let closes = session.dialect == Dialect::Close;
                let (end, keep) = exchange(clients, &mut open, &request, closes).await;
                open.kept = true;
                line = keep.then_some(open);
                end
            })
            .await;
    }
}

fn head(clients: &Clients, request: &Request, closes: bool) -> String {
    let (host, path) = clients.address(request);
    let expects = request.upload.is_some_and(|upload| upload.expect);
    format!(
        "{} {path} HTTP/1.1\r\nhost: {host}\r\nsoak-id: {}\r\n{}{}{}\r\n",
        request.method.as_str(),
        request.id,
        framing(request),
        if expects {
            "expect: 100-continue\r\n"
        } else {
            ""
        },
        if closes { "connection: close\r\n" } else { "" },
    )
}

/// One request and its answer; whether the connection can carry another.
async fn exchange(
    clients: &Clients,
    line: &mut Line,
    request: &Request,
    closes: bool,
) -> (End, bool) {
    let head = head(clients, request, closes);
    let sent = line.writer.write_all(head.as_bytes()).await;
    let stale = line.stale();
    if sent.is_err() {
        return (broke(stale, "cannot send"), false);
    }
    if request.upload.is_some_and(|upload| upload.expect) {
        match timeout(CONTINUE_WAIT, line.reader.head()).await {
            Ok(Ok(head)) if head.status() >= 200 => {
                return answer(clients, line, request, &head, false).await;
            }
            Ok(Ok(_)) | Err(_) => {}
            Ok(Err(broken)) => {
                return (broke(stale && broken == Broken::Ended, "expecting"), false);
            }
        }
    }
    let Line { reader, writer, .. } = line;
    let sending = send(clients, writer, request);
    let mut whole = false;
    let answered = tokio::select! {
        biased;
        sent = sending => match sent {
            Sent::Cut => {
                leave(line, request).await;
                return (End::Left, false);
            }
            Sent::Whole => {
                whole = true;
                reader.final_head().await
            }
            // Whoever closed may have said why.
            Sent::Broke => reader.final_head().await,
        },
        head = reader.final_head() => head,
    };
    match answered {
        Ok(head) => answer(clients, line, request, &head, whole).await,
        Err(Broken::Ended) => (broke(stale, "closed"), false),
        Err(Broken::Cut) => (broke(stale && request.upload.is_none(), "reset"), false),
        Err(Broken::Garbled) => (End::Broke("garbled"), false),
    }
}

fn broke(stale: bool, why: &'static str) -> End {
    if stale {
        End::Stale(why)
    } else {
        End::Broke(why)
    }
}

/// Breaks off, by a reset or by an end where there must be none.
async fn leave(line: &mut Line, request: &Request) {
    if request.id.is_multiple_of(2) {
        let socket: &TcpStream = line.writer.as_ref();
        // Without it the connection ends all the same.
        let _ = SockRef::from(socket).set_linger(Some(Duration::ZERO));
    } else {
        let _ = line.writer.shutdown().await;
    }
}

async fn send(clients: &Clients, writer: &mut OwnedWriteHalf, request: &Request) -> Sent {
    let mut meter = Meter::new(Content::upload(clients.ledger.world.seed, request.id));
    let Some(upload) = request.upload else {
        clients.ledger.sent(request.id, meter.sum());
        return Sent::Whole;
    };
    let until = upload.cut_after.unwrap_or(upload.bytes);
    loop {
        let length = PIECE.min(until - meter.bytes());
        // A slow client sends its first pieces slowly, and is not slow for minutes.
        if upload.slow && length > 0 && meter.bytes() < 20 * PIECE {
            sleep(SLOW).await;
        }
        let piece = meter.give(length as usize);
        let last = meter.bytes() == until;
        if last && upload.cut_after.is_none() {
            // Entered before the last byte leaves: the answer may be here before anybody asks for more.
            clients.ledger.sent(request.id, meter.sum());
        }
        let written = if piece.is_empty() {
            Ok(())
        } else {
            write_piece(writer, &piece, upload.chunked).await
        };
        match written {
            Err(_) => return Sent::Broke,
            Ok(()) if last => break,
            Ok(()) => {}
        }
    }
    if upload.cut_after.is_some() {
        return Sent::Cut;
    }
    if upload.chunked && writer.write_all(b"0\r\n\r\n").await.is_err() {
        return Sent::Broke;
    }
    Sent::Whole
}

async fn answer(
    clients: &Clients,
    line: &mut Line,
    request: &Request,
    head: &Head,
    sent: bool,
) -> (End, bool) {
    let by = head.field("soak-cell").map(str::to_owned);
    let mut meter = Meter::new(Content::answer(clients.ledger.world.seed, request.id));
    let Ok(mut body) = head.answer_body(request.method == Method::HEAD) else {
        return (End::Broke("garbled"), false);
    };
    let leave_after = request.answer.leave_after.filter(|_| by.is_some());
    let got = loop {
        if leave_after.is_some_and(|after| meter.bytes() >= after) {
            leave(line, request).await;
            return (End::Left, false);
        }
        if request.answer.slow && meter.bytes() < 20 * PIECE {
            sleep(SLOW).await;
        }
        match line.reader.piece(&mut body).await {
            Ok(Some(piece)) => meter.take(&piece),
            Ok(None) => break Got::Whole(meter.sum()),
            Err(_) => break Got::Cut(meter.sum()),
        }
    };
    let keep = sent && matches!(got, Got::Whole(_)) && !head.closes();
    let end = End::Answered {
        status: head.status(),
        to: head.field("soak-id").map(str::to_owned),
        by,
        got,
    };
    (end, keep)
}

/// Sends all requests of a session, and then reads all answers in their order (RFC 9112 section 9.3.2).
pub(super) async fn at_once(clients: &Clients, session: Session) {
    let requests: Vec<Request> = clients.requests(session).collect();
    requests
        .iter()
        .for_each(|request| clients.ledger.open(*request));
    let mut line = match clients.connect(session).await {
        Ok(stream) => Line::from(stream),
        Err(end) => {
            let ids = requests.iter().map(|request| request.id);
            return ids.for_each(|id| clients.ledger.close(id, end.clone()));
        }
    };
    let Line { reader, writer, .. } = &mut line;
    let sending = async {
        for request in &requests {
            let head = head(clients, request, false);
            if writer.write_all(head.as_bytes()).await.is_err()
                || !matches!(send(clients, writer, request).await, Sent::Whole)
            {
                break;
            }
        }
        std::future::pending::<()>().await;
    };
    let reading = async {
        let mut ended = None;
        for request in &requests {
            let end = match &ended {
                Some(end) => End::clone(end),
                None => {
                    let read = read(clients, reader, request);
                    let (end, keep) = timeout(super::STUCK, read)
                        .await
                        .unwrap_or((End::Stuck, false));
                    if !keep {
                        ended = Some(End::Stale(why_over(&end)));
                    }
                    let first = request.id == requests[0].id;
                    match end {
                        // The emulated edge closes after an answer that came before the request's body, and does not
                        // say so.
                        End::Broke(why) if session.way == Way::Edge && !first => End::Stale(why),
                        end => end,
                    }
                }
            };
            clients.ledger.close(request.id, end);
        }
    };
    tokio::select! {
        () = reading => {}
        () = sending => {}
    }
}

/// Why no answer follows one that ended like this.
fn why_over(end: &End) -> &'static str {
    match end {
        End::Answered {
            got: Got::Whole(_), ..
        } => "after an answer that closes",
        End::Answered {
            got: Got::Cut(_), ..
        } => "after an answer that was cut",
        End::Broke(_) | End::Stale(_) | End::Left | End::Stuck => "after no answer",
    }
}

/// The next answer of a pipeline; whether another can follow.
async fn read(
    clients: &Clients,
    reader: &mut Reader<OwnedReadHalf>,
    request: &Request,
) -> (End, bool) {
    let head = match reader.final_head().await {
        Ok(head) => head,
        Err(Broken::Ended) => return (End::Broke("closed"), false),
        Err(Broken::Cut) => return (End::Broke("reset"), false),
        Err(Broken::Garbled) => return (End::Broke("garbled"), false),
    };
    let mut meter = Meter::new(Content::answer(clients.ledger.world.seed, request.id));
    let Ok(mut body) = head.answer_body(request.method == Method::HEAD) else {
        return (End::Broke("garbled"), false);
    };
    let got = loop {
        match reader.piece(&mut body).await {
            Ok(Some(piece)) => meter.take(&piece),
            Ok(None) => break Got::Whole(meter.sum()),
            Err(_) => break Got::Cut(meter.sum()),
        }
    };
    let keep = matches!(got, Got::Whole(_)) && !head.closes();
    let end = End::Answered {
        status: head.status(),
        by: head.field("soak-cell").map(str::to_owned),
        to: head.field("soak-id").map(str::to_owned),
        got,
    };
    (end, keep)
}
