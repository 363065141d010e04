//! The end of a router: what runs is finished, what is idle is closed, nothing new begins.

use std::future::Future;

use bytes::Bytes;
use futures_util::StreamExt;
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Empty};
use hyper_util::rt::{TokioExecutor, TokioIo};
use integration_tests::client::{self, Http, Raw};
use integration_tests::fly::MachineSpec;
use integration_tests::http2::{DATA, END_STREAM, Frames, head};
use integration_tests::{Router, ScriptedCell};
use rustix::process::Signal;
use serde_json::json;
use tokio::net::TcpStream;

use crate::scene::{HOST, at, driven, options, real, said, scripted};

const DRAINING: &str = "draining: running work may finish";

#[tokio::test]
async fn running_work_is_finished_and_nothing_new_begins() {
    let (router, cell, _fly) = real(MachineSpec::cell("cells", "alice")).await;
    let mut idle = Raw::connect(router.addr()).await.unwrap();
    idle.write(format!("GET /up HTTP/1.1\r\nhost: {HOST}\r\n\r\n"))
        .await
        .unwrap();
    assert_eq!(idle.answer().await.unwrap().status, StatusCode::OK);
    let (upload, stored) = driven(&router);
    upload.send(Bytes::from_static(b"before")).await.unwrap();
    let request = Request::get("/events").header("host", HOST);
    let request = request.body(Empty::<Bytes>::new()).unwrap();
    let download = client::open(router.addr(), Http::One, request)
        .await
        .unwrap();
    let mut download = download.into_body().into_data_stream();
    let hello = download.next().await.unwrap().unwrap();
    assert!(hello.starts_with(b"data: "));

    router.terminate();
    assert_eq!(said(&router, DRAINING).await["running"], 3);
    idle.ended().await;
    let refused = loop {
        // The order to stop is out; the listeners close when their workers hear of it.
        match TcpStream::connect(router.addr()).await {
            Ok(mut caught) => {
                // Accepted by the kernel just before the end: closed without a word.
                let mut nothing = Vec::new();
                let _ = tokio::io::AsyncReadExt::read_to_end(&mut caught, &mut nothing).await;
                assert!(nothing.is_empty());
            }
            Err(refused) => break refused,
        }
    };
    assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);

    upload
        .send(Bytes::from_static(b" and after"))
        .await
        .unwrap();
    drop(upload);
    let stored = stored.await.unwrap().unwrap();
    assert_eq!(
        (stored.status.as_u16(), &stored.json()["bytes"]),
        (201, &json!(16))
    );
    client::post(cell.address(), HOST, "/posts", "")
        .await
        .unwrap();
    let post = Request::post("/posts")
        .header("host", HOST)
        .header("content-type", "application/json")
        .body(client::full(r#"{"title":"late news","body":"b"}"#))
        .unwrap();
    client::send(cell.address(), Http::One, post).await.unwrap();
    let event = download.next().await.unwrap().unwrap();
    assert!(String::from_utf8_lossy(&event).contains("late news"));
    drop(download);

    assert_eq!(router.exited().await.code(), Some(0));
    said(&router, "stopped").await;
    for path in ["/up", "/files/driven", "/events"] {
        router.next_record(|record| record["path"] == path).await;
    }
}

#[tokio::test]
async fn a_download_ends_whole() {
    let (router, cell) = scripted().await;
    let answered = async {
        let (mut cell, _) = cell.request().await;
        cell.write("HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nfirst")
            .await
            .unwrap();
        cell
    };
    let request = Request::get("/").header("host", HOST);
    let request = request.body(Empty::<Bytes>::new()).unwrap();
    let (response, mut cell) =
        tokio::join!(client::open(router.addr(), Http::Two, request), answered);
    router.terminate();
    said(&router, DRAINING).await;
    cell.write("later").await.unwrap();
    let body = response.unwrap().into_body().collect().await.unwrap();
    assert_eq!(body.to_bytes(), "firstlater");
    assert_eq!(router.exited().await.code(), Some(0));
    let record = router.next_record(|record| record["status"] == 200).await;
    assert_eq!(
        (&record["response_body"], &record["bytes_out"]),
        (&json!("complete"), &json!(10))
    );
}

#[tokio::test]
async fn http2_clients_are_told_to_go() {
    let (router, cell) = scripted().await;
    let stream = TokioIo::new(TcpStream::connect(router.addr()).await.unwrap());
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), stream)
            .await
            .unwrap();
    let connection = tokio::spawn(connection);
    let request = |path: &str| {
        Request::get(format!("http://{HOST}{path}"))
            .body(Empty::<Bytes>::new())
            .unwrap()
    };
    let answer = tokio::spawn(sender.send_request(request("/one")));
    let (mut upstream, _) = cell.request().await;
    router.terminate();
    said(&router, DRAINING).await;
    upstream
        .write("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
        .await
        .unwrap();
    let body = answer
        .await
        .unwrap()
        .unwrap()
        .into_body()
        .collect()
        .await
        .unwrap();
    assert_eq!(body.to_bytes(), "ok");
    // GOAWAY, and not a connection that breaks off: it ends without an error.
    connection.await.unwrap().unwrap();
    assert!(sender.send_request(request("/two")).await.is_err());
    assert_eq!(router.exited().await.code(), Some(0));
}

