//! Which cell a request is for, and what the cell is told, off Fly.io.

use http::{Request, StatusCode};
use integration_tests::client::{self, Answer, Http, Raw, full};
use integration_tests::fly::Fly;
use integration_tests::{Router, RouterOptions};
use serde_json::{Value, json};

use crate::echo::Echo;
use crate::scene::{HOST, scripted};

/// A registry of `cells` on `example.com`, with paths on `apps.example.org` too.
fn registry(cells: Value) -> String {
    json!({
        "version": 1, "domain": "example.com", "path_hosts": ["apps.example.org"], "cells": cells,
    })
    .to_string()
}

/// The entry of a cell at `echo`, with these keys more.
fn at(echo: &Echo, more: Value) -> Value {
    let mut entry = json!({ "address": echo.address().to_string() });
    let more = more.as_object().unwrap().clone();
    entry.as_object_mut().unwrap().extend(more);
    entry
}

async fn routed(cells: Value) -> Router {
    Router::start(RouterOptions::new(registry(cells))).await
}

/// Asks at `host` for `target`.
async fn ask(router: &Router, host: &str, target: &str) -> Answer {
    client::get(router.addr(), host, target).await.unwrap()
}

/// Which cell answered, and the target that it was sent.
fn told(answer: &Answer) -> (String, String) {
    let told = answer.json();
    let text = |key: &str| told[key].as_str().unwrap_or_default().to_owned();
    (text("cell"), text("target"))
}

/// The lines of a header as the cell got them.
fn header(answer: &Answer, name: &str) -> Vec<String> {
    serde_json::from_value(answer.json()["headers"][name].clone()).unwrap_or_default()
}

async fn reason_of(router: &Router, path: &str) -> (String, String) {
    let record = router.next_record(|record| record["path"] == path).await;
    let text = |key: &str| record[key].as_str().unwrap_or_default().to_owned();
    (text("lane"), text("reason"))
}

fn pair(first: &str, second: &str) -> (String, String) {
    (first.to_owned(), second.to_owned())
}

#[tokio::test]
async fn host_finds_the_cell_by_subdomain_custom_host_and_wildcard() {
    let (alice, bob) = (Echo::start("alice").await, Echo::start("bob").await);
    let router = routed(json!({
        "alice": at(&alice, json!({ "hosts": ["www.alice.org", "*.alice.net"] })),
        "bob": at(&bob, json!({ "hosts": ["vip.alice.net"] })),
    }))
    .await;
    for (host, cell) in [
        ("alice.example.com", "alice"),
        ("ALICE.Example.com:8080", "alice"),
        ("alice.example.com.", "alice"),
        ("bob.example.com", "bob"),
        ("www.alice.org", "alice"),
        ("any.alice.net", "alice"),
        // What is written out goes before a wildcard.
        ("vip.alice.net", "bob"),
    ] {
        let answer = ask(&router, host, "/posts?page=2").await;
        assert_eq!(told(&answer), pair(cell, "/posts?page=2"), "{host}");
        assert_eq!(header(&answer, "host"), [host]);
        assert_eq!(header(&answer, "cell-name"), [cell]);
    }
    assert_eq!(
        reason_of(&router, "/posts").await,
        pair("stream", "not_on_fly")
    );
    for host in [
        "carol.example.com",
        "a.alice.example.com",
        "alice.org",
        "a.b.alice.net",
        "alice.net",
        "localhost",
    ] {
        let answer = ask(&router, host, "/nobody").await;
        assert_eq!(answer.status, StatusCode::NOT_FOUND, "{host}");
        assert_eq!(
            reason_of(&router, "/nobody").await,
            pair("answer", "no_such_cell")
        );
    }
}

