//! Requests that two readers could read in two ways, or that nobody should send: none gets further than the router,
//! and nothing is smuggled past it.

use std::sync::{Arc, Mutex};

use integration_tests::client::{self, Raw};
use integration_tests::{Router, ScriptedCell};
use serde_json::json;

use crate::scene::{HOST, at, options};

/// A cell that answers everything, and every head that reached it.
struct Recorded {
    router: Router,
    heads: Arc<Mutex<Vec<String>>>,
}

impl Recorded {
    async fn start() -> Self {
        let cell = ScriptedCell::listen().await;
        let options = options(json!({ "alice": at(cell.addr()) }));
        let router =
            Router::start(options.args(["--max-head-bytes", "8192", "--max-headers", "20"])).await;
        let heads = Arc::new(Mutex::new(Vec::new()));
        let recorded = Arc::clone(&heads);
        tokio::spawn(async move {
            loop {
                let connection = cell.accept().await;
                tokio::spawn(answer(connection, Arc::clone(&recorded)));
            }
        });
        Self { router, heads }
    }

    /// Sends `bytes` and reads to the end of the connection, which the client does not end by itself.
    async fn send(&self, bytes: impl AsRef<[u8]>) -> String {
        let mut client = Raw::connect(self.router.addr()).await.unwrap();
        // A router that has refused may close before all is written.
        let _ = client.write(bytes).await;
        let _ = client.finish().await;
        let mut said = Vec::new();
        while let Ok(some) = client.some().await {
            if some.is_empty() {
                break;
            }
            said.extend_from_slice(&some);
        }
        String::from_utf8_lossy(&said).into_owned()
    }

    /// The request lines that reached the cell so far.
    async fn reached(&self) -> Vec<String> {
        // Whatever was on its way before this request, on whichever connection, has been read when it is answered.
        client::get(self.router.addr(), HOST, "/fence")
            .await
            .unwrap();
        let heads = self.heads.lock().unwrap();
        let lines = heads.iter().filter_map(|head| head.lines().next());
        lines
            .filter(|line| !line.contains("/fence"))
            .map(str::to_owned)
            .collect()
    }
}

/// Reads requests as RFC 9112 section 6.3 says, and answers each.
async fn answer(mut connection: Raw, heads: Arc<Mutex<Vec<String>>>) {
    while let Ok(head) = connection.head().await {
        let lower = head.to_ascii_lowercase();
        heads.lock().unwrap().push(head);
        let length = lower
            .lines()
            .find_map(|line| line.strip_prefix("content-length:"));
        if lower.contains("transfer-encoding:") {
            while connection
                .chunk()
                .await
                .is_ok_and(|chunk| !chunk.is_empty())
            {}
            if connection.head().await.is_err() {
                return;
            }
        } else if let Some(length) = length
            && connection
                .bytes(length.trim().parse().unwrap())
                .await
                .is_err()
        {
            return;
        }
        let answer = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
        if connection.write(answer).await.is_err() {
            return;
        }
    }
}

/// What stands behind a bad request, for whoever would take the rest for another one.
const SMUGGLED: &str = "GET /smuggled HTTP/1.1\r\nhost: alice.example.com\r\n\r\n";

/// The statuses of the answers on a connection.
fn statuses(said: &str) -> Vec<u16> {
    said.split("HTTP/1.1 ")
        .skip(1)
        .filter_map(|answer| answer.get(..3)?.parse().ok())
        .collect()
}

/// Each is refused with that status as the only answer on its connection, and nothing of it reaches the cell.
async fn refused(cases: &[(&str, u16, String)]) {
    let recorded = Recorded::start().await;
    for (what, status, request) in cases {
        let said = recorded.send(format!("{request}{SMUGGLED}")).await;
        assert_eq!(statuses(&said), [*status], "{what}: {said}");
    }
    assert_eq!(recorded.reached().await, Vec::<String>::new());
}

