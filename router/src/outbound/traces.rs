//! The export of spans by OTLP over HTTP, on a thread of its own. Nothing waits for it.
//!
//! Source: OpenTelemetry Protocol 1.9, OTLP/HTTP. Its library encodes, and tries again what may be tried again (429, 502, 503,
//! 504, no answer), for as long as the settings say, and no sooner than `Retry-After` does.

use std::fmt;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use async_trait::async_trait;
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use opentelemetry::{Key, KeyValue};
use opentelemetry_http::{HttpClient, HttpError};
use opentelemetry_otlp::{Protocol, SpanExporter, WithExportConfig as _, WithHttpConfig as _};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceResponse;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::SpanExporter as _;
use prost::Message as _;
use tokio::sync::oneshot;
use tokio::time::{Duration, sleep, timeout};

use super::{chain, https};
use crate::account::output::LAST_LINES;
use crate::account::trace::Spans;
use crate::config::traces::Traces;
use crate::live::trust::Trust;

/// How long the end of a process waits for what is exported, at most.
const LAST_SPANS: Duration = Duration::from_secs(5);
/// The largest answer that is read, in bytes.
const MOST_ANSWER_BYTES: usize = 64 * 1024;
/// The name of the service where no variable gives one.
const SERVICE: &str = "cell-router";

/// What the collector said of the last spans.
#[derive(Debug, Default)]
struct Said {
    why: Option<String>,
    rejected: u64,
}

/// The collector that spans go to; its clones are the same.
#[derive(Clone)]
struct Collector {
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    patience: Duration,
    said: Arc<Mutex<Said>>,
}

impl fmt::Debug for Collector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Collector").finish_non_exhaustive()
    }
}

impl Collector {
    async fn ask(&self, request: Request<Bytes>) -> Result<Response<Bytes>, String> {
        let answer = self.client.request(request.map(Full::new)).await;
        let (head, body) = answer.map_err(|error| chain(&error))?.into_parts();
        let body = Limited::new(body, MOST_ANSWER_BYTES).collect().await;
        let body = body.map_err(|error| error.to_string())?.to_bytes();
        Ok(Response::from_parts(head, body))
    }

    fn hear(&self, answer: &Result<Response<Bytes>, String>) {
        let partial = |answer: &Response<Bytes>| {
            let answer = ExportTraceServiceResponse::decode(answer.body().clone());
            answer.ok()?.partial_success
        };
        let said = match answer {
            Ok(answer) if answer.status().is_success() => match partial(answer) {
                Some(partial) if partial.rejected_spans > 0 => Said {
                    why: Some(partial.error_message),
                    rejected: u64::try_from(partial.rejected_spans).unwrap_or_default(),
                },
                Some(_) | None => Said::default(),
            },
            Ok(answer) => Said {
                why: Some(format!("the collector says {}", answer.status().as_u16())),
                rejected: 0,
            },
            Err(why) => Said {
                why: Some(why.clone()),
                rejected: 0,
            },
        };
        *self.said.lock().unwrap_or_else(PoisonError::into_inner) = said;
    }

    fn said(&self) -> Said {
        std::mem::take(&mut self.said.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[async_trait]
impl HttpClient for Collector {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let answer = match timeout(self.patience, self.ask(request)).await {
            Ok(answer) => answer,
            Err(_) => Err(format!("no answer in {} ms", self.patience.as_millis())),
        };
        self.hear(&answer);
        Ok(answer?)
    }
}

/// What exports spans.
#[derive(Debug)]
pub struct Exporter {
    exporter: SpanExporter,
    collector: Collector,
    batch: usize,
    delay: Duration,
}

impl Exporter {
    /// One to where the settings say, whose certificate `trust` judges, in the name of `router`.
    ///
    /// # Errors
    /// What the library finds wrong with variables that it reads itself.
    pub fn new(traces: &Traces, trust: &Trust, router: &str) -> Result<Self, String> {
        let collector = Collector {
            client: https::client(trust, 1),
            patience: traces.timeout,
            said: Arc::default(),
        };
        let exporter = SpanExporter::builder()
            .with_http()
            .with_http_client(collector.clone())
            .with_endpoint(traces.url.to_string())
            .with_protocol(Protocol::HttpBinary)
            .with_timeout(traces.timeout)
            .build();
        let mut exporter = exporter.map_err(|error| format!("traces: {error}"))?;
        exporter.set_resource(&resource(router));
        Ok(Self {
            exporter,
            collector,
            batch: traces.batch,
            delay: traces.delay,
        })
    }

    /// Exports what comes to `spans`, on a thread of its own.
    ///
    /// # Errors
    /// Those of the system: there is no thread to be had.
    pub fn start(self, spans: Spans) -> io::Result<Exporting> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let (done, finished) = oneshot::channel();
        let exported = spans.clone();
        let run = move || {
            runtime.block_on(self.run(&exported));
            // Who does not wait for it any more has given up.
            let _ = done.send(());
        };
        thread::Builder::new()
            .name("traces".to_owned())
            .spawn(run)?;
        Ok(Exporting { spans, finished })
    }

    async fn run(self, spans: &Spans) {
        let mut works = true;
        while let Some(batch) = spans.batch(self.batch, self.delay).await {
            let count = batch.len() as u64;
            let exported = self.exporter.export(batch).await;
            let Said { why, rejected } = self.collector.said();
            let worked = exported.is_ok() && rejected == 0;
            match exported {
                Ok(()) => {
                    spans.count("exported", count.saturating_sub(rejected));
                    spans.count("rejected", rejected);
                }
                Err(_) => spans.count("failed", count),
            }
            // One word for each change, whatever the number of spans.
            match (works, worked) {
                (true, false) => {
                    let why = why.or_else(|| exported.err().map(|error| error.to_string()));
                    tracing::warn!(why, "traces: not exported");
                }
                (false, true) => tracing::info!("traces: exported again"),
                (true, true) | (false, false) => {}
            }
            works = worked;
        }
    }
}

/// An export that runs.
#[derive(Debug)]
pub struct Exporting {
    /// Where spans come to.
    pub spans: Spans,
    finished: oneshot::Receiver<()>,
}

impl Exporting {
    /// Exports what waits, now that no more will come: for as long as is `left` of the time for running work, within
    /// bounds, or until `told` to stop at once.
    pub async fn finish(self, left: Duration, told: impl Future<Output = ()>) {
        self.spans.close();
        tokio::select! {
            _ = self.finished => return,
            () = sleep(left.clamp(LAST_LINES, LAST_SPANS)) => {}
            () = told => {}
        }
        let lost = self.spans.left();
        tracing::warn!(lost, "traces: not all were exported");
    }
}

/// What all spans have in common.
fn resource(router: &str) -> Resource {
    let more = [
        KeyValue::new("service.version", env!("CARGO_PKG_VERSION")),
        KeyValue::new("service.instance.id", router.to_owned()),
    ];
    let resource = Resource::builder().with_attributes(more);
    let name = Resource::builder()
        .build()
        .get(&Key::from_static_str("service.name"));
    match name {
        Some(name) if !name.as_str().starts_with("unknown_service") => resource.build(),
        Some(_) | None => resource.with_service_name(SERVICE).build(),
    }
}
