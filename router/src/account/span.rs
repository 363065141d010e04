//! A request's record as spans, by the names of OpenTelemetry's semantic conventions for HTTP servers.
//!
//! Says nothing that the access log does not say: no query, no field of a head.

use std::borrow::Cow;
use std::time::SystemTime;

use http::Method;
use opentelemetry::trace::{
    Event, SpanContext, SpanId, SpanKind, Status, TraceFlags, TraceId, TraceState,
};
use opentelemetry::{InstrumentationScope, KeyValue, Value};
use opentelemetry_sdk::trace::{SpanData, SpanEvents, SpanLinks};
use tokio::time::{Duration, Instant};

use super::record::{Blame, Record, ending_name, version_name};
use super::trace::{Step, Tracer};
use crate::registry::CellName;
use crate::wire::trace::{self, TraceParent};

/// What a request waited for, and when.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wait {
    pub(super) on: &'static str,
    pub(super) since: Instant,
    pub(super) long: Duration,
}

/// The methods that a span may be named by.
const METHODS: [&str; 9] = [
    "CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "TRACE",
];
/// What it is named by where the method may be anything.
const OTHER: &str = "HTTP";

#[derive(Default)]
struct Attributes(Vec<KeyValue>);

impl Attributes {
    fn say(&mut self, name: &'static str, value: impl Into<Value>) {
        self.0.push(KeyValue::new(name, value));
    }

    fn number(&mut self, name: &'static str, value: u64) {
        self.say(name, i64::try_from(value).unwrap_or(i64::MAX));
    }
}

/// The spans of a request that is over: the router's own, and one below it for each wait.
pub(super) fn spans(record: &Record, step: Step, tracer: &Tracer) -> Vec<SpanData> {
    let end = SystemTime::now();
    let duration = record.began.elapsed();
    let start = end.checked_sub(duration).unwrap_or(end);
    let waits = record.waits.borrow();
    let mut spans = Vec::with_capacity(1 + waits.len());
    let own = step.own;
    spans.push(SpanData {
        parent_span_id: record.parent.map_or(SpanId::INVALID, |it| id(it.span)),
        parent_span_is_remote: record.parent.is_some(),
        span_kind: SpanKind::Server,
        attributes: attributes(record, step.https),
        events: first_byte(record, start),
        status: status(record),
        ..plain(own, name(&record.method), start, end)
    });
    spans.extend(waits.iter().map(|wait| {
        let from = start + wait.since.saturating_duration_since(record.began);
        let child = TraceParent {
            span: tracer.span_id(),
            ..own
        };
        SpanData {
            parent_span_id: id(own.span),
            ..plain(child, wait.on, from, from + wait.long)
        }
    }));
    spans
}

/// A span of which nothing more is known.
pub(super) fn plain(
    own: TraceParent,
    name: &'static str,
    start: SystemTime,
    end: SystemTime,
) -> SpanData {
    let (trace, flags) = (own.trace.to_bytes(), TraceFlags::new(own.flags));
    let trace = TraceId::from_bytes(trace);
    SpanData {
        span_context: SpanContext::new(trace, id(own.span), flags, false, TraceState::NONE),
        parent_span_id: SpanId::INVALID,
        parent_span_is_remote: false,
        span_kind: SpanKind::Internal,
        name: Cow::Borrowed(name),
        start_time: start,
        end_time: end,
        attributes: Vec::new(),
        dropped_attributes_count: 0,
        events: SpanEvents::default(),
        links: SpanLinks::default(),
        status: Status::Unset,
        instrumentation_scope: scope(),
    }
}

fn scope() -> InstrumentationScope {
    thread_local! {
        static SCOPE: InstrumentationScope = InstrumentationScope::builder(env!("CARGO_PKG_NAME"))
            .with_version(env!("CARGO_PKG_VERSION"))
            .build();
    }
    SCOPE.with(InstrumentationScope::clone)
}

fn id(span: trace::SpanId) -> SpanId {
    SpanId::from_bytes(span.to_bytes())
}

/// A router knows no routes, so a span is named by its method.
fn name(method: &Method) -> &'static str {
    let known = METHODS.iter().find(|known| **known == method.as_str());
    known.copied().unwrap_or(OTHER)
}

