//! Traces that requests belong to: what the log says of them, and what is exported.

use data_encoding::HEXLOWER;
use http::{Request, StatusCode};
use integration_tests::client::{self, Http, Raw};
use integration_tests::collector::{Collector, Exported, Mood};
use integration_tests::fly::{Fly, MachineSpec};
use integration_tests::process::HUNG;
use integration_tests::{Router, RouterOptions, ScriptedCell};
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use opentelemetry_proto::tonic::trace::v1::status::StatusCode as Verdict;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpListener;
use tokio::time::timeout;

use crate::admin_api::Admin;
use crate::cell_tls::{Authority, head};
use crate::scene::{HOST, at, options, registry, said, scripted};
use crate::wake::{APP, entry, on_fly};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const SPAN: &str = "00f067aa0ba902b7";

const EMPTY: &str = "HTTP/1.1 204 No Content\r\n\r\n";

fn traceparent(flags: &str) -> String {
    format!("00-{TRACE}-{SPAN}-{flags}")
}

/// The values of a field in a head.
fn values<'a>(head: &'a str, name: &str) -> Vec<&'a str> {
    head.lines()
        .filter_map(|line| line.split_once(": "))
        .filter(|(field, _)| field.eq_ignore_ascii_case(name))
        .map(|(_, value)| value)
        .collect()
}

#[tokio::test]
async fn the_log_names_the_trace_of_a_request_and_the_cell_gets_it_untouched() {
    for http in [Http::One, Http::Two] {
        let (router, cell) = scripted().await;
        let traced = traceparent("01");
        let future = format!("cc-{TRACE}-{SPAN}-01-more");
        let wrong = format!("00-{TRACE}-{:016}-01", 0);
        for (path, value, known) in [
            ("/traced", Some(&traced), true),
            ("/future", Some(&future), true),
            ("/wrong", Some(&wrong), false),
            ("/none", None, false),
        ] {
            let mut request = Request::get(path).header("host", HOST);
            if let Some(value) = value {
                request = request.header("traceparent", value);
                request = request.header("tracestate", "rojo=1,congo=2");
            }
            let request = request.body(client::full("")).unwrap();
            let answer = tokio::spawn(client::send(router.addr(), http, request));
            let (mut raw, head) = cell.request().await;
            raw.write(EMPTY).await.unwrap();
            assert_eq!(
                answer.await.unwrap().unwrap().status,
                StatusCode::NO_CONTENT
            );
            let states: &[&str] = if value.is_some() {
                &["rojo=1,congo=2"]
            } else {
                &[]
            };
            let sent: Vec<_> = value.iter().map(|value| value.as_str()).collect();
            assert_eq!(values(&head, "traceparent"), sent, "{path}");
            assert_eq!(values(&head, "tracestate"), states, "{path}");
            let record = router.next_record(|record| record["path"] == path).await;
            let (trace, span) = match known {
                true => (json!(TRACE), json!(SPAN)),
                false => (json!(null), json!(null)),
            };
            assert_eq!(record["trace_id"], trace, "{record}");
            assert_eq!(record["parent_span_id"], span, "{record}");
            assert_eq!(
                record["span_id"],
                json!(null),
                "the router has none: {record}"
            );
        }
    }
}

/// A router that exports its spans, before one scripted cell, `alice`.
struct Traced {
    admin: Admin,
    cell: ScriptedCell,
    collector: Collector,
}

impl Traced {
    async fn start(more: &[&str]) -> Self {
        let collector = Collector::start().await;
        let to = ("OTEL_EXPORTER_OTLP_ENDPOINT", &*collector.url());
        Self::with(more, &[to, ("OTEL_BSP_SCHEDULE_DELAY", "1")], collector).await
    }

    async fn with(flags: &[&str], variables: &[(&str, &str)], collector: Collector) -> Self {
        let cell = ScriptedCell::listen().await;
        let mut options = options(json!({ "alice": at(cell.addr()) }));
        for (name, value) in variables {
            options = options.env(name, value);
        }
        let admin = Admin::start(options.args(flags.iter().copied())).await;
        Self {
            admin,
            cell,
            collector,
        }
    }