#[tokio::test]
async fn longest_prefix_chooses_the_cell_and_is_kept_or_taken_off() {
    let (kept, stripped) = (Echo::start("kept").await, Echo::start("stripped").await);
    let router = routed(json!({
        "kept": at(&kept, json!({ "paths": ["/team", "/team/a/b"] })),
        "stripped": at(&stripped, json!({ "paths": [{ "prefix": "/team/a", "strip": true }] })),
    }))
    .await;
    for host in ["example.com", "apps.example.org"] {
        for (path, cell, target) in [
            ("/team", "kept", "/team"),
            ("/team/", "kept", "/team/"),
            ("/team/x?y=/team/a", "kept", "/team/x?y=/team/a"),
            ("/team/alice", "kept", "/team/alice"),
            ("/team/a/b/c", "kept", "/team/a/b/c"),
            ("/team/a", "stripped", "/"),
            ("/team/a?x", "stripped", "/?x"),
            ("/team/a/posts/1?x=%2F", "stripped", "/posts/1?x=%2F"),
            ("/team/a/bc", "stripped", "/bc"),
        ] {
            let answer = ask(&router, host, path).await;
            assert_eq!(told(&answer), pair(cell, target), "{host}{path}");
            let said = header(&answer, "x-forwarded-prefix");
            let prefix: &[&str] = if cell == "stripped" {
                &["/team/a"]
            } else {
                &[]
            };
            assert_eq!(said, prefix, "{host}{path}");
        }
        for path in ["/teams", "/tea", "/", "/Team"] {
            assert_eq!(
                ask(&router, host, path).await.status,
                StatusCode::NOT_FOUND,
                "{host}{path}"
            );
        }
    }
    // Only where paths choose; and a cell's own host is the cell's in full.
    assert_eq!(
        ask(&router, "www.example.net", "/team").await.status,
        StatusCode::NOT_FOUND
    );
    let answer = ask(&router, "stripped.example.com", "/team/a").await;
    assert_eq!(told(&answer), pair("stripped", "/team/a"));
}

#[tokio::test]
async fn up_is_the_routers_except_on_a_cells_own_host() {
    let alice = Echo::start("alice").await;
    let router = routed(json!({ "alice": at(&alice, json!({ "paths": ["/alice"] })) })).await;
    for host in ["example.com", "apps.example.org", "10.0.0.7:8080"] {
        let answer = ask(&router, host, "/up").await;
        assert_eq!(
            (answer.status, answer.text()),
            (StatusCode::OK, "ok\n".into())
        );
        assert_eq!(reason_of(&router, "/up").await, pair("answer", "up"));
        let answer = ask(&router, host, "/up/below").await;
        assert_eq!(answer.status, StatusCode::NOT_FOUND);
        assert_eq!(
            reason_of(&router, "/up/below").await,
            pair("answer", "reserved_path")
        );
    }
    assert_eq!(alice.seen(), 0);
    let answer = ask(&router, "alice.example.com", "/up").await;
    assert_eq!(told(&answer), pair("alice", "/up"));
}

#[tokio::test]
async fn path_with_two_readings_is_refused_where_paths_choose_and_reaches_no_cell() {
    let alice = Echo::start("alice").await;
    let router = routed(json!({ "alice": at(&alice, json!({ "paths": ["/alice"] })) })).await;
    let ambiguous = [
        "/alice/../bob",
        "/alice/..",
        "/alice/./x",
        "/alice//x",
        "//alice",
        "/alice/%2e%2e/bob",
        "/alice/%2E",
        "/alice%2fx",
        "/alice%2Fx",
        "/alice\\x",
        "/alice%5cx",
    ];
    let mut raw = Raw::connect(router.addr()).await.unwrap();
    for path in ambiguous {
        raw.write(format!(
            "GET {path} HTTP/1.1\r\nhost: apps.example.org\r\n\r\n"
        ))
        .await
        .unwrap();
        assert_eq!(
            raw.answer().await.unwrap().status,
            StatusCode::BAD_REQUEST,
            "{path}"
        );
    }
    assert_eq!(alice.seen(), 0);
    // On its own host nothing is chosen by the path: the cell gets it byte by byte.
    for (number, path) in ambiguous.iter().enumerate() {
        raw.write(format!(
            "GET {path} HTTP/1.1\r\nhost: alice.example.com\r\n\r\n"
        ))
        .await
        .unwrap();
        let answer = raw.answer().await.unwrap();
        assert_eq!(told(&answer), pair("alice", path), "{path}");
        assert_eq!(alice.seen(), number + 1);
    }
    // Bytes that no URI has are no HTTP at all.
    for path in ["/alice/\u{1}", "/alice/\u{7f}", "/alice/\u{e9}"] {
        let mut raw = Raw::connect(router.addr()).await.unwrap();
        raw.write(format!(
            "GET {path} HTTP/1.1\r\nhost: apps.example.org\r\n\r\n"
        ))
        .await
        .unwrap();
        assert_eq!(raw.answer().await.unwrap().status, StatusCode::BAD_REQUEST);
    }
    assert_eq!(alice.seen(), 11);
}