#[tokio::test]
async fn heads_over_the_limits_are_refused() {
    let long = "x".repeat(9000);
    let many: String = (0..30).map(|n| format!("x-{n}: 1\r\n")).collect();
    refused(&[
        (
            "a long line",
            431,
            format!("GET / HTTP/1.1\r\nhost: {HOST}\r\nx: {long}\r\n\r\n"),
        ),
        (
            "many lines",
            431,
            format!("GET / HTTP/1.1\r\nhost: {HOST}\r\n{many}\r\n"),
        ),
        (
            "a line without an end",
            431,
            format!("GET / HTTP/1.1\r\nhost: {HOST}\r\nx: {long}"),
        ),
    ])
    .await;
}

#[tokio::test]
async fn heads_that_are_no_heads_are_refused() {
    let bad = |line: &str| format!("{line}\r\nhost: {HOST}\r\n\r\n");
    let field = |field: &str| format!("GET / HTTP/1.1\r\nhost: {HOST}\r\n{field}\r\n\r\n");
    refused(&[
        ("no version", 400, bad("GET /")),
        ("a version that is none", 505, bad("GET / HTTP/9.9")),
        ("a version in small letters", 400, bad("GET / http/1.1")),
        ("a fragment", 400, bad("GET /a#b HTTP/1.1")),
        (
            "user information",
            400,
            bad("GET http://u:p@alice.example.com/ HTTP/1.1"),
        ),
        ("a bare LF as a line's end", 400, field("x: a\ny: b")),
        ("a bare LF as the head's end", 400, field("x: a\n")),
        ("a CR too many", 400, field("x: a\r")),
        ("DEL in a value", 400, field("x: a\x7fb")),
        ("two spaces", 400, bad("GET  / HTTP/1.1")),
        ("a space in the target", 400, bad("GET /a b HTTP/1.1")),
        ("a method that is no token", 400, bad("G(T / HTTP/1.1")),
        ("NUL in the target", 400, bad("GET /a\0b HTTP/1.1")),
        ("NUL in a value", 400, field("x: a\0b")),
        ("NUL in a name", 400, field("x\0y: a")),
        ("a bare CR in a value", 400, field("x: a\rb: c")),
        ("obs-fold", 400, field("x: a\r\n b")),
        ("a space before the colon", 400, field("x : a")),
        (
            "a space before content-length's colon",
            400,
            field("content-length : 5"),
        ),
        ("a name without a colon", 400, field("x")),
        ("an empty name", 400, field(": a")),
    ])
    .await;
}

#[tokio::test]
async fn framing_that_could_be_read_in_two_ways_is_refused() {
    let with = |fields: &str, body: &str| {
        format!("POST / HTTP/1.1\r\nhost: {HOST}\r\n{fields}\r\n\r\n{body}")
    };
    refused(&[
        (
            "two lengths",
            400,
            with("content-length: 1\r\ncontent-length: 2", "a"),
        ),
        (
            "two lengths on a line",
            400,
            with("content-length: 1, 2", "a"),
        ),
        ("a negative length", 400, with("content-length: -1", "")),
        ("a length with a plus", 400, with("content-length: +1", "a")),
        (
            "a length in hexadecimal",
            400,
            with("content-length: 0x1", "a"),
        ),
        (
            "a length that is too large",
            400,
            with("content-length: 99999999999999999999999", "a"),
        ),
        (
            "a coding that is not chunked",
            400,
            with("transfer-encoding: gzip", "a"),
        ),
        (
            "chunked that is not last",
            400,
            with("transfer-encoding: chunked, identity", "0\r\n\r\n"),
        ),
        (
            "chunked with a vertical tab",
            400,
            with("transfer-encoding: \x0bchunked", "0\r\n\r\n"),
        ),
        (
            "chunked over HTTP/1.0",
            400,
            format!(
                "POST / HTTP/1.0\r\nhost: {HOST}\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n"
            ),
        ),
    ])
    .await;
}