#[tokio::test]
async fn an_http2_client_that_has_just_connected_is_answered_before_it_is_told_to_go() {
    let (router, cell) = scripted().await;
    let mut client = Frames::connect(router.addr(), &[]).await.unwrap();
    let request = [
        (":method", "GET"),
        (":scheme", "http"),
        (":path", "/"),
        (":authority", HOST),
    ];
    stopped_at_once(&router, async {
        client.send(head(1, END_STREAM, &request)).await.unwrap();
    })
    .await;
    // On its own: where there is no answer, it is not waited for.
    let answering = tokio::spawn(async move {
        let (mut upstream, _) = cell.request().await;
        let ok = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
        upstream.write(ok).await.unwrap();
        upstream
    });
    let frames = client.stream(1).await;
    let last = frames.last().unwrap();
    assert_eq!((last.kind, &last.payload[..]), (DATA, &b"ok"[..]));
    let _upstream = answering.await.unwrap();
    client.end().await;
    assert_eq!(router.exited().await.code(), Some(0));
}

#[tokio::test]
async fn an_idle_http2_connection_ends_without_an_error() {
    let (router, _cell) = scripted().await;
    let stream = TokioIo::new(TcpStream::connect(router.addr()).await.unwrap());
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), stream)
            .await
            .unwrap();
    let connection = tokio::spawn(connection);
    let nowhere = Request::get("http://nowhere.example.org/")
        .body(Empty::<Bytes>::new())
        .unwrap();
    let answer = sender.send_request(nowhere).await.unwrap();
    assert_eq!(answer.status(), StatusCode::NOT_FOUND);
    router.terminate();
    connection.await.unwrap().unwrap();
    assert_eq!(router.exited().await.code(), Some(0));
}

/// Lets the router find what `meanwhile` did and the word to stop at the same time.
async fn stopped_at_once(router: &Router, meanwhile: impl Future<Output = ()>) {
    router.process().signal(Signal::STOP);
    meanwhile.await;
    router.terminate();
    router.process().signal(Signal::CONT);
    said(router, DRAINING).await;
}

#[tokio::test]
async fn a_request_that_is_in_the_kernel_when_the_stop_comes_is_answered() {
    let (router, cell) = scripted().await;
    let request = format!("GET /one HTTP/1.1\r\nhost: {HOST}\r\n\r\n");
    let mut kept = Raw::connect(router.addr()).await.unwrap();
    kept.write(&request).await.unwrap();
    let (mut upstream, _) = cell.request().await;
    let ok = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
    upstream.write(ok).await.unwrap();
    assert_eq!(kept.answer().await.unwrap().status, StatusCode::OK);
    let mut fresh = None;
    stopped_at_once(&router, async {
        kept.write(&request).await.unwrap();
        let mut connected = Raw::connect(router.addr()).await.unwrap();
        connected.write(&request).await.unwrap();
        fresh = Some(connected);
    })
    .await;
    let mut fresh = fresh.unwrap();
    let answering = async {
        // One of the two comes over the connection that is there, the other over a new one, also if it comes after that.
        upstream.head().await.unwrap();
        let last = "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\nok";
        upstream.write(last).await.unwrap();
        let (mut other, _) = cell.request().await;
        other.write(ok).await.unwrap();
    };
    let asking = async {
        for client in [&mut kept, &mut fresh] {
            let answer = client.answer().await.unwrap();
            assert_eq!(answer.status, StatusCode::OK);
            assert_eq!(answer.header("connection"), "close");
            assert_eq!(client.rest().await.unwrap(), b"");
        }
    };
    tokio::join!(answering, asking);
    drop((kept, fresh));
    assert_eq!(router.exited().await.code(), Some(0));
}

#[tokio::test]
async fn a_connection_that_is_in_the_kernel_when_the_stop_comes_is_served() {
    // Its queue is all that there is: nothing else keeps the router from ending.
    let (router, _cell) = scripted().await;
    let mut clients = Vec::new();
    stopped_at_once(&router, async {
        for _ in 0..8 {
            let mut client = Raw::connect(router.addr()).await.unwrap();
            let request = "GET / HTTP/1.1\r\nhost: nowhere.example.org\r\n\r\n";
            client.write(request).await.unwrap();
            clients.push(client);
        }
    })
    .await;
    for client in &mut clients {
        let answer = client.answer().await.unwrap();
        assert_eq!(answer.status, StatusCode::NOT_FOUND);
    }
    drop(clients);
    assert_eq!(router.exited().await.code(), Some(0));
}

