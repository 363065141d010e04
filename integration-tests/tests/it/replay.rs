//! Both lanes through the emulated edge: what is replayed, what is streamed, and who can prove what.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures_util::{SinkExt, StreamExt};
use http::{Request, StatusCode};
use integration_tests::client::{self, Answer, Http, Raw, full};
use integration_tests::fly::{Action, FailureReason, Fly, Kind, Machine, MachineSpec, State};
use integration_tests::{Router, RouterOptions};
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;

use crate::echo::{ANSWER_WITH, Echo};
use crate::wake;

/// Machine id of the router.
const FRONT: &str = "f0000000000001";
/// Machine ids of cells.
const ALICE: &str = "a0000000000001";
const BOB: &str = "b0000000000001";

/// A platform with a router behind its edge.
struct Stage {
    fly: Fly,
    router: Router,
    edge: SocketAddr,
}

impl Stage {
    /// With these cells in the registry, and these variables in the router's environment.
    async fn with(mut fly: Fly, cells: Value, variables: &[(&str, &str)]) -> Self {
        let edge = fly.listen("front", 80).await.unwrap();
        let registry = json!({
            "version": 1, "domain": "example.com", "path_hosts": ["apps.example.org"],
            "defaults": { "app": "cells" }, "cells": cells,
        });
        let mut options = RouterOptions::new(registry.to_string()).on_fly(&fly, "front", FRONT);
        for (name, value) in variables {
            options = options.env(name, value);
        }
        let router = Router::start(options).await;
        fly.attach("front", FRONT, router.addr()).unwrap();
        Self { fly, router, edge }
    }

    /// The kinds of the deliveries of the request that `answer` answers, in order.
    fn kinds(&self, answer: &Answer) -> Vec<Kind> {
        let id = answer.header("fly-request-id");
        let made = self.fly.deliveries().into_iter();
        made.filter(|delivery| delivery.request_id == id)
            .map(|delivery| delivery.kind)
            .collect()
    }

    /// Lane and reason of the router's next record of the request that `answer` answers.
    async fn decided(&self, answer: &Answer) -> (String, String) {
        let id = answer.header("fly-request-id");
        let record = self.router.next_record(|line| line["request_id"] == id);
        let record = record.await;
        let text = |key: &str| record[key].as_str().unwrap_or_default().to_owned();
        (text("lane"), text("reason"))
    }

    /// The same for a request that came to the router twice. The order of their lines is not that of the requests, for
    /// each worker writes its own.
    async fn decided_twice(&self, answer: &Answer) -> [(String, String); 2] {
        let mut both = [self.decided(answer).await, self.decided(answer).await];
        both.sort();
        both
    }
}

fn pair(lane: &str, reason: &str) -> (String, String) {
    (lane.to_owned(), reason.to_owned())
}

/// A cell with the secret `secret` on a machine that sleeps, and its entry in the registry.
fn cell(fly: &Fly, name: &str, id: &str, secret: &str) -> (Arc<Machine>, Value) {
    let spec = MachineSpec::cell("cells", name).id(id).secret(secret);
    let machine = fly.machine(spec).unwrap();
    let entry = json!({
        "machine": id, "port": machine.address().port(), "secret": { "env": "CELL_KEY" },
    });
    (machine, entry)
}

/// One sleeping cell `alice` with the secret `key`, replayed strictly.
async fn alice() -> (Stage, Arc<Machine>) {
    let fly = Fly::start().await.unwrap();
    let (machine, entry) = cell(&fly, "alice", ALICE, "key");
    let stage = Stage::with(fly, json!({ "alice": entry }), &[("CELL_KEY", "key")]).await;
    (stage, machine)
}

/// `alice` as a cell that says what it was sent, without a secret.
async fn echoing(more: Value) -> (Stage, Echo) {
    let fly = Fly::start().await.unwrap();
    let echo = Echo::start("alice").await;
    fly.attach("cells", ALICE, echo.address()).unwrap();
    let mut entry = json!({ "machine": ALICE, "port": echo.address().port() });
    let more = more.as_object().unwrap().clone();
    entry.as_object_mut().unwrap().extend(more);
    (Stage::with(fly, json!({ "alice": entry }), &[]).await, echo)
}

fn to_alice(method: &str, target: &str) -> http::request::Builder {
    Request::builder()
        .method(method)
        .uri(target)
        .header("host", "alice.example.com")
}