/// RFC 9112 section 6.1 lets a server read such a request by its coding alone; refusing it is what it recommends.
#[tokio::test]
async fn a_length_beside_a_coding_is_refused() {
    let with =
        |fields: &str| format!("POST /both HTTP/1.1\r\nhost: {HOST}\r\n{fields}\r\n\r\n0\r\n\r\n");
    refused(&[
        (
            "length first",
            400,
            with("content-length: 5\r\ntransfer-encoding: chunked"),
        ),
        (
            "coding first",
            400,
            with("transfer-encoding: chunked\r\ncontent-length: 5"),
        ),
        (
            "one length twice",
            400,
            with("content-length: 5\r\ncontent-length: 5"),
        ),
        (
            "a coding beside chunked",
            501,
            with("transfer-encoding: gzip, chunked"),
        ),
        (
            "chunked twice",
            400,
            with("transfer-encoding: chunked\r\ntransfer-encoding: chunked"),
        ),
    ])
    .await;
}

#[tokio::test]
async fn requests_that_name_no_host_or_two_are_refused() {
    let recorded = Recorded::start().await;
    for (what, request) in [
        ("none", "GET / HTTP/1.1\r\n\r\n".to_owned()),
        (
            "two",
            format!("GET / HTTP/1.1\r\nhost: {HOST}\r\nhost: bob.example.com\r\n\r\n"),
        ),
        (
            "the same twice",
            format!("GET / HTTP/1.1\r\nhost: {HOST}\r\nhost: {HOST}\r\n\r\n"),
        ),
        ("an empty one", "GET / HTTP/1.1\r\nhost:\r\n\r\n".to_owned()),
        (
            "one with a path",
            format!("GET / HTTP/1.1\r\nhost: {HOST}/x\r\n\r\n"),
        ),
        (
            "one with a user",
            format!("GET / HTTP/1.1\r\nhost: a@{HOST}\r\n\r\n"),
        ),
        (
            "two on a line",
            format!("GET / HTTP/1.1\r\nhost: {HOST}, bob.example.com\r\n\r\n"),
        ),
        (
            "another than the target's",
            format!("GET http://{HOST}/ HTTP/1.1\r\nhost: bob.example.com\r\n\r\n"),
        ),
    ] {
        // The message is framed well, so the connection may stay; it must stay in step.
        let said = recorded.send(request).await;
        assert_eq!(statuses(&said), [400], "{what}: {said}");
    }
    assert_eq!(recorded.reached().await, Vec::<String>::new());
}

#[tokio::test]
async fn targets_and_methods_that_a_front_door_does_not_serve_are_refused() {
    let recorded = Recorded::start().await;
    for (request, status) in [
        (
            format!("CONNECT {HOST}:443 HTTP/1.1\r\nhost: {HOST}:443\r\n\r\n"),
            405,
        ),
        (format!("TRACE / HTTP/1.1\r\nhost: {HOST}\r\n\r\n"), 405),
        (format!("OPTIONS * HTTP/1.1\r\nhost: {HOST}\r\n\r\n"), 400),
        // It means the same (RFC 9112 section 3.2.4).
        (
            format!("OPTIONS http://{HOST} HTTP/1.1\r\nhost: {HOST}\r\n\r\n"),
            400,
        ),
    ] {
        let said = recorded.send(&request).await;
        assert_eq!(statuses(&said), [status], "{request}: {said}");
    }
    assert_eq!(recorded.reached().await, Vec::<String>::new());
}