#[tokio::test]
async fn machine_id_in_the_path_finds_the_machine_that_the_registry_names() {
    let fly = Fly::start().await.unwrap();
    let alice = Echo::start("alice").await;
    fly.attach("cells", "3d8d9e67c2e123", alice.address())
        .unwrap();
    let registry = |machine_paths: bool| {
        json!({
            "version": 1, "domain": "example.com", "machine_paths": machine_paths,
            "cells": { "alice": {
                "app": "cells", "machine": "3d8d9e67c2e123", "port": alice.address().port(),
            } },
        })
        .to_string()
    };
    let dns = fly.dns_addr().to_string();
    let options = RouterOptions::new(registry(true)).args(["--dns-server", &dns]);
    let router = Router::start(options).await;
    let answer = ask(&router, "example.com", "/3d8d9e67c2e123/posts?x").await;
    assert_eq!(told(&answer), pair("alice", "/3d8d9e67c2e123/posts?x"));
    for path in [
        "/3d8d9e67c2e124/posts",
        "/3d8d9e67c2e1234",
        "/x/3d8d9e67c2e123",
    ] {
        assert_eq!(
            ask(&router, "example.com", path).await.status,
            StatusCode::NOT_FOUND,
            "{path}"
        );
    }
    // The scheme is off unless the registry turns it on; asking is how a client sees that the save is in force.
    router.save(&registry(false));
    while ask(&router, "example.com", "/3d8d9e67c2e123/posts")
        .await
        .status
        != StatusCode::NOT_FOUND
    {}
}

#[tokio::test]
async fn default_cell_gets_what_nothing_else_chooses() {
    let (alice, rest) = (Echo::start("alice").await, Echo::start("rest").await);
    let registry = json!({
        "version": 1, "domain": "example.com", "default_cell": "rest",
        "cells": { "alice": at(&alice, json!({ "paths": ["/alice"] })), "rest": at(&rest, json!({})) },
    });
    let router = Router::start(RouterOptions::new(registry.to_string())).await;
    for (host, path) in [
        ("example.com", "/"),
        ("example.com", "/alicia"),
        ("carol.example.com", "/alice"),
        ("10.1.2.3", "/x"),
    ] {
        assert_eq!(
            told(&ask(&router, host, path).await),
            pair("rest", path),
            "{host}{path}"
        );
    }
    let answer = ask(&router, "example.com", "/alice").await;
    assert_eq!(told(&answer), pair("alice", "/alice"));
    // What is kept for the router stays the router's.
    assert_eq!(ask(&router, "10.1.2.3", "/up").await.text(), "ok\n");
}