    fn router(&self) -> &Router {
        &self.admin.router
    }

    /// Asks for a path with these fields; the head that the cell got.
    async fn ask(&self, path: &str, fields: &[(&str, &str)]) -> String {
        let mut request = Request::get(path).header("host", HOST);
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        let request = request.body(client::full("")).unwrap();
        let answer = tokio::spawn(client::send(self.router().addr(), Http::One, request));
        let (mut raw, head) = self.cell.request().await;
        raw.write(EMPTY).await.unwrap();
        assert_eq!(
            answer.await.unwrap().unwrap().status,
            StatusCode::NO_CONTENT
        );
        head
    }

    /// Asks for what the router answers itself.
    async fn not_found(&self) {
        let nowhere = client::get(self.router().addr(), "nowhere.example.com", "/").await;
        assert_eq!(nowhere.unwrap().status, StatusCode::NOT_FOUND);
    }

    async fn record(&self, path: &str) -> Value {
        self.router()
            .next_record(|record| record["path"] == path)
            .await
    }

    async fn span(&self, path: &str) -> Exported {
        let fits = |one: &Exported| one.attributes()["url.path"] == path;
        self.collector.span(fits).await
    }

    async fn counted(&self, outcome: &str) -> u64 {
        counted(&self.admin, outcome).await
    }
}

/// Spans that ended so, as the metrics have it.
async fn counted(admin: &Admin, outcome: &str) -> u64 {
    let text = admin.send("read", "GET", "/metrics", &[], "").await.text();
    let name = format!("cell_router_spans_total{{outcome=\"{outcome}\"}} ");
    let line = text.lines().find_map(|line| line.strip_prefix(&name));
    line.map_or(0, |count| count.parse().unwrap())
}

/// The only `traceparent` of a head, in its four parts.
fn told(head: &str) -> [String; 4] {
    let [only] = values(head, "traceparent")[..] else {
        panic!("one traceparent in {head}");
    };
    let parts: Vec<_> = only.split('-').map(str::to_owned).collect();
    parts.try_into().unwrap()
}

fn hex(id: &[u8]) -> String {
    HEXLOWER.encode(id)
}

#[tokio::test]
async fn a_span_of_the_trace_reaches_the_collector_and_the_cell_is_told_of_it() {
    let traced = Traced::start(&[]).await;
    let traceparent = traceparent("01");
    let fields = [("traceparent", &*traceparent), ("tracestate", "rojo=1")];
    let head = traced.ask("/a/b?secret=hush&code=4711", &fields).await;
    let [version, trace, span, flags] = told(&head);
    assert_eq!((&*version, &*trace, &*flags), ("00", TRACE, "01"), "{head}");
    assert_ne!(span, SPAN);
    assert_eq!(values(&head, "tracestate"), ["rojo=1"]);

    let exported = traced.span("/a/b").await;
    assert_eq!(hex(&exported.span.trace_id), TRACE);
    assert_eq!(hex(&exported.span.span_id), span);
    assert_eq!(hex(&exported.span.parent_span_id), SPAN);
    assert_eq!(exported.span.kind, SpanKind::Server as i32);
    assert_eq!(exported.span.name, "GET");
    assert!(exported.span.end_time_unix_nano >= exported.span.start_time_unix_nano);
    let record = traced.record("/a/b").await;
    let attributes = exported.attributes();
    for (name, value) in [
        ("http.request.method", json!("GET")),
        ("url.scheme", json!("http")),
        ("server.address", json!(HOST)),
        ("client.address", json!("127.0.0.1")),
        ("network.protocol.version", json!("1.1")),
        ("http.response.status_code", json!(204)),
        ("http.request.body.size", json!(0)),
        ("http.response.body.size", json!(0)),
        ("cell_router.cell", json!("alice")),
        ("cell_router.lane", json!("stream")),
        ("cell_router.reason", json!("not_on_fly")),
        ("cell_router.request_id", record["request_id"].clone()),
        ("cell_router.upstream", record["upstream"].clone()),
        ("error.type", Value::Null),
    ] {
        assert_eq!(attributes[name], value, "{name} in {attributes}");
    }
    assert_eq!(exported.resource["service.name"], "cell-router");
    assert_eq!(record["trace_id"], TRACE);
    assert_eq!(record["parent_span_id"], SPAN);
    assert_eq!(record["span_id"], *span);
    for (head, body) in traced.collector.asked(1).await {
        assert_eq!(head["content-type"], "application/x-protobuf");
        for secret in ["hush", "4711"] {
            let mut parts = body.windows(secret.len());
            assert!(!parts.any(|part| part == secret.as_bytes()), "{body:?}");
        }
    }
}

