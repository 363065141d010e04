//! HTTP/1.1, one request after the other.

use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::time::{sleep, timeout};

use super::super::cell::{Cell, name};
use super::super::content::{Content, Meter};
use super::super::ledger::{Arrived, Upload};
use super::super::plan::{Framing, Method, Request};
use super::super::rules::Rule;
use super::super::wire::{Body, Broken, Head, Reader, write_piece};
use super::{LINGER, Next, compare, cut};

/// Serves a connection until it ends; whether it is to be reset then.
pub(super) async fn connection(cell: &Cell, stream: &mut TcpStream) -> bool {
    let (read, mut write) = stream.split();
    let mut reader = Reader::new(read);
    loop {
        let head = tokio::select! {
            biased;
            head = reader.head() => head,
            () = cell.told_to_stop() => return false,
        };
        let head = match head {
            Ok(head) => head,
            Err(Broken::Garbled) => {
                cell.breach(Rule::Altered, "what came is no HTTP/1.1");
                return true;
            }
            Err(Broken::Ended | Broken::Cut) => return false,
        };
        cell.step().await;
        let next = match super::request(cell, &head) {
            Some(request) => exchange(cell, &head, &request, &mut reader, &mut write).await,
            None => own(cell, &head, &mut write).await,
        };
        match next.unwrap_or(Next::Close) {
            Next::Keep => {}
            Next::Close => return false,
            Next::Reset => return true,
        }
    }
}

/// Answers what is no request of the soak.
async fn own(cell: &Cell, head: &Head, write: &mut WriteHalf<'_>) -> std::io::Result<Next> {
    let (status, text) = super::own(cell, head);
    let reason = if status == 200 {
        "OK"
    } else {
        "Misdirected Request"
    };
    let answer = format!(
        "HTTP/1.1 {status} {reason}\r\ncontent-length: {}\r\nsoak-cell: {}\r\n\r\n{text}",
        text.len(),
        name(cell.number)
    );
    write.write_all(answer.as_bytes()).await?;
    Ok(Next::Keep)
}

async fn exchange(
    cell: &Cell,
    head: &Head,
    request: &Request,
    reader: &mut Reader<ReadHalf<'_>>,
    write: &mut WriteHalf<'_>,
) -> std::io::Result<Next> {
    let arrived = cell.ledger.arrive(request.id, cell.number);
    compare(cell, head, request);
    if request.tunnel {
        return tunnel(cell, request, &arrived, reader, write).await;
    }
    let Ok(mut body) = head.request_body() else {
        let what = format!("its framing: {head:?}");
        cell.ledger.found(request.id, Rule::Altered, what);
        return Ok(Next::Reset);
    };
    let refuses = request.refuse_after;
    let expects = head.field("expect").is_some();
    if expects && refuses.is_none() {
        write.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").await?;
    }
    let mut meter = Meter::new(Content::upload(cell.ledger.world.seed, request.id));
    let broken = if expects && refuses.is_some() {
        None
    } else {
        upload(cell, request, &mut meter, &mut body, reader).await
    };
    match broken {
        Some(next) => {
            arrived.upload(Upload::Cut(meter.sum()));
            return Ok(next);
        }
        None if refuses.is_some() => arrived.upload(Upload::Refused(meter.sum())),
        None => arrived.upload(Upload::Whole(meter.sum())),
    }
    arrived.answers();
    let next = answer(cell, request, write).await?;
    if refuses.is_some() && next != Next::Reset {
        write.shutdown().await?;
        let rest = async { while let Ok(Some(_)) = reader.piece(&mut body).await {} };
        // Whatever is left after that is not wanted.
        let _ = timeout(LINGER, rest).await;
        return Ok(Next::Close);
    }
    Ok(next)
}

