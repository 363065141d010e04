//! Beats: a sign of life for each router, as long as the cell is awake (docs/heartbeats.md).
//!
//! Owns the rhythm. Nothing else waits for it, and a router that is away costs the cell nothing but a line in the log.

use std::convert::Infallible;
use std::hash::{BuildHasher as _, Hasher as _};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::body::Body;
use axum::http::{Request, StatusCode, header};
use futures_util::future::join_all;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpStream, lookup_host};
use tokio::time::{Instant, sleep_until, timeout_at};

use crate::front_door::{FrontDoor, SIGNATURE};

/// How long one router may take, if that is no longer than an interval: beats to the others wait for it.
const PATIENCE: Duration = Duration::from_secs(5);
/// By how much of itself an interval is shortened at most, at random: cells that woke together do not beat together.
const JITTER: f64 = 0.2;

/// Where beats go, and how often.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Beat {
    /// Each `host:port`. A name stands for all of its addresses, since each router judges by what it hears itself.
    pub(crate) to: Vec<String>,
    /// The interval.
    pub(crate) every: Duration,
}

/// Posts beats for ever.
pub(crate) async fn beat(beat: Beat, cell: String, door: Arc<FrontDoor>) -> Infallible {
    let (mut last, mut well) = (0, true);
    loop {
        let began = Instant::now();
        let by = began + PATIENCE.min(beat.every);
        last = now_ms().max(last + 1);
        let target = format!("/v1/cells/{cell}/beat");
        let token = door.beat(last);
        let posted = join_all(beat.to.iter().map(|to| post_all(to, &target, &token, by))).await;
        let problem = posted.into_iter().find_map(Result::err);
        match &problem {
            Some(problem) if well => tracing::warn!(problem, "a beat did not arrive"),
            None if !well => tracing::info!("beats arrive again"),
            Some(_) | None => {}
        }
        well = problem.is_none();
        sleep_until(began + beat.every.mul_f64(1.0 - JITTER * chance())).await;
    }
}

/// Posts one beat to every address of a name, by then.
async fn post_all(to: &str, target: &str, token: &str, by: Instant) -> Result<(), String> {
    let named = |problem: &dyn std::fmt::Display| format!("{to}: {problem}");
    let addresses = timeout_at(by, lookup_host(to)).await;
    let addresses = addresses.map_err(|_| named(&"its name is not found in time"))?;
    let addresses: Vec<_> = addresses.map_err(|problem| named(&problem))?.collect();
    let posted = addresses.iter().map(|address| async move {
        let posted = timeout_at(by, post(*address, to, target, token)).await;
        let posted = posted.unwrap_or_else(|_| Err("no answer in time".to_owned()));
        posted.map_err(|problem| format!("{address}: {problem}"))
    });
    join_all(posted).await.into_iter().collect()
}

/// Posts one beat to one router.
async fn post(address: SocketAddr, host: &str, target: &str, token: &str) -> Result<(), String> {
    let words = |problem: hyper::Error| problem.to_string();
    let stream = TcpStream::connect(address).await;
    let stream = stream.map_err(|problem| problem.to_string())?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
        .await
        .map_err(words)?;
    let request = Request::post(target)
        .header(header::HOST, host)
        .header(SIGNATURE, token)
        .body(Body::empty())
        .map_err(|problem| problem.to_string())?;
    let mut answer = std::pin::pin!(sender.send_request(request));
    // The connection is driven only as long as the answer is waited for. Its end may bring it.
    let answer = tokio::select! {
        answer = &mut answer => answer,
        _ = connection => answer.await,
    };
    let status = answer.map_err(words)?.status();
    match status {
        StatusCode::NO_CONTENT => Ok(()),
        other => Err(format!("the router answers {}", other.as_u16())),
    }
}

/// Milliseconds since 1970.
fn now_ms() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    u64::try_from(now.unwrap_or_default().as_millis()).unwrap_or(u64::MAX)
}

/// From 0 to 1, another one each time; no secret.
fn chance() -> f64 {
    let state = std::collections::hash_map::RandomState::new();
    state.build_hasher().finish() as f64 / u64::MAX as f64
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn an_answer_that_comes_with_the_end_of_the_connection_counts() {
        let router = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = router.local_addr().unwrap();
        let answers = async {
            let (mut socket, _) = router.accept().await.unwrap();
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                assert_ne!(socket.read_buf(&mut head).await.unwrap(), 0);
            }
            let answer = b"HTTP/1.1 204 No Content\r\nconnection: close\r\n\r\n";
            socket.write_all(answer).await.unwrap();
        };
        let posts = post(address, "router", "/v1/cells/alice/beat", "v1.1.00");
        let (posted, ()) = tokio::join!(posts, answers);
        assert_eq!(posted, Ok(()));
    }
}
