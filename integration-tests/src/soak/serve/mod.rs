//! What a cell does on one connection: it answers requests as the plan says, as far as its troubles let it.

mod http1;
mod http2;

use std::time::Duration;

use tokio::net::TcpStream;

use super::cell::{Cell, name};
use super::plan::{Framing, Request};
use super::rules::Rule;
use super::wire::Head;

/// The largest piece of a body that is written at once, in bytes.
const PIECE: u64 = 16 * 1024;
/// The same for a cell that is slow.
const SLOW_PIECE: u64 = 2 * 1024;
/// How long a cell reads on after it has refused a body, so that its answer is not lost (RFC 9112 section 9.6).
const LINGER: Duration = Duration::from_secs(2);
/// How HTTP/2 begins (RFC 9113 section 3.4), and no method does.
const HTTP2: [u8; 3] = *b"PRI";

/// What becomes of a connection, or of a stream of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    Keep,
    Close,
    Reset,
}

/// Serves a connection until it ends; whether it is to be reset then. Every cell speaks both: the platform's edge, which
/// comes with HTTP/1.1, knows nothing of the registry.
pub(crate) async fn connection(cell: &Cell, stream: &mut TcpStream) -> bool {
    let mut begins = [0; HTTP2.len()];
    loop {
        let peeked = tokio::select! {
            biased;
            peeked = stream.peek(&mut begins) => peeked,
            () = cell.told_to_stop() => return false,
        };
        match peeked {
            Err(_) => return false,
            Ok(count) if begins[..count] != HTTP2[..count] || count == 0 => {
                return http1::connection(cell, stream).await;
            }
            Ok(count) if count == HTTP2.len() => return http2::connection(cell, stream).await,
            // Its other bytes are on their way.
            Ok(_) => tokio::task::yield_now().await,
        }
    }
}

/// The request of the soak that this is, if it is one.
fn request(cell: &Cell, head: &Head) -> Option<Request> {
    let (_, id) = head.second().rsplit_once("/s/")?;
    Some(cell.ledger.world.request(id.parse().ok()?))
}

/// The answer to what is no request of the soak: who it is, whether it is ready, and questions that are not in the books.
fn own(cell: &Cell, head: &Head) -> (u16, String) {
    if let Some(query) = head.second().strip_prefix("/.well-known/cell-identity?") {
        return match proof(cell, head, query) {
            Some(proof) => (200, format!("{proof}\n")),
            None => (421, String::new()),
        };
    }
    if let Some(for_cell) = head.field("soak-cell")
        && for_cell != name(cell.number)
    {
        cell.breach(Rule::WrongCell, &format!("a question to {for_cell}"));
    }
    (200, "ok".to_owned())
}

/// The proof that this cell is the one that is asked for, at the address that was dialled (docs/signature.md).
fn proof(cell: &Cell, head: &Head, query: &str) -> Option<String> {
    let (nonce, address) = query.strip_prefix("nonce=")?.split_once("&address=")?;
    let (own, place) = (name(cell.number), cell.place().to_string());
    if head.field("host") != Some(&own) || address != place {
        return None;
    }
    let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, cell.secret.as_bytes());
    let message = format!("cell-identity-v1\n{own}\n{nonce}\n{address}");
    let mac = ring::hmac::sign(&key, message.as_bytes());
    Some(
        mac.as_ref()
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect(),
    )
}

/// What is wrong with a head that came: the edge and the router may add to it, and take nothing away.
fn compare(cell: &Cell, head: &Head, request: &Request) {
    let own = name(cell.number);
    let id = request.id.to_string();
    let method = head.first.split(' ').next().unwrap_or_default();
    let found = |rule, what| cell.ledger.found(request.id, rule, what);
    if head.field("soak-id") != Some(&id) || method != request.method.as_str() {
        found(Rule::Altered, format!("its head at cell {own}: {head:?}"));
    }
    if head.field("cell-name").is_some_and(|named| named != own) {
        found(Rule::WrongCell, format!("named at cell {own}: {head:?}"));
    }
}

/// How this request is cut, if it is: by a reset, or by an end where there must be none.
fn cut(request: &Request) -> Next {
    if request.id.is_multiple_of(2) || request.answer.framing == Framing::Close {
        Next::Reset
    } else {
        Next::Close
    }
}

/// How many bytes of an answer of which `left` are left come next, and whether it is cut then.
fn piece(cell: &Cell, left: u64) -> (u64, bool) {
    let weather = cell.weather();
    let most = if weather.slow { SLOW_PIECE } else { PIECE };
    let length = most.min(left);
    if weather.cuts_answers {
        // Not even the last byte may be missed.
        return (length.div_ceil(2).min(left - 1), true);
    }
    (length, false)
}
