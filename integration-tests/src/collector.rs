//! A collector of traces: takes spans by OTLP over HTTP, or does to whoever brings some what a test tells it.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};

use axum::body::Bytes;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use http::{HeaderMap, StatusCode, header};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTracePartialSuccess, ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::common::v1::any_value::Value as Any;
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::process::{HUNG, lock};

/// What a collector does with spans.
#[derive(Clone, Copy, Debug)]
pub enum Mood {
    /// Takes them.
    Takes,
    /// Takes all but so many, and says so.
    Rejects(i64),
    /// Answers with this status, and takes none.
    Says(StatusCode),
    /// Never answers.
    Silent,
}

/// A span that was exported.
#[derive(Clone, Debug)]
pub struct Exported {
    /// The span.
    pub span: Span,
    /// What it has in common with others: attributes of the resource.
    pub resource: Value,
}

impl Exported {
    /// Its attributes, as an object.
    pub fn attributes(&self) -> Value {
        object(&self.span.attributes)
    }
}

fn object(attributes: &[KeyValue]) -> Value {
    let all = attributes.iter().map(|attribute| {
        let value = attribute.value.as_ref().and_then(|it| it.value.as_ref());
        let value = match value {
            Some(Any::StringValue(text)) => json!(text),
            Some(Any::IntValue(number)) => json!(number),
            Some(Any::BoolValue(is)) => json!(is),
            Some(Any::DoubleValue(number)) => json!(number),
            _ => Value::Null,
        };
        (attribute.key.clone(), value)
    });
    Value::Object(all.collect())
}

#[derive(Debug)]
struct Desk {
    mood: Mutex<Mood>,
    /// Heads and bodies of all that was asked.
    asked: watch::Sender<Vec<(HeaderMap, Bytes)>>,
    taken: watch::Sender<Vec<Exported>>,
}

/// A collector; it ends when it is dropped.
#[derive(Debug)]
pub struct Collector {
    address: SocketAddr,
    desk: Arc<Desk>,
    serving: JoinHandle<()>,
}

impl Drop for Collector {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

impl Collector {
    /// Listens on the loopback interface.
    ///
    /// # Panics
    /// It has no free port.
    pub async fn start() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await;
        let listener = listener.expect("the loopback interface has a free port");
        let address = listener.local_addr();
        let desk = Arc::new(Desk {
            mood: Mutex::new(Mood::Takes),
            asked: watch::Sender::default(),
            taken: watch::Sender::default(),
        });
        let app = axum::Router::new()
            .route("/v1/traces", post(traces))
            .with_state(Arc::clone(&desk));
        Self {
            address: address.expect("a bound socket has an address"),
            desk,
            serving: tokio::spawn(async { drop(axum::serve(listener, app).await) }),
        }
    }

    /// The URL for exporters of all signals.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// What it does from now on.
    pub fn be(&self, mood: Mood) {
        *lock(&self.desk.mood) = mood;
    }

    /// The first span that it took and that `fits`; waits for it.
    ///
    /// # Panics
    /// None comes.
    pub async fn span(&self, fits: impl Fn(&Exported) -> bool) -> Exported {
        let mut taken = self.desk.taken.subscribe();
        let found = taken.wait_for(|all| all.iter().any(&fits));
        let found = tokio::time::timeout(HUNG, found).await;
        let found = found.expect("no such span").expect("the collector runs");
        let found = found.iter().find(|one| fits(one));
        found.expect("it was there").clone()
    }

    /// All spans that it took so far.
    pub fn spans(&self) -> Vec<Exported> {
        self.desk.taken.borrow().clone()
    }

    /// Waits until it has been asked so often.
    ///
    /// # Panics
    /// It is not.
    pub async fn asked(&self, times: usize) -> Vec<(HeaderMap, Bytes)> {
        let mut asked = self.desk.asked.subscribe();
        let often = asked.wait_for(|all| all.len() >= times);
        let often = tokio::time::timeout(HUNG, often).await;
        let often = often.expect("nobody asks").expect("the collector runs");
        often.clone()
    }
}

async fn traces(State(desk): State<Arc<Desk>>, head: HeaderMap, body: Bytes) -> Response {
    let mood = *lock(&desk.mood);
    desk.asked
        .send_modify(|asked| asked.push((head, body.clone())));
    let rejected = match mood {
        Mood::Takes => 0,
        Mood::Rejects(some) => some,
        Mood::Says(status) => return status.into_response(),
        Mood::Silent => std::future::pending().await,
    };
    let Ok(request) = ExportTraceServiceRequest::decode(body) else {
        return StatusCode::BAD_REQUEST.into_response();
    };
    let spans = request.resource_spans.into_iter().flat_map(|of| {
        let resource = of.resource.unwrap_or_default();
        let resource = object(&resource.attributes);
        let spans = of.scope_spans.into_iter().flat_map(|scope| scope.spans);
        let spans: Vec<_> = spans
            .map(|span| Exported {
                span,
                resource: resource.clone(),
            })
            .collect();
        spans
    });
    let kept = spans.skip(usize::try_from(rejected).unwrap_or_default());
    desk.taken.send_modify(|taken| taken.extend(kept));
    let partial = (rejected > 0).then(|| ExportTracePartialSuccess {
        rejected_spans: rejected,
        error_message: "too many".to_owned(),
    });
    let answer = ExportTraceServiceResponse {
        partial_success: partial,
    };
    let kind = [(header::CONTENT_TYPE, "application/x-protobuf")];
    (kind, answer.encode_to_vec()).into_response()
}