/// Reads a body to its end, or as far as it is wanted; what becomes of the connection where it is cut.
async fn upload(
    cell: &Cell,
    request: &Request,
    meter: &mut Meter,
    body: &mut Body,
    reader: &mut Reader<ReadHalf<'_>>,
) -> Option<Next> {
    loop {
        cell.step().await;
        if request
            .refuse_after
            .is_some_and(|after| meter.bytes() >= after)
        {
            return None;
        }
        match reader.piece(body).await {
            Ok(Some(piece)) => meter.take(&piece),
            Ok(None) => return None,
            Err(Broken::Garbled) => {
                cell.ledger
                    .found(request.id, Rule::Altered, "the framing of its body");
                return Some(Next::Reset);
            }
            Err(_) => return Some(Next::Close),
        }
        if cell.weather().cuts_uploads {
            return Some(cut(request));
        }
    }
}

async fn answer(
    cell: &Cell,
    request: &Request,
    write: &mut WriteHalf<'_>,
) -> std::io::Result<Next> {
    let planned = request.answer;
    let refuses = request.refuse_after.is_some();
    let status = if refuses {
        "413 Content Too Large"
    } else {
        "200 OK"
    };
    let close = refuses || planned.framing == Framing::Close || cell.stopping();
    let framing = match planned.framing {
        Framing::Length => format!("content-length: {}\r\n", planned.bytes),
        Framing::Chunked => "transfer-encoding: chunked\r\n".to_owned(),
        Framing::Close => String::new(),
    };
    let head = format!(
        "HTTP/1.1 {status}\r\nsoak-cell: {}\r\nsoak-id: {}\r\n{framing}{}\r\n",
        name(cell.number),
        request.id,
        if close { "connection: close\r\n" } else { "" }
    );
    write.write_all(head.as_bytes()).await?;
    let next = if close || planned.then_close {
        Next::Close
    } else {
        Next::Keep
    };
    if request.method == Method::HEAD {
        return Ok(next);
    }
    let chunked = planned.framing == Framing::Chunked;
    let mut meter = Meter::new(Content::answer(cell.ledger.world.seed, request.id));
    while meter.bytes() < planned.bytes {
        cell.step().await;
        let (length, cuts) = super::piece(cell, planned.bytes - meter.bytes());
        if length > 0 {
            write_piece(write, &meter.give(length as usize), chunked).await?;
        }
        if cuts {
            return Ok(cut(request));
        }
    }
    if chunked {
        write.write_all(b"0\r\n\r\n").await?;
    }
    Ok(next)
}

/// Another protocol: for every byte that comes one goes back, and in the end the digest of what came.
async fn tunnel(
    cell: &Cell,
    request: &Request,
    arrived: &Arrived,
    reader: &mut Reader<ReadHalf<'_>>,
    write: &mut WriteHalf<'_>,
) -> std::io::Result<Next> {
    let seed = cell.ledger.world.seed;
    let head = format!(
        "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: soak\r\nsoak-cell: {}\r\nsoak-id: {}\r\n\r\n",
        name(cell.number),
        request.id
    );
    arrived.answers();
    write.write_all(head.as_bytes()).await?;
    let total = request.upload.map_or(0, |upload| upload.bytes);
    let mut taken = Meter::new(Content::upload(seed, request.id));
    let mut given = Meter::new(Content::answer(seed, request.id));
    while taken.bytes() < total {
        cell.step().await;
        let Ok(piece) = reader.some(total - taken.bytes()).await else {
            arrived.upload(Upload::Cut(taken.sum()));
            return Ok(Next::Close);
        };
        taken.take(&piece);
        let echoed = write.write_all(&given.give(piece.len())).await;
        let weather = cell.weather();
        if echoed.is_err() || weather.cuts_uploads || weather.cuts_answers {
            arrived.upload(Upload::Cut(taken.sum()));
            return Ok(Next::Reset);
        }
    }
    arrived.upload(Upload::Whole(taken.sum()));
    write.write_all(&taken.sum().digest).await?;
    // The client has the last word, so that the digest is not lost.
    linger(write, reader).await;
    Ok(Next::Close)
}

async fn linger(write: &mut (impl AsyncWrite + Unpin), reader: &mut Reader<ReadHalf<'_>>) {
    if write.shutdown().await.is_ok() {
        tokio::select! {
            _ = reader.some(1) => {}
            () = sleep(LINGER) => {}
        }
    }
}