fn sha256(bytes: &[u8]) -> String {
    let digest = ring::digest::digest(&ring::digest::SHA256, bytes);
    hex(digest.as_ref())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.unwrap().as_secs()
}

/// A token as `docs/signature.md` defines it, made without the router.
fn token(secret: &str, expiry: u64, cell: &str, method: &str, host: &str, target: &str) -> String {
    let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, secret.as_bytes());
    let message = format!("cell-router-v1\n{cell}\n{expiry}\n{method}\n{host}\n{target}");
    let mac = ring::hmac::sign(&key, message.as_bytes());
    format!("v1.{expiry}.{}", hex(mac.as_ref()))
}

/// Bytes that differ from place to place.
fn bytes(count: usize) -> Vec<u8> {
    (0..count).map(|n| (n * n % 251) as u8).collect()
}

const REPLAYED: [Kind; 2] = [Kind::First, Kind::Replay];
const STREAMED: [Kind; 1] = [Kind::First];

#[tokio::test]
async fn one_million_bytes_are_replayed_and_one_more_is_streamed() {
    let (stage, _machine) = alice().await;
    for (count, kinds, decided) in [
        (1_000_000, &REPLAYED[..], pair("replay", "strict")),
        (1_000_001, &STREAMED[..], pair("stream", "large_body")),
    ] {
        let body = bytes(count);
        let request = to_alice("PUT", "/files/f")
            .body(full(body.clone()))
            .unwrap();
        let answer = client::send(stage.edge, Http::One, request).await.unwrap();
        assert!(answer.status.is_success(), "{count}: {answer:?}");
        assert_eq!(answer.json()["bytes"], count);
        assert_eq!(answer.json()["sha256"], sha256(&body), "{count}");
        assert_eq!(answer.json()["machine"], ALICE);
        assert_eq!(stage.kinds(&answer), kinds, "{count}");
        assert_eq!(stage.decided(&answer).await, decided, "{count}");
    }
    assert_eq!(stage.fly.violations(), [""; 0]);
}

#[tokio::test]
async fn body_of_unknown_length_is_streamed_whatever_the_method() {
    let (stage, _machine) = alice().await;
    let body = bytes(300_000);
    for version in [Http::One, Http::Two] {
        let pieces: Vec<bytes::Bytes> = body
            .chunks(10_000)
            .map(bytes::Bytes::copy_from_slice)
            .collect();
        let body = client::chunked(futures_util::stream::iter(pieces));
        let request = to_alice("PUT", "/files/f").body(body).unwrap();
        let answer = client::send(stage.edge, version, request).await.unwrap();
        assert_eq!(answer.json()["bytes"], 300_000, "{version:?}: {answer:?}");
        assert_eq!(stage.kinds(&answer), STREAMED, "{version:?}");
        assert_eq!(
            stage.decided(&answer).await,
            pair("stream", "unknown_length"),
            "{version:?}"
        );
        let kept = client::get(stage.edge, "alice.example.com", "/files/f").await;
        assert_eq!(sha256(&kept.unwrap().body), sha256(&bytes(300_000)));
    }
}

#[tokio::test]
async fn get_keeps_its_body_on_both_lanes() {
    let (stage, _echo) = echoing(json!({})).await;
    let request = to_alice("GET", "/g").body(full("small")).unwrap();
    let answer = client::send(stage.edge, Http::One, request).await.unwrap();
    assert_eq!(answer.json()["body_bytes"], 5, "{answer:?}");
    assert_eq!(stage.kinds(&answer), REPLAYED);
    assert_eq!(stage.decided(&answer).await, pair("replay", "strict"));
    let mut raw = Raw::connect(stage.edge).await.unwrap();
    raw.write(
        "GET /g HTTP/1.1\r\nhost: alice.example.com\r\ntransfer-encoding: chunked\r\n\r\n5\r\nsmall\r\n0\r\n\r\n",
    )
    .await
    .unwrap();
    let answer = raw.answer().await.unwrap();
    assert_eq!(answer.json()["body_bytes"], 5, "{answer:?}");
    assert_eq!(answer.json()["method"], "GET");
    assert_eq!(stage.kinds(&answer), STREAMED);
    assert_eq!(
        stage.decided(&answer).await,
        pair("stream", "unknown_length")
    );
}

