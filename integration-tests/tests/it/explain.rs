//! What `explain` says of a request is what the running router does with it.

use std::collections::{BTreeMap, HashMap};
use std::net::{Ipv4Addr, SocketAddr};
use std::process::Command;

use bytes::Bytes;
use cell_router::config::{FlyPlace, Place};
use cell_router::control::explain::{Explanation, Question, explain};
use cell_router::decision::{BodyLength, CellState};
use cell_router::registry::Registry;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::SendRequest;
use hyper_util::rt::TokioIo;
use integration_tests::client::{self, Answer, Http, full};
use integration_tests::fly::{Action, Fly, MachineSpec};
use integration_tests::{Binaries, Router, RouterOptions};
use serde_json::{Value, json};
use tokio::net::{TcpSocket, TcpStream};

use crate::echo::{Echo, FOREVER};

const FRONT: &str = "f0000000000001";
/// As small as shows the boundary, so that thousands of bodies are quick.
const REPLAY_MAX_BYTES: u64 = 1000;
/// Requests of the long run.
const REQUESTS: usize = 2400;
/// Keep-alive connections of the long run.
const LINES: usize = 4;

/// A sequence of numbers that is the same in every run (Steele et al., splitmix64).
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    fn one_in(&mut self, many: u64) -> bool {
        self.below(many) == 0
    }

    fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[usize::try_from(self.below(of.len() as u64)).unwrap()]
    }
}

const METHODS: [&str; 11] = [
    "GET", "GET", "GET", "HEAD", "POST", "POST", "PUT", "DELETE", "OPTIONS", "PROPFIND", "TRACE",
];

const HOSTS: [&str; 28] = [
    "example.com",
    "example.com",
    "Example.com:8080",
    "apps.example.org",
    "apps.example.org",
    "apps.example.org.",
    "strict.example.com",
    "strict.example.com",
    "STRICT.example.com:80",
    "www.strict.org",
    "any.strict.net",
    "a.b.strict.net",
    "timed.example.com",
    "cached.example.com",
    "cached.example.com",
    "never.example.com",
    "lab.example.com",
    "closed.example.com",
    "off.example.com",
    "held.example.com",
    "briefly.example.com",
    "busy.example.com",
    "nobody.example.com",
    "10.1.2.3:8080",
    "[::1]:80",
    "visitor@strict.example.com",
    "strict..example.com",
    "strict.example.com:99999",
];

const PATHS: [&str; 33] = [
    "/",
    "/up",
    "/up/x",
    "/-/metrics",
    "/.well-known/acme-challenge/1",
    "/upper",
    "/strict",
    "/strict/",
    "/strict/1",
    "/stricter",
    "/strict/deep",
    "/strict/deep/2?x=/lab",
    "/cut",
    "/cut/1?x=%2F",
    "/cut?x",
    "/cached",
    "/cached/1",
    "/lab/1",
    "/closed",
    "/off/x",
    "/held",
    "/busy/1",
    "/a0000000000001/posts",
    "/a0000000000004",
    "/a0000000000009/x",
    "/strict//1",
    "/strict/../lab",
    "/strict/%2e%2e/lab",
    "/strict%2Flab",
    "/strict\\lab",
    "/posts?page=2&x=//",
    "/%C3%A9t%C3%A9",
    "/x/strict",
];

/// One request.
#[derive(Clone, Debug)]
struct Case {
    number: usize,
    method: Method,
    host: &'static str,
    path: &'static str,
    body: BodyLength,
    headers: Vec<(&'static str, &'static str)>,
    version: Http,
}

