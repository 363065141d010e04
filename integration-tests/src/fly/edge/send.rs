//! Owns one exchange with a machine: HTTP/1.1 out, the answer back, tunnels after an upgrade.

use std::convert::Infallible;

use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_LENGTH, HeaderValue, TRANSFER_ENCODING, UPGRADE};
use http::{Request, Response, StatusCode};
use http_body::Body;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::task::AbortHandle;

use super::body::Reader;
use super::headers::{Head, end_hop};
use crate::fly::machine::Load;

pub(super) type AnswerBody = UnsyncBoxBody<Bytes, std::io::Error>;

/// Sends a request over a fresh connection. The handle ends the exchange at once.
pub(super) async fn exchange(
    stream: TcpStream,
    head: Head,
    body: Reader<Incoming>,
) -> Result<(Response<Incoming>, AbortHandle), hyper::Error> {
    // Small writes must not wait for each other; without it they only come later.
    let _ = stream.set_nodelay(true);
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let running = tokio::spawn(async move {
        // Its errors come out of the answer or its body.
        let _ = connection.with_upgrades().await;
    });
    let mut request = Request::new(body);
    *request.method_mut() = head.method;
    *request.uri_mut() = head.target.into();
    *request.headers_mut() = head.headers;
    if request.body().size_hint().exact().is_none() && !request.body().is_end_stream() {
        // Said outright, because a GET of unknown length would lose its body otherwise.
        request.headers_mut().remove(CONTENT_LENGTH);
        request
            .headers_mut()
            .insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
    }
    let answer = sender.send_request(request).await;
    if answer.is_err() {
        running.abort();
    }
    Ok((answer?, running.abort_handle()))
}

/// The answer as the client gets it; `load` counts until its body has ended, or its tunnel.
pub(super) fn relay(
    mut answer: Response<Incoming>,
    load: Load,
    client: Option<OnUpgrade>,
) -> Response<AnswerBody> {
    let machine = hyper::upgrade::on(&mut answer);
    let (mut parts, body) = answer.into_parts();
    let protocol = parts.headers.get(UPGRADE).cloned();
    end_hop(&mut parts.headers);
    if parts.status == StatusCode::SWITCHING_PROTOCOLS {
        parts
            .headers
            .insert(CONNECTION, HeaderValue::from_static("upgrade"));
        if let Some(protocol) = protocol {
            parts.headers.insert(UPGRADE, protocol);
        }
        if let Some(client) = client {
            tokio::spawn(tunnel(client, machine, load));
        }
        return Response::from_parts(parts, empty());
    }
    let body = body.map_err(move |error| {
        // Owned here, so that it lives exactly as long as the body.
        let _counts = &load;
        std::io::Error::other(error)
    });
    Response::from_parts(parts, body.boxed_unsync())
}

async fn tunnel(client: OnUpgrade, machine: OnUpgrade, load: Load) {
    if let (Ok(client), Ok(machine)) = tokio::join!(client, machine) {
        let (mut client, mut machine) = (TokioIo::new(client), TokioIo::new(machine));
        // Whatever ends the copy ends both sides.
        let _ = tokio::io::copy_bidirectional(&mut client, &mut machine).await;
    }
    drop(load);
}

/// A body without a byte.
pub(super) fn empty() -> AnswerBody {
    Empty::new()
        .map_err(|never: Infallible| match never {})
        .boxed_unsync()
}