/// Says something both ways, closes with a code of its own, and hears it back.
async fn converse(address: SocketAddr, machine: Option<&str>) {
    let mut socket = client::websocket(address, "alice.example.com", "/live", &[])
        .await
        .unwrap();
    let hello = socket.next().await.unwrap().unwrap();
    let hello: Value = serde_json::from_str(hello.to_text().unwrap()).unwrap();
    assert_eq!(hello["cell"], "alice");
    assert_eq!(hello["machine"].as_str(), machine);
    for text in ["one", "two"] {
        socket.send(Message::text(text)).await.unwrap();
        let echo = socket.next().await.unwrap().unwrap();
        assert_eq!(echo.to_text().unwrap(), text);
    }
    let binary = Message::binary(bytes(100_000));
    socket.send(binary.clone()).await.unwrap();
    assert_eq!(socket.next().await.unwrap().unwrap(), binary);
    let close = CloseFrame {
        code: 4321.into(),
        reason: "done".into(),
    };
    socket.close(Some(close)).await.unwrap();
    let Some(Ok(Message::Close(Some(back)))) = socket.next().await else {
        panic!("the cell closes too");
    };
    assert_eq!(u16::from(back.code), 4321);
}

#[tokio::test]
async fn websocket_is_replayed_on_fly() {
    let (stage, machine) = alice().await;
    converse(stage.edge, Some(ALICE)).await;
    let record = stage
        .router
        .next_record(|record| record["path"] == "/live")
        .await;
    assert_eq!(
        (&record["lane"], &record["reason"]),
        (&json!("replay"), &json!("strict"))
    );
    // The socket itself does not lead through the router, nor did the router wake the cell.
    assert_eq!(stage.fly.calls(Action::Start, ALICE), 0);
    assert_eq!(machine.launches(), 1);
    let kinds: Vec<Kind> = stage.fly.deliveries().iter().map(|d| d.kind).collect();
    assert_eq!(kinds, REPLAYED);
}

#[tokio::test]
async fn websocket_is_streamed_off_fly_and_its_close_code_passes_both_ways() {
    let fly = Fly::start().await.unwrap();
    let (machine, _) = cell(&fly, "alice", ALICE, "key");
    fly.wake(&machine).await.unwrap();
    let registry = json!({ "version": 1, "domain": "example.com", "cells": { "alice": {
        "address": machine.address().to_string(), "secret": { "env": "CELL_KEY" },
    } } });
    let options = RouterOptions::new(registry.to_string()).env("CELL_KEY", "key");
    let router = Router::start(options).await;
    converse(router.addr(), Some(ALICE)).await;
    let record = router.next_record(|record| record["path"] == "/live").await;
    assert_eq!(
        (&record["status"], &record["lane"], &record["reason"]),
        (&json!(101), &json!("stream"), &json!("not_on_fly"))
    );
    // From the cell's side: it is told to stop, and says so.
    let mut socket = client::websocket(router.addr(), "alice.example.com", "/live", &[])
        .await
        .unwrap();
    socket.next().await.unwrap().unwrap();
    let stopping = fly.stop(&machine);
    let closing = async {
        loop {
            match socket.next().await {
                Some(Ok(Message::Close(Some(frame)))) => return u16::from(frame.code),
                Some(Ok(_)) => {}
                ended => panic!("no close frame: {ended:?}"),
            }
        }
    };
    let (code, _) = tokio::join!(closing, stopping);
    assert_eq!(code, 1001);
}

#[tokio::test]
async fn failed_replay_is_rescued_by_waking_the_cell_and_streaming() {
    let (stage, machine) = alice().await;
    for (reason, starts) in [
        (FailureReason::RetriesExhausted, 1),
        (FailureReason::Timeout, 1),
    ] {
        stage.fly.faults().unreachable(ALICE, Some(reason));
        let answer = client::post(stage.edge, "alice.example.com", "/whoami", "small")
            .await
            .unwrap();
        assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
        let told = answer.json();
        assert_eq!(
            (&told["cell"], &told["lane"]),
            (&json!("alice"), &json!("stream"))
        );
        // What the edge said to the router is not for the cell.
        assert_eq!(told["headers"]["fly-replay-failed"], Value::Null);
        assert_eq!(stage.kinds(&answer), [Kind::First, Kind::Fallback]);
        assert_eq!(
            stage.decided_twice(&answer).await,
            [pair("replay", "strict"), pair("stream", "replay_failed")]
        );
        assert_eq!(stage.fly.calls(Action::Start, ALICE), starts);
    }
    assert_eq!((machine.state(), machine.launches()), (State::Started, 1));
    // The edge reaches it again: nothing is remembered of the failure.
    stage.fly.faults().unreachable(ALICE, None);
    let answer = client::get(stage.edge, "alice.example.com", "/whoami")
        .await
        .unwrap();
    assert_eq!(stage.kinds(&answer), REPLAYED);
    assert_eq!(answer.json()["lane"], "replay");
}