#[tokio::test]
async fn what_was_promised_before_the_stop_is_kept() {
    let (router, cell) = scripted().await;
    let mut client = Raw::connect(router.addr()).await.unwrap();
    let request = format!("GET /one HTTP/1.1\r\nhost: {HOST}\r\n\r\n");
    client.write(&request).await.unwrap();
    let (mut upstream, _) = cell.request().await;
    upstream
        .write("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\no")
        .await
        .unwrap();
    // This head says nothing of an end, so the client may ask again.
    assert!(!client.head().await.unwrap().contains("close"));
    router.terminate();
    said(&router, DRAINING).await;
    client.write(&request).await.unwrap();
    upstream.write("k").await.unwrap();
    assert_eq!(client.bytes(2).await.unwrap(), b"ok");
    upstream.head().await.unwrap();
    upstream
        .write("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
        .await
        .unwrap();
    let last = client.answer().await.unwrap();
    assert_eq!(last.header("connection"), "close");
    assert_eq!(client.rest().await.unwrap(), b"");
    drop(client);
    assert_eq!(router.exited().await.code(), Some(0));
}

async fn draining_fast(milliseconds: &str) -> (Router, ScriptedCell) {
    let cell = ScriptedCell::listen().await;
    let options = options(json!({ "alice": at(cell.addr()) }));
    let router = Router::start(options.args(["--drain-ms", milliseconds])).await;
    (router, cell)
}

#[tokio::test]
async fn a_tunnel_lasts_until_the_deadline() {
    let (router, cell) = draining_fast("300").await;
    let mut client = Raw::connect(router.addr()).await.unwrap();
    client
        .write(format!(
            "GET /live HTTP/1.1\r\nhost: {HOST}\r\nconnection: upgrade\r\nupgrade: chat\r\n\r\n"
        ))
        .await
        .unwrap();
    let (mut upstream, head) = cell.request().await;
    assert!(head.contains("upgrade: chat"), "{head}");
    upstream
        .write("HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: chat\r\n\r\n")
        .await
        .unwrap();
    assert!(client.head().await.unwrap().starts_with("HTTP/1.1 101 "));
    router.terminate();
    said(&router, DRAINING).await;
    client.write("ping").await.unwrap();
    assert_eq!(upstream.bytes(4).await.unwrap(), b"ping");
    upstream.write("pong").await.unwrap();
    assert_eq!(client.bytes(4).await.unwrap(), b"pong");
    said(&router, "drain time is over").await;
    client.ended().await;
    upstream.ended().await;
    assert_eq!(router.exited().await.code(), Some(0));
    let record = router.next_record(|record| record["status"] == 101).await;
    assert_eq!(
        (&record["bytes_in"], &record["bytes_out"]),
        (&json!(4), &json!(4))
    );
}

#[tokio::test]
async fn a_second_signal_ends_at_once_and_writes_the_last_lines() {
    let (router, cell) = draining_fast("600000").await;
    let (upload, stored) = driven(&router);
    upload.send(Bytes::from_static(b"piece")).await.unwrap();
    let (mut upstream, _) = cell.request().await;
    assert_eq!(upstream.chunk().await.unwrap(), b"piece");
    router.terminate();
    said(&router, DRAINING).await;
    router.terminate();
    said(&router, "told to stop at once").await;
    assert_eq!(router.exited().await.code(), Some(0));
    assert!(stored.await.unwrap().is_err());
    let record = router.next_record(|record| record["method"] == "PUT").await;
    assert_eq!(record["bytes_in"], 5);
}

#[tokio::test]
async fn a_router_without_work_ends_when_told() {
    let (router, _cell) = scripted().await;
    let _silent = Raw::connect(router.addr()).await.unwrap();
    router.terminate();
    assert_eq!(router.exited().await.code(), Some(0));
}

#[tokio::test]
async fn who_comes_to_a_full_router_that_is_about_to_end_is_refused() {
    let cell = ScriptedCell::listen().await;
    let flags = ["--max-connections", "1", "--drain-ms", "5000"];
    let router = Router::start(options(json!({ "alice": at(cell.addr()) })).args(flags)).await;
    let mut client = Raw::connect(router.addr()).await.unwrap();
    let request = format!("GET /one HTTP/1.1\r\nhost: {HOST}\r\n\r\n");
    client.write(&request).await.unwrap();
    let (mut upstream, _) = cell.request().await;
    router.terminate();
    said(&router, DRAINING).await;
    // Who has been taken by the kernel already waits for no place that nobody will leave.
    while let Ok(caught) = Raw::connect(router.addr()).await {
        let mut caught = caught;
        caught.ended().await;
    }
    upstream
        .write("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
        .await
        .unwrap();
    assert_eq!(client.answer().await.unwrap().text(), "ok");
    drop(client);
    assert_eq!(router.exited().await.code(), Some(0));
}