#[tokio::test]
async fn maintenance_and_disabled_answer_without_the_cell() {
    let cell = Echo::start("cell").await;
    let router = routed(json!({
        "closed": at(&cell, json!({ "state": "maintenance", "retry_after_s": 77 })),
        "off": at(&cell, json!({ "state": "disabled" })),
    }))
    .await;
    let answer = ask(&router, "closed.example.com", "/a").await;
    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(answer.header("retry-after"), "77");
    assert_eq!(answer.header("cache-control"), "no-store");
    assert_eq!(
        reason_of(&router, "/a").await,
        pair("answer", "maintenance")
    );
    let browser = Request::get("/b")
        .header("host", "closed.example.com")
        .header("accept", "text/html,*/*;q=0.8");
    let answer = client::send(router.addr(), Http::One, browser.body(full("")).unwrap())
        .await
        .unwrap();
    assert!(answer.text().contains("Under maintenance"), "{answer:?}");
    assert_eq!(answer.header("content-type"), "text/html; charset=utf-8");
    let answer = client::post(router.addr(), "off.example.com", "/c", "body")
        .await
        .unwrap();
    assert_eq!(answer.status, StatusCode::FORBIDDEN);
    assert_eq!(reason_of(&router, "/c").await, pair("answer", "disabled"));
    assert_eq!(cell.seen(), 0);
}

#[tokio::test]
async fn requests_held_for_one_cell_leave_places_for_anothers() {
    let cell = Echo::start("cell").await;
    let registry = |state: &str| {
        let entry = json!({ "state": state, "hold_timeout_ms": 60_000, "max_in_flight": 1 });
        registry(json!({ "alice": at(&cell, entry.clone()), "bob": at(&cell, entry) }))
    };
    let options = RouterOptions::new(registry("paused")).args(["--max-held", "3"]);
    let router = Router::start(options).await;
    let mut held = Vec::new();
    for host in ["alice.example.com", "bob.example.com"] {
        let ask = || tokio::spawn(client::get(router.addr(), host, "/x"));
        // The refusal of either proves that the other is held.
        let (refused, waits) = match futures_util::future::select(ask(), ask()).await {
            futures_util::future::Either::Left(pair) => pair,
            futures_util::future::Either::Right(pair) => pair,
        };
        let refused = refused.unwrap().unwrap();
        assert_eq!(refused.status, StatusCode::SERVICE_UNAVAILABLE);
        let record = router
            .next_record(|record| record["host"] == host && record["status"] == 503)
            .await;
        assert_eq!(record["reason"], "cell_full", "{host}");
        held.push(waits);
    }
    router.save(&registry("active"));
    for waits in held {
        assert_eq!(waits.await.unwrap().unwrap().status, StatusCode::OK);
    }
}

#[tokio::test]
async fn paused_cell_holds_a_request_until_a_save_makes_it_active() {
    let cell = Echo::start("cell").await;
    let registry = |state: &str| {
        registry(json!({ "cell": at(&cell, json!({ "state": state, "hold_timeout_ms": 60_000 })) }))
    };
    // With room for one, the refusal of either proves that the other is held.
    let options = RouterOptions::new(registry("paused")).args(["--max-held", "1"]);
    let router = Router::start(options).await;
    let send = |path: &'static str| {
        let address = router.addr();
        Box::pin(async move {
            client::post(address, "cell.example.com", path, "kept")
                .await
                .unwrap()
        })
    };
    let (first, second) = (send("/one"), send("/two"));
    let (refused, held) = match futures_util::future::select(first, second).await {
        futures_util::future::Either::Left((refused, held)) => (refused, held),
        futures_util::future::Either::Right((refused, held)) => (refused, held),
    };
    assert_eq!(refused.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(cell.seen(), 0);
    let record = router
        .next_record(|record| record["reason"] == "too_many_held")
        .await;
    assert_eq!(record["lane"], "hold");
    router.save(&registry("active"));
    let answer = held.await;
    assert_eq!(
        (answer.status, answer.json()["cell"].clone()),
        (StatusCode::OK, "cell".into())
    );
    assert_eq!(answer.json()["body_bytes"], 4);
    let record = router
        .next_record(|record| record["reason"] == "not_on_fly")
        .await;
    assert_eq!(record["lane"], "stream");
    assert!(record["waited_ms"].is_u64(), "{record}");
}

