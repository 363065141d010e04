//! Waking: one start for all who wait, within bounds, with the client's body unread until the cell is ready.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::FutureExt as _;
use http::{Request, StatusCode};
use integration_tests::client::{self, Answer, Error, Http, Raw};
use integration_tests::fly::{Action, Fly, Machine, MachineSpec, State};
use integration_tests::{Router, RouterOptions, ScriptedCell};
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use crate::scene::{
    HOST, at, digest_of_pieces, driven, pieces, registry, router, running, said, starve,
};

pub(crate) const APP: &str = "cells";

pub(crate) fn entry(machine: &Machine) -> Value {
    json!({ "machine": machine.id, "app": APP, "port": machine.address().port(), "replay": "never" })
}

pub(crate) fn on_fly(fly: &Fly, cells: Value) -> RouterOptions {
    RouterOptions::new(registry(cells))
        .on_fly(fly, "router", "0123456789abcd")
        .args(["--workers", "2"])
}

/// A sleeping cell `alice` of which the entry says `more` too, and a router before it.
pub(crate) async fn sleeping(more: Value) -> (Fly, Arc<Machine>, Router) {
    let fly = Fly::start().await.unwrap();
    let machine = fly.machine(MachineSpec::cell(APP, "alice")).unwrap();
    let mut entry = entry(&machine);
    for (name, value) in more.as_object().unwrap() {
        entry[name] = value.clone();
    }
    let router = Router::start(on_fly(&fly, json!({ "alice": entry }))).await;
    (fly, machine, router)
}

pub(crate) async fn waking(router: &Router) {
    router
        .next_event(|event| event["message"] == "waking")
        .await;
}

/// How the wake ended, as the log has it.
pub(crate) async fn outcome(router: &Router) -> String {
    let event = router.next_event(|event| event["message"] == "wake").await;
    event["outcome"].as_str().unwrap().to_owned()
}

pub(crate) fn whoami(router: &Router) -> JoinHandle<Result<Answer, Error>> {
    tokio::spawn(client::get(router.addr(), HOST, "/whoami"))
}

