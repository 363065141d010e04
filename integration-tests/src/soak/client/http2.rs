//! HTTP/2: all requests of a session at once, over one connection.

use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use futures_util::stream;
use http::request::Builder;
use http_body::Frame;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Empty, StreamBody};
use hyper::client::conn::http2::{SendRequest, handshake};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::time::sleep;

use super::super::content::{Content, Meter};
use super::super::ledger::{End, Got, Ledger};
use super::super::plan::{Request, Session};
use super::{Clients, PIECE, SLOW};

type Body = UnsyncBoxBody<Bytes, std::io::Error>;

pub(super) async fn session(clients: &Clients, session: Session) {
    let requests: Vec<Request> = clients.requests(session).collect();
    let connected = async {
        let stream = clients.connect(session).await?;
        let shaken = handshake(TokioExecutor::new(), TokioIo::new(stream)).await;
        shaken.map_err(|_| End::Broke("handshake"))
    };
    let connected = connected.await;
    let (sender, connection) = match connected {
        Ok((sender, connection)) => (Ok(sender), Some(connection)),
        Err(end) => (Err(end), None),
    };
    let running = connection.map(|connection| {
        // Its errors come out of the answers.
        tokio::spawn(async move { drop(connection.await) })
    });
    join_all(requests.iter().map(|request| {
        let sender = sender.clone();
        clients.book(*request, async move {
            match sender {
                Ok(sender) => run(clients, sender, request).await,
                Err(end) => end,
            }
        })
    }))
    .await;
    drop(sender);
    if let Some(running) = running {
        // The connection ends with its last sender; what it still has to send is sent.
        let _ = tokio::time::timeout(Duration::from_secs(1), running).await;
    }
}

fn built(clients: &Clients, request: &Request) -> Option<http::Request<Body>> {
    let (host, path) = clients.address(request);
    let mut head = Builder::new()
        .method(request.method.as_str())
        .uri(format!("http://{host}{path}"))
        .header("soak-id", request.id);
    let Some(upload) = request.upload else {
        let empty = Empty::new().map_err(|never| match never {});
        return head.body(empty.boxed_unsync()).ok();
    };
    if !upload.chunked {
        head = head.header("content-length", upload.bytes);
    }
    let seed = clients.ledger.world.seed;
    let meter = Meter::new(Content::upload(seed, request.id));
    if upload.bytes == 0 {
        // Its head says so, and may be all that is waited for.
        clients.ledger.sent(request.id, meter.sum());
    }
    let sending = Sending {
        ledger: clients.ledger.clone(),
        meter,
        request: *request,
        over: false,
    };
    let pieces = stream::unfold(sending, Sending::next);
    head.body(StreamBody::new(pieces).boxed_unsync()).ok()
}

/// A body on its way.
struct Sending {
    ledger: Ledger,
    meter: Meter,
    request: Request,
    over: bool,
}

impl Sending {
    async fn next(mut self) -> Option<(std::io::Result<Frame<Bytes>>, Self)> {
        let upload = self.request.upload.filter(|_| !self.over)?;
        let until = upload.cut_after.unwrap_or(upload.bytes);
        if upload.cut_after.is_some() && self.meter.bytes() == until {
            self.over = true;
            return Some((Err(std::io::ErrorKind::Interrupted.into()), self));
        }
        if upload.slow && self.meter.bytes() < 20 * PIECE {
            sleep(SLOW).await;
        }
        let length = PIECE.min(until - self.meter.bytes());
        let piece = self.meter.give(length as usize);
        if upload.cut_after.is_none() && self.meter.bytes() == until {
            // Entered before the last byte leaves: the answer may be here before anybody asks for more.
            self.ledger.sent(self.request.id, self.meter.sum());
            self.over = true;
        }
        Some((Ok(Frame::data(piece.into())), self))
    }
}

/// Why there is no answer. What the other end says that it did nothing with may be sent again, and is no loss (RFC 9113
/// section 8.7).
fn unanswered(error: &hyper::Error) -> End {
    let causes = std::iter::successors(Some(error as &dyn std::error::Error), |e| e.source());
    let mut causes = causes.filter_map(|cause| cause.downcast_ref::<h2::Error>());
    match causes.find(|cause| cause.is_remote()) {
        Some(cause) if cause.is_go_away() && cause.reason() == Some(h2::Reason::NO_ERROR) => {
            End::Stale("told to go")
        }
        Some(cause) if cause.reason() == Some(h2::Reason::REFUSED_STREAM) => End::Stale("refused"),
        Some(_) => End::Broke("reset"),
        None if error.is_canceled() => End::Stale("not sent"),
        None => End::Broke("closed"),
    }
}

async fn run(clients: &Clients, mut sender: SendRequest<Body>, request: &Request) -> End {
    let cuts = request
        .upload
        .is_some_and(|upload| upload.cut_after.is_some());
    let Some(message) = built(clients, request) else {
        return End::Broke("no request");
    };
    if sender.ready().await.is_err() {
        return End::Stale("not ready");
    }
    let answer = match sender.send_request(message).await {
        Ok(answer) => answer,
        Err(_) if cuts => return End::Left,
        Err(error) => return unanswered(&error),
    };
    let (head, mut body) = answer.into_parts();
    let text = |name| {
        let value = head.headers.get(name)?;
        Some(value.to_str().ok()?.to_owned())
    };
    let by = text("soak-cell");
    let leave_after = request.answer.leave_after.filter(|_| by.is_some());
    let mut meter = Meter::new(Content::answer(clients.ledger.world.seed, request.id));
    let got = loop {
        if leave_after.is_some_and(|after| meter.bytes() >= after) {
            return End::Left;
        }
        if request.answer.slow && meter.bytes() < 20 * PIECE {
            sleep(SLOW).await;
        }
        match body.frame().await {
            Some(Ok(frame)) => {
                if let Ok(data) = frame.into_data() {
                    meter.take(&data);
                }
            }
            None => break Got::Whole(meter.sum()),
            Some(Err(_)) => break Got::Cut(meter.sum()),
        }
    };
    End::Answered {
        status: head.status.as_u16(),
        to: text("soak-id"),
        by,
        got,
    }
}