#[tokio::test]
async fn hold_that_takes_too_long_ends_in_503() {
    let cell = Echo::start("cell").await;
    let entry = json!({ "state": "paused", "hold_timeout_ms": 1, "retry_after_s": 5 });
    let router = routed(json!({ "cell": at(&cell, entry) })).await;
    let answer = ask(&router, "cell.example.com", "/").await;
    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(answer.header("retry-after"), "5");
    assert_eq!(reason_of(&router, "/").await, pair("hold", "hold_timeout"));
    assert_eq!(cell.seen(), 0);
}

/// A request with every claim that a client can make about itself.
fn claiming() -> Request<http_body_util::Full<bytes::Bytes>> {
    Request::get("/who")
        .header("host", "Alice.example.com:8080")
        .header("x-forwarded-for", "203.0.113.1")
        .header("x-forwarded-for", "203.0.113.2")
        .header("x-forwarded-proto", "https")
        .header("x-forwarded-host", "front.example.net")
        .header("x-forwarded-port", "443")
        .header("x-forwarded-ssl", "on")
        .header("x-forwarded-prefix", "/elsewhere")
        .header("x-real-ip", "203.0.113.1")
        .header("forwarded", "for=203.0.113.1")
        .header("fly-client-ip", "203.0.113.9")
        .header("fly-region", "ams")
        .header("x-request-id", "given-1")
        .header("cell-name", "bob")
        .header("cell-signature", "v1.1.00")
        .header("fly-replay-src", "instance=1;state=x")
        .header("fly-replay-failed", "reason=timeout")
        .header("x-own", "kept")
        .body(full(""))
        .unwrap()
}

#[tokio::test]
async fn stranger_cannot_say_who_it_is() {
    let alice = Echo::start("alice").await;
    let router = routed(json!({ "alice": at(&alice, json!({})) })).await;
    let answer = client::send(router.addr(), Http::One, claiming())
        .await
        .unwrap();
    for (name, value) in [
        ("x-forwarded-for", "127.0.0.1"),
        ("x-forwarded-proto", "http"),
        ("x-forwarded-host", "Alice.example.com:8080"),
        ("host", "Alice.example.com:8080"),
        ("cell-name", "alice"),
        ("x-own", "kept"),
    ] {
        assert_eq!(header(&answer, name), [value], "{name}");
    }
    for name in [
        "x-forwarded-port",
        "x-forwarded-ssl",
        "x-forwarded-prefix",
        "x-real-ip",
        "forwarded",
        "fly-client-ip",
        "fly-region",
        "cell-signature",
        "fly-replay-src",
        "fly-replay-failed",
    ] {
        assert_eq!(header(&answer, name), [""; 0], "{name}");
    }
    let record = router.next_record(|record| record["path"] == "/who").await;
    assert_eq!(record["client"], "127.0.0.1");
    assert_ne!(record["request_id"], "given-1");
    assert_eq!(
        header(&answer, "x-request-id"),
        [record["request_id"].as_str().unwrap()]
    );
}

#[tokio::test]
async fn trusted_proxy_says_who_the_client_is() {
    let alice = Echo::start("alice").await;
    let registry = registry(json!({ "alice": at(&alice, json!({})) }));
    let options = RouterOptions::new(registry).args(["--trusted-proxies", "127.0.0.0/8"]);
    let router = Router::start(options).await;
    let answer = client::send(router.addr(), Http::One, claiming())
        .await
        .unwrap();
    for (name, value) in [
        ("x-forwarded-for", "203.0.113.1, 203.0.113.2, 127.0.0.1"),
        ("x-forwarded-proto", "https"),
        ("x-forwarded-host", "front.example.net"),
        ("x-forwarded-port", "443"),
        ("x-forwarded-prefix", "/elsewhere"),
        ("x-request-id", "given-1"),
        // Nobody else can say these.
        ("cell-name", "alice"),
    ] {
        assert_eq!(header(&answer, name), [value], "{name}");
    }
    // Nor can these be said by anybody but Fly's edge, and there is none.
    for name in [
        "fly-client-ip",
        "fly-region",
        "cell-signature",
        "fly-replay-src",
        "fly-replay-failed",
    ] {
        assert_eq!(header(&answer, name), [""; 0], "{name}");
    }
    let record = router
        .next_record(|record| record["request_id"] == "given-1")
        .await;
    assert_eq!(record["client"], "203.0.113.2");
}