#[tokio::test]
async fn under_an_https_redirect_the_edge_is_told_to_remember_nothing() {
    for redirects in [false, true] {
        let fly = Fly::start().await.unwrap();
        let machine = fly.machine(MachineSpec::cell(wake::APP, "alice")).unwrap();
        let mut alice = wake::entry(&machine);
        alice["replay"] = json!("cached");
        let mut options = wake::on_fly(&fly, json!({ "alice": alice }));
        if redirects {
            options = options.args(["--https-redirect"]);
        }
        let router = Router::start(options).await;
        let request = Request::get("/page").header("host", "alice.example.com");
        let request = request.header("x-forwarded-proto", "https");
        let request = request.body(full("")).unwrap();
        let answer = client::send(router.addr(), Http::One, request).await;
        let answer = answer.unwrap();
        assert!(!answer.header("fly-replay").is_empty());
        assert_eq!(answer.header("fly-replay-cache").is_empty(), redirects);
    }
}

#[tokio::test]
async fn cached_replay_skips_the_router_until_its_time_is_up() {
    let (stage, echo) = echoing(json!({ "replay": "cached", "replay_ttl_s": 60 })).await;
    let ask = async || {
        let answer = client::get(stage.edge, "alice.example.com", "/page").await;
        let answer = answer.unwrap();
        assert_eq!(answer.json()["cell"], "alice");
        stage.kinds(&answer)
    };
    assert_eq!(ask().await, REPLAYED);
    assert_eq!(ask().await, [Kind::CacheHit]);
    stage.fly.advance_clock(Duration::from_secs(50));
    assert_eq!(ask().await, [Kind::CacheHit]);
    stage.fly.advance_clock(Duration::from_secs(11));
    assert_eq!(ask().await, REPLAYED);
    assert_eq!(echo.seen(), 4);
    for _ in 0..2 {
        let record = stage.router.next_record(|_| true).await;
        assert_eq!(
            (&record["lane"], &record["reason"]),
            (&json!("replay"), &json!("cached"))
        );
    }
    assert_eq!(stage.router.records().len(), 2);
    assert_eq!(stage.fly.violations(), [""; 0]);
}

#[tokio::test]
async fn cell_with_files_of_the_routers_is_not_remembered() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("a.txt"), "the router's").unwrap();
    let files = json!({ "folder": folder.path().to_str().unwrap(), "path": "/assets" });
    let (stage, echo) = echoing(json!({ "replay": "cached", "static": files })).await;
    for _ in 0..2 {
        let page = client::get(stage.edge, "alice.example.com", "/page").await;
        assert_eq!(stage.kinds(&page.unwrap()), REPLAYED);
        let file = client::get(stage.edge, "alice.example.com", "/assets/a.txt").await;
        assert_eq!(file.unwrap().text(), "the router's");
    }
    assert_eq!(echo.seen(), 2);
    assert_eq!(stage.fly.violations(), [""; 0]);
}