fn attributes(record: &Record, https: bool) -> Vec<KeyValue> {
    let mut it = Attributes(Vec::with_capacity(20));
    match name(&record.method) {
        OTHER => it.say("http.request.method", "_OTHER"),
        method => it.say("http.request.method", method),
    }
    it.say("url.scheme", if https { "https" } else { "http" });
    // What could not be read as a request has none of these.
    if !record.path.is_empty() {
        if name(&record.method) == OTHER {
            it.say("http.request.method_original", record.method.to_string());
        }
        it.say("url.path", record.path.to_string());
        let (host, port) = address(&record.host);
        it.say("server.address", host.to_owned());
        if let Some(port) = port {
            it.number("server.port", port.into());
        }
    }
    it.say("client.address", record.client.to_canonical().to_string());
    it.say("network.protocol.version", version_name(record.version));
    if let Some(status) = record.status.get() {
        it.number("http.response.status_code", status.as_u16().into());
    }
    it.number("http.request.body.size", record.bytes_in.get());
    it.number("http.response.body.size", record.bytes_out.get());
    if let Some(cell) = record.cell().as_deref().map(CellName::as_str) {
        it.say("cell_router.cell", cell.to_owned());
    }
    it.say("cell_router.lane", record.lane.get());
    it.say("cell_router.reason", record.reason());
    let id = record.id.to_str().unwrap_or_default();
    it.say("cell_router.request_id", id.to_owned());
    if let Some(upstream) = record.upstream.get() {
        it.say("cell_router.upstream", upstream.to_string());
    }
    if let Some(blame) = record.blame() {
        it.say("cell_router.error_by", blame.name());
    }
    if let Some(error) = error_type(record) {
        it.say("error.type", error);
    }
    it.0
}

/// Of what kind the error was that the client is not to be blamed for, if there was one.
fn error_type(record: &Record) -> Option<Value> {
    let status = record.status.get()?;
    if status.is_server_error() {
        return Some(status.as_str().to_owned().into());
    }
    match record.blame()? {
        Blame::Client => None,
        Blame::Router | Blame::Cell => {
            let ended = ending_name(record.response_ended.get()).filter(|how| *how != "complete");
            Some(ended.unwrap_or_else(|| record.reason()).into())
        }
    }
}

fn status(record: &Record) -> Status {
    match error_type(record) {
        None => Status::Unset,
        Some(_) => Status::error(record.error.borrow().clone().unwrap_or_default()),
    }
}

fn first_byte(record: &Record, start: SystemTime) -> SpanEvents {
    let mut events = SpanEvents::default();
    if let Some(first_byte) = record.first_byte.get() {
        let event = Event::new("first_byte", start + first_byte, Vec::new(), 0);
        events.events.push(event);
    }
    events
}

/// A host and its port, if it names one.
fn address(host: &str) -> (&str, Option<u16>) {
    let named = host.rsplit_once(':').and_then(|(name, port)| {
        let whole = name.ends_with(']') || !name.contains(':');
        Some((name, port.parse().ok()?)).filter(|_| whole)
    });
    let (name, port) = named.map_or((host, None), |(name, port)| (name, Some(port)));
    let inside = name
        .strip_prefix('[')
        .and_then(|name| name.strip_suffix(']'));
    (inside.unwrap_or(name), port)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_has_a_name_and_maybe_a_port() {
        for (host, name, port) in [
            ("alice.example.com", "alice.example.com", None),
            ("alice.example.com:8080", "alice.example.com", Some(8080)),
            ("[::1]", "::1", None),
            ("[::1]:80", "::1", Some(80)),
            ("::1", "::1", None),
            ("alice:", "alice:", None),
            ("", "", None),
        ] {
            assert_eq!(address(host), (name, port), "{host}");
        }
    }

    #[test]
    fn a_span_is_named_by_a_method_that_is_known() {
        for (method, expected) in [("GET", "GET"), ("PROPFIND", "HTTP"), ("get", "HTTP")] {
            let method = Method::from_bytes(method.as_bytes()).unwrap();
            assert_eq!(name(&method), expected);
        }
    }
}