impl Case {
    fn make(number: usize, numbers: &mut Numbers) -> Self {
        let method = numbers.pick(&METHODS);
        let host = numbers.pick(&HOSTS);
        let bodies = [
            BodyLength::Known(0),
            BodyLength::Known(1),
            BodyLength::Known(REPLAY_MAX_BYTES),
            BodyLength::Known(REPLAY_MAX_BYTES + 1),
            BodyLength::Known(4 * REPLAY_MAX_BYTES),
            BodyLength::Unknown,
            BodyLength::Unknown,
        ];
        let body = if matches!(method, "HEAD" | "TRACE") || numbers.one_in(2) {
            BodyLength::None
        } else {
            numbers.pick(&bodies)
        };
        let mut headers = Vec::new();
        let mut maybe = |many, lines: &[(&'static str, &'static str)]| {
            if numbers.one_in(many) {
                headers.extend_from_slice(lines);
            }
        };
        maybe(
            5,
            &[("fly-replay-failed", "instance=x;app=y;reason=timeout")],
        );
        maybe(8, &[("fly-replay-src", "instance=x;t=1;state=v1.9.00")]);
        maybe(8, &[("x-forwarded-for", "203.0.113.7, 10.0.0.1")]);
        maybe(
            8,
            &[
                ("x-forwarded-host", "lab.example.com"),
                ("x-forwarded-prefix", "/lab"),
            ],
        );
        maybe(8, &[("x-forwarded-proto", "https")]);
        maybe(8, &[("fly-client-ip", "203.0.113.7")]);
        maybe(8, &[("fly-force-instance-id", "a0000000000004")]);
        maybe(6, &[("via", "1.1 fly.io"), ("via", "2 other, 1.1 third")]);
        maybe(20, &[("via", "1.1 fly.io, 1.1 cell-router-f0000000000001")]);
        maybe(6, &[("accept", "text/html")]);
        let upgrade = numbers.one_in(8);
        let version = if upgrade || host.contains(['@', '[']) || host.contains("..") {
            Http::One
        } else {
            [Http::One, Http::One, Http::One, Http::Two][usize::try_from(numbers.below(4)).unwrap()]
        };
        if upgrade {
            headers.extend([("connection", "upgrade"), ("upgrade", "websocket")]);
        }
        Self {
            number,
            method: method.parse().unwrap(),
            host,
            path: numbers.pick(&PATHS),
            body,
            headers,
            version,
        }
    }

    fn id(&self) -> String {
        format!("case-{}", self.number)
    }

    fn url(&self) -> String {
        format!("http://{}{}", self.host, self.path)
    }

    fn question(&self) -> Question {
        let header = |(name, value): &(&'static str, &'static str)| {
            (
                HeaderName::from_static(name),
                HeaderValue::from_static(value),
            )
        };
        let mut headers = HeaderMap::new();
        for (name, value) in self.headers.iter().map(header) {
            headers.append(name, value);
        }
        Question {
            method: self.method.clone(),
            url: self.url().parse().unwrap(),
            headers,
            body: self.body,
            place: Place::Fly(FlyPlace {
                app: "front".into(),
                machine: FRONT.into(),
                region: "ams".into(),
            }),
            https_redirect: None,
            replay_max_bytes: REPLAY_MAX_BYTES,
            asleep: false,
            state: CellState {
                in_flight: u32::from(self.host.starts_with("busy.") || self.path == "/busy/1"),
                ..CellState::default()
            },
        }
    }

    fn request(&self) -> http::request::Builder {
        let request = Request::builder()
            .method(self.method.clone())
            .uri(self.path)
            .header("host", self.host)
            .header("x-request-id", self.id());
        let headers = self.headers.iter();
        headers.fold(request, |request, (name, value)| {
            request.header(*name, *value)
        })
    }

    /// Sends it: without a body on a kept connection, with one on a fresh one, for a router that answers without
    /// having read a body may close.
    async fn send(&self, line: &mut Line) -> Answer {
        let address = line.address;
        match self.body {
            BodyLength::None if self.version == Http::One => {
                line.send(self.request().body(full("")).unwrap()).await
            }
            BodyLength::None => {
                let request = self.request().body(full("")).unwrap();
                client::send(address, self.version, request).await.unwrap()
            }
            BodyLength::Known(bytes) => {
                let request = self.request().header("content-length", bytes);
                let body = full(vec![b'x'; usize::try_from(bytes).unwrap()]);
                let request = request.body(body).unwrap();
                client::send(address, self.version, request).await.unwrap()
            }
            BodyLength::Unknown => {
                let mut request = self.request();
                if self.version == Http::One {
                    request = request.header("transfer-encoding", "chunked");
                }
                let request = request.body(client::chunked(client::zeros(3))).unwrap();
                client::send(address, self.version, request).await.unwrap()
            }
        }
    }
}

