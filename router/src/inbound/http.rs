//! One client connection: HTTP/1.1, or HTTP/2 by prior knowledge (which a choice by ALPN is, too).

use std::convert::Infallible;
use std::future::Future;
use std::pin::{Pin, pin};
use std::time::Duration;

use bytes::BytesMut;
use http::{Request, Response};
use hyper::body::{Body, Incoming};
use hyper::rt::Executor;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite};
use tokio::time::timeout;

use super::prefixed::Prefixed;
use crate::config::Config;
use crate::live::drain::{Signal, Stop};

/// What a client sends first that speaks HTTP/2 by prior knowledge (RFC 9113 section 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
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
pub async fn serve<I, F, R, B>(socket: I, config: &Config, signal: &Signal, service: F)
where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    F: Fn(Request<Incoming>) -> R,
    R: Future<Output = Response<B>> + 'static,
    B: Body + 'static,
    B::Data: 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let first = timeout(config.head_timeout, sniff(socket));
    let (socket, preface) = tokio::select! {
        sniffed = first => match sniffed {
            Ok(Ok(sniffed)) => sniffed,
            // It said nothing, or not enough, or left.
            Ok(Err(_)) | Err(_) => return,
        },
        // A connection without a request is not running work.
        () = signal.reached(Stop::Draining) => return,
    };
    let service = service_fn(|request| {
        let answered = service(request);
        async { Ok::<_, Infallible>(answered.await) }
    });
    let io = TokioIo::new(socket);
    // An error of a connection is the client's affair; what it did to a request is in the request's record.
    if preface {
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
    } else {
        let mut builder = http1::Builder::new();
        builder
            .timer(TokioTimer::new())
            .header_read_timeout(config.head_timeout)
            .max_buf_size(config.max_head_bytes)
            .max_headers(config.max_headers);
        let connection = builder.serve_connection(io, service).with_upgrades();
        until_stopped(
            connection,
            |connection| connection.graceful_shutdown(),
            signal,
        )
        .await;
    }
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

/// Reads until it is clear whether the client sent HTTP/2's preface, and puts what was read back.
async fn sniff<I: AsyncRead + Unpin>(mut socket: I) -> std::io::Result<(Prefixed<I>, bool)> {
    let mut read = BytesMut::with_capacity(4096);
    loop {
        if socket.read_buf(&mut read).await? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        let seen = read.len().min(PREFACE.len());
        if read[..seen] != PREFACE[..seen] {
            return Ok((Prefixed::new(read.freeze(), socket), false));
        }
        if seen == PREFACE.len() {
            return Ok((Prefixed::new(read.freeze(), socket), true));
        }
    }
}
