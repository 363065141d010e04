//! The stream lane: bytes go through whole, both ways, in constant memory, and every end is told to the other side.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use futures_util::FutureExt as _;
use futures_util::StreamExt;
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Empty};
use integration_tests::client::{self, Http, Raw};
use integration_tests::fly::MachineSpec;
use integration_tests::{Router, ScriptedCell};
use ring::digest::{Context, SHA256};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpSocket};
use tokio::time::{Duration, timeout};

use crate::scene::{
    HOST, at, digest_of_pieces, hex, names, options, pieces, real, router, scripted,
};

const MIB: u64 = 1024 * 1024;

/// What the router may use at most, in bytes.
const MEMORY: u64 = 48 * MIB;

fn ended(status: u16) -> impl FnMut(&Value) -> bool {
    move |record| record["status"] == status
}

fn alice() -> MachineSpec {
    MachineSpec::cell("cells", "alice")
}

fn put(name: &str, length: Option<u64>) -> http::request::Builder {
    let request = Request::put(format!("/files/{name}")).header("host", HOST);
    match length {
        Some(length) => request.header("content-length", length),
        None => request,
    }
}

#[tokio::test]
async fn large_bodies_arrive_whole_in_every_framing() {
    const BYTES: u64 = 24 * MIB + 17;
    let (router, _cell, _fly) = real(alice()).await;
    let expected = digest_of_pieces(BYTES);
    for version in [Http::One, Http::Two] {
        for length in [Some(BYTES), None] {
            let request = put("big", length).body(client::chunked(pieces(BYTES)));
            let stored = client::send(router.addr(), version, request.unwrap()).await;
            let stored = stored.unwrap().json();
            assert_eq!(
                (&stored["bytes"], &stored["sha256"]),
                (&json!(BYTES), &json!(expected)),
                "{version:?} {length:?}"
            );
            let record = router.next_record(|record| record["method"] == "PUT").await;
            assert_eq!(
                (&record["bytes_in"], &record["request_body"]),
                (&json!(BYTES), &json!("complete"))
            );
        }
        let request = Request::get("/files/big").header("host", HOST);
        let request = request.body(Empty::<Bytes>::new()).unwrap();
        let response = client::open(router.addr(), version, request).await.unwrap();
        assert_eq!(response.headers()["content-length"], BYTES.to_string());
        let mut digest = Context::new(&SHA256);
        let mut body = response.into_body().into_data_stream();
        while let Some(piece) = body.next().await {
            digest.update(&piece.unwrap());
        }
        assert_eq!(hex(digest), expected, "{version:?}");
        let record = router.next_record(|record| record["method"] == "GET").await;
        assert_eq!(
            (&record["bytes_out"], &record["response_body"]),
            (&json!(BYTES), &json!("complete"))
        );
    }
}

#[tokio::test]
async fn a_gibibyte_goes_through_in_constant_memory() {
    const BYTES: u64 = 1024 * MIB;
    let (router, _cell, _fly) = real(alice()).await;
    let request = put("huge", None)
        .body(client::chunked(pieces(BYTES)))
        .unwrap();
    let stored = client::send(router.addr(), Http::One, request)
        .await
        .unwrap();
    assert_eq!(stored.json()["sha256"], digest_of_pieces(BYTES));
    let peak = router.peak_memory_bytes();
    println!("peak memory of the router: {} KiB", peak / 1024);
    assert!(peak < MEMORY, "{peak}");
}

/// Pipes that the router has open beside those that it was started with.
fn pipes(router: &Router) -> usize {
    let folder = format!("/proc/{}/fd", router.process().id());
    let open = std::fs::read_dir(folder).unwrap();
    let links = open.filter_map(|open| std::fs::read_link(open.unwrap().path()).ok());
    links
        .filter(|link| link.to_string_lossy().starts_with("pipe:"))
        .count()
}

#[tokio::test]
async fn large_bodies_stay_in_the_kernel_between_plain_sockets() {
    const BYTES: u64 = 4 * MIB;
    let cell = ScriptedCell::listen().await;
    let registry = json!({ "alice": at(cell.addr()) });
    let router = Router::start(options(registry).env("CELL_ROUTER_SPLICE_FROM", "65536")).await;
    let before = pipes(&router);
    for (version, bytes, stays) in [
        (Http::Two, BYTES, false),
        (Http::One, 32 * 1024, false),
        (Http::One, BYTES, true),
    ] {
        let request = put("big", Some(bytes)).body(client::chunked(pieces(bytes)));
        let answering = async {
            let mut upstream = cell.accept().await;
            let head = upstream.head().await.unwrap();
            assert!(head.contains(&format!("content-length: {bytes}")), "{head}");
            let mut digest = Context::new(&SHA256);
            digest.update(
                &upstream
                    .bytes(usize::try_from(bytes).unwrap())
                    .await
                    .unwrap(),
            );
            assert_eq!(hex(digest), digest_of_pieces(bytes));
            let head =
                format!("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {bytes}\r\n\r\n");
            upstream.write(head).await.unwrap();
            let body: Vec<Bytes> = pieces(bytes).collect().await;
            upstream.write(body.concat()).await.unwrap();
            upstream
        };
        let asking = client::send(router.addr(), version, request.unwrap());
        let (answer, _upstream) = tokio::join!(asking, answering);
        let mut digest = Context::new(&SHA256);
        digest.update(&answer.unwrap().body);
        assert_eq!(hex(digest), digest_of_pieces(bytes));
        assert_eq!(pipes(&router) > before, stays, "{version:?} {bytes}");
    }
}