/// A connection that is kept.
struct Line {
    address: SocketAddr,
    sender: SendRequest<Full<Bytes>>,
}

impl Line {
    async fn open(address: SocketAddr) -> Self {
        let stream = TokioIo::new(TcpStream::connect(address).await.unwrap());
        let (sender, connection) = hyper::client::conn::http1::handshake(stream).await.unwrap();
        tokio::spawn(connection);
        Self { address, sender }
    }

    async fn send(&mut self, request: Request<Full<Bytes>>) -> Answer {
        self.sender.ready().await.unwrap();
        let answer = self.sender.send_request(request).await.unwrap();
        let (parts, body) = answer.into_parts();
        Answer {
            status: parts.status,
            headers: parts.headers,
            body: body.collect().await.unwrap().to_bytes(),
        }
    }
}

/// Every kind of cell; `port` gives the port of each.
fn registry(port: impl Fn(&str) -> u16) -> String {
    let at = |name: &str| format!("127.0.0.1:{}", port(name));
    json!({
        "version": 1, "domain": "example.com", "path_hosts": ["apps.example.org"], "machine_paths": true,
        "defaults": { "app": "cells" },
        "cells": {
            "strict": {
                "machine": "a0000000000001", "port": port("strict"), "secret": { "env": "CELL_KEY" }, "identity": "none",
                "hosts": ["www.strict.org", "*.strict.net"],
                "paths": ["/strict", { "prefix": "/cut", "strip": true }],
            },
            "timed": {
                "machine": "a0000000000002", "port": port("timed"), "replay_timeout_ms": 800,
                "paths": ["/strict/deep"],
            },
            "cached": {
                "machine": "a0000000000003", "port": port("cached"), "replay": "cached", "paths": ["/cached"],
            },
            "never": { "machine": "a0000000000004", "port": port("never"), "replay": "never" },
            "lab": { "address": at("lab"), "paths": ["/lab"] },
            "closed": { "address": at("lab"), "state": "maintenance", "paths": ["/closed"] },
            "off": { "machine": "a0000000000005", "state": "disabled", "paths": ["/off"] },
            "held": {
                "machine": "a0000000000006", "state": "paused", "hold_timeout_ms": 1, "paths": ["/held"],
            },
            "briefly": { "address": at("lab"), "state": "paused", "hold_timeout_ms": 0 },
            "busy": { "address": at("busy"), "max_in_flight": 1, "paths": ["/busy"] },
            "sleepy": { "machine": "a0000000000007", "port": port("sleepy") },
            "gone": { "address": at("gone") },
        },
    })
    .to_string()
}

fn options(registry: &str, fly: &Fly) -> RouterOptions {
    let limit = REPLAY_MAX_BYTES.to_string();
    RouterOptions::new(registry)
        .on_fly(fly, "front", FRONT)
        .env("CELL_KEY", "key")
        .args(["--replay-max-bytes", &limit])
}

/// Panics unless what was said is what was done.
fn agree(case: &Case, said: &Explanation, record: &Value, answer: &Answer) {
    let shown = format!("{case:?}\nsaid {said:?}\nwrote {record}\nanswered {answer:?}");
    assert_eq!(record["lane"], said.lane, "{shown}");
    // Once a hold is over, the record says how it ended.
    let reason = if said.lane == "hold" {
        "hold_timeout"
    } else {
        said.reason
    };
    assert_eq!(record["reason"], reason, "{shown}");
    assert_eq!(record["cell"].as_str(), said.cell.as_deref(), "{shown}");
    // The instruction is the one on the wire, less the signature.
    let wire = answer.header("fly-replay");
    let wire = wire.split(";state=v1.").next().unwrap();
    let wire = (!wire.is_empty()).then(|| format!("fly-replay: {wire}"));
    assert_eq!(wire, said.instruction, "{shown}");
    if said.lane == "stream" {
        let upstream = record["upstream"].as_str().unwrap_or_default();
        let port = upstream.rsplit(':').next().unwrap_or_default();
        let to = said.to.as_deref().unwrap_or_default();
        assert!(to.ends_with(&format!(":{port}")), "{shown}");
    }
    if said.lane == "stream" && case.method != Method::HEAD {
        let told = answer.json();
        assert_eq!(told["cell"].as_str(), said.cell.as_deref(), "{shown}");
        assert_eq!(told["target"].as_str(), said.target.as_deref(), "{shown}");
    }
}