#[tokio::test]
async fn a_trace_begins_here_where_the_request_names_none() {
    let traced = Traced::start(&[]).await;
    let wrong = format!("00-{TRACE}-{:016}-01", 0);
    for (path, fields) in [
        ("/none", &[][..]),
        ("/state", &[("tracestate", "rojo=1")]),
        (
            "/wrong",
            &[("traceparent", &*wrong), ("tracestate", "rojo=1")],
        ),
    ] {
        let head = traced.ask(path, fields).await;
        let [_, trace, span, flags] = told(&head);
        assert_ne!(trace, TRACE);
        assert_eq!(flags, "01");
        assert!(values(&head, "tracestate").is_empty(), "{head}");
        let exported = traced.span(path).await.span;
        assert_eq!(
            (hex(&exported.trace_id), hex(&exported.span_id)),
            (trace.clone(), span.clone())
        );
        assert!(exported.parent_span_id.is_empty());
        let record = traced.record(path).await;
        assert_eq!(record["trace_id"], *trace);
        assert_eq!(record["span_id"], *span);
        assert_eq!(record["parent_span_id"], Value::Null);
    }
}

#[tokio::test]
async fn what_is_not_sampled_is_told_on_but_not_exported() {
    let traced = Traced::start(&["--trace-ratio", "0"]).await;
    let (unsampled, sampled) = (traceparent("00"), traceparent("03"));
    // Who asks has decided, and where nobody has, the share does.
    let head = traced.ask("/decided", &[("traceparent", &unsampled)]).await;
    let [_, trace, span, flags] = told(&head);
    assert_eq!((&*trace, &*flags), (TRACE, "00"));
    assert_ne!(span, SPAN);
    let [.., flags] = told(&traced.ask("/new", &[]).await);
    assert_eq!(flags, "00");
    let [.., flags] = told(&traced.ask("/last", &[("traceparent", &sampled)]).await);
    assert_eq!(flags, "03", "what is known of the trace is kept");
    traced.span("/last").await;
    assert_eq!(traced.collector.spans().len(), 1);
    assert_eq!(traced.record("/decided").await["span_id"], *span);
}

#[tokio::test]
async fn answers_of_the_router_and_what_is_no_request_are_spans_too() {
    let traced = Traced::start(&[]).await;
    traced.not_found().await;
    let mut raw = Raw::connect(traced.router().addr()).await.unwrap();
    raw.write("GET / HTTP/1.1\r\nhost: a b\r\n\r\n")
        .await
        .unwrap();
    assert_eq!(raw.answer().await.unwrap().status, StatusCode::BAD_REQUEST);
    for status in [404, 400] {
        let fits = |one: &Exported| one.attributes()["http.response.status_code"] == status;
        let span = traced.collector.span(fits).await;
        assert_eq!(span.attributes()["cell_router.lane"], "answer");
        assert_eq!(span.attributes()["error.type"], Value::Null);
    }
    let own_word = client::send(
        traced.router().addr(),
        Http::One,
        Request::builder()
            .method("PROPFIND")
            .uri("/own")
            .header("host", "nowhere.example.com:8080")
            .body(client::full(""))
            .unwrap(),
    );
    own_word.await.unwrap();
    let span = traced.span("/own").await;
    assert_eq!(span.span.name, "HTTP");
    for (name, value) in [
        ("http.request.method", json!("_OTHER")),
        ("http.request.method_original", json!("PROPFIND")),
        ("server.address", json!("nowhere.example.com")),
        ("server.port", json!(8080)),
    ] {
        assert_eq!(span.attributes()[name], value, "{name}");
    }
    // A cell that is gone is the server's error.
    let Traced {
        admin,
        cell,
        collector,
    } = traced;
    drop(cell);
    let gone = client::get(admin.router.addr(), HOST, "/gone")
        .await
        .unwrap();
    let fits = |one: &Exported| one.attributes()["url.path"] == "/gone";
    let span = collector.span(fits).await;
    assert_eq!(span.attributes()["error.type"], gone.status.as_str());
    assert_eq!(span.span.status.unwrap().code, Verdict::Error as i32);
}

