//! What a cell's entry allows of a request: size, pace, and how many at once.

use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use http::StatusCode;
use integration_tests::client::{self, Raw};
use integration_tests::{Router, ScriptedCell};
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::scene::{HOST, at, options, registry, said, starve};

const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

/// A router before a scripted cell whose entry has these settings, too.
async fn limited(settings: Value) -> (Router, ScriptedCell) {
    let cell = ScriptedCell::listen().await;
    let mut entry = settings;
    entry["address"] = cell.addr().to_string().into();
    let router = Router::start(options(json!({ "alice": entry }))).await;
    (router, cell)
}

#[tokio::test]
async fn a_body_of_told_length_that_is_too_large_never_reaches_the_cell() {
    let (router, cell) = limited(json!({ "max_body_bytes": 4 })).await;
    let mut client = Raw::connect(router.addr()).await.unwrap();
    client
        .write(format!(
            "PUT /x HTTP/1.1\r\nhost: {HOST}\r\ncontent-length: 5\r\n\r\nhello"
        ))
        .await
        .unwrap();
    assert_eq!(
        client.answer().await.unwrap().status,
        StatusCode::PAYLOAD_TOO_LARGE
    );
    let record = router.next_record(|line| line["path"] == "/x").await;
    assert_eq!(record["reason"], "body_too_large");
    assert_eq!(record["error_by"], "client");
    // The next connection that the cell sees is that of a request which it may have.
    let fits = tokio::spawn(client::get(router.addr(), HOST, "/fits"));
    let (mut upstream, head) = cell.request().await;
    assert!(head.starts_with("GET /fits "), "{head}");
    upstream.write(OK).await.unwrap();
    assert_eq!(fits.await.unwrap().unwrap().status, StatusCode::OK);
}

#[tokio::test]
async fn a_chunked_body_is_cut_where_it_gets_too_large() {
    let (router, cell) = limited(json!({ "max_body_bytes": 4 })).await;
    let mut client = Raw::connect(router.addr()).await.unwrap();
    client
        .write(format!(
            "PUT /x HTTP/1.1\r\nhost: {HOST}\r\ntransfer-encoding: chunked\r\n\r\n4\r\nfour\r\n"
        ))
        .await
        .unwrap();
    let (mut upstream, _) = cell.request().await;
    assert_eq!(upstream.chunk().await.unwrap(), b"four");
    client.write("1\r\n!\r\n0\r\n\r\n").await.unwrap();
    assert_eq!(upstream.rest().await.unwrap(), b"");
    assert_eq!(
        client.answer().await.unwrap().status,
        StatusCode::PAYLOAD_TOO_LARGE
    );
    let record = router.next_record(|line| line["path"] == "/x").await;
    assert_eq!(record["reason"], "body_too_large");
    assert_eq!(record["request_body"], "too_large");
}

#[tokio::test]
async fn a_body_that_only_drips_is_given_up() {
    let settings = json!({ "idle_timeout_ms": 1000, "min_body_rate": 1_000_000 });
    let (router, cell) = limited(settings).await;
    let mut client = Raw::connect(router.addr()).await.unwrap();
    client
        .write(format!(
            "PUT /x HTTP/1.1\r\nhost: {HOST}\r\ncontent-length: 1000000\r\n\r\n"
        ))
        .await
        .unwrap();
    let (mut upstream, _) = cell.request().await;
    // It never pauses for as long as it may, and comes to an end all the same.
    let mut drops = tokio::time::interval(std::time::Duration::from_millis(50));
    let answer = loop {
        tokio::select! {
            answer = client.answer_ready() => break answer,
            _ = drops.tick() => {}
        }
        if client.write("x").await.is_err() {
            break client.answer_ready().await;
        }
    };
    assert!(answer);
    assert_eq!(
        client.answer().await.unwrap().status,
        StatusCode::REQUEST_TIMEOUT
    );
    upstream.ended().await;
    let record = router.next_record(|line| line["path"] == "/x").await;
    assert_eq!(record["reason"], "client_stalled");
    assert!(
        record["error"].as_str().unwrap().contains("slower than"),
        "{record}"
    );
}