pub(crate) async fn reason(router: &Router, status: StatusCode) -> String {
    let record = router
        .next_record(|record| record["status"] == status.as_u16())
        .await;
    record["reason"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn an_upload_wakes_its_cell_and_is_not_asked_for_before() {
    let (fly, machine, router) = sleeping(json!({})).await;
    let gate = fly.faults().hold_start(&machine.id);
    let mut client = Raw::connect(router.addr()).await.unwrap();
    client
        .write(format!(
            "PUT /files/x HTTP/1.1\r\nhost: {HOST}\r\nexpect: 100-continue\r\ncontent-length: 1048576\r\n\r\n"
        ))
        .await
        .unwrap();
    waking(&router).await;
    machine.reached(&[State::Starting]).await;
    assert!(
        client.some().now_or_never().is_none(),
        "nothing is said yet"
    );
    gate.open();
    assert_eq!(
        client.head().await.unwrap(),
        "HTTP/1.1 100 Continue\r\n\r\n"
    );
    assert_eq!(machine.state(), State::Started);
    let mut body = pieces(1_048_576);
    while let Some(piece) = futures_util::StreamExt::next(&mut body).await {
        client.write(piece).await.unwrap();
    }
    let answer = client.answer().await.unwrap();
    assert_eq!(answer.json()["sha256"], digest_of_pieces(1_048_576));
    assert_eq!(fly.calls(Action::Start, &machine.id), 1);
    let record = router.next_record(|record| record["status"] == 201).await;
    assert!(record["waited_ms"].is_u64(), "{record}");
}

#[tokio::test]
async fn a_body_stays_with_its_client_until_the_cell_is_ready() {
    const BYTES: u64 = 64 * 1024 * 1024;
    let (fly, machine, router) = sleeping(json!({})).await;
    let gate = fly.faults().hold_start(&machine.id);
    let request = Request::put("/files/x").header("host", HOST);
    let request = request.body(client::chunked(pieces(BYTES))).unwrap();
    let stored = tokio::spawn(client::send(router.addr(), Http::One, request));
    waking(&router).await;
    gate.open();
    let stored = stored.await.unwrap().unwrap();
    assert_eq!(stored.json()["sha256"], digest_of_pieces(BYTES));
    assert!(router.peak_memory_bytes() < 48 * 1024 * 1024);
}

#[tokio::test]
async fn a_hundred_at_once_are_one_start() {
    let (fly, machine, router) = sleeping(json!({})).await;
    let gate = fly.faults().hold_start(&machine.id);
    let waiting: Vec<_> = (0..100).map(|_| whoami(&router)).collect();
    waking(&router).await;
    gate.open();
    for answer in waiting {
        let answer = answer.await.unwrap().unwrap();
        assert_eq!(answer.json()["machine"], machine.id, "{}", answer.text());
    }
    assert_eq!(fly.calls(Action::Start, &machine.id), 1);
    assert_eq!(machine.launches(), 1);
}

#[tokio::test]
async fn a_start_that_fails_is_tried_again() {
    let (fly, machine, router) = sleeping(json!({})).await;
    fly.faults().fail_starts(&machine.id, 1);
    assert_eq!(
        whoami(&router).await.unwrap().unwrap().status,
        StatusCode::OK
    );
    assert_eq!(fly.calls(Action::Start, &machine.id), 2);
}

/// Asks until the breaker lets a request pass; what that one got. Those before it were told when to come back.
pub(crate) async fn past_the_breaker(router: &Router) -> Answer {
    loop {
        let answer = whoami(router).await.unwrap().unwrap();
        let record = router.next_record(|_| true).await;
        if record["reason"] != "breaker_open" {
            return answer;
        }
        assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
        assert!(soon(&answer), "{:?}", answer.headers);
    }
}

/// Whether it says to come back in about a second: what is left of a first break, rounded up.
fn soon(answer: &Answer) -> bool {
    ["1", "2"].contains(&answer.header("retry-after"))
}

#[tokio::test]
async fn a_cell_that_cannot_be_started_is_left_alone_and_heals_by_itself() {
    let (fly, machine, router) = sleeping(json!({ "retry_after_s": 9 })).await;
    let gate = fly.faults().hold_start(&machine.id);
    let waiting: Vec<_> = (0..10).map(|_| whoami(&router)).collect();
    waking(&router).await;
    fly.faults().fail_starts(&machine.id, 1000);
    gate.open();
    for answer in waiting {
        let answer = answer.await.unwrap().unwrap();
        assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
        assert!(soon(&answer), "{:?}", answer.headers);
        let record = router.next_record(|_| true).await;
        assert_eq!(record["reason"], "wake_failed");
    }
    assert!(outcome(&router).await.starts_with("Failed"));
    assert_eq!(said(&router, "breaker opens").await["times"], 1);
    let starts = fly.calls(Action::Start, &machine.id);

    fly.faults().fail_starts(&machine.id, 0);
    assert_eq!(past_the_breaker(&router).await.status, StatusCode::OK);
    said(&router, "breaker closes").await;
    assert_eq!(fly.calls(Action::Start, &machine.id), starts + 1);
}

#[tokio::test]
async fn an_address_where_nobody_listens_is_left_alone_after_five_tries() {
    let (address, port) = {
        let cell = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = cell.local_addr().unwrap();
        (at(address), address)
    };
    let router = router(json!({ "alice": address })).await;
    for _ in 0..5 {
        let answer = whoami(&router).await.unwrap().unwrap();
        assert_eq!(answer.status, StatusCode::BAD_GATEWAY);
        let record = router.next_record(|_| true).await;
        assert_eq!(record["reason"], "unreachable");
    }
    said(&router, "breaker opens").await;
    // However slow this test runs: each try that fails opens it again, for longer.
    loop {
        whoami(&router).await.unwrap().unwrap();
        let record = router.next_record(|_| true).await;
        if record["reason"] == "breaker_open" {
            assert_eq!(
                (&record["lane"], &record["error_by"]),
                (&json!("answer"), &json!("cell"))
            );
            break;
        }
    }
    let cell = std::net::TcpListener::bind(port).unwrap();
    cell.set_nonblocking(true).unwrap();
    let cell = ScriptedCell::from(tokio::net::TcpListener::from_std(cell).unwrap());
    let serving = tokio::spawn(async move {
        let (mut connection, _) = cell.request().await;
        let answer = "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
        connection.write(answer).await.unwrap();
        connection.ended().await;
    });
    loop {
        let answer = whoami(&router).await.unwrap().unwrap();
        if answer.status == StatusCode::OK {
            break;
        }
    }
    said(&router, "breaker closes").await;
    serving.abort();
}

#[tokio::test]
async fn a_cell_that_accepts_again_is_everybodys_at_once_also_where_a_connection_was_kept() {
    let cell = ScriptedCell::listen().await;
    let address = cell.addr();
    let router = router(json!({ "alice": at(address) })).await;
    let mut long = Raw::connect(router.addr()).await.unwrap();
    long.write(format!("GET /long HTTP/1.1\r\nhost: {HOST}\r\n\r\n"))
        .await
        .unwrap();
    let (mut kept, _) = cell.request().await;
    kept.write("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\no")
        .await
        .unwrap();
    long.head().await.unwrap();
    drop(cell);
    for _ in 0..5 {
        let answer = whoami(&router).await.unwrap().unwrap();
        assert_eq!(answer.status, StatusCode::BAD_GATEWAY);
    }
    said(&router, "breaker opens").await;
    let empty = "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
    kept.write("k").await.unwrap();
    assert_eq!(long.bytes(2).await.unwrap(), b"ok");

    let cell = tokio::net::TcpListener::bind(address).await.unwrap();
    let cell = ScriptedCell::from(cell);
    let (trial, mut tried) = loop {
        let mut trial = tokio::spawn(client::get(router.addr(), HOST, "/trial"));
        tokio::select! {
            early = &mut trial => {
                let early = early.unwrap().unwrap();
                assert_eq!(early.status, StatusCode::SERVICE_UNAVAILABLE);
            }
            (tried, _) = cell.request() => break (trial, tried),
            _ = kept.head() => panic!("what was kept says nothing of the cell"),
        }
    };
    // The trial is not answered yet, and others are let pass.
    said(&router, "breaker closes").await;
    let other = tokio::spawn(client::get(router.addr(), HOST, "/other"));
    kept.head().await.unwrap();
    kept.write(empty).await.unwrap();
    assert_eq!(other.await.unwrap().unwrap().status, StatusCode::OK);
    tried.write(empty).await.unwrap();
    assert_eq!(trial.await.unwrap().unwrap().status, StatusCode::OK);
}

#[tokio::test]
async fn a_start_that_takes_too_long_is_a_timeout() {
    let (fly, machine, router) = sleeping(json!({ "wake_timeout_ms": 1000 })).await;
    let gate = fly.faults().hold_start(&machine.id);
    let answer = whoami(&router).await.unwrap().unwrap();
    assert_eq!(answer.status, StatusCode::GATEWAY_TIMEOUT);
    assert_eq!(reason(&router, answer.status).await, "wake_timeout");
    assert_eq!(outcome(&router).await, "TimedOut");
    gate.open();
    machine.listens().await;
    assert_eq!(past_the_breaker(&router).await.status, StatusCode::OK);
}

#[tokio::test]
async fn an_api_that_is_busy_or_broken_is_asked_again() {
    for status in [429, 500, 503, 408] {
        let (fly, machine, router) = sleeping(json!({})).await;
        fly.faults()
            .api_error(Action::Start, &machine.id, status, 2);
        let answer = whoami(&router).await.unwrap().unwrap();
        assert_eq!(answer.status, StatusCode::OK, "{status}");
        assert_eq!(fly.calls(Action::Start, &machine.id), 3, "{status}");
        assert_eq!(machine.launches(), 1);
    }
}

#[tokio::test]
async fn a_start_that_is_refused_for_good_is_not_asked_for_again() {
    for status in [400, 403, 404, 422] {
        let (fly, machine, router) = sleeping(json!({})).await;
        fly.faults()
            .api_error(Action::Start, &machine.id, status, usize::MAX);
        let answer = whoami(&router).await.unwrap().unwrap();
        assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE, "{status}");
        assert_eq!(reason(&router, answer.status).await, "wake_failed");
        assert!(outcome(&router).await.contains(&status.to_string()));
        assert_eq!(fly.calls(Action::Start, &machine.id), 1, "{status}");
    }
}

#[tokio::test]
async fn a_start_that_is_refused_for_now_is_asked_for_again() {
    for status in [409, 412] {
        let (fly, machine, router) = sleeping(json!({})).await;
        fly.faults()
            .api_error(Action::Start, &machine.id, status, 2);
        let answer = whoami(&router).await.unwrap().unwrap();
        assert_eq!(answer.status, StatusCode::OK, "{status}");
        assert_eq!(fly.calls(Action::Start, &machine.id), 3, "{status}");
    }
}

#[tokio::test]
async fn a_router_without_descriptors_wakes_nobody() {
    let (fly, machine, router) = sleeping(json!({})).await;
    let mut client = Raw::connect(router.addr()).await.unwrap();
    let ask = format!("GET /whoami HTTP/1.1\r\nhost: {HOST}\r\n\r\n");
    client
        .write(format!(
            "GET /up HTTP/1.1\r\nhost: {}\r\n\r\n",
            router.addr()
        ))
        .await
        .unwrap();
    assert_eq!(client.answer().await.unwrap().status, StatusCode::OK);
    starve(&router, true);
    client.write(&ask).await.unwrap();
    let answer = client.answer().await.unwrap();
    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(reason(&router, answer.status).await, "router_exhausted");
    assert_eq!(fly.calls(Action::Start, &machine.id), 0);
    starve(&router, false);
    client.write(&ask).await.unwrap();
    assert_eq!(client.answer().await.unwrap().status, StatusCode::OK);
}

#[tokio::test]
async fn an_api_that_refuses_the_token_is_told_in_the_log_only() {
    let (fly, machine, router) = sleeping(json!({})).await;
    fly.faults().api_error(Action::Start, &machine.id, 401, 1);
    let answer = whoami(&router).await.unwrap().unwrap();
    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(!answer.text().contains("401"));
    assert!(outcome(&router).await.contains("401"));
}

#[tokio::test]
async fn a_wake_for_which_nobody_waits_is_given_up() {
    let (fly, machine, router) = sleeping(json!({})).await;
    let gate = fly.faults().hold_start(&machine.id);
    let waiting = [whoami(&router), whoami(&router)];
    waking(&router).await;
    machine.reached(&[State::Starting]).await;
    waiting.iter().for_each(JoinHandle::abort);
    // What the client task leaves behind ends with its runtime's next turn.
    for waiting in waiting {
        assert!(waiting.await.unwrap_err().is_cancelled());
    }
    assert_eq!(outcome(&router).await, "GivenUp");
    for _ in 0..2 {
        assert_eq!(
            reason(&router, StatusCode::from_u16(499).unwrap()).await,
            "client_gone"
        );
    }

    let next = whoami(&router);
    waking(&router).await;
    gate.open();
    assert_eq!(next.await.unwrap().unwrap().status, StatusCode::OK);
    assert_eq!(machine.launches(), 1);
}

#[tokio::test]
async fn dns_that_lags_does_not_hold_a_woken_cell_up() {
    let (fly, machine, router) = sleeping(json!({})).await;
    let lag = fly.faults().dns_lag(&machine.id);
    for _ in 0..3 {
        assert_eq!(
            whoami(&router).await.unwrap().unwrap().status,
            StatusCode::OK
        );
    }
    assert_eq!(fly.calls(Action::Start, &machine.id), 1);
    lag.open();
}

#[tokio::test]
async fn a_cell_that_runs_and_that_dns_does_not_know_is_found_by_the_api() {
    let (fly, machine, router) = sleeping(json!({})).await;
    fly.wake(&machine).await.unwrap();
    let lag = fly.faults().dns_lag(&machine.id);
    assert_eq!(
        whoami(&router).await.unwrap().unwrap().status,
        StatusCode::OK
    );
    assert_eq!(machine.launches(), 1);
    lag.open();
}

#[tokio::test]
async fn a_cell_that_stopped_behind_a_pooled_connection_is_woken_again() {
    let (fly, machine, router) = sleeping(json!({})).await;
    assert_eq!(
        whoami(&router).await.unwrap().unwrap().status,
        StatusCode::OK
    );
    fly.stop(&machine).await.unwrap();
    assert_eq!(
        whoami(&router).await.unwrap().unwrap().status,
        StatusCode::OK
    );
    assert_eq!(machine.launches(), 2);
}

/// Two cells with secrets, of which `alice` stopped and `bob` got her address while her name still resolves to it; a
/// router that knows `alice` by an entry that says `more` too.
async fn reused(more: Value) -> (Fly, Arc<Machine>, Arc<Machine>, Router) {
    let fly = Fly::start().await.unwrap();
    let alice = fly
        .machine(MachineSpec::cell(APP, "alice").secret("s-alice"))
        .unwrap();
    let bob = running(&fly, MachineSpec::cell(APP, "bob").secret("s-bob")).await;
    fly.reuse_address(&alice, &bob).await.unwrap();
    let mut entry = entry(&alice);
    entry["secret"] = json!({ "env": "SECRET_ALICE" });
    for (name, value) in more.as_object().unwrap() {
        entry[name] = value.clone();
    }
    let options = on_fly(&fly, json!({ "alice": entry })).env("SECRET_ALICE", "s-alice");
    let router = Router::start(options).await;
    (fly, alice, bob, router)
}

#[tokio::test]
async fn an_address_that_another_cell_got_gets_no_data_and_the_cell_is_woken() {
    let (fly, alice, _bob, router) = reused(json!({})).await;
    let answer = client::post(router.addr(), HOST, "/whoami", "title=a&body=b")
        .await
        .unwrap();
    assert_eq!(answer.json()["machine"], alice.id, "{}", answer.text());
    assert_eq!(fly.calls(Action::Start, &alice.id), 1);
    assert_eq!(
        whoami(&router).await.unwrap().unwrap().json()["machine"],
        alice.id
    );
}

/// Without the challenge nothing in the connection tells; what does is the signature: it names the cell, so whoever has
/// the address refuses.
#[tokio::test]
async fn a_cell_that_got_the_address_of_another_refuses_its_requests() {
    let (fly, alice, _bob, router) = reused(json!({ "identity": "none" })).await;
    let answer = client::post(router.addr(), HOST, "/posts", "title=a&body=b")
        .await
        .unwrap();
    assert_eq!(answer.status, StatusCode::FORBIDDEN);
    assert_eq!(fly.calls(Action::Start, &alice.id), 0);
    assert!(!answer.text().contains("bob"));
}

#[tokio::test]
async fn a_machine_that_is_not_the_cell_even_where_the_api_says_is_told() {
    let fly = Fly::start().await.unwrap();
    let alice = fly
        .machine(MachineSpec::cell(APP, "alice").secret("another"))
        .unwrap();
    let mut entry = entry(&alice);
    entry["secret"] = json!({ "env": "SECRET_ALICE" });
    let options = on_fly(&fly, json!({ "alice": entry })).env("SECRET_ALICE", "s-alice");
    let router = Router::start(options).await;
    let answer = whoami(&router).await.unwrap().unwrap();
    assert_eq!(answer.status, StatusCode::BAD_GATEWAY);
    assert_eq!(reason(&router, answer.status).await, "not_the_cell");
}

#[tokio::test]
async fn a_lost_machine_is_told_at_once() {
    let (fly, machine, router) = sleeping(json!({})).await;
    fly.lose(&machine);
    let answer = whoami(&router).await.unwrap().unwrap();
    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(reason(&router, answer.status).await, "wake_failed");
}

#[tokio::test]
async fn a_cell_that_is_started_but_not_ready_is_waited_for() {
    let fly = Fly::start().await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let (ready, seen) = (folder.path().join("ready"), folder.path().join("seen"));
    let script = format!(
        "touch {seen}; while [ ! -e {ready} ]; do sleep 0.02; done; exec {app}",
        seen = seen.display(),
        ready = ready.display(),
        app = integration_tests::Binaries::built().cell_app.display(),
    );
    let mut spec = MachineSpec::cell(APP, "alice");
    spec.program = Some(("/bin/sh".into(), vec!["-c".into(), script]));
    let machine = fly.machine(spec).unwrap();
    let router = Router::start(on_fly(&fly, json!({ "alice": entry(&machine) }))).await;
    let waiting = whoami(&router);
    machine.reached(&[State::Started]).await;
    assert!(!waiting.is_finished());
    std::fs::write(&ready, "").unwrap();
    assert_eq!(waiting.await.unwrap().unwrap().status, StatusCode::OK);
    assert!(seen.exists());
    assert_eq!(machine.launches(), 1);
}

#[tokio::test]
async fn no_more_wait_than_may() {
    let fly = Fly::start().await.unwrap();
    let machine = fly.machine(MachineSpec::cell(APP, "alice")).unwrap();
    let gate = fly.faults().hold_start(&machine.id);
    let options = on_fly(&fly, json!({ "alice": entry(&machine) }));
    let router = Router::start(options.args(["--max-held", "1"])).await;
    let first = whoami(&router);
    waking(&router).await;
    let second = whoami(&router).await.unwrap().unwrap();
    assert_eq!(second.status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(!second.header("retry-after").is_empty());
    assert_eq!(reason(&router, second.status).await, "too_many_held");
    gate.open();
    assert_eq!(first.await.unwrap().unwrap().status, StatusCode::OK);
}

/// The platform's autostop does not see what comes over the private network, so a streaming cell has it off and stops
/// itself: by its own count of what runs, which an upload is part of for as long as it takes.
#[tokio::test]
async fn an_upload_that_outlasts_the_idle_time_is_not_cut() {
    let fly = Fly::start().await.unwrap();
    let alice = running(&fly, MachineSpec::cell(APP, "alice").idle_stop_s(1)).await;
    let router = Router::start(on_fly(&fly, json!({ "alice": entry(&alice) }))).await;
    let (pieces, stored) = driven(&router);
    for _ in 0..2 {
        pieces.send(Bytes::from_static(b"piece")).await.unwrap();
        // A twin without work stops itself: the idle time has passed since the piece was sent.
        let twin = running(&fly, MachineSpec::cell("twins", "twin").idle_stop_s(1)).await;
        twin.reached(&[State::Stopped]).await;
        assert!(fly.autostop_pass().await.is_empty(), "autostop is off");
    }
    drop(pieces);
    let stored = stored.await.unwrap().unwrap();
    assert_eq!(
        (stored.status.as_u16(), &stored.json()["bytes"]),
        (201, &json!(10))
    );
    assert_eq!(alice.launches(), 1);
    // And when it is done, the cell does stop.
    alice.reached(&[State::Stopped]).await;
}

#[tokio::test]
async fn with_autostop_on_the_platform_would_stop_a_cell_under_its_upload() {
    let fly = Fly::start().await.unwrap();
    let alice = running(
        &fly,
        MachineSpec::cell(APP, "alice")
            .autostop(true)
            .env("CELL_DRAIN_S", "1"),
    )
    .await;
    let router = Router::start(on_fly(&fly, json!({ "alice": entry(&alice) }))).await;
    let (pieces, stored) = driven(&router);
    // More than lies in sockets on the way: the cell has read some of it.
    for _ in 0..512 {
        pieces.send(Bytes::from(vec![0; 64 * 1024])).await.unwrap();
    }
    assert_eq!(fly.autostop_pass().await, std::slice::from_ref(&alice.id));
    let stored = stored.await.unwrap().unwrap();
    assert_eq!(stored.status, StatusCode::BAD_GATEWAY, "{}", stored.text());
}