#[tokio::test]
async fn a_wake_is_a_span_below_that_of_its_request() {
    let collector = Collector::start().await;
    let fly = Fly::start().await.unwrap();
    let machine = fly.machine(MachineSpec::cell(APP, "alice")).unwrap();
    let options = on_fly(&fly, json!({ "alice": entry(&machine) }));
    let options = options.args(["--otlp-endpoint", &collector.url()]);
    let router = Router::start(options.env("OTEL_BSP_SCHEDULE_DELAY", "1")).await;
    client::get(router.addr(), HOST, "/whoami").await.unwrap();
    let wake = collector.span(|one| one.span.name == "wake").await.span;
    let request = collector.span(|one| one.span.name == "GET").await.span;
    assert_eq!(wake.trace_id, request.trace_id);
    assert_eq!(wake.parent_span_id, request.span_id);
    assert!(request.start_time_unix_nano <= wake.start_time_unix_nano);
    assert!(wake.end_time_unix_nano <= request.end_time_unix_nano);
}

#[tokio::test]
async fn waits_in_vain_are_spans_too() {
    let collector = Collector::start().await;
    let cell = ScriptedCell::listen().await;
    let mut paused = at(cell.addr());
    paused["state"] = json!("paused");
    paused["hold_timeout_ms"] = json!(1);
    let mut full = at(cell.addr());
    full["max_in_flight"] = json!(1);
    full["queue_timeout_ms"] = json!(1);
    let options = options(json!({ "paused": paused, "full": full }));
    let options = options.args(["--otlp-endpoint", &collector.url()]);
    let router = Router::start(options.env("OTEL_BSP_SCHEDULE_DELAY", "1")).await;
    let ask = |host: &'static str| client::get(router.addr(), host, "/");
    let first = tokio::spawn(ask("full.example.com"));
    let (mut raw, _) = cell.request().await;
    for (host, on) in [
        ("paused.example.com", "hold"),
        ("full.example.com", "queue"),
    ] {
        let answer = ask(host).await.unwrap();
        assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE, "{host}");
        let wait = collector.span(|one| one.span.name == on).await.span;
        let request = |one: &Exported| one.span.span_id == wait.parent_span_id;
        let request = collector.span(request).await.attributes();
        assert_eq!(request["http.response.status_code"], 503, "{request}");
        assert_eq!(request["server.address"], host);
    }
    raw.write(EMPTY).await.unwrap();
    first.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_collector_is_asked_by_https_if_its_certificate_is_right() {
    let folder = tempfile::tempdir().unwrap();
    let (authority, other) = (Authority::new(), Authority::new());
    let file = folder.path().join("ca.pem");
    authority.write(&file);
    let given = ["--otlp-ca", file.to_str().unwrap()];
    for (args, acceptor, good) in [
        (&given[..], authority.certify("localhost").0, true),
        (&given, authority.certify("elsewhere").0, false),
        (&given, other.certify("localhost").0, false),
        (&[], authority.certify("localhost").0, false),
    ] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let serving = tokio::spawn(async move {
            loop {
                let (socket, _) = listener.accept().await.unwrap();
                let Ok(mut stream) = acceptor.accept(socket).await else {
                    continue;
                };
                let head = head(&mut stream).await;
                let taken = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
                stream.write_all(taken).await.unwrap();
                return head;
            }
        });
        let url = format!("https://localhost:{port}/otlp");
        let options = options(json!({})).args(["--otlp-endpoint", &url]);
        let options = options.args(args.iter().copied());
        let admin = Admin::start(options.env("OTEL_BSP_SCHEDULE_DELAY", "1")).await;
        let answer = client::get(admin.router.addr(), "nowhere.example.com", "/").await;
        assert_eq!(answer.unwrap().status, StatusCode::NOT_FOUND);
        if good {
            let head = timeout(HUNG, serving).await.unwrap().unwrap();
            let asked = "POST /otlp/v1/traces HTTP/1.1\r\n";
            assert!(head.starts_with(asked), "{head}");
        } else {
            let event = said(&admin.router, "traces: not exported").await;
            assert!(
                event["why"].as_str().unwrap().contains("certificate"),
                "{event}"
            );
            assert_eq!(counted(&admin, "failed").await, 1);
            serving.abort();
        }
    }
}