/// Bytes of a chunked body, in as many chunks as they come.
async fn in_chunks(from: &mut Raw, bytes: usize) -> Vec<u8> {
    let mut came = Vec::new();
    while came.len() < bytes {
        came.extend(from.chunk().await.unwrap());
    }
    came
}

#[tokio::test]
async fn a_cell_may_answer_while_it_reads() {
    let (router, cell) = scripted().await;
    let mut client = Raw::connect(router.addr()).await.unwrap();
    client
        .write(format!(
            "POST /echo HTTP/1.1\r\nhost: {HOST}\r\ntransfer-encoding: chunked\r\n\r\n"
        ))
        .await
        .unwrap();
    let (mut cell, _) = cell.request().await;
    cell.write("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
        .await
        .unwrap();
    let head = client.head().await.unwrap();
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    // The long ones go through the kernel: their end is not kept until something follows.
    let (two, three) = ("two".repeat(40_000), "three".repeat(40_000));
    let rounds = ["one", &two, &three, "four"];
    for round in rounds {
        let chunk = format!("{:x}\r\n{round}\r\n", round.len());
        let (sent, came) = tokio::join!(client.write(&chunk), in_chunks(&mut cell, round.len()));
        sent.unwrap();
        assert_eq!(came, round.as_bytes());
        let (sent, came) = tokio::join!(cell.write(&chunk), in_chunks(&mut client, round.len()));
        sent.unwrap();
        assert_eq!(came, round.as_bytes());
    }
    let all: usize = rounds.iter().map(|round| round.len()).sum();
    client.write("0\r\n\r\n").await.unwrap();
    assert_eq!(cell.chunk().await.unwrap(), b"");
    cell.write("0\r\n\r\n").await.unwrap();
    assert_eq!(client.chunk().await.unwrap(), b"");
    let record = router.next_record(ended(200)).await;
    assert_eq!(
        (&record["bytes_in"], &record["bytes_out"]),
        (&json!(all), &json!(all))
    );
}

#[tokio::test]
async fn large_bodies_go_both_ways_at_once() {
    const BYTES: u64 = 64 * MIB;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let router = router(json!({ "alice": at(listener.local_addr().unwrap()) })).await;
    let head = format!("content-length: {BYTES}\r\n\r\n");
    let cell = async {
        let mut cell = BufReader::new(listener.accept().await.unwrap().0);
        while cell.read_line(&mut String::new()).await.unwrap() > 2 {}
        let (came, mut goes) = tokio::io::split(cell);
        let ok = format!("HTTP/1.1 200 OK\r\n{head}");
        goes.write_all(ok.as_bytes()).await.unwrap();
        tokio::io::copy(&mut came.take(BYTES), &mut goes)
            .await
            .unwrap();
    };
    // With so little room the answer waits for the client now and then, as the request does for the cell.
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(128 * 1024).unwrap();
    let client = socket.connect(router.addr()).await.unwrap();
    let (mut answer, mut request) = client.into_split();
    let sending = async {
        let head = format!("POST /echo HTTP/1.1\r\nhost: {HOST}\r\n{head}");
        request.write_all(head.as_bytes()).await.unwrap();
        let mut pieces = pieces(BYTES);
        while let Some(piece) = pieces.next().await {
            request.write_all(&piece).await.unwrap();
        }
    };
    let receiving = async {
        let mut answer = BufReader::new(&mut answer);
        while answer.read_line(&mut String::new()).await.unwrap() > 2 {}
        let mut digest = Context::new(&SHA256);
        let mut buffer = vec![0; 64 * 1024];
        for _ in 0..BYTES / buffer.len() as u64 {
            answer.read_exact(&mut buffer).await.unwrap();
            digest.update(&buffer);
        }
        assert_eq!(hex(digest), digest_of_pieces(BYTES));
    };
    // If one direction took what wakes the other, both would stand still for half a second again and again.
    let both = async { tokio::join!(cell, sending, receiving) };
    timeout(Duration::from_secs(60), both).await.unwrap();
}

#[tokio::test]
async fn answers_without_a_body_keep_their_fields_and_the_connection() {
    let (router, cell) = scripted().await;
    let mut client = Raw::connect(router.addr()).await.unwrap();
    let mut upstream = None;
    for (method, answer, kept) in [
        (
            "HEAD",
            "HTTP/1.1 200 OK\r\ncontent-length: 12345\r\netag: \"a\"\r\n\r\n",
            &["content-length: 12345", "etag: \"a\""][..],
        ),
        (
            "DELETE",
            "HTTP/1.1 204 No Content\r\nx-deleted: 1\r\n\r\n",
            &["x-deleted: 1"],
        ),
        (
            "GET",
            "HTTP/1.1 304 Not Modified\r\netag: \"a\"\r\ncache-control: max-age=5\r\n\r\n",
            &["etag: \"a\"", "cache-control: max-age=5"],
        ),
        (
            "GET",
            "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n",
            &["content-length: 0"],
        ),
    ] {
        client
            .write(format!("{method} / HTTP/1.1\r\nhost: {HOST}\r\n\r\n"))
            .await
            .unwrap();
        let upstream = match &mut upstream {
            Some(upstream) => upstream,
            None => upstream.insert(cell.accept().await),
        };
        upstream.head().await.unwrap();
        upstream.write(answer).await.unwrap();
        let head = client.head().await.unwrap();
        assert_eq!(head.lines().next(), answer.lines().next());
        for line in kept {
            assert!(head.lines().any(|l| l == *line), "{line} in {head}");
        }
        let bodiless = head.contains(" 204 ") || head.contains(" 304 ");
        assert!(!bodiless || !names(&head).contains(&"transfer-encoding".to_owned()));
    }
}

#[tokio::test]
async fn answers_are_http11_whatever_the_cell_speaks() {
    let (router, cell) = scripted().await;
    let mut client = Raw::connect(router.addr()).await.unwrap();
    for framing in ["content-length: 2\r\n", ""] {
        client
            .write(format!("GET / HTTP/1.1\r\nhost: {HOST}\r\n\r\n"))
            .await
            .unwrap();
        let (mut upstream, _) = cell.request().await;
        upstream
            .write(format!("HTTP/1.0 200 OK\r\n{framing}\r\nok"))
            .await
            .unwrap();
        drop(upstream);
        let head = client.head().await.unwrap();
        assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
        let body = if framing.is_empty() {
            client.chunk().await.unwrap()
        } else {
            client.bytes(2).await.unwrap()
        };
        assert_eq!(body, b"ok");
    }
}

#[tokio::test]
async fn a_coding_overrides_a_length_in_an_answer() {
    let (router, cell) = scripted().await;
    for framing in [
        "content-length: 3\r\ntransfer-encoding: chunked",
        "transfer-encoding: chunked\r\ncontent-length: 3",
    ] {
        let answered = async {
            let (mut cell, _) = cell.request().await;
            cell.write(format!(
                "HTTP/1.1 200 OK\r\nconnection: close\r\n{framing}\r\n\r\n5\r\nhello\r\n0\r\n\r\n"
            ))
            .await
            .unwrap();
        };
        let (answer, ()) = tokio::join!(client::get(router.addr(), HOST, "/"), answered);
        assert_eq!(answer.unwrap().text(), "hello", "{framing}");
    }
}

#[tokio::test]
async fn trailers_go_both_ways() {
    let (router, cell) = scripted().await;
    let mut client = Raw::connect(router.addr()).await.unwrap();
    client
        .write(format!(
            "POST / HTTP/1.1\r\nhost: {HOST}\r\nte: trailers\r\ntrailer: x-sum, cell-signature\r\ntransfer-encoding: chunked\r\n\r\n\
             2\r\nhi\r\n0\r\ncell-signature: v1.forged\r\nx-sum: asked\r\n\r\n"
        ))
        .await
        .unwrap();
    let (mut cell, head) = cell.request().await;
    assert!(head.contains("te: trailers"), "{head}");
    assert_eq!(cell.chunk().await.unwrap(), b"hi");
    assert_eq!(cell.chunk().await.unwrap(), b"");
    assert_eq!(cell.head().await.unwrap(), "x-sum: asked\r\n\r\n");
    cell.write(
        "HTTP/1.1 200 OK\r\ntrailer: x-sum, fly-replay\r\ntransfer-encoding: chunked\r\n\r\n\
         2\r\nho\r\n0\r\nfly-replay: app=bob\r\nx-sum: told\r\n\r\n",
    )
    .await
    .unwrap();
    client.head().await.unwrap();
    assert_eq!(client.chunk().await.unwrap(), b"ho");
    assert_eq!(client.chunk().await.unwrap(), b"");
    assert_eq!(client.head().await.unwrap(), "x-sum: told\r\n\r\n");
}

#[tokio::test]
async fn trailers_reach_http2_clients() {
    let (router, cell) = scripted().await;
    let answered = async {
        let (mut cell, _) = cell.request().await;
        cell.write(
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nho\r\n0\r\nx-sum: told\r\n\r\n",
        )
        .await
        .unwrap();
        cell
    };
    let request = Request::get("/")
        .header("host", HOST)
        .header("te", "trailers");
    let request = request.body(Empty::<Bytes>::new()).unwrap();
    let (response, _cell) = tokio::join!(client::open(router.addr(), Http::Two, request), answered);
    let body = response.unwrap().into_body().collect().await.unwrap();
    assert_eq!(body.trailers().unwrap()["x-sum"], "told");
}

#[tokio::test]
async fn events_arrive_one_by_one() {
    let (router, cell) = scripted().await;
    for version in [Http::One, Http::Two] {
        let request = Request::get("/events").header("host", HOST);
        let request = request.body(Empty::<Bytes>::new()).unwrap();
        let answered = async {
            let (mut cell, _) = cell.request().await;
            cell.write("HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n")
                .await
                .unwrap();
            cell
        };
        let (response, mut cell) =
            tokio::join!(client::open(router.addr(), version, request), answered);
        let mut body = response.unwrap().into_body().into_data_stream();
        for event in ["data: 1\n\n", "data: 2\n\n"] {
            cell.write(event).await.unwrap();
            assert_eq!(body.next().await.unwrap().unwrap(), event);
        }
        drop(cell);
        // HTTP/2 may say the end with an empty frame.
        while let Some(rest) = body.next().await {
            assert_eq!(rest.unwrap(), "");
        }
    }
}

#[tokio::test]
async fn fields_of_one_connection_stay_on_it() {
    let (router, cell) = scripted().await;
    let mut client = Raw::connect(router.addr()).await.unwrap();
    client
        .write(format!(
            "GET / HTTP/1.1\r\nhost: {HOST}\r\nconnection: x-one, keep-alive\r\nconnection: X-Two\r\nx-one: 1\r\n\
             x-two: 2\r\nx-three: 3\r\nkeep-alive: timeout=5\r\nproxy-connection: keep-alive\r\nte: gzip\r\n\
             upgrade: h2c\r\nhttp2-settings: AAMAAABk\r\n\r\n"
        ))
        .await
        .unwrap();
    let (mut cell, head) = cell.request().await;
    let got = names(&head);
    assert!(got.contains(&"x-three".to_owned()));
    let mine = [
        "connection",
        "x-one",
        "x-two",
        "keep-alive",
        "proxy-connection",
        "te",
        "upgrade",
        "http2-settings",
    ];
    for name in mine {
        assert!(!got.contains(&name.to_owned()), "{name} in {head}");
    }
    cell.write(
        "HTTP/1.1 200 OK\r\nconnection: x-one\r\nconnection: x-two\r\nx-one: 1\r\nx-two: 2\r\nx-three: 3\r\n\
         keep-alive: timeout=1\r\nproxy-connection: close\r\nupgrade: h2c\r\ncontent-length: 0\r\n\r\n",
    )
    .await
    .unwrap();
    let head = client.head().await.unwrap();
    let got = names(&head);
    assert!(got.contains(&"x-three".to_owned()));
    for name in [
        "x-one",
        "x-two",
        "keep-alive",
        "proxy-connection",
        "upgrade",
    ] {
        assert!(!got.contains(&name.to_owned()), "{name} in {head}");
    }
}

async fn expecting(router: &integration_tests::Router) -> Raw {
    let mut client = Raw::connect(router.addr()).await.unwrap();
    client
        .write(format!(
            "PUT /x HTTP/1.1\r\nhost: {HOST}\r\nexpect: 100-continue\r\ncontent-length: 5\r\n\r\n"
        ))
        .await
        .unwrap();
    client
}

#[tokio::test]
async fn the_cell_decides_whether_the_body_is_sent() {
    let (router, cell) = scripted().await;
    let mut client = expecting(&router).await;
    let (mut upstream, head) = cell.request().await;
    assert!(
        head.to_ascii_lowercase().contains("expect: 100-continue"),
        "{head}"
    );
    upstream
        .write("HTTP/1.1 100 Continue\r\n\r\n")
        .await
        .unwrap();
    assert_eq!(
        client.head().await.unwrap(),
        "HTTP/1.1 100 Continue\r\n\r\n"
    );
    client.write("hello").await.unwrap();
    assert_eq!(upstream.bytes(5).await.unwrap(), b"hello");
    upstream
        .write("HTTP/1.1 201 Created\r\ncontent-length: 0\r\n\r\n")
        .await
        .unwrap();
    let head = client.head().await.unwrap();
    assert!(head.starts_with("HTTP/1.1 201"), "{head}");
}

#[tokio::test]
async fn a_final_answer_comes_without_the_body_having_been_asked_for() {
    let (router, cell) = scripted().await;
    for status in ["417 Expectation Failed", "413 Payload Too Large"] {
        let mut client = expecting(&router).await;
        let (mut upstream, _) = cell.request().await;
        upstream
            .write(format!(
                "HTTP/1.1 {status}\r\ncontent-length: 3\r\n\r\nno\n"
            ))
            .await
            .unwrap();
        let first = client.line().await.unwrap();
        assert_eq!(first, format!("HTTP/1.1 {status}"));
        client.head().await.unwrap();
        assert_eq!(client.bytes(3).await.unwrap(), b"no\n");
        // No request may follow one whose body was never sent.
        upstream.ended().await;
    }
}

#[tokio::test]
async fn an_early_answer_arrives_whole_and_its_connection_is_not_used_again() {
    let (router, cell) = scripted().await;
    let mut client = Raw::connect(router.addr()).await.unwrap();
    client
        .write(format!(
            "PUT /x HTTP/1.1\r\nhost: {HOST}\r\ncontent-length: 2000000\r\n\r\n"
        ))
        .await
        .unwrap();
    client.write([0; 100_000]).await.unwrap();
    let (mut upstream, _) = cell.request().await;
    upstream.bytes(100_000).await.unwrap();
    upstream
        .write("HTTP/1.1 413 Payload Too Large\r\ncontent-length: 9\r\n\r\ntoo large")
        .await
        .unwrap();
    // Still sending: the answer must not be lost to it.
    client.write([0; 100_000]).await.unwrap();
    let answer = client.answer().await.unwrap();
    assert_eq!(
        (answer.status.as_u16(), answer.text()),
        (413, "too large".to_owned())
    );
    upstream.ended().await;
    let record = router.next_record(ended(413)).await;
    assert_eq!(record["request_body"], "not_wanted");

    let next = tokio::spawn(client::get(router.addr(), HOST, "/next"));
    let (mut upstream, head) = cell.request().await;
    assert!(head.starts_with("GET /next "), "{head}");
    upstream
        .write("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
        .await
        .unwrap();
    assert_eq!(next.await.unwrap().unwrap().status, StatusCode::OK);
}

#[tokio::test]
async fn an_early_answer_survives_the_reset_that_follows_it() {
    let (router, cell) = scripted().await;
    // Whether the reset is seen by a write or by a read is a race, so there are several.
    for _ in 0..50 {
        let mut client = Raw::connect(router.addr()).await.unwrap();
        client
            .write(format!(
                "PUT /x HTTP/1.1\r\nhost: {HOST}\r\ncontent-length: 2000000\r\n\r\n"
            ))
            .await
            .unwrap();
        let (mut upstream, _) = cell.request().await;
        let sending = tokio::spawn(async move {
            client.write(vec![0; 2_000_000]).await.unwrap();
            client.answer().await
        });
        upstream.bytes(100_000).await.unwrap();
        upstream
            .write("HTTP/1.1 413 Payload Too Large\r\ncontent-length: 9\r\n\r\ntoo large")
            .await
            .unwrap();
        upstream.finish().await.unwrap();
        // Closing with bytes unread is what resets a connection.
        drop(upstream);
        let answer = sending.await.unwrap().unwrap();
        assert_eq!(
            (answer.status.as_u16(), answer.text()),
            (413, "too large".to_owned())
        );
    }
}

#[tokio::test]
async fn a_real_cells_413_reaches_a_client_that_goes_on_sending() {
    let (router, _cell, _fly) = real(alice().env("CELL_MAX_UPLOAD_BYTES", "100000")).await;
    for version in [Http::One, Http::Two] {
        let request = put("big", None)
            .body(client::chunked(pieces(4 * MIB)))
            .unwrap();
        let answer = client::send(router.addr(), version, request).await.unwrap();
        assert_eq!(answer.status, StatusCode::PAYLOAD_TOO_LARGE, "{version:?}");
        assert!(answer.text().contains("at most 100000 bytes"));
    }
    let files = client::get(router.addr(), HOST, "/files").await.unwrap();
    assert_eq!(files.json(), json!([]));
}

#[tokio::test]
async fn a_cut_upload_reaches_the_cell_as_cut() {
    let (router, cell, _fly) = real(alice()).await;
    for framing in ["content-length: 2000000", "transfer-encoding: chunked"] {
        let mut client = Raw::connect(router.addr()).await.unwrap();
        client
            .write(format!(
                "PUT /files/cut HTTP/1.1\r\nhost: {HOST}\r\n{framing}\r\n\r\n"
            ))
            .await
            .unwrap();
        client.write(format!("{:x}\r\n", 100_000)).await.unwrap();
        client.write([b'x'; 100_000]).await.unwrap();
        drop(client);
        let record = router.next_record(|record| record["method"] == "PUT").await;
        assert_eq!(record["error_by"], "client", "{record}");
        let log = cell.with_process(|process| process.stdout.clone()).unwrap();
        log.take(|line| line.contains("upload cut, nothing kept").then_some(()))
            .await
            .unwrap();
    }
    let files = client::get(router.addr(), HOST, "/files").await.unwrap();
    assert_eq!(files.json(), json!([]));
}

#[tokio::test]
async fn a_cut_download_reaches_the_client_as_cut() {
    let (router, cell) = scripted().await;
    for version in [Http::One, Http::Two] {
        for framing in [
            "content-length: 1000\r\n\r\nhalf",
            "transfer-encoding: chunked\r\n\r\n4\r\nhalf\r\n",
        ] {
            let answered = async {
                let (mut cell, _) = cell.request().await;
                cell.write(format!("HTTP/1.1 200 OK\r\n{framing}"))
                    .await
                    .unwrap();
            };
            let request = Request::get("/").header("host", HOST);
            let request = request.body(Empty::<Bytes>::new()).unwrap();
            let (response, ()) =
                tokio::join!(client::open(router.addr(), version, request), answered);
            let mut body = response.unwrap().into_body().into_data_stream();
            assert_eq!(body.next().await.unwrap().unwrap(), "half");
            let cut = body.next().await.expect("not the end, but an error");
            assert!(cut.is_err(), "{version:?} {framing}");
            let record = router.next_record(ended(200)).await;
            assert_eq!(
                (&record["response_body"], &record["error_by"]),
                (&json!("cell_cut"), &json!("cell"))
            );
        }
    }
}

#[tokio::test]
async fn a_cell_learns_at_once_that_its_client_left() {
    let (router, cell) = scripted().await;
    let mut client = Raw::connect(router.addr()).await.unwrap();
    client
        .write(format!("GET /slow HTTP/1.1\r\nhost: {HOST}\r\n\r\n"))
        .await
        .unwrap();
    let (mut upstream, _) = cell.request().await;
    drop(client);
    upstream.ended().await;
    let record = router.next_record(|record| record["path"] == "/slow").await;
    assert_eq!(
        (&record["status"], &record["reason"], &record["error_by"]),
        (&json!(499), &json!("client_gone"), &json!("client"))
    );

    let mut client = Raw::connect(router.addr()).await.unwrap();
    client
        .write(format!("GET /half HTTP/1.1\r\nhost: {HOST}\r\n\r\n"))
        .await
        .unwrap();
    let (mut upstream, _) = cell.request().await;
    upstream
        .write("HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\nhalf")
        .await
        .unwrap();
    client.head().await.unwrap();
    assert_eq!(client.bytes(4).await.unwrap(), b"half");
    drop(client);
    upstream.ended().await;
    let record = router.next_record(|record| record["path"] == "/half").await;
    assert_eq!(
        (
            &record["status"],
            &record["bytes_out"],
            &record["response_body"]
        ),
        (&json!(200), &json!(4), &json!("cut"))
    );
}

#[tokio::test]
async fn an_idle_connection_that_the_cell_closed_costs_nobody_a_request() {
    let (router, cell) = scripted().await;
    for method in ["GET", "POST"] {
        for path in ["/first", "/second"] {
            let request = Request::builder().method(method).uri(path);
            let request = request.header("host", HOST).body(client::full("")).unwrap();
            let answered = tokio::spawn(client::send(router.addr(), Http::One, request));
            let (mut upstream, head) = cell.request().await;
            assert!(head.starts_with(&format!("{method} {path} ")), "{head}");
            upstream
                .write("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
                .await
                .unwrap();
            // It said nothing of closing, and closes all the same.
            drop(upstream);
            assert_eq!(answered.await.unwrap().unwrap().status, StatusCode::OK);
        }
    }
}

/// A cell that has begun to answer is at work on the request.
#[tokio::test]
async fn after_one_byte_of_an_answer_nothing_is_sent_again() {
    let (router, cell) = scripted().await;
    for begun in [
        "H",
        "HTTP/1.1 200 OK\r\ncontent-le",
        "HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n",
    ] {
        for http in [Http::One, Http::Two] {
            let answered = tokio::spawn(client::get(router.addr(), HOST, "/warm"));
            let (mut upstream, _) = cell.request().await;
            upstream
                .write("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
                .await
                .unwrap();
            answered.await.unwrap().unwrap();
            router.next_record(|record| record["path"] == "/warm").await;
            let request = Request::get("/once").header("host", HOST);
            let request = request.body(client::full("")).unwrap();
            let answered = tokio::spawn(client::send(router.addr(), http, request));
            assert!(upstream.head().await.unwrap().starts_with("GET /once "));
            upstream.write(begun).await.unwrap();
            upstream.finish().await.unwrap();
            let answered = answered.await.unwrap().unwrap();
            assert_eq!(answered.status, StatusCode::BAD_GATEWAY, "{begun:?}");
            assert!(cell.accept().now_or_never().is_none(), "{begun:?}");
        }
    }
}

#[tokio::test]
async fn what_may_have_arrived_is_sent_again_only_if_that_does_no_harm() {
    let (router, cell) = scripted().await;
    let warm = async |path: &'static str| {
        let answered = tokio::spawn(client::get(router.addr(), HOST, path));
        let (mut upstream, _) = cell.request().await;
        upstream
            .write("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
            .await
            .unwrap();
        answered.await.unwrap().unwrap();
        router.next_record(|record| record["path"] == path).await;
        upstream
    };

    let mut upstream = warm("/warm/get").await;
    let answered = tokio::spawn(client::get(router.addr(), HOST, "/again"));
    assert!(upstream.head().await.unwrap().starts_with("GET /again "));
    drop(upstream);
    let (mut second, head) = cell.request().await;
    assert!(head.starts_with("GET /again "), "{head}");
    second
        .write("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 0\r\n\r\n")
        .await
        .unwrap();
    assert_eq!(answered.await.unwrap().unwrap().status, StatusCode::OK);
    drop(second);

    let mut upstream = warm("/warm/post").await;
    let answered = tokio::spawn(client::post(router.addr(), HOST, "/once", "pay"));
    assert!(upstream.head().await.unwrap().starts_with("POST /once "));
    assert_eq!(upstream.bytes(3).await.unwrap(), b"pay");
    drop(upstream);
    assert_eq!(
        answered.await.unwrap().unwrap().status,
        StatusCode::BAD_GATEWAY
    );
    let fence = tokio::spawn(client::get(router.addr(), HOST, "/fence"));
    let (_third, head) = cell.request().await;
    assert!(head.starts_with("GET /fence "), "{head}");
    fence.abort();
}

#[tokio::test]
async fn a_cell_that_talks_garbage_is_a_bad_gateway() {
    let (router, cell) = scripted().await;
    for (garbage, reason) in [
        ("220 smtp.example.com ESMTP\r\n\r\n", "bad_answer"),
        ("HTTP/1.1 abc\r\n\r\n", "bad_answer"),
        (
            "HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nab",
            "bad_answer",
        ),
        ("", "cell_broke_off"),
    ] {
        let answered = tokio::spawn(client::get(router.addr(), HOST, "/"));
        let (mut upstream, _) = cell.request().await;
        upstream.write(garbage).await.unwrap();
        drop(upstream);
        let answer = answered.await.unwrap().unwrap();
        assert_eq!(answer.status, StatusCode::BAD_GATEWAY, "{garbage:?}");
        let record = router.next_record(ended(502)).await;
        assert_eq!(
            (&record["reason"], &record["error_by"]),
            (&json!(reason), &json!("cell"))
        );
    }
}

#[tokio::test]
async fn a_full_cell_asks_for_patience_and_takes_the_next() {
    let cell = integration_tests::ScriptedCell::listen().await;
    let entry = json!({ "address": cell.addr().to_string(), "max_in_flight": 1, "queue_timeout_ms": 0, "retry_after_s": 7 });
    let router = integration_tests::Router::start(options(json!({ "alice": entry }))).await;
    let first = tokio::spawn(client::get(router.addr(), HOST, "/first"));
    let (mut upstream, _) = cell.request().await;
    let refused = client::get(router.addr(), HOST, "/second").await.unwrap();
    assert_eq!(
        (refused.status.as_u16(), refused.header("retry-after")),
        (503, "7")
    );
    assert_eq!(router.next_record(ended(503)).await["reason"], "cell_full");
    upstream
        .write("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
        .await
        .unwrap();
    assert_eq!(first.await.unwrap().unwrap().status, StatusCode::OK);
    router.next_record(ended(200)).await;
    let third = tokio::spawn(client::get(router.addr(), HOST, "/third"));
    assert!(upstream.head().await.unwrap().starts_with("GET /third "));
    third.abort();
}

/// What kernel and router may hold between two ends of which one is slow: four socket buffers at their largest, and
/// the router's own.
const BETWEEN: u64 = 48 * MIB;

#[tokio::test]
async fn a_slow_cell_slows_its_client() {
    const BYTES: u64 = 256 * MIB;
    let (router, cell) = scripted().await;
    let sent = Arc::new(AtomicU64::new(0));
    let counted = {
        let sent = Arc::clone(&sent);
        pieces(BYTES).inspect(move |piece| {
            sent.fetch_add(piece.len() as u64, Ordering::Relaxed);
        })
    };
    let request = put("slow", Some(BYTES))
        .body(client::chunked(counted))
        .unwrap();
    let answered = tokio::spawn(client::send(router.addr(), Http::One, request));
    let (mut upstream, _) = cell.request().await;
    let (mut read, mut most) = (0, 0);
    while read < BYTES {
        read += upstream.some().await.unwrap().len() as u64;
        most = most.max(sent.load(Ordering::Relaxed) - read);
        // The client gets more turns than the cell.
        for _ in 0..8 {
            tokio::task::yield_now().await;
        }
    }
    assert!(most < BETWEEN, "{most} bytes were under way");
    upstream
        .write("HTTP/1.1 201 Created\r\ncontent-length: 0\r\n\r\n")
        .await
        .unwrap();
    assert_eq!(answered.await.unwrap().unwrap().status, StatusCode::CREATED);
    assert!(router.peak_memory_bytes() < MEMORY);
}

/// A task that runs on while something else is waited for.
struct Spawned<T>(tokio::task::JoinHandle<T>);

#[tokio::test]
async fn a_slow_client_slows_its_cell() {
    const BYTES: u64 = 256 * MIB;
    let (router, cell) = scripted().await;
    for version in [Http::One, Http::Two] {
        let sent = Arc::new(AtomicU64::new(0));
        let serving = async {
            let (mut upstream, _) = cell.request().await;
            let sent = Arc::clone(&sent);
            let writing = async move {
                upstream
                    .write(format!(
                        "HTTP/1.1 200 OK\r\ncontent-length: {BYTES}\r\n\r\n"
                    ))
                    .await
                    .unwrap();
                let mut pieces = pieces(BYTES);
                while let Some(piece) = pieces.next().await {
                    upstream.write(&piece).await.unwrap();
                    sent.fetch_add(piece.len() as u64, Ordering::Relaxed);
                }
                upstream
            };
            Spawned(tokio::spawn(writing))
        };
        let request = Request::get("/").header("host", HOST);
        let request = request.body(Empty::<Bytes>::new()).unwrap();
        let (response, serving) =
            tokio::join!(client::open(router.addr(), version, request), serving);
        let mut body = response.unwrap().into_body().into_data_stream();
        let (mut read, mut most) = (0, 0);
        while let Some(piece) = body.next().await {
            read += piece.unwrap().len() as u64;
            most = most.max(sent.load(Ordering::Relaxed).saturating_sub(read));
            for _ in 0..8 {
                tokio::task::yield_now().await;
            }
        }
        assert_eq!(read, BYTES);
        assert!(most < BETWEEN, "{most} bytes were under way");
        drop(serving.0.await.unwrap());
    }
    assert!(router.peak_memory_bytes() < MEMORY);
}

#[tokio::test]
async fn a_request_that_comes_back_to_its_router_is_a_loop() {
    let (router, _cell) = scripted().await;
    router.save(&crate::scene::registry(
        json!({ "alice": at(router.addr()) }),
    ));
    router
        .next_event(|event| event["message"] == "registry loaded")
        .await;
    let answer = client::get(router.addr(), HOST, "/").await.unwrap();
    assert_eq!(answer.status, StatusCode::LOOP_DETECTED);
    assert_eq!(router.next_record(ended(508)).await["reason"], "loop");
}

/// One HTTP/2 frame (RFC 9113 section 4.1).
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut frame = length[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

#[tokio::test]
async fn an_upload_that_http2_takes_back_is_cut_and_not_whole() {
    let (router, cell) = scripted().await;
    let mut head = Vec::new();
    for (name, value) in [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", "/"),
        (":authority", HOST),
    ] {
        // A literal field, not indexed, no Huffman coding (RFC 7541 section 6.2.2).
        for text in [name, value] {
            if text == name {
                head.push(0);
            }
            head.push(u8::try_from(text.len()).unwrap());
            head.extend(text.as_bytes());
        }
    }
    let mut client = client::Raw::connect(router.addr()).await.unwrap();
    let mut opening = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    opening.extend(frame(4, 0, 0, &[]));
    opening.extend(frame(1, 4, 1, &head));
    opening.extend(frame(0, 0, 1, b"piece"));
    client.write(opening).await.unwrap();
    let (mut upstream, _) = cell.request().await;
    assert_eq!(upstream.chunk().await.unwrap(), b"piece");
    // RST_STREAM with NO_ERROR.
    client.write(frame(3, 0, 1, &[0; 4])).await.unwrap();
    let end = upstream.chunk().await;
    assert!(end.is_err(), "the cell took a cut upload for a whole one");
}

/// A client that leaves, by closing its connection or by breaking it off.
fn leave(client: Raw, breaks: bool) {
    if breaks {
        client.reset().unwrap();
    }
}

#[tokio::test]
async fn a_client_that_leaves_is_missed_behind_what_it_sent_ahead() {
    let (router, cell) = scripted().await;
    for breaks in [false, true] {
        let mut client = Raw::connect(router.addr()).await.unwrap();
        let request = |path| format!("GET {path} HTTP/1.1\r\nhost: {HOST}\r\n\r\n");
        client
            .write(request("/first") + &request("/ahead").repeat(500))
            .await
            .unwrap();
        let (mut upstream, _) = cell.request().await;
        leave(client, breaks);
        upstream.ended().await;
        router.next_record(ended(499)).await;
    }
}

#[tokio::test]
async fn a_client_that_leaves_while_it_is_held_is_missed_behind_its_body() {
    let cell = ScriptedCell::listen().await;
    let mut entry = at(cell.addr());
    entry["state"] = "paused".into();
    let router = Router::start(options(json!({ "alice": entry }))).await;
    for (bytes, breaks) in [(1000, false), (40_000, false), (40_000, true)] {
        let mut client = Raw::connect(router.addr()).await.unwrap();
        client
            .write(format!(
                "POST /held HTTP/1.1\r\nhost: {HOST}\r\ncontent-length: 100000\r\n\r\n{}",
                "x".repeat(bytes)
            ))
            .await
            .unwrap();
        leave(client, breaks);
        router.next_record(ended(499)).await;
    }
}