#[tokio::test]
async fn cell_on_a_path_is_remembered_for_its_prefix_only() {
    let fly = Fly::start().await.unwrap();
    let (alice, bob) = (Echo::start("alice").await, Echo::start("bob").await);
    fly.attach("cells", ALICE, alice.address()).unwrap();
    fly.attach("cells", BOB, bob.address()).unwrap();
    let cells = json!({
        "alice": {
            "machine": ALICE, "port": alice.address().port(), "paths": ["/alice"], "replay": "cached",
        },
        "bob": { "machine": BOB, "port": bob.address().port(), "paths": ["/bob"] },
    });
    let stage = Stage::with(fly, cells, &[]).await;
    let host = "apps.example.org";
    for (host, path, cell, kinds) in [
        // The pattern would not match the request itself, so it is not remembered.
        (host, "/alice", "alice", &REPLAYED[..]),
        (host, "/alice/1", "alice", &REPLAYED[..]),
        (host, "/alice/2", "alice", &[Kind::CacheHit]),
        (host, "/alice", "alice", &[Kind::CacheHit]),
        (host, "/bob/1", "bob", &REPLAYED[..]),
        (host, "/bob/1", "bob", &REPLAYED[..]),
        ("example.com", "/alice/1", "alice", &REPLAYED[..]),
    ] {
        let answer = client::get(stage.edge, host, path).await.unwrap();
        assert_eq!(answer.json()["cell"], cell, "{host}{path}");
        assert_eq!(answer.json()["target"], path);
        assert_eq!(stage.kinds(&answer), kinds, "{host}{path}");
    }
    for path in ["/alicia", "/"] {
        let answer = client::get(stage.edge, host, path).await.unwrap();
        assert_eq!(answer.status, StatusCode::NOT_FOUND, "{path}");
        assert_eq!(stage.kinds(&answer), STREAMED, "{path}");
    }
    assert_eq!(stage.fly.violations(), [""; 0]);
}

#[tokio::test]
async fn prefix_with_another_cell_below_it_is_not_remembered() {
    let fly = Fly::start().await.unwrap();
    let (alice, bob) = (Echo::start("alice").await, Echo::start("bob").await);
    fly.attach("cells", ALICE, alice.address()).unwrap();
    fly.attach("cells", BOB, bob.address()).unwrap();
    let entry = |machine, echo: &Echo, path| {
        let port = echo.address().port();
        json!({ "machine": machine, "port": port, "paths": [path], "replay": "cached" })
    };
    let cells = json!({
        "alice": entry(ALICE, &alice, "/team"), "bob": entry(BOB, &bob, "/team/bob"),
    });
    let stage = Stage::with(fly, cells, &[]).await;
    for (path, cell, kinds) in [
        ("/team/1", "alice", &REPLAYED[..]),
        ("/team/bob/1", "bob", &REPLAYED[..]),
        ("/team/bob/1", "bob", &[Kind::CacheHit]),
        ("/team/1", "alice", &REPLAYED[..]),
    ] {
        let answer = client::get(stage.edge, "example.com", path).await.unwrap();
        assert_eq!(answer.json()["cell"], cell, "{path}");
        assert_eq!(stage.kinds(&answer), kinds, "{path}");
    }
    assert_eq!(stage.fly.violations(), [""; 0]);
}

#[tokio::test]
async fn strict_replay_is_never_remembered() {
    let (stage, _machine) = alice().await;
    for target in ["/whoami", "/whoami", "/whoami?x=1&y=%2F"] {
        let answer = client::get(stage.edge, "ALICE.example.com:80", target)
            .await
            .unwrap();
        // The cell took the signature in the replay's state, whatever the spelling of the host.
        assert_eq!(answer.json()["lane"], "replay", "{answer:?}");
        assert_eq!(answer.json()["path"], target);
        assert_eq!(stage.kinds(&answer), REPLAYED);
        assert_eq!(stage.decided(&answer).await, pair("replay", "strict"));
    }
    assert_eq!(stage.fly.violations(), [""; 0]);
}

#[tokio::test]
async fn forged_replay_source_changes_nothing() {
    let (stage, _machine) = alice().await;
    let forged = format!("instance={FRONT};region=ams;t=1;state=v1.{}.00", now() + 60);
    let request = to_alice("GET", "/whoami")
        .header("fly-replay-src", &forged)
        .body(full(""))
        .unwrap();
    let answer = client::send(stage.edge, Http::One, request).await.unwrap();
    assert_eq!(answer.json()["lane"], "replay");
    assert_eq!(stage.kinds(&answer), REPLAYED);
    let request = to_alice("POST", "/whoami")
        .header("fly-replay-src", &forged)
        .body(client::chunked(client::zeros(10)))
        .unwrap();
    let answer = client::send(stage.edge, Http::One, request).await.unwrap();
    assert_eq!(answer.json()["lane"], "stream");
    assert_eq!(answer.json()["headers"]["fly-replay-src"], Value::Null);
}

