//! The door: how many may come in, how slowly they may go, and by which protocol.

use std::time::Duration;

use http::StatusCode;
use integration_tests::client::{self, Raw};
use integration_tests::http2::{ACK, END_STREAM, Frames, GOAWAY, PING, frame, head};
use integration_tests::{Router, ScriptedCell};
use serde_json::{Value, json};

use crate::echo::Echo;
use crate::scene::{HOST, at, options};

/// A router before a cell that answers, with these flags.
async fn door<const N: usize>(flags: [&str; N]) -> (Router, Echo) {
    let cell = Echo::start("alice").await;
    let options = options(json!({ "alice": at(cell.address()) }));
    (Router::start(options.args(flags)).await, cell)
}

/// A connection that has had an answer, and stays.
async fn stays(router: &Router) -> Raw {
    let mut client = Raw::connect(router.addr()).await.unwrap();
    let request = format!("GET / HTTP/1.1\r\nhost: {HOST}\r\n\r\n");
    client.write(request).await.unwrap();
    assert_eq!(client.answer().await.unwrap().status, StatusCode::OK);
    client
}

#[tokio::test]
async fn a_client_with_too_many_connections_is_told_so_until_one_is_free() {
    let (router, cell) = door(["--max-connections-per-client", "2"]).await;
    let (one, _two) = (stays(&router).await, stays(&router).await);
    let mut third = Raw::connect(router.addr()).await.unwrap();
    let request = format!("GET / HTTP/1.1\r\nhost: {HOST}\r\n\r\n");
    third.write(request).await.unwrap();
    let refused = third.answer().await.unwrap();
    assert_eq!(refused.status, StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(refused.header("connection"), "close");
    assert_eq!(third.rest().await.unwrap(), b"");
    let told = router
        .next_event(|event| {
            event["message"]
                .as_str()
                .is_some_and(|text| text.contains("too many"))
        })
        .await;
    assert_eq!(
        (&told["client"], &told["refused"]),
        (&json!("127.0.0.1"), &json!(1))
    );
    assert_eq!(cell.seen(), 2);
    drop(one);
    // The router hears of it in its own time.
    loop {
        let answer = client::get(router.addr(), HOST, "/").await.unwrap();
        if answer.status == StatusCode::OK {
            break;
        }
        assert_eq!(answer.status, StatusCode::TOO_MANY_REQUESTS);
    }
}

#[tokio::test]
async fn a_trusted_proxy_is_no_client() {
    let flags = [
        "--max-connections-per-client",
        "1",
        "--trusted-proxies",
        "127.0.0.1/32",
    ];
    let (router, _cell) = door(flags).await;
    let _all = [
        stays(&router).await,
        stays(&router).await,
        stays(&router).await,
    ];
}

#[tokio::test]
async fn a_tunnel_counts_as_a_connection_of_its_client() {
    let cell = ScriptedCell::listen().await;
    let options = options(json!({ "alice": at(cell.addr()) }));
    let router = Router::start(options.args(["--max-connections-per-client", "1"])).await;
    let mut client = Raw::connect(router.addr()).await.unwrap();
    client
        .write(format!(
            "GET / HTTP/1.1\r\nhost: {HOST}\r\nconnection: upgrade\r\nupgrade: chat\r\n\r\n"
        ))
        .await
        .unwrap();
    let (mut upstream, _) = cell.request().await;
    upstream
        .write("HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: chat\r\n\r\n")
        .await
        .unwrap();
    client.head().await.unwrap();
    upstream.write("in the tunnel").await.unwrap();
    client.bytes(13).await.unwrap();
    let refused = client::get(router.addr(), HOST, "/").await.unwrap();
    assert_eq!(refused.status, StatusCode::TOO_MANY_REQUESTS);
}

/// Nobody has to leave for a reason of time.
const ROOM_FOR_THREE: [&str; 6] = [
    "--max-connections",
    "3",
    "--idle-timeout-ms",
    "600000",
    "--head-timeout-ms",
    "600000",
];

#[tokio::test]
async fn where_all_places_are_taken_who_has_asked_nothing_for_longest_makes_room() {
    let cell = ScriptedCell::listen().await;
    let options = options(json!({ "alice": at(cell.addr()) }));
    let router = Router::start(options.args(ROOM_FOR_THREE)).await;
    let nobody = "GET / HTTP/1.1\r\nhost: nobody.example.com\r\n\r\n";
    let mut busy = Raw::connect(router.addr()).await.unwrap();
    let request = format!("GET / HTTP/1.1\r\nhost: {HOST}\r\n\r\n");
    busy.write(request).await.unwrap();
    let (mut upstream, _) = cell.request().await;
    let mut answered = Raw::connect(router.addr()).await.unwrap();
    answered.write(nobody).await.unwrap();
    assert_eq!(answered.answer().await.unwrap().status, 404);
    let mut silent = Raw::connect(router.addr()).await.unwrap();
    let mut fourth = Raw::connect(router.addr()).await.unwrap();
    fourth.write(nobody).await.unwrap();
    assert_eq!(fourth.answer().await.unwrap().status, 404);
    answered.ended().await;
    let mut fifth = Raw::connect(router.addr()).await.unwrap();
    fifth.write(nobody).await.unwrap();
    assert_eq!(fifth.answer().await.unwrap().status, 404);
    silent.ended().await;
    let answer = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
    upstream.write(answer).await.unwrap();
    assert_eq!(busy.answer().await.unwrap().text(), "ok");
    // Nobody waits any more, so nobody has to leave.
    for client in [&mut fourth, &mut fifth, &mut busy] {
        client.write(nobody).await.unwrap();
        assert_eq!(client.answer().await.unwrap().status, 404);
    }
}

#[tokio::test]
async fn nobody_leaves_for_a_client_with_too_many_connections() {
    let limits = [
        "--max-connections",
        "2",
        "--max-connections-per-client",
        "2",
    ];
    let (router, _cell) = door(limits).await;
    let mut idle = [stays(&router).await, stays(&router).await];
    let mut third = Raw::connect(router.addr()).await.unwrap();
    third.ended().await;
    let request = format!("GET / HTTP/1.1\r\nhost: {HOST}\r\n\r\n");
    for client in &mut idle {
        client.write(&request).await.unwrap();
        assert_eq!(client.answer().await.unwrap().status, StatusCode::OK);
    }
}

#[tokio::test]
async fn an_http2_connection_on_which_nothing_is_asked_makes_room_too() {
    let (router, _cell) = door(ROOM_FOR_THREE).await;
    let mut client = Frames::connect(router.addr(), &[]).await.unwrap();
    let lines = [
        (":method", "GET"),
        (":scheme", "http"),
        (":path", "/"),
        (":authority", HOST),
    ];
    client.send(head(1, END_STREAM, &lines)).await.unwrap();
    assert!(client.find(|frame| frame.ends()).await.is_some());
    let _others = [stays(&router).await, stays(&router).await];
    let leaves = async {
        let goaway = client.find(|frame| frame.kind == GOAWAY).await.unwrap();
        assert_eq!(goaway.code(), Some(0));
        let ping = client.find(|frame| frame.kind == PING).await.unwrap();
        let heard = frame(PING, ACK, 0, ping.payload);
        client.send(heard).await.unwrap();
        client.end().await;
    };
    tokio::join!(leaves, stays(&router));
}

/// Sends an answer without an end, as fast as it is taken; returns once nobody takes it any more.
async fn pours(cell: &ScriptedCell) {
    let (mut upstream, _) = cell.request().await;
    upstream.write("HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
    while upstream.write([0; 65536]).await.is_ok() {}
}

#[tokio::test]
async fn a_client_that_only_sips_is_given_up() {
    let cell = ScriptedCell::listen().await;
    let entry = json!({
        "address": cell.addr().to_string(), "idle_timeout_ms": 1000, "min_answer_rate": 1_000_000,
    });
    let router = Router::start(options(json!({ "alice": entry }))).await;
    let mut client = Raw::connect(router.addr()).await.unwrap();
    client
        .write(format!("GET /x HTTP/1.1\r\nhost: {HOST}\r\n\r\n"))
        .await
        .unwrap();
    // It never pauses for as long as it may, and comes to an end all the same.
    let sips = async {
        let mut sips = tokio::time::interval(Duration::from_millis(50));
        while client.some().await.is_ok_and(|some| !some.is_empty()) {
            sips.tick().await;
        }
    };
    tokio::join!(sips, pours(&cell));
    let record = router.next_record(|line| line["path"] == "/x").await;
    assert_eq!(record["response_body"], "client_stalled", "{record}");
    assert_eq!(record["error_by"], "client");
    assert!(
        record["error"].as_str().unwrap().contains("slower than"),
        "{record}"
    );
}

#[tokio::test]
async fn plain_http_is_sent_to_https_and_a_challenge_is_not() {
    let flags = [
        "--https-redirect",
        "--https-port",
        "8443",
        "--trusted-proxies",
        "127.0.0.1/32",
    ];
    let (router, cell) = door(flags).await;
    let mut client = Raw::connect(router.addr()).await.unwrap();
    let ask = |head: &str| format!("{head}\r\nx-forwarded-proto: http\r\n\r\n");
    for (head, location) in [
        (
            format!("GET /a?b=c HTTP/1.1\r\nhost: {HOST}:8080"),
            "https://alice.example.com:8443/a?b=c",
        ),
        (
            format!("POST http://{HOST}/a HTTP/1.1\r\nhost: {HOST}"),
            "https://alice.example.com:8443/a",
        ),
    ] {
        client.write(ask(&head)).await.unwrap();
        let answer = client.answer().await.unwrap();
        assert_eq!(answer.status, StatusCode::PERMANENT_REDIRECT);
        assert_eq!(answer.header("location"), location);
        let record = router
            .next_record(|line: &Value| line["status"] == 308)
            .await;
        assert_eq!(
            (&record["lane"], &record["reason"]),
            (&json!("answer"), &json!("use_https"))
        );
    }
    assert_eq!(cell.seen(), 0);
    for request in [
        ask(&format!(
            "GET /.well-known/acme-challenge/x HTTP/1.1\r\nhost: {HOST}"
        )),
        format!("GET / HTTP/1.1\r\nhost: {HOST}\r\nx-forwarded-proto: https\r\n\r\n"),
        format!("GET / HTTP/1.1\r\nhost: {HOST}\r\n\r\n"),
    ] {
        client.write(request).await.unwrap();
        assert_eq!(client.answer().await.unwrap().status, StatusCode::OK);
    }
}

#[tokio::test]
async fn a_redirect_that_leads_nowhere_is_refused_at_the_start() {
    let (status, said) = Router::refused(options(json!({})).args(["--https-redirect"])).await;
    assert_eq!(status.code(), Some(1));
    assert!(said.contains("--tls-listen"), "{said}");
}
