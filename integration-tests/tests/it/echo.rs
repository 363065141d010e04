//! A cell of a few lines: it answers with what it was sent.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::json;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;

/// A request to this path is never answered.
pub(crate) const FOREVER: &str = "/forever";
/// A request's own word on what header its answer has, unless it was replayed: `name: value`.
pub(crate) const ANSWER_WITH: &str = "x-answer-with";

/// A running cell; closed on drop.
#[derive(Debug)]
pub(crate) struct Echo {
    address: SocketAddr,
    seen: watch::Receiver<usize>,
    _accepting: JoinSet<()>,
}

impl Echo {
    /// Starts one; its answers carry `name` as `cell`.
    pub(crate) async fn start(name: &'static str) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (counted, seen) = watch::channel(0);
        let mut accepting = JoinSet::new();
        accepting.spawn(async move {
            let mut clients = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                while clients.try_join_next().is_some() {}
                let _ = stream.set_nodelay(true);
                let counted = counted.clone();
                clients.spawn(async move {
                    let service = service_fn(|request| {
                        counted.send_modify(|count| *count += 1);
                        answer(name, request)
                    });
                    // A client that leaves ends its connection and nothing else.
                    let _ = hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service)
                        .await;
                });
            }
        });
        Self {
            address,
            seen,
            _accepting: accepting,
        }
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// How many requests have arrived.
    pub(crate) fn seen(&self) -> usize {
        *self.seen.borrow()
    }

    /// Waits until so many have.
    pub(crate) async fn saw(&self, requests: usize) {
        let mut seen = self.seen.clone();
        seen.wait_for(|seen| *seen >= requests).await.unwrap();
    }
}

async fn answer(
    name: &'static str,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let (head, body) = request.into_parts();
    if head.uri.path() == FOREVER {
        std::future::pending::<()>().await;
    }
    let body_bytes = body.collect().await.map(|body| body.to_bytes().len()).ok();
    let mut headers: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for (name, value) in &head.headers {
        let value = String::from_utf8_lossy(value.as_bytes()).into_owned();
        headers.entry(name.as_str()).or_default().push(value);
    }
    let told = json!({
        "cell": name, "method": head.method.as_str(), "target": head.uri.to_string(),
        "headers": headers, "body_bytes": body_bytes,
    });
    let mut response = Response::new(Full::from(told.to_string()));
    let asked = head.headers.get_all(ANSWER_WITH).iter();
    for with in asked.take_while(|_| !head.headers.contains_key("fly-replay-src")) {
        let (name, value) = with.to_str().unwrap().split_once(':').unwrap();
        let name: HeaderName = name.parse().unwrap();
        let value: HeaderValue = value.trim().parse().unwrap();
        response.headers_mut().insert(name, value);
    }
    Ok(response)
}