#[tokio::test]
async fn on_fly_the_edge_says_who_the_client_is() {
    let alice = Echo::start("alice").await;
    let fly = Fly::start().await.unwrap();
    let registry = registry(json!({ "alice": at(&alice, json!({})) }));
    let options = RouterOptions::new(registry).on_fly(&fly, "router", "3d8d9e67c2e123");
    let router = Router::start(options).await;
    let answer = client::send(router.addr(), Http::One, claiming())
        .await
        .unwrap();
    for (name, value) in [
        ("fly-client-ip", "203.0.113.9"),
        ("fly-region", "ams"),
        ("x-forwarded-for", "203.0.113.1, 203.0.113.2, 127.0.0.1"),
        ("x-forwarded-proto", "https"),
        ("x-forwarded-ssl", "on"),
        ("x-forwarded-host", "Alice.example.com:8080"),
    ] {
        assert_eq!(header(&answer, name), [value], "{name}");
    }
    for name in [
        "x-forwarded-port",
        "x-forwarded-prefix",
        "x-real-ip",
        "forwarded",
    ] {
        assert_eq!(header(&answer, name), [""; 0], "{name}");
    }
    let record = router.next_record(|record| record["path"] == "/who").await;
    assert_eq!(record["client"], "203.0.113.9");
}

#[tokio::test]
async fn request_line_and_host_must_name_one_host() {
    let alice = Echo::start("alice").await;
    let router = routed(json!({ "alice": at(&alice, json!({})) })).await;
    let mut raw = Raw::connect(router.addr()).await.unwrap();
    for (head, wanted) in [
        (
            "GET http://alice.example.com/x?y HTTP/1.1\r\nhost: alice.example.com",
            Ok("/x?y"),
        ),
        (
            "GET http://ALICE.example.com:80/x HTTP/1.1\r\nhost: alice.example.com:80",
            Ok("/x"),
        ),
        (
            "GET http://alice.example.com HTTP/1.1\r\nhost: alice.example.com",
            Ok("/"),
        ),
        (
            "GET http://alice.example.com/ HTTP/1.1\r\nhost: bob.example.com",
            Err("authority_mismatch"),
        ),
        (
            "GET / HTTP/1.1\r\nhost: alice.example.com\r\nhost: alice.example.com",
            Err("bad_host"),
        ),
        ("GET / HTTP/1.1\r\nx-no: host", Err("bad_host")),
        ("GET / HTTP/1.1\r\nhost: a b", Err("bad_host")),
        (
            "OPTIONS * HTTP/1.1\r\nhost: alice.example.com",
            Err("bad_target"),
        ),
    ] {
        let before = alice.seen();
        raw.write(format!("{head}\r\n\r\n")).await.unwrap();
        let answer = raw.answer().await.unwrap();
        match wanted {
            Ok(target) => {
                assert_eq!(told(&answer), pair("alice", target), "{head}");
                router.next_record(|_| true).await;
            }
            Err(reason) => {
                assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{head}");
                let record = router.next_record(|_| true).await;
                assert_eq!(record["reason"], reason, "{head}");
                assert_eq!(alice.seen(), before, "{head}");
            }
        }
    }
}

#[tokio::test]
async fn answer_to_head_has_a_length_and_no_body() {
    let alice = Echo::start("alice").await;
    let router = routed(json!({ "alice": at(&alice, json!({})) })).await;
    for version in [Http::One, Http::Two] {
        for (host, length) in [("alice.example.com", None), ("bob.example.com", Some("34"))] {
            let request = Request::head("/x").header("host", host).body(full(""));
            let answer = client::send(router.addr(), version, request.unwrap())
                .await
                .unwrap();
            assert!(answer.body.is_empty(), "{version:?} {host}: {answer:?}");
            let said = answer.header("content-length");
            assert!(
                length.map_or(!said.is_empty(), |length| said == length),
                "{version:?} {host}: {answer:?}"
            );
        }
    }
}

