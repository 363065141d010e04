//! A connection that is switched to another protocol: both ends send, and the cell has the last word.

use tokio::io::AsyncWriteExt;
use tokio::time::sleep;

use super::super::content::{Content, Meter};
use super::super::ledger::{End, Got};
use super::super::plan::{Request, Session};
use super::super::wire::{Broken, Head, Reader};
use super::{Clients, PIECE, SLOW};

pub(super) async fn session(clients: &Clients, session: Session) {
    for request in clients.requests(session) {
        clients.book(request, run(clients, session, &request)).await;
    }
}

async fn run(clients: &Clients, session: Session, request: &Request) -> End {
    let stream = match clients.connect(session).await {
        Ok(stream) => stream,
        Err(end) => return end,
    };
    let (read, mut writer) = stream.into_split();
    let mut reader = Reader::new(read);
    let (host, path) = clients.address(request);
    // Half of them would also be WebSockets, which some intermediaries treat apart.
    let protocol = if request.id.is_multiple_of(16) {
        "websocket, soak\r\nsec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ=="
    } else {
        "soak"
    };
    let head = format!(
        "GET {path} HTTP/1.1\r\nhost: {host}\r\nsoak-id: {}\r\nconnection: upgrade\r\nupgrade: {protocol}\r\n\r\n",
        request.id
    );
    if writer.write_all(head.as_bytes()).await.is_err() {
        return End::Broke("cannot send");
    }
    let head = match reader.final_head().await {
        Ok(head) => head,
        Err(Broken::Garbled) => return End::Broke("garbled"),
        Err(_) => return End::Broke("closed"),
    };
    if head.status() != 101 {
        return refused(&head, &mut reader).await;
    }
    let Some(upload) = request.upload else {
        return End::Broke("garbled");
    };
    let seed = clients.ledger.world.seed;
    let mut sent = Meter::new(Content::upload(seed, request.id));
    let until = upload.cut_after.unwrap_or(upload.bytes);
    let sending = async {
        while sent.bytes() < until {
            if upload.slow {
                sleep(SLOW).await;
            }
            let length = PIECE.min(until - sent.bytes());
            if writer.write_all(&sent.give(length as usize)).await.is_err() {
                break;
            }
        }
        if upload.cut_after.is_none() {
            clients.ledger.sent(request.id, sent.sum());
            std::future::pending::<()>().await;
        }
    };
    let mut taken = Meter::new(Content::answer(seed, request.id));
    let reading = async {
        while taken.bytes() < upload.bytes {
            match reader.some(upload.bytes - taken.bytes()).await {
                Ok(piece) => taken.take(&piece),
                Err(_) => return None,
            }
        }
        let mut digest = Vec::new();
        while digest.len() < 32 {
            digest.extend_from_slice(&reader.some(32 - digest.len() as u64).await.ok()?);
        }
        Some(digest)
    };
    // What is sent is in the books before its echo is looked for: nothing at all has one, too.
    let digest = tokio::select! {
        biased;
        () = sending => return End::Left,
        digest = reading => digest,
    };
    // Only what both ends agree on is whole.
    let got = match digest {
        Some(digest) if digest == sent.sum().digest => Got::Whole(taken.sum()),
        _ => Got::Cut(taken.sum()),
    };
    End::Answered {
        status: 101,
        by: head.field("soak-cell").map(str::to_owned),
        to: head.field("soak-id").map(str::to_owned),
        got,
    }
}

async fn refused(head: &Head, reader: &mut Reader<tokio::net::tcp::OwnedReadHalf>) -> End {
    let mut bytes = Meter::new(Content::answer(0, 0));
    let read = async {
        let mut body = head.answer_body(false)?;
        while let Some(piece) = reader.piece(&mut body).await? {
            bytes.take(&piece);
        }
        Ok::<_, Broken>(())
    };
    let whole = read.await.is_ok();
    End::Answered {
        status: head.status(),
        by: head.field("soak-cell").map(str::to_owned),
        to: head.field("soak-id").map(str::to_owned),
        got: if whole {
            Got::Whole(bytes.sum())
        } else {
            Got::Cut(bytes.sum())
        },
    }
}