#[tokio::test]
async fn a_collector_that_does_not_answer_in_time_is_given_up() {
    let collector = Collector::start().await;
    collector.be(Mood::Silent);
    let to = ("OTEL_EXPORTER_OTLP_ENDPOINT", &*collector.url());
    let time = ("OTEL_EXPORTER_OTLP_TIMEOUT", "20");
    let soon = ("OTEL_BSP_SCHEDULE_DELAY", "1");
    let traced = Traced::with(&[], &[to, time, soon], collector).await;
    traced.not_found().await;
    let event = said(traced.router(), "traces: not exported").await;
    assert_eq!(event["why"], "no answer in 20 ms");
    assert_eq!(traced.counted("failed").await, 1);
}

#[tokio::test]
async fn a_replay_is_a_span_though_the_cell_cannot_be_told() {
    let collector = Collector::start().await;
    let mut fly = Fly::start().await.unwrap();
    let edge = fly.listen("front", 80).await.unwrap();
    let machine = fly.machine(MachineSpec::cell(APP, "alice")).unwrap();
    let cells =
        json!({ "alice": { "machine": machine.id, "app": APP, "port": machine.address().port() } });
    let options = RouterOptions::new(registry(cells)).on_fly(&fly, "front", "f0000000000001");
    let options = options.args(["--otlp-endpoint", &collector.url()]);
    let router = Router::start(options.env("OTEL_BSP_SCHEDULE_DELAY", "1")).await;
    fly.attach("front", "f0000000000001", router.addr())
        .unwrap();
    let request = Request::get("/whoami").header("host", HOST);
    let request = request.header("traceparent", traceparent("01"));
    let request = request.body(client::full("")).unwrap();
    let answer = client::send(edge, Http::One, request).await.unwrap();
    assert_eq!(answer.status, StatusCode::OK);
    let span = collector.span(|one| one.span.name == "GET").await;
    assert_eq!(hex(&span.span.parent_span_id), SPAN);
    assert_eq!(span.attributes()["cell_router.lane"], "replay");
    assert_eq!(span.attributes()["http.response.status_code"], 409);
}