/// The records of all requests, by their ids.
async fn records(router: &Router, wanted: usize) -> HashMap<String, Value> {
    let mut records = HashMap::new();
    let all = router.process().stdout.find(|line| {
        let record: Value = serde_json::from_str(line).ok()?;
        let id = record["request_id"].as_str()?.to_owned();
        records.insert(id, record);
        (records.len() == wanted).then_some(())
    });
    all.await.expect("each request has a record");
    records
}

/// Every condition that these requests can meet.
const REASONS: [&str; 19] = [
    "address_cell",
    "ambiguous_path",
    "bad_host",
    "cached",
    "cell_full",
    "disabled",
    "large_body",
    "loop",
    "maintenance",
    "method_not_served",
    "no_such_cell",
    "paused",
    "replay_failed",
    "replay_never",
    "reserved_path",
    "strict",
    "strips_prefix",
    "unknown_length",
    "up",
];

#[tokio::test]
async fn explain_says_what_the_router_does() {
    let fly = Fly::start().await.unwrap();
    let mut cells = HashMap::new();
    for name in ["strict", "timed", "cached", "never", "lab", "busy"] {
        cells.insert(name, Echo::start(name).await);
    }
    let port = |name: &str| cells.get(name).map_or(9, |cell| cell.address().port());
    for (number, name) in [(1, "strict"), (2, "timed"), (3, "cached"), (4, "never")] {
        let id = format!("a000000000000{number}");
        fly.attach("cells", &id, cells[name].address()).unwrap();
    }
    let text = registry(port);
    let parsed = Registry::parse(text.as_bytes()).unwrap();
    let router = Router::start(options(&text, &fly)).await;

    // One request fills the cell that takes one at a time, as long as the run lasts.
    let address = router.addr();
    let filling =
        tokio::spawn(async move { client::get(address, "busy.example.com", FOREVER).await });
    cells["busy"].saw(1).await;

    let mut numbers = Numbers(2);
    let cases: Vec<Case> = (0..REQUESTS)
        .map(|number| Case::make(number, &mut numbers))
        .collect();
    let mut lines = Vec::new();
    for share in cases.chunks(REQUESTS / LINES) {
        let share = share.to_vec();
        lines.push(tokio::spawn(async move {
            let mut line = Line::open(address).await;
            let mut answers = Vec::new();
            for case in share {
                let answer = case.send(&mut line).await;
                answers.push((case, answer));
            }
            answers
        }));
    }
    let mut answers = Vec::new();
    for line in lines {
        answers.extend(line.await.unwrap());
    }
    let records = records(&router, REQUESTS).await;
    let mut met: BTreeMap<&str, usize> = BTreeMap::new();
    for (case, answer) in &answers {
        let said = explain(&parsed, &case.question()).unwrap();
        agree(case, &said, &records[&case.id()], answer);
        *met.entry(said.reason).or_default() += 1;
    }
    assert_eq!(answers.len(), REQUESTS);
    assert_eq!(met.keys().copied().collect::<Vec<_>>(), REASONS, "{met:?}");
    assert!(met.values().all(|times| *times >= 5), "{met:?}");
    filling.abort();
}

