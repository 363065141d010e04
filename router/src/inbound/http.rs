//! One client connection: HTTP/1.1, or HTTP/2 by prior knowledge (which a choice by ALPN is, too).

use std::future::Future;

use bytes::BytesMut;
use http::{Request, Response, Version};
use http_body::Body;
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::time::{Instant, timeout_at};

use super::{Terms, http1, http2};
use crate::account::body::{Incoming, Told};
use crate::http1::io::Io;
use crate::http1::{HasLines, Piece};
use crate::wire::strict::Fault;

/// What a client sends first that speaks HTTP/2 by prior knowledge (RFC 9113 section 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Bytes that are read at once while that is awaited.
const SNIFF_BYTES: usize = 2 * 1024;
/// Serves a connection until it ends. After a stop signal the requests under way are finished, and no more are taken.
///
/// `handle` answers a request, `refuse` what is none.
pub async fn serve<I, F, R, B>(
    mut socket: I,
    terms: Terms<'_>,
    handle: F,
    refuse: impl Fn(Fault, Version) -> Response<B>,
) where
    I: Io + 'static,
    F: Fn(Request<Incoming>) -> R,
    R: Future<Output = Response<B>> + 'static,
    B: Body<Data = Piece> + Told + HasLines + 'static,
{
    let came = Instant::now();
    let first = came + terms.config.head_timeout;
    let mut read = BytesMut::with_capacity(SNIFF_BYTES);
    let preface = tokio::select! {
        biased;
        sniffed = timeout_at(first, sniff(&mut socket, &mut read)) => match sniffed {
            Ok(Ok(preface)) => Some(preface),
            // It left.
            Ok(Err(_)) => return,
            Err(_) => None,
        },
        () = terms.signal.last_words() => return,
        () = terms.room.wanted(came) => return,
    };
    let preface = match preface {
        Some(preface) => preface,
        // It said nothing.
        None if read.is_empty() => return,
        // Or too little, which it is told.
        None => false,
    };
    if preface {
        let handle = |request: Request<_>| handle(request.map(Incoming::Http2));
        let refuse = |fault| refuse(fault, Version::HTTP_2);
        // In a box of its own: it is large, and most connections need none of it.
        Box::pin(http2::serve(socket, read.freeze(), terms, handle, refuse)).await;
    } else {
        let handle = |request: Request<_>| handle(request.map(Incoming::Http1));
        let refuse = |fault| refuse(fault, Version::HTTP_11);
        http1::serve(Box::new(socket), read, first, terms, handle, refuse).await;
    }
}

/// Reads until it is clear whether the client sent HTTP/2's preface. Cancel safe.
async fn sniff(
    socket: &mut (impl AsyncRead + Unpin),
    read: &mut BytesMut,
) -> std::io::Result<bool> {
    loop {
        if socket.read_buf(read).await? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        let seen = read.len().min(PREFACE.len());
        if read[..seen] != PREFACE[..seen] {
            return Ok(false);
        }
        if seen == PREFACE.len() {
            return Ok(true);
        }
    }
}
