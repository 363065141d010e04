//! One client connection: HTTP/1.1, or HTTP/2 by prior knowledge (which a choice by ALPN is, too).

use std::convert::Infallible;
use std::future::Future;
use std::pin::{Pin, pin};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{Request, Response};
use hyper::body::Body;
use hyper::rt::Executor;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::time::timeout;

use super::http1;
use super::prefixed::Prefixed;
use crate::account::body::Incoming;
use crate::config::Config;
use crate::http1::Fault;
use crate::http1::io::Io;
use crate::live::drain::{Signal, Stop};

/// What a client sends first that speaks HTTP/2 by prior knowledge (RFC 9113 section 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Bytes that are read at once while that is awaited.
const SNIFF_BYTES: usize = 2 * 1024;
/// Streams that one HTTP/2 client may have open at once.
const MAX_STREAMS: u32 = 256;
/// How often an HTTP/2 connection is asked whether its client is still there, and how long it may take to say so.
const PING_EVERY: Duration = Duration::from_secs(30);
const PING_TIMEOUT: Duration = Duration::from_secs(20);
/// What HTTP/2 may buffer for one stream's answer, in bytes.
const SEND_BUFFER_BYTES: usize = 64 * 1024;

/// Runs hyper's tasks on the worker's own thread.
#[derive(Debug, Clone, Copy)]
struct Here;

impl<F: Future + 'static> Executor<F> for Here
where
    F::Output: 'static,
{
    fn execute(&self, future: F) {
        tokio::task::spawn_local(future);
    }
}

/// Serves a connection until it ends. After a stop signal the requests under way are finished, and no more are taken.
///
/// `handle` answers a request, `refuse` what is none.
pub async fn serve<I, F, R, B>(
    socket: I,
    config: &Config,
    signal: &Signal,
    handle: F,
    refuse: impl Fn(Fault) -> Response<B>,
) where
    I: Io + 'static,
    F: Fn(Request<Incoming>) -> R,
    R: Future<Output = Response<B>> + 'static,
    B: Body<Data = Bytes> + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let first = timeout(config.head_timeout, sniff(socket));
    let (socket, read, preface) = tokio::select! {
        biased;
        sniffed = first => match sniffed {
            Ok(Ok(sniffed)) => sniffed,
            // It said nothing, or not enough, or left.
            Ok(Err(_)) | Err(_) => return,
        },
        () = signal.last_words() => return,
    };
    if !preface {
        let handle = |request: Request<_>| handle(request.map(Incoming::Http1));
        return http1::serve(Box::new(socket), read, config, signal, handle, refuse).await;
    }
    // In a box of its own: it is large, and most connections need none of it.
    Box::pin(http2(socket, read, config, signal, handle)).await;
}

async fn http2<I, F, R, B>(socket: I, read: BytesMut, config: &Config, signal: &Signal, handle: F)
where
    I: Io + 'static,
    F: Fn(Request<Incoming>) -> R,
    R: Future<Output = Response<B>> + 'static,
    B: Body<Data = Bytes> + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let service = service_fn(|request: Request<_>| {
        let answered = handle(request.map(Incoming::Stream));
        async { Ok::<_, Infallible>(answered.await) }
    });
    let io = TokioIo::new(Prefixed::new(read.freeze(), socket));
    // An error of a connection is the client's affair; what it did to a request is in the request's record.
    let mut builder = http2::Builder::new(Here);
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(MAX_STREAMS)
        .max_header_list_size(u32::try_from(config.max_head_bytes).unwrap_or(u32::MAX))
        .max_send_buf_size(SEND_BUFFER_BYTES)
        .keep_alive_interval(PING_EVERY)
        .keep_alive_timeout(PING_TIMEOUT);
    let connection = builder.serve_connection(io, service);
    until_stopped(
        connection,
        |connection| connection.graceful_shutdown(),
        signal,
    )
    .await;
}

/// Drives a connection to its end; after a stop signal, to the end of what is under way, for as long as that may go on.
async fn until_stopped<C: Future>(
    connection: C,
    finish: impl FnOnce(Pin<&mut C>),
    signal: &Signal,
) {
    let mut connection = pin!(connection);
    tokio::select! {
        _ = connection.as_mut() => return,
        () = signal.reached(Stop::Draining) => finish(connection.as_mut()),
    }
    tokio::select! {
        _ = connection => {}
        () = signal.reached(Stop::Now) => {}
    }
}

/// Reads until it is clear whether the client sent HTTP/2's preface: the socket, what was read, and whether it did.
async fn sniff<I: AsyncRead + Unpin>(mut socket: I) -> std::io::Result<(I, BytesMut, bool)> {
    let mut read = BytesMut::with_capacity(SNIFF_BYTES);
    loop {
        if socket.read_buf(&mut read).await? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        let seen = read.len().min(PREFACE.len());
        if read[..seen] != PREFACE[..seen] {
            return Ok((socket, read, false));
        }
        if seen == PREFACE.len() {
            return Ok((socket, read, true));
        }
    }
}