#[tokio::test]
async fn explain_says_who_wakes_a_sleeping_cell() {
    let fly = Fly::start().await.unwrap();
    let spec = MachineSpec::cell("cells", "sleepy").id("a0000000000007");
    let machine = fly.machine(spec).unwrap();
    // Bound and not listening: whoever connects is refused.
    let silent = TcpSocket::new_v4().unwrap();
    silent.bind((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
    let text = registry(|name| match name {
        "sleepy" => machine.address().port(),
        "gone" => silent.local_addr().unwrap().port(),
        _ => 9,
    });
    let parsed = Registry::parse(text.as_bytes()).unwrap();
    let router = Router::start(options(&text, &fly)).await;
    let mut line = Line::open(router.addr()).await;
    for (number, (asleep, method, host, body)) in [
        (true, "GET", "sleepy.example.com", BodyLength::None),
        (true, "PUT", "sleepy.example.com", BodyLength::Unknown),
        (false, "PUT", "sleepy.example.com", BodyLength::Unknown),
        (true, "POST", "sleepy.example.com", BodyLength::Known(4000)),
        (false, "GET", "sleepy.example.com", BodyLength::None),
        (true, "GET", "gone.example.com", BodyLength::None),
    ]
    .into_iter()
    .enumerate()
    {
        if asleep {
            fly.stop(&machine).await.unwrap();
        }
        // The rate limit of the API is no part of this story.
        fly.advance_clock(std::time::Duration::from_secs(60));
        let case = Case {
            number,
            method: method.parse().unwrap(),
            host,
            path: "/whoami",
            body,
            headers: Vec::new(),
            version: Http::One,
        };
        let question = Question {
            asleep,
            ..case.question()
        };
        let said = explain(&parsed, &question).unwrap();
        let before = fly.calls(Action::Start, &machine.id);
        let answer = case.send(&mut line).await;
        let id = case.id();
        let record = router
            .next_record(|record| record["request_id"] == id.as_str())
            .await;
        let starts = fly.calls(Action::Start, &machine.id) - before;
        let shown = format!("{case:?}\nsaid {said:?}\nwrote {record}\nanswered {answer:?}");
        assert_eq!(record["lane"], said.lane, "{shown}");
        match said.wakes.unwrap_or("nobody") {
            "the edge starts the machine" => {
                assert_eq!((starts, said.lane), (0, "replay"), "{shown}");
            }
            "nothing can: the cell lives at an address" => {
                assert_eq!((starts, answer.status.as_u16()), (0, 502), "{shown}");
                assert_eq!(record["reason"], "unreachable", "{shown}");
            }
            "nobody" => assert_eq!((starts, &record["waited_ms"]), (0, &Value::Null), "{shown}"),
            _ => {
                assert_eq!((starts, said.lane), (1, "stream"), "{shown}");
                assert!(record["waited_ms"].is_u64(), "{shown}");
                assert_eq!(answer.json()["machine"], machine.id, "{shown}");
            }
        }
    }
}

#[test]
fn explain_command_says_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("registry.json");
    let text = registry(|_| 9);
    std::fs::write(&file, &text).unwrap();
    let parsed = Registry::parse(text.as_bytes()).unwrap();
    let mut numbers = Numbers(50);
    for number in 0..50 {
        let case = Case::make(number, &mut numbers);
        let question = Question {
            asleep: number % 3 == 0,
            state: CellState::default(),
            ..case.question()
        };
        let said = explain(&parsed, &question).unwrap();
        let mut command = Command::new(&Binaries::built().cell_router);
        command
            .args(["explain", case.method.as_str(), &case.url(), "--json"])
            .arg("--registry")
            .arg(&file)
            .env_clear()
            .env("FLY_APP_NAME", "front")
            .env("FLY_MACHINE_ID", FRONT)
            .env("CELL_ROUTER_REPLAY_MAX_BYTES", REPLAY_MAX_BYTES.to_string());
        for (name, value) in &case.headers {
            command.arg("--header").arg(format!("{name}: {value}"));
        }
        match case.body {
            BodyLength::None => {}
            BodyLength::Known(bytes) => {
                command.arg("--body-bytes").arg(bytes.to_string());
            }
            BodyLength::Unknown => {
                command.arg("--chunked");
            }
        }
        if question.asleep {
            command.arg("--asleep");
        }
        let output = command.output().unwrap();
        assert!(output.status.success(), "{case:?}: {output:?}");
        let printed: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(printed, serde_json::to_value(&said).unwrap(), "{case:?}");
    }
}