#[tokio::test]
async fn forged_replay_failure_gains_nothing_but_the_lane() {
    let (stage, _machine) = alice().await;
    let request = to_alice("GET", "/whoami")
        .header(
            "fly-replay-failed",
            format!("instance={BOB};app=other;reason=timeout"),
        )
        .header("cell-name", "bob")
        .body(full(""))
        .unwrap();
    let answer = client::send(stage.edge, Http::One, request).await.unwrap();
    let told = answer.json();
    assert_eq!(
        (&told["cell"], &told["machine"], &told["lane"]),
        (&json!("alice"), &json!(ALICE), &json!("stream"))
    );
    assert_eq!(told["headers"]["fly-replay-failed"], Value::Null);
    assert_eq!(told["headers"]["cell-name"], "alice");
    assert_eq!(stage.kinds(&answer), STREAMED);
    assert_eq!(
        stage.decided(&answer).await,
        pair("stream", "replay_failed")
    );
    // It does not get past what refuses the request.
    let request = Request::get("/")
        .header("host", "nobody.example.com")
        .header("fly-replay-failed", "reason=timeout")
        .body(full(""))
        .unwrap();
    let answer = client::send(stage.edge, Http::One, request).await.unwrap();
    assert_eq!(answer.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn replay_that_carries_our_own_proof_is_not_replayed_again() {
    let (stage, _machine) = alice().await;
    let proof = token(
        "key",
        now() + 60,
        "alice",
        "GET",
        "alice.example.com",
        "/whoami",
    );
    let request = to_alice("GET", "/whoami")
        .header(
            "fly-replay-src",
            format!("instance={FRONT};t=1;state={proof}"),
        )
        .body(full(""))
        .unwrap();
    let answer = client::send(stage.edge, Http::One, request).await.unwrap();
    assert_eq!(answer.json()["lane"], "stream", "{answer:?}");
    assert_eq!(stage.kinds(&answer), STREAMED);
    assert_eq!(
        stage.decided(&answer).await,
        pair("stream", "already_replayed")
    );
}

#[tokio::test]
async fn no_request_is_replayed_twice_by_the_router() {
    let (stage, machine) = alice().await;
    // The edge cannot reach the cell, and then the router cannot either.
    stage
        .fly
        .faults()
        .unreachable(ALICE, Some(FailureReason::NoCandidate));
    stage.fly.lose(&machine);
    let answer = client::get(stage.edge, "alice.example.com", "/")
        .await
        .unwrap();
    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE, "{answer:?}");
    assert_eq!(stage.kinds(&answer), [Kind::First, Kind::Fallback]);
    assert_eq!(
        stage.decided_twice(&answer).await,
        [pair("replay", "strict"), pair("stream", "wake_failed")]
    );
    assert_eq!(answer.header("fly-emulated-error"), "");
}

#[tokio::test]
async fn cell_with_a_secret_takes_good_tokens_only() {
    let fly = Fly::start().await.unwrap();
    let (machine, _) = cell(&fly, "alice", ALICE, "key");
    fly.wake(&machine).await.unwrap();
    let host = "alice.example.com";
    let ask = async |header: &str, token: &str| {
        let value = match header {
            "fly-replay-src" => format!("instance={FRONT};region=ams;t=1;state={token}"),
            _ => token.to_owned(),
        };
        let request = to_alice("GET", "/whoami?x=1").header(header, value);
        let request = request.body(full("")).unwrap();
        let answer = client::send(machine.address(), Http::One, request).await;
        answer.unwrap().status
    };
    let in_a_minute = now() + 60;
    let made = |secret, expiry, cell, method, host, target| {
        token(secret, expiry, cell, method, host, target)
    };
    let good = made("key", in_a_minute, "alice", "GET", host, "/whoami?x=1");
    let bad = [
        (
            "of another cell",
            made("key", in_a_minute, "bob", "GET", host, "/whoami?x=1"),
        ),
        (
            "expired",
            made("key", now() - 1, "alice", "GET", host, "/whoami?x=1"),
        ),
        (
            "too far ahead",
            made("key", now() + 400, "alice", "GET", host, "/whoami?x=1"),
        ),
        (
            "of another secret",
            made("yek", in_a_minute, "alice", "GET", host, "/whoami?x=1"),
        ),
        (
            "of another method",
            made("key", in_a_minute, "alice", "POST", host, "/whoami?x=1"),
        ),
        (
            "of another host",
            made(
                "key",
                in_a_minute,
                "alice",
                "GET",
                "bob.example.com",
                "/whoami?x=1",
            ),
        ),
        (
            "of another target",
            made("key", in_a_minute, "alice", "GET", host, "/whoami?x=2"),
        ),
        ("cut", good[..good.len() - 1].to_owned()),
    ];
    for header in ["cell-signature", "fly-replay-src"] {
        assert_eq!(ask(header, &good).await, StatusCode::OK, "{header}");
        for (what, token) in &bad {
            let status = ask(header, token).await;
            assert_eq!(status, StatusCode::FORBIDDEN, "{header} {what}");
        }
    }
    let direct = client::get(machine.address(), host, "/whoami?x=1").await;
    assert_eq!(direct.unwrap().status, StatusCode::FORBIDDEN);
}

#[tokio::test]
async fn cell_accepts_old_and_new_secret_while_one_is_rotated() {
    for (router_has, accepted) in [("old", true), ("new", true), ("older", false)] {
        let fly = Fly::start().await.unwrap();
        let (_machine, entry) = cell(&fly, "alice", ALICE, "new,old");
        let stage = Stage::with(fly, json!({ "alice": entry }), &[("CELL_KEY", router_has)]).await;
        for (lane, body) in [("replay", 10), ("stream", 1_000_001)] {
            let answer = client::post(stage.edge, "alice.example.com", "/posts", bytes(body));
            let answer = answer.await.unwrap();
            // On the stream lane the cell does not even get the request: the router sees that they do not agree.
            let refused = match lane {
                "replay" => answer.status == StatusCode::FORBIDDEN,
                _ => answer.status == StatusCode::BAD_GATEWAY,
            };
            assert_eq!(!refused, accepted, "{router_has} {lane}: {answer:?}");
            assert_eq!(stage.decided(&answer).await.0, lane);
        }
    }
}

#[tokio::test]
async fn both_lanes_carry_a_proof_and_a_direct_request_none() {
    let (stage, machine) = alice().await;
    let host = "alice.example.com";
    let replayed = client::get(stage.edge, host, "/whoami").await.unwrap();
    assert_eq!(replayed.json()["lane"], "replay", "{replayed:?}");
    let request = to_alice("POST", "/whoami").body(client::chunked(client::zeros(70_000)));
    let streamed = client::send(stage.edge, Http::Two, request.unwrap())
        .await
        .unwrap();
    assert_eq!(streamed.json()["lane"], "stream", "{streamed:?}");
    for path in ["/whoami", "/", "/files/f"] {
        let direct = client::get(machine.address(), host, path).await.unwrap();
        assert_eq!(direct.status, StatusCode::FORBIDDEN, "{path}");
    }
    // Except whether it is there at all.
    let up = client::get(machine.address(), host, "/up").await.unwrap();
    assert_eq!(up.status, StatusCode::OK);
}

/// What a cell says that would send its visitors elsewhere.
async fn steering(may_replay: bool) -> (Answer, Vec<Kind>) {
    let (stage, _echo) = echoing(json!({ "replay": "never", "may_replay": may_replay })).await;
    let other = Echo::start("other").await;
    stage.fly.attach("cells", BOB, other.address()).unwrap();
    let request = to_alice("GET", "/")
        .header(ANSWER_WITH, format!("fly-replay: app=cells;instance={BOB}"))
        .header(ANSWER_WITH, "fly-replay-cache: /*")
        .header(ANSWER_WITH, "fly-replay-cache-ttl-secs: 60")
        .header(ANSWER_WITH, "x-own: 1");
    let request = request.body(full("")).unwrap();
    let answer = client::send(stage.edge, Http::One, request).await.unwrap();
    let kinds = stage.kinds(&answer);
    (answer, kinds)
}

#[tokio::test]
async fn cells_own_replay_is_taken_away_unless_it_may() {
    let (answer, kinds) = steering(false).await;
    assert_eq!(answer.json()["cell"], "alice");
    assert_eq!(answer.header("x-own"), "1");
    for name in [
        "fly-replay",
        "fly-replay-cache",
        "fly-replay-cache-ttl-secs",
    ] {
        assert_eq!(answer.header(name), "", "{name}");
    }
    assert_eq!(kinds, STREAMED);
    let (answer, kinds) = steering(true).await;
    assert_eq!(answer.json()["cell"], "other");
    assert_eq!(kinds, REPLAYED);
}