#[tokio::test]
async fn a_collector_that_takes_nothing_delays_no_request_and_what_is_lost_is_counted() {
    let traced = Traced::start(&[]).await;
    for (mood, times) in [
        // Tried again three times.
        (Mood::Says(StatusCode::SERVICE_UNAVAILABLE), 4),
        (Mood::Says(StatusCode::BAD_REQUEST), 1),
    ] {
        let before = traced.collector.asked(0).await.len();
        let failed = traced.counted("failed").await;
        traced.collector.be(mood);
        traced.not_found().await;
        let event = said(traced.router(), "traces: not exported").await;
        assert!(
            event["why"]
                .as_str()
                .unwrap()
                .starts_with("the collector says "),
            "{event}"
        );
        assert_eq!(traced.collector.asked(0).await.len(), before + times);
        assert_eq!(traced.counted("failed").await, failed + 1);
        traced.collector.be(Mood::Takes);
        traced.not_found().await;
        said(traced.router(), "traces: exported again").await;
    }
    traced.collector.be(Mood::Rejects(1));
    traced.not_found().await;
    let event = said(traced.router(), "traces: not exported").await;
    assert_eq!(event["why"], "too many");
    assert_eq!(traced.counted("rejected").await, 1);
    assert_eq!(traced.counted("exported").await, 2);
}

#[tokio::test]
async fn a_collector_that_is_silent_delays_neither_requests_nor_the_end() {
    let collector = Collector::start().await;
    collector.be(Mood::Silent);
    let url = collector.url();
    let variables = [
        (
            "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
            &*format!("{url}/v1/traces"),
        ),
        ("OTEL_BSP_SCHEDULE_DELAY", "1"),
        ("OTEL_BSP_MAX_QUEUE_SIZE", "8"),
    ];
    let traced = Traced::with(&["--drain-ms", "1"], &variables, collector).await;
    traced.not_found().await;
    traced.collector.asked(1).await;
    for _ in 0..100 {
        traced.not_found().await;
    }
    // Lines and spans are handed over together.
    for _ in 0..101 {
        traced.router().next_record(|_| true).await;
    }
    assert_eq!(traced.counted("dropped").await, 100 - 8);
    traced.router().terminate();
    assert!(traced.router().exited().await.success());
    let lost = said(traced.router(), "traces: not all were exported").await;
    assert_eq!(lost["lost"], 1 + 8, "{lost}");
}

#[tokio::test]
async fn a_collector_that_is_not_there_delays_no_request() {
    let collector = Collector::start().await;
    let nobody = collector.url();
    drop(collector);
    let options = options(json!({})).args(["--otlp-endpoint", &nobody]);
    let admin = Admin::start(options.env("OTEL_BSP_SCHEDULE_DELAY", "1")).await;
    let answer = client::get(admin.router.addr(), "nowhere.example.com", "/").await;
    assert_eq!(answer.unwrap().status, StatusCode::NOT_FOUND);
    said(&admin.router, "traces: not exported").await;
    assert_eq!(counted(&admin, "failed").await, 1);
}

#[tokio::test]
async fn what_waits_is_exported_at_the_end() {
    let collector = Collector::start().await;
    let url = collector.url();
    let variables = [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", &*url),
        (
            "OTEL_EXPORTER_OTLP_HEADERS",
            "authorization=Bearer%20hush,x-tenant=7",
        ),
        ("OTEL_SERVICE_NAME", "front-door"),
        ("OTEL_BSP_SCHEDULE_DELAY", "3600000"),
    ];
    let traced = Traced::with(&[], &variables, collector).await;
    traced.not_found().await;
    // Even if it has to be tried again.
    let unavailable = StatusCode::SERVICE_UNAVAILABLE;
    traced.collector.be(Mood::Says(unavailable));
    traced.router().terminate();
    traced.collector.asked(1).await;
    traced.collector.be(Mood::Takes);
    assert!(traced.router().exited().await.success());
    let [span] = &traced.collector.spans()[..] else {
        panic!("one span");
    };
    assert_eq!(span.resource["service.name"], "front-door");
    let asked = traced.collector.asked(1).await;
    assert_eq!(asked[0].0["authorization"], "Bearer hush");
    assert_eq!(asked[0].0["x-tenant"], "7");
}

#[tokio::test]
async fn an_endpoint_that_is_none_is_refused_at_the_start() {
    let options = options(json!({})).args(["--otlp-endpoint", "collector:4317"]);
    let (status, said) = Router::refused(options).await;
    assert!(!status.success());
    assert!(
        said.contains("--otlp-endpoint collector:4317: write the URL of a collector"),
        "{said}"
    );
}