#[tokio::test]
async fn requests_beyond_the_limit_wait_their_turn() {
    let (router, cell) = limited(json!({ "max_in_flight": 1, "queue_timeout_ms": 60_000 })).await;
    let first = tokio::spawn(client::get(router.addr(), HOST, "/first"));
    let (mut upstream, _) = cell.request().await;
    // One request runs and one may wait: of the next two one is refused at once.
    let mut next: FuturesUnordered<_> = ["/second", "/third"]
        .map(|path| client::get(router.addr(), HOST, path))
        .into_iter()
        .collect();
    let refused = next.next().await.unwrap().unwrap();
    assert_eq!(refused.status, StatusCode::SERVICE_UNAVAILABLE);
    let answering = async {
        upstream.write(OK).await.unwrap();
        upstream.head().await.unwrap();
        upstream.write(OK).await.unwrap();
    };
    let (waited, ()) = tokio::join!(next.next(), answering);
    assert_eq!(waited.unwrap().unwrap().status, StatusCode::OK);
    assert_eq!(first.await.unwrap().unwrap().status, StatusCode::OK);
    let waited = |line: &Value| line["status"] == 200 && line["path"] != "/first";
    let record = router.next_record(waited).await;
    assert!(record["waited_ms"].is_u64(), "{record}");
}

#[tokio::test]
async fn who_waits_in_the_queue_is_let_in_by_an_edit() {
    let entry = json!({ "max_in_flight": 1, "queue_timeout_ms": 60_000 });
    let (router, cell) = limited(entry).await;
    let first = tokio::spawn(client::get(router.addr(), HOST, "/first"));
    let (mut upstream, _) = cell.request().await;
    let mut next: FuturesUnordered<_> = ["/second", "/third"]
        .map(|path| client::get(router.addr(), HOST, path))
        .into_iter()
        .collect();
    // One of them may not even wait; the other does.
    let refused = next.next().await.unwrap().unwrap();
    assert_eq!(refused.status, StatusCode::SERVICE_UNAVAILABLE);
    let mut more = at(cell.addr());
    more["max_in_flight"] = json!(2);
    router.save(&registry(json!({ "alice": more })));
    let answering = async {
        let (mut upstream, _) = cell.request().await;
        upstream.write(OK).await.unwrap();
        upstream
    };
    let (waited, _kept) = tokio::join!(next.next(), answering);
    assert_eq!(waited.unwrap().unwrap().status, StatusCode::OK);
    assert!(!first.is_finished());
    upstream.write(OK).await.unwrap();
    assert_eq!(first.await.unwrap().unwrap().status, StatusCode::OK);
}

#[tokio::test]
async fn requests_to_where_a_cell_was_take_no_place_where_it_is() {
    let (router, old) = limited(json!({ "max_in_flight": 1, "queue_timeout_ms": 0 })).await;
    let first = tokio::spawn(client::get(router.addr(), HOST, "/first"));
    let (mut stuck, _) = old.request().await;
    let new = ScriptedCell::listen().await;
    let mut moved = at(new.addr());
    moved["max_in_flight"] = json!(1);
    moved["queue_timeout_ms"] = json!(0);
    router.save(&registry(json!({ "alice": moved })));
    said(&router, "registry loaded").await;
    let second = tokio::spawn(client::get(router.addr(), HOST, "/second"));
    let (mut upstream, _) = new.request().await;
    upstream.write(OK).await.unwrap();
    assert_eq!(second.await.unwrap().unwrap().status, StatusCode::OK);
    assert!(!first.is_finished());
    stuck.write(OK).await.unwrap();
    assert_eq!(first.await.unwrap().unwrap().status, StatusCode::OK);
}

