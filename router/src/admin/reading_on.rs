//! Refusals that arrive: what a client still sends is read on for a while. A connection that closes with bytes unread takes
//! its last answer along (RFC 9112 section 9.6).

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody};
use axum::extract::Request;
use axum::http::header;
use axum::middleware::Next;
use axum::response::Response;
use http_body::{Frame, SizeHint};
use http_body_util::BodyExt as _;
use tokio::time::timeout;

/// What is read on at most, in bytes, and for how long.
const BYTES: usize = 16 * 1024 * 1024;
const TIME: Duration = Duration::from_secs(5);

/// Reads on what a refused request still sends; not where its client waits to be asked for it.
pub(super) async fn read_on(request: Request, next: Next) -> Response {
    let asks = request.headers().contains_key(header::EXPECT);
    let (parts, body) = request.into_parts();
    let mut kept = Kept(Arc::new(Mutex::new(body)));
    let body = Body::new(Kept(Arc::clone(&kept.0)));
    let response = next.run(Request::from_parts(parts, body)).await;
    if !asks && !response.status().is_success() {
        // What more there is, or how it ends, is nobody's concern.
        let _ = timeout(TIME, discard(&mut kept)).await;
    }
    response
}

async fn discard(body: &mut Kept) {
    let mut read = 0;
    while let (Some(Ok(frame)), true) = (body.frame().await, read < BYTES) {
        read += frame.data_ref().map_or(0, Bytes::len);
    }
}

/// A body that is still there when whoever read it has left.
struct Kept(Arc<Mutex<Body>>);

impl Kept {
    fn with<R>(&self, then: impl FnOnce(&mut Body) -> R) -> R {
        then(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl HttpBody for Kept {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        self.with(|body| Pin::new(body).poll_frame(context))
    }

    fn is_end_stream(&self) -> bool {
        self.with(|body| body.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        self.with(|body| body.size_hint())
    }
}