#[tokio::test]
async fn chunks_that_are_none_cut_the_request_and_the_connection() {
    let recorded = Recorded::start().await;
    let bodies = [
        "zz\r\nab\r\n0\r\n\r\n",
        "-1\r\n\r\n",
        "+1\r\na\r\n0\r\n\r\n",
        "0x1\r\na\r\n0\r\n\r\n",
        "fffffffffffffffff\r\na\r\n0\r\n\r\n",
        "1\r\nab\r\n0\r\n\r\n",
        "\r\n0\r\n\r\n",
        "1 2\r\na\r\n0\r\n\r\n",
    ];
    for body in bodies {
        let said = recorded
            .send(format!("POST /bad HTTP/1.1\r\nhost: {HOST}\r\ntransfer-encoding: chunked\r\n\r\n{body}{SMUGGLED}"))
            .await;
        // At most one answer, and no good one: what follows is no request.
        let statuses = statuses(&said);
        assert!(
            statuses.len() <= 1 && statuses.iter().all(|status| (400..500).contains(status)),
            "{body:?}: {said}"
        );
    }
    let reached = recorded.reached().await;
    assert!(
        reached.iter().all(|line| line.starts_with("POST /bad ")),
        "{reached:?}"
    );
}

#[tokio::test]
async fn a_refused_requests_body_is_never_taken_for_a_request() {
    let recorded = Recorded::start().await;
    let body = SMUGGLED;
    for (line, host) in [
        ("POST / HTTP/1.1", "nobody.example.org"),
        ("TRACE / HTTP/1.1", HOST),
    ] {
        let next = format!("GET /next HTTP/1.1\r\nhost: {HOST}\r\n\r\n");
        let said = recorded
            .send(format!(
                "{line}\r\nhost: {host}\r\ncontent-length: {}\r\n\r\n{body}{next}",
                body.len()
            ))
            .await;
        assert!((400..500).contains(&statuses(&said)[0]), "{said}");
    }
    let reached = recorded.reached().await;
    assert!(
        reached.iter().all(|line| line.starts_with("GET /next ")),
        "{reached:?}"
    );
}

#[tokio::test]
async fn a_client_that_takes_nothing_does_not_keep_its_cell() {
    let cell = ScriptedCell::listen().await;
    let options = options(json!({ "alice": at(cell.addr()) }));
    let router = Router::start(options.args(["--client-stall-ms", "200"])).await;
    let mut client = Raw::connect(router.addr()).await.unwrap();
    let request = format!("GET / HTTP/1.1\r\nhost: {HOST}\r\n\r\n");
    client.write(request).await.unwrap();
    let (mut upstream, _) = cell.request().await;
    upstream.write("HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
    while upstream.write([0; 64 * 1024]).await.is_ok() {}
    let record = router.next_record(|_| true).await;
    assert_eq!(record["response_body"], "cut", "{record}");
    drop(client);
}

#[tokio::test]
async fn a_tunnel_counts_among_the_connections() {
    let cell = ScriptedCell::listen().await;
    let options = options(json!({ "alice": at(cell.addr()) }));
    let router = Router::start(options.args(["--max-connections", "1"])).await;
    let mut client = Raw::connect(router.addr()).await.unwrap();
    client
        .write(format!(
            "GET / HTTP/1.1\r\nhost: {HOST}\r\nconnection: upgrade\r\nupgrade: echo\r\n\r\n"
        ))
        .await
        .unwrap();
    let (mut upstream, _) = cell.request().await;
    upstream
        .write("HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: echo\r\n\r\n")
        .await
        .unwrap();
    client.head().await.unwrap();
    let mut second = Raw::connect(router.addr()).await.unwrap();
    let request = "GET / HTTP/1.1\r\nhost: nobody.example.com\r\n\r\n";
    second.write(request).await.unwrap();
    for _ in 0..100 {
        client.write("x").await.unwrap();
        upstream.bytes(1).await.unwrap();
    }
    assert!(router.records().is_empty(), "{:?}", router.records());
    drop((client, upstream));
    assert_eq!(second.answer().await.unwrap().status, 404);
    let order = [
        router.next_record(|_| true).await,
        router.next_record(|_| true).await,
    ];
    assert_eq!(
        (&order[0]["status"], &order[1]["status"]),
        (&json!(101), &json!(404))
    );
}
