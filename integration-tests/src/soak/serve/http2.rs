//! HTTP/2 by prior knowledge: several requests at once on one connection.

use std::future::poll_fn;

use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use h2::server::{Builder, SendResponse};
use h2::{Reason, RecvStream, SendStream};
use http::{Response, StatusCode};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::super::cell::{Cell, name};
use super::super::content::{Content, Meter};
use super::super::ledger::Upload;
use super::super::plan::{Framing, Method, Request};
use super::super::wire::Head;
use super::{LINGER, Next};

/// Requests that a cell takes at once on one connection: few, so that some have to wait or go elsewhere.
const AT_ONCE: u32 = 8;

/// Serves a connection until it ends; whether it is to be reset then.
pub(super) async fn connection(cell: &Cell, stream: &mut TcpStream) -> bool {
    let mut builder = Builder::new();
    builder.max_concurrent_streams(AT_ONCE);
    let Ok(mut connection) = builder.handshake::<_, Bytes>(stream).await else {
        return false;
    };
    let mut running = FuturesUnordered::new();
    let mut stops = false;
    loop {
        let accepted = async {
            // One that is frozen does not even answer a ping.
            cell.speaks().await;
            connection.accept().await
        };
        tokio::select! {
            accepted = accepted => match accepted {
                Some(Ok((request, respond))) => running.push(exchange(cell, request, respond)),
                Some(Err(_)) | None => return false,
            },
            Some(next) = running.next() => match next {
                Next::Keep => {}
                Next::Close => connection.graceful_shutdown(),
                Next::Reset => return true,
            },
            () = cell.told_to_stop(), if !stops => {
                stops = true;
                connection.graceful_shutdown();
            }
        }
    }
}

/// One request and its answer. Whatever goes wrong with its stream is seen by its other end, too.
async fn exchange(
    cell: &Cell,
    request: http::Request<RecvStream>,
    mut respond: SendResponse<Bytes>,
) -> Next {
    let (parts, mut body) = request.into_parts();
    let head = Head::of_http2(&parts);
    cell.step().await;
    let Some(request) = super::request(cell, &head) else {
        let (status, text) = super::own(cell, &head);
        // An error is a stream that nobody waits for.
        let _ = own(cell, respond, status, text);
        return Next::Keep;
    };
    let arrived = cell.ledger.arrive(request.id, cell.number);
    arrived.as_http2();
    super::compare(cell, &head, &request);
    let refuses = request.refuse_after.is_some();
    let expects = head.field("expect").is_some();
    if expects && !refuses {
        let mut interim = Response::new(());
        *interim.status_mut() = StatusCode::CONTINUE;
        // As above.
        let _ = respond.send_informational(interim);
    }
    let mut meter = Meter::new(Content::upload(cell.ledger.world.seed, request.id));
    if !(expects && refuses)
        && let Some(next) = upload(cell, &request, &mut meter, &mut body).await
    {
        arrived.upload(Upload::Cut(meter.sum()));
        respond.send_reset(Reason::INTERNAL_ERROR);
        return next;
    }
    arrived.upload(if refuses {
        Upload::Refused(meter.sum())
    } else {
        Upload::Whole(meter.sum())
    });
    arrived.answers();
    let next = answer(cell, &request, respond).await;
    if refuses {
        let rest = async { while let Some(Ok(_)) = take(&mut body).await {} };
        // Whatever is left after that is not wanted.
        let _ = timeout(LINGER, rest).await;
    }
    // A stream that the other end gave up is over, and nothing else is.
    next.unwrap_or(Next::Keep)
}

fn own(
    cell: &Cell,
    mut respond: SendResponse<Bytes>,
    status: u16,
    text: String,
) -> Result<(), h2::Error> {
    let head = Response::builder()
        .status(status)
        .header("soak-cell", name(cell.number));
    let head = head.body(()).expect("names are header values");
    respond
        .send_response(head, false)?
        .send_data(text.into(), true)
}

/// The next piece of a body.
async fn take(body: &mut RecvStream) -> Option<Result<Bytes, h2::Error>> {
    let piece = body.data().await?;
    Some(piece.and_then(|piece| {
        body.flow_control().release_capacity(piece.len())?;
        Ok(piece)
    }))
}

/// Reads a body to its end, or as far as it is wanted; what becomes of the connection where it is cut.
async fn upload(
    cell: &Cell,
    request: &Request,
    meter: &mut Meter,
    body: &mut RecvStream,
) -> Option<Next> {
    loop {
        cell.step().await;
        if request
            .refuse_after
            .is_some_and(|after| meter.bytes() >= after)
        {
            return None;
        }
        match take(body).await {
            Some(Ok(piece)) => meter.take(&piece),
            Some(Err(_)) => return Some(Next::Keep),
            None => return None,
        }
        if cell.weather().cuts_uploads {
            return Some(cut(request));
        }
    }
}

/// How this request is cut, if it is: alone, or with all that is on its connection.
fn cut(request: &Request) -> Next {
    match super::cut(request) {
        Next::Reset => Next::Reset,
        Next::Keep | Next::Close => Next::Keep,
    }
}

async fn answer(
    cell: &Cell,
    request: &Request,
    mut respond: SendResponse<Bytes>,
) -> Result<Next, h2::Error> {
    let planned = request.answer;
    let mut head = Response::builder()
        .status(if request.refuse_after.is_some() {
            413
        } else {
            200
        })
        .header("soak-cell", name(cell.number))
        .header("soak-id", request.id);
    if planned.framing == Framing::Length {
        head = head.header("content-length", planned.bytes);
    }
    let head = head.body(()).expect("names and numbers are header values");
    let next = if planned.then_close {
        Next::Close
    } else {
        Next::Keep
    };
    let mut left = match request.method {
        Method::HEAD => 0,
        _ => planned.bytes,
    };
    let mut body = respond.send_response(head, left == 0)?;
    let mut meter = Meter::new(Content::answer(cell.ledger.world.seed, request.id));
    while left > 0 {
        cell.step().await;
        let (length, cuts) = super::piece(cell, left);
        left -= length;
        send(&mut body, meter.give(length as usize).into(), left == 0).await?;
        if cuts {
            body.send_reset(Reason::INTERNAL_ERROR);
            return Ok(cut(request));
        }
    }
    Ok(next)
}

/// Sends as the other end has room for.
async fn send(to: &mut SendStream<Bytes>, mut data: Bytes, last: bool) -> Result<(), h2::Error> {
    while !data.is_empty() {
        to.reserve_capacity(data.len());
        let room = poll_fn(|context| to.poll_capacity(context)).await;
        let room = room.unwrap_or(Err(Reason::CANCEL.into()))?;
        let piece = data.split_to(room.min(data.len()));
        to.send_data(piece, last && data.is_empty())?;
    }
    Ok(())
}
