//! HTTP/1.1 as clients speak it: order, persistence, interim answers, times.

use integration_tests::Router;
use integration_tests::client::{self, Http, Raw};
use serde_json::json;

use crate::scene::{HOST, at, options, scripted};

const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

async fn client(router: &Router, request: &str) -> Raw {
    let mut client = Raw::connect(router.addr()).await.unwrap();
    client.write(request).await.unwrap();
    client
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_their_order() {
    let (router, cell) = scripted().await;
    let requests: String = (0..3)
        .map(|n| format!("GET /{n} HTTP/1.1\r\nhost: {HOST}\r\n\r\n"))
        .collect();
    let mut client = client(&router, &requests).await;
    let (mut upstream, mut head) = cell.request().await;
    for n in 0..3 {
        if n > 0 {
            head = upstream.head().await.unwrap();
        }
        assert!(head.starts_with(&format!("GET /{n} ")), "{head}");
        upstream
            .write(format!("HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\n{n}"))
            .await
            .unwrap();
        assert_eq!(client.answer().await.unwrap().text(), n.to_string());
    }
}

/// What ends with the connection to the cell is said anew for that to the client; all else stays as it was, to the letter.
#[tokio::test]
async fn an_answers_lines_stay_as_the_cell_wrote_them() {
    let (router, cell) = scripted().await;
    let request = format!("GET / HTTP/1.1\r\nhost: {HOST}\r\n\r\n");
    let mut client = client(&router, &request).await;
    let (mut upstream, _) = cell.request().await;
    let kept = "X-Powered-By: A\r\ndate: then\r\nSet-Cookie: a=1\r\nset-cookie:b=2 \r\n";
    for (lines, body, passed) in [
        (
            "Content-Length: 2\r\nConnection: keep-alive\r\nKeep-Alive: timeout=5\r\n",
            "ok",
            "Content-Length: 2\r\n",
        ),
        (
            "Connection: keep-alive\r\nTransfer-Encoding: chunked\r\n",
            "2\r\nok\r\n0\r\n\r\n",
            "transfer-encoding: chunked\r\n",
        ),
        ("Content-Length: 0\r\n", "", "Content-Length: 0\r\n"),
    ] {
        upstream
            .write(format!("HTTP/1.1 200 OK\r\n{kept}{lines}\r\n{body}"))
            .await
            .unwrap();
        let head = client.head().await.unwrap();
        assert_eq!(head, format!("HTTP/1.1 200 OK\r\n{kept}{passed}\r\n"));
        let got = client.bytes(body.len()).await.unwrap();
        assert_eq!(got, body.as_bytes());
        client.write(&request).await.unwrap();
        // The connection to the cell goes on.
        upstream.head().await.unwrap();
    }
}

/// What was written for a client that has not read it yet outlives the connection, also where more came from the client
/// than will ever be read.
#[tokio::test]
async fn an_answer_is_not_lost_because_one_after_it_breaks_off() {
    let (router, cell) = scripted().await;
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    let mut client = Raw::from(socket.connect(router.addr()).await.unwrap());
    let request = |path| format!("GET {path} HTTP/1.1\r\nhost: {HOST}\r\n\r\n");
    let whole = vec![b'a'; 200_000];
    let requests = request("/whole") + &request("/cut") + &request("/never").repeat(2000);
    client.write(requests).await.unwrap();
    let (mut upstream, _) = cell.request().await;
    upstream
        .write("HTTP/1.1 200 OK\r\ncontent-length: 200000\r\n\r\n")
        .await
        .unwrap();
    upstream.write(&whole).await.unwrap();
    upstream.head().await.unwrap();
    upstream
        .write("HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nabc")
        .await
        .unwrap();
    drop(upstream);
    router.next_record(|record| record["path"] == "/cut").await;
    assert_eq!(client.answer().await.unwrap().body, whole);
    let rest = String::from_utf8(client.rest().await.unwrap()).unwrap();
    let (head, body) = rest.split_once("\r\n\r\n").unwrap();
    assert!(head.contains("content-length: 10"), "{head}");
    assert_eq!(body, "abc");
}

#[tokio::test]
async fn a_request_in_pieces_is_one_request() {
    let (router, cell) = scripted().await;
    let mut client = Raw::connect(router.addr()).await.unwrap();
    let text = format!(
        "\r\nPOST /a HTTP/1.1\r\nhost: {HOST}\r\ntransfer-encoding: chunked\r\n\r\n3;x=y\r\nabc\r\n0\r\n\r\n"
    );
    for byte in text.bytes() {
        client.write([byte]).await.unwrap();
    }
    let (mut upstream, head) = cell.request().await;
    assert!(head.starts_with("POST /a HTTP/1.1\r\n"), "{head}");
    let mut body = Vec::new();
    loop {
        let chunk = upstream.chunk().await.unwrap();
        if chunk.is_empty() {
            break;
        }
        body.extend(chunk);
    }
    assert_eq!(body, b"abc");
    upstream.write(OK).await.unwrap();
    assert_eq!(client.answer().await.unwrap().text(), "ok");
}

#[tokio::test]
async fn interim_answers_are_passed_on_without_what_would_steer_the_edge() {
    let (router, cell) = scripted().await;
    let request = format!("GET / HTTP/1.1\r\nhost: {HOST}\r\n\r\n");
    let mut client = client(&router, &request).await;
    let (mut upstream, _) = cell.request().await;
    for link in ["</a.css>", "</b.css>"] {
        upstream
            .write(format!(
                "HTTP/1.1 103 Early Hints\r\nlink: {link}\r\nfly-replay: app=x\r\nconnection: x-hop\r\nx-hop: 1\r\n\r\n"
            ))
            .await
            .unwrap();
        let head = client.head().await.unwrap();
        assert_eq!(
            head,
            format!("HTTP/1.1 103 Early Hints\r\nlink: {link}\r\n\r\n")
        );
    }
    upstream.write(OK).await.unwrap();
    assert_eq!(client.answer().await.unwrap().text(), "ok");
}

#[tokio::test]
async fn a_continue_that_nobody_asked_for_and_http10_clients_get_no_interim_answer() {
    let (router, cell) = scripted().await;
    for (request, interim) in [
        (
            format!("GET / HTTP/1.1\r\nhost: {HOST}\r\nconnection: close\r\n\r\n"),
            "100 Continue",
        ),
        (
            format!("GET / HTTP/1.0\r\nhost: {HOST}\r\n\r\n"),
            "103 Early Hints",
        ),
        (
            format!(
                "POST / HTTP/1.0\r\nhost: {HOST}\r\nexpect: 100-continue\r\ncontent-length: 1\r\n\r\na"
            ),
            "100 Continue",
        ),
    ] {
        let mut client = client(&router, &request).await;
        let (mut upstream, _) = cell.request().await;
        if request.starts_with("POST") {
            assert_eq!(upstream.bytes(1).await.unwrap(), b"a");
        }
        upstream
            .write(format!("HTTP/1.1 {interim}\r\n\r\n{OK}"))
            .await
            .unwrap();
        let rest = String::from_utf8(client.rest().await.unwrap()).unwrap();
        assert!(rest.starts_with("HTTP/1.1 200 OK\r\n"), "{rest}");
    }
}

#[tokio::test]
async fn http10_clients_are_answered_as_they_can_read() {
    let (router, cell) = scripted().await;
    let mut kept = client(
        &router,
        &format!("GET / HTTP/1.0\r\nhost: {HOST}\r\nconnection: keep-alive\r\n\r\n"),
    )
    .await;
    let (mut upstream, _) = cell.request().await;
    upstream.write(OK).await.unwrap();
    let answer = kept.answer().await.unwrap();
    assert_eq!(answer.header("connection"), "keep-alive");
    // Its length is not known: the end of the connection is the body's.
    kept.write(format!(
        "GET / HTTP/1.0\r\nhost: {HOST}\r\nconnection: keep-alive\r\n\r\n"
    ))
    .await
    .unwrap();
    upstream.head().await.unwrap();
    upstream
        .write("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n")
        .await
        .unwrap();
    let rest = String::from_utf8(kept.rest().await.unwrap()).unwrap();
    assert!(!rest.to_lowercase().contains("transfer-encoding"), "{rest}");
    assert!(rest.contains("connection: close\r\n"), "{rest}");
    assert!(rest.ends_with("\r\n\r\nok"), "{rest}");
}

#[tokio::test]
async fn a_cut_answer_that_ends_with_its_connection_is_a_reset() {
    let (router, cell) = scripted().await;
    let mut client = client(&router, &format!("GET / HTTP/1.0\r\nhost: {HOST}\r\n\r\n")).await;
    let (mut upstream, _) = cell.request().await;
    upstream
        .write("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n")
        .await
        .unwrap();
    let head = client.head().await.unwrap();
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    assert_eq!(client.bytes(2).await.unwrap(), b"ok");
    drop(upstream);
    let error = client.rest().await.unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn what_is_no_request_is_logged_with_its_reason() {
    let (router, _cell) = scripted().await;
    for (bytes, status, reason) in [
        ("GET / HTTP/1.1\nhost: a\n\n", 400, "bad_line_end"),
        (
            "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 1\r\ntransfer-encoding: chunked\r\n\r\n",
            400,
            "length_and_coding",
        ),
        ("GET / HTTP/3.0\r\n\r\n", 505, "bad_version"),
    ] {
        let mut client = client(&router, bytes).await;
        let answer = client.answer().await.unwrap();
        assert_eq!(answer.status, status);
        assert_eq!(answer.header("connection"), "close");
        let record = router.next_record(|line| line["reason"] == reason).await;
        assert_eq!(record["status"], status);
        assert_eq!(record["error_by"], "client");
    }
}

#[tokio::test]
async fn a_malformed_chunk_cuts_the_upload_and_is_the_clients_fault() {
    let (router, cell) = scripted().await;
    let mut client = client(
        &router,
        &format!(
            "POST /x HTTP/1.1\r\nhost: {HOST}\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n"
        ),
    )
    .await;
    let (mut upstream, _) = cell.request().await;
    assert_eq!(upstream.chunk().await.unwrap(), b"abc");
    client.write("zz\r\n").await.unwrap();
    // No last chunk: the cell sees that it was cut.
    assert_eq!(upstream.rest().await.unwrap(), b"");
    assert_eq!(client.answer().await.unwrap().status, 400);
    let record = router.next_record(|line| line["path"] == "/x").await;
    assert_eq!(record["reason"], "client_cut");
    assert!(
        record["error"].as_str().unwrap().contains("bad_chunk"),
        "{record}"
    );
}

#[tokio::test]
async fn head_and_idle_connection_have_times_of_their_own() {
    let cell = integration_tests::ScriptedCell::listen().await;
    let options = options(json!({ "alice": at(cell.addr()) }));
    let router =
        Router::start(options.args(["--head-timeout-ms", "300", "--idle-timeout-ms", "86400000"]))
            .await;
    // Half a head: told so.
    let mut half = client(&router, "GET / HTTP/1.1\r\nhost: ").await;
    assert_eq!(half.answer().await.unwrap().status, 408);
    half.ended().await;
    // An idle connection outlives the time for heads: it is still there once another head has timed out after it.
    let request = format!("GET / HTTP/1.1\r\nhost: {HOST}\r\n\r\n");
    let mut idle = client(&router, &request).await;
    let (mut upstream, _) = cell.request().await;
    upstream.write(OK).await.unwrap();
    idle.answer().await.unwrap();
    let mut half = client(&router, "GET / HTTP/1.1\r\nhost: ").await;
    assert_eq!(half.answer().await.unwrap().status, 408);
    idle.write(&request).await.unwrap();
    upstream.head().await.unwrap();
    upstream.write(OK).await.unwrap();
    assert_eq!(idle.answer().await.unwrap().text(), "ok");
}

#[tokio::test]
async fn an_idle_connection_ends_after_its_time() {
    let cell = integration_tests::ScriptedCell::listen().await;
    let options = options(json!({ "alice": at(cell.addr()) }));
    let router = Router::start(options.args(["--idle-timeout-ms", "200"])).await;
    let mut idle = client(&router, &format!("GET / HTTP/1.1\r\nhost: {HOST}\r\n\r\n")).await;
    let (mut upstream, _) = cell.request().await;
    upstream.write(OK).await.unwrap();
    idle.answer().await.unwrap();
    assert_eq!(idle.rest().await.unwrap(), b"");
}

#[tokio::test]
async fn a_client_that_sends_all_before_it_reads_gets_its_early_answer() {
    let (router, cell) = scripted().await;
    const BODY: usize = 8 * 1024 * 1024;
    let mut client = client(
        &router,
        &format!("POST / HTTP/1.1\r\nhost: {HOST}\r\ncontent-length: {BODY}\r\n\r\n"),
    )
    .await;
    let (mut upstream, _) = cell.request().await;
    let page = "x".repeat(4 * 1024 * 1024);
    let answering = async {
        upstream
            .write(format!(
                "HTTP/1.1 413 Payload Too Large\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{page}",
                page.len()
            ))
            .await
            .unwrap();
        upstream
    };
    let sending = async {
        client.write(vec![0; BODY]).await.unwrap();
        client.answer().await.unwrap()
    };
    let (_upstream, answer) = tokio::join!(answering, sending);
    assert_eq!(answer.status, 413);
    assert_eq!(answer.body.len(), page.len());
}

/// What nobody wanted of a request is passed over, where all of it has come with its head.
#[tokio::test]
async fn a_refused_body_that_is_all_there_costs_no_connection() {
    let (router, cell) = scripted().await;
    let next = format!("GET /next HTTP/1.1\r\nhost: {HOST}\r\n\r\n");
    for (fields, body, stays) in [
        ("content-length: 5", "hello", true),
        (
            "transfer-encoding: chunked",
            "2\r\nhe\r\n3\r\nllo\r\n0\r\nx-sum: 1\r\n\r\n",
            true,
        ),
        ("content-length: 5", "hell", false),
        ("transfer-encoding: chunked", "5\r\nhello\r\n", false),
        ("transfer-encoding: chunked", "zz\r\n", false),
        // It could be the next request as well.
        ("expect: 100-continue\r\ncontent-length: 5", "hello", false),
    ] {
        let request = format!("POST / HTTP/1.1\r\nhost: nobody\r\n{fields}\r\n\r\n{body}");
        let follows = if stays { next.as_str() } else { "" };
        let mut client = client(&router, &format!("{request}{follows}")).await;
        let refused = client.answer().await.unwrap();
        assert_eq!(refused.status, 404, "{fields} {body}");
        let said = refused
            .headers
            .get("connection")
            .map(|said| said.as_bytes());
        let wanted = (!stays).then_some(&b"close"[..]);
        assert_eq!(said, wanted, "{fields} {body}");
        if stays {
            let (mut upstream, head) = cell.request().await;
            assert!(head.starts_with("GET /next "), "{head}");
            upstream
                .write("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\nok")
                .await
                .unwrap();
            assert_eq!(client.answer().await.unwrap().text(), "ok");
        }
    }
}

#[tokio::test]
async fn what_the_head_keeps_to_one_connection_its_trailers_do_not_pass_on() {
    let (router, cell) = scripted().await;
    let trailers = "0\r\nx-hop: 1\r\nx-sum: 2\r\n\r\n";
    let fields = "connection: X-Hop\r\ntransfer-encoding: chunked";
    let request =
        format!("POST / HTTP/1.1\r\nhost: {HOST}\r\n{fields}\r\n\r\n2\r\nhi\r\n{trailers}");
    let mut client = client(&router, &request).await;
    let (mut upstream, _) = cell.request().await;
    assert_eq!(upstream.chunk().await.unwrap(), b"hi");
    assert_eq!(upstream.chunk().await.unwrap(), b"");
    assert_eq!(upstream.head().await.unwrap(), "x-sum: 2\r\n\r\n");
    upstream
        .write(format!(
            "HTTP/1.1 200 OK\r\n{fields}\r\n\r\n2\r\nok\r\n{trailers}"
        ))
        .await
        .unwrap();
    client.head().await.unwrap();
    assert_eq!(client.chunk().await.unwrap(), b"ok");
    assert_eq!(client.chunk().await.unwrap(), b"");
    assert_eq!(client.head().await.unwrap(), "x-sum: 2\r\n\r\n");
}

#[tokio::test]
async fn te_is_said_to_be_of_the_connection() {
    let (router, cell) = scripted().await;
    for (fields, connection) in [
        ("te: trailers, gzip", Some("te")),
        (
            "te: trailers\r\nconnection: upgrade\r\nupgrade: foo",
            Some("te, upgrade"),
        ),
        ("te: gzip", None),
    ] {
        let request = format!("GET / HTTP/1.1\r\nhost: {HOST}\r\n{fields}\r\n\r\n");
        let mut client = client(&router, &request).await;
        let (mut upstream, head) = cell.request().await;
        let said = head
            .lines()
            .find_map(|line| line.strip_prefix("connection: "));
        assert_eq!(said, connection, "{fields}");
        upstream
            .write("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 0\r\n\r\n")
            .await
            .unwrap();
        client.answer().await.unwrap();
    }
}

#[tokio::test]
async fn a_cell_that_wants_another_protocol_may_say_which() {
    let (router, cell) = scripted().await;
    for (ends, lines) in [
        ("", "connection: upgrade"),
        ("connection: close\r\n", "connection: upgrade, close"),
    ] {
        let request = format!("GET / HTTP/1.1\r\nhost: {HOST}\r\n{ends}\r\n");
        let mut client = client(&router, &request).await;
        let (mut upstream, _) = cell.request().await;
        upstream
            .write("HTTP/1.1 426 Upgrade Required\r\nconnection: upgrade, close\r\nupgrade: foo/2\r\ncontent-length: 0\r\n\r\n")
            .await
            .unwrap();
        let answer = client.answer().await.unwrap();
        assert_eq!(
            (answer.status.as_u16(), answer.header("upgrade")),
            (426, "foo/2")
        );
        let said: Vec<_> = answer.headers.get_all("connection").iter().collect();
        let said: Vec<_> = said.iter().map(|said| said.to_str().unwrap()).collect();
        assert_eq!(format!("connection: {}", said.join(", ")), lines);
    }
    // Over HTTP/2 there is nothing to switch (RFC 9113 section 8.6).
    let request = http::Request::get("/").header("host", HOST);
    let request = request.body(client::full("")).unwrap();
    let asking = tokio::spawn(client::send(router.addr(), Http::Two, request));
    let (mut upstream, _) = cell.request().await;
    upstream
        .write("HTTP/1.1 426 Upgrade Required\r\nconnection: upgrade\r\nupgrade: foo/2\r\ncontent-length: 0\r\n\r\n")
        .await
        .unwrap();
    let answer = asking.await.unwrap().unwrap();
    assert_eq!(
        (answer.status.as_u16(), answer.header("upgrade")),
        (426, "")
    );
}

#[tokio::test]
async fn empty_lines_between_requests_begin_none() {
    let cell = integration_tests::ScriptedCell::listen().await;
    let options = options(json!({ "alice": at(cell.addr()) }));
    let router =
        Router::start(options.args(["--head-timeout-ms", "200", "--idle-timeout-ms", "86400000"]))
            .await;
    let request =
        format!("POST / HTTP/1.1\r\nhost: {HOST}\r\ncontent-length: 2\r\n\r\nhi\r\n\r\n\r");
    let mut waits = client(&router, &request).await;
    let (mut upstream, _) = cell.request().await;
    assert_eq!(upstream.bytes(2).await.unwrap(), b"hi");
    upstream.write(OK).await.unwrap();
    waits.answer().await.unwrap();
    // It outlives the time for heads: it is still there once another head has timed out after it.
    let mut half = client(&router, "GET / HTTP/1.1\r\nhost: ").await;
    assert_eq!(half.answer().await.unwrap().status, 408);
    waits
        .write(format!("\nGET /next HTTP/1.1\r\nhost: {HOST}\r\n\r\n"))
        .await
        .unwrap();
    let head = upstream.head().await.unwrap();
    assert!(head.starts_with("GET /next "), "{head}");
    upstream.write(OK).await.unwrap();
    assert_eq!(waits.answer().await.unwrap().text(), "ok");
    // They are no way to send for ever.
    let mut many = client(&router, &"\r\n".repeat(100)).await;
    many.ended().await;
    // A router that is told to stop has nothing to wait for.
    waits.write("\r\n").await.unwrap();
    router.terminate();
    assert_eq!(waits.rest().await.unwrap(), b"");
}

#[tokio::test]
async fn a_connection_that_begins_with_one_letter_is_told_that_it_was_too_slow() {
    let cell = integration_tests::ScriptedCell::listen().await;
    let options = options(json!({ "alice": at(cell.addr()) }));
    let router = Router::start(options.args(["--head-timeout-ms", "200"])).await;
    for begun in ["P", "PO", "PRI * HTTP/2.0\r\n"] {
        let mut slow = client(&router, begun).await;
        assert_eq!(slow.answer().await.unwrap().status, 408, "{begun}");
        slow.ended().await;
    }
    // Who has begun nothing is told nothing.
    for begun in ["", "\r\n"] {
        let mut silent = client(&router, begun).await;
        assert_eq!(silent.rest().await.unwrap(), b"", "{begun:?}");
    }
}
