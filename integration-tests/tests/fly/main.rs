//! The emulated Fly.io, tested through its sockets: what the router's own tests rest on.

mod api;
mod edge;
mod machines;
mod names;

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

type Handler = dyn Fn(&Request<Bytes>) -> Response<Full<Bytes>> + Send + Sync;

/// A machine's server inside the test: it keeps every request and answers as it is told.
struct Stub {
    address: SocketAddr,
    seen: Arc<Mutex<Vec<Request<Bytes>>>>,
    _tasks: JoinSet<()>,
}

impl Stub {
    async fn start(
        answer: impl Fn(&Request<Bytes>) -> Response<Full<Bytes>> + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let seen: Arc<Mutex<Vec<Request<Bytes>>>> = Arc::default();
        let answer: Arc<Handler> = Arc::new(answer);
        let mut tasks = JoinSet::new();
        let kept = Arc::clone(&seen);
        tasks.spawn(async move {
            let mut clients = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let (answer, kept) = (Arc::clone(&answer), Arc::clone(&kept));
                let service = service_fn(move |request: Request<hyper::body::Incoming>| {
                    let (answer, kept) = (Arc::clone(&answer), Arc::clone(&kept));
                    async move {
                        let (parts, body) = request.into_parts();
                        let request = Request::from_parts(parts, body.collect().await?.to_bytes());
                        kept.lock().unwrap().push(request.clone());
                        Ok::<_, hyper::Error>(answer(&request))
                    }
                });
                clients.spawn(async move {
                    let _ = hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service)
                        .await;
                });
            }
        });
        Self {
            address,
            seen,
            _tasks: tasks,
        }
    }

    /// Answers every request with its name.
    async fn named(name: &'static str) -> Self {
        Self::start(move |_| Response::new(Full::from(name))).await
    }

    /// Answers every request with a replay in header form.
    async fn replaying(instruction: &'static str) -> Self {
        Self::start(move |_| replay(&[("fly-replay", instruction)])).await
    }

    fn count(&self) -> usize {
        self.seen.lock().unwrap().len()
    }

    /// Headers of its latest request.
    fn headers(&self) -> HeaderMap {
        self.seen.lock().unwrap().last().unwrap().headers().clone()
    }

    fn body(&self) -> Bytes {
        self.seen.lock().unwrap().last().unwrap().body().clone()
    }
}

fn replay(headers: &[(&'static str, &str)]) -> Response<Full<Bytes>> {
    let builder = headers
        .iter()
        .fold(Response::builder().status(307), |b, (name, value)| {
            b.header(*name, *value)
        });
    builder.body(Full::default()).unwrap()
}