#[tokio::test]
async fn who_leaves_the_queue_leaves_room_in_it() {
    // As many may wait as may be in flight.
    let (router, cell) = limited(json!({ "max_in_flight": 1, "queue_timeout_ms": 60_000 })).await;
    let running = tokio::spawn(client::get(router.addr(), HOST, "/running"));
    let (mut one, _) = cell.request().await;
    let mut leaves = Raw::connect(router.addr()).await.unwrap();
    leaves
        .write(format!("GET /leaves HTTP/1.1\r\nhost: {HOST}\r\n\r\n"))
        .await
        .unwrap();
    drop(leaves);
    let record = router.next_record(|line| line["path"] == "/leaves").await;
    assert_eq!(record["reason"], "client_gone");
    let stays = tokio::spawn(client::get(router.addr(), HOST, "/stays"));
    one.write(OK).await.unwrap();
    let head = one.head().await.unwrap();
    assert!(head.starts_with("GET /stays "), "{head}");
    one.write(OK).await.unwrap();
    assert_eq!(stays.await.unwrap().unwrap().status, StatusCode::OK);
    assert_eq!(running.await.unwrap().unwrap().status, StatusCode::OK);
}

#[tokio::test]
async fn a_router_takes_as_many_descriptors_as_it_may_have() {
    const CLIENTS: usize = 100;
    let mut options = options(json!({ "alice": { "address": "127.0.0.1:9" } }));
    options.under = ["prlimit", "--nofile=64:4096"].map(String::from).to_vec();
    let router = Router::start(options).await;
    let mut clients = Vec::new();
    for _ in 0..CLIENTS {
        let mut client = Raw::connect(router.addr()).await.unwrap();
        client
            .write(format!(
                "GET /up HTTP/1.1\r\nhost: {}\r\n\r\n",
                router.addr()
            ))
            .await
            .unwrap();
        // One that finds no descriptor waits in the kernel for ever.
        let answer = timeout(Duration::from_secs(60), client.answer()).await;
        assert_eq!(answer.unwrap().unwrap().status, StatusCode::OK);
        clients.push(client);
    }
}

#[tokio::test]
async fn clients_leave_descriptors_for_the_cell() {
    // A quarter of 256 is for the router itself; of the rest every second is for a client.
    const TAKEN: usize = 96;
    let cell = ScriptedCell::listen().await;
    let mut options = options(json!({ "alice": at(cell.addr()) }));
    options.under = ["prlimit", "--nofile=256:256"].map(String::from).to_vec();
    let router = Router::start(options).await;
    let told = router
        .next_event(|event| event["connections"] == TAKEN && event["descriptors"] == 256)
        .await;
    assert_eq!(told["level"], "WARN");
    let mut clients = Vec::new();
    for _ in 0..TAKEN + 40 {
        clients.push(Raw::connect(router.addr()).await.unwrap());
    }
    let mut upstreams = Vec::new();
    for client in &mut clients[..TAKEN] {
        let asked = client.write(format!("GET /x HTTP/1.1\r\nhost: {HOST}\r\n\r\n"));
        asked.await.unwrap();
        upstreams.push(cell.request().await.0);
    }
    for (client, upstream) in clients.iter_mut().zip(&mut upstreams) {
        upstream.write(OK).await.unwrap();
        assert_eq!(client.answer().await.unwrap().status, StatusCode::OK);
    }
}

#[tokio::test]
async fn a_router_without_descriptors_does_not_blame_the_cell() {
    let (router, cell) = limited(json!({})).await;
    let mut client = Raw::connect(router.addr()).await.unwrap();
    let ask = format!("GET /x HTTP/1.1\r\nhost: {HOST}\r\n\r\n");
    client
        .write(format!(
            "GET /up HTTP/1.1\r\nhost: {}\r\n\r\n",
            router.addr()
        ))
        .await
        .unwrap();
    assert_eq!(client.answer().await.unwrap().status, StatusCode::OK);
    starve(&router, true);
    // More often than it takes to leave a cell alone.
    for _ in 0..6 {
        client.write(&ask).await.unwrap();
        let answer = client.answer().await.unwrap();
        assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
        let record = router.next_record(|line| line["path"] == "/x").await;
        assert_eq!(record["reason"], "router_exhausted");
        assert_eq!(record["error_by"], "router");
    }
    starve(&router, false);
    client.write(&ask).await.unwrap();
    let (mut upstream, _) = cell.request().await;
    upstream.write(OK).await.unwrap();
    assert_eq!(client.answer().await.unwrap().status, StatusCode::OK);
}