#[tokio::test]
async fn http2_with_prior_knowledge_reaches_an_http1_cell() {
    let alice = Echo::start("alice").await;
    let router = routed(json!({ "alice": at(&alice, json!({})) })).await;
    let request = Request::post("/x?y")
        .header("host", "alice.example.com")
        .header("cookie", "a=1")
        .header("cookie", "b=2")
        .header("te", "trailers")
        .body(full("12345"))
        .unwrap();
    let answer = client::send(router.addr(), Http::Two, request)
        .await
        .unwrap();
    assert_eq!(told(&answer), pair("alice", "/x?y"));
    assert_eq!(header(&answer, "host"), ["alice.example.com"]);
    assert_eq!(header(&answer, "cookie"), ["a=1; b=2"]);
    assert_eq!(answer.json()["body_bytes"], 5);
    let via = header(&answer, "via");
    assert!(
        via.len() == 1 && via[0].starts_with("2 cell-router-"),
        "{via:?}"
    );
    let record = router.next_record(|record| record["path"] == "/x").await;
    assert_eq!(
        (&record["version"], &record["bytes_in"]),
        (&json!("2"), &json!(5))
    );
    // The length unknown: the cell gets it chunked, whole all the same.
    let request = Request::post("/long")
        .header("host", "alice.example.com")
        .body(client::chunked(client::zeros(300_000)))
        .unwrap();
    let answer = client::send(router.addr(), Http::Two, request)
        .await
        .unwrap();
    assert_eq!(answer.json()["body_bytes"], 300_000);
    assert_eq!(header(&answer, "transfer-encoding"), ["chunked"]);
}

#[tokio::test]
async fn the_access_log_has_the_path_and_nothing_of_the_query() {
    let cell = Echo::start("cell").await;
    let router = routed(json!({ "cell": at(&cell, json!({})) })).await;
    let target = "/login?token=hidden&hidden";
    for host in ["cell.example.com", "nobody.example.com"] {
        ask(&router, host, target).await;
        let record = router.next_record(|record| record["host"] == host).await;
        assert_eq!(record["path"], "/login");
        assert!(!record.to_string().contains("hidden"), "{record}");
    }
}

/// RFC 9110 section 7.6.2.
#[tokio::test]
async fn an_options_request_goes_as_far_as_it_may() {
    let (router, cell) = scripted().await;
    for (method, value, reaches) in [
        ("OPTIONS", "0", None),
        ("OPTIONS", "00", None),
        ("OPTIONS", "1", Some("0")),
        ("OPTIONS", "010", Some("9")),
        ("OPTIONS", "-1", Some("-1")),
        ("OPTIONS", "many", Some("many")),
        (
            "OPTIONS",
            "18446744073709551616",
            Some("18446744073709551616"),
        ),
        ("GET", "0", Some("0")),
    ] {
        let mut client = Raw::connect(router.addr()).await.unwrap();
        client
            .write(format!(
                "{method} / HTTP/1.1\r\nhost: {HOST}\r\nmax-forwards: {value}\r\n\r\n"
            ))
            .await
            .unwrap();
        let Some(reaches) = reaches else {
            let answer = client.answer().await.unwrap();
            assert_eq!(answer.status, StatusCode::OK, "{value}");
            assert!(answer.header("allow").contains("OPTIONS"), "{value}");
            let record = router.next_record(|_| true).await;
            assert_eq!(record["reason"], "last_hop", "{value}");
            continue;
        };
        let (mut upstream, head) = cell.request().await;
        let said = head
            .lines()
            .find_map(|line| line.strip_prefix("max-forwards: "));
        assert_eq!(said, Some(reaches), "{method} {value}");
        upstream
            .write("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 0\r\n\r\n")
            .await
            .unwrap();
        client.answer().await.unwrap();
        router.next_record(|_| true).await;
    }
}
