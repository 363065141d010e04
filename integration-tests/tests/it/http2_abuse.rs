//! HTTP/2 from those who mean no good: malformed messages, floods, and connections that are kept for nothing.

use integration_tests::client;
use integration_tests::http2::{
    CONTINUATION, DATA, END_HEADERS, END_STREAM, Frame, Frames, GOAWAY, HEADERS, PING, PRIORITY,
    RST_STREAM, SETTINGS, WINDOW_UPDATE, fields, frame, head,
};
use integration_tests::{Router, ScriptedCell};
use serde_json::json;

use crate::scene::{HOST, at, options, scripted};

const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
const PROTOCOL_ERROR: u32 = 1;
const ENHANCE_YOUR_CALM: u32 = 11;

type Lines<'a> = Vec<(&'a str, &'a str)>;

fn get(path: &str) -> Lines<'_> {
    vec![
        (":method", "GET"),
        (":scheme", "http"),
        (":path", path),
        (":authority", HOST),
    ]
}

/// A good head with these fields, too.
fn with<'a>(more: &[(&'a str, &'a str)]) -> Lines<'a> {
    let mut lines = get("/");
    lines.extend(more);
    lines
}

/// A good head without this field, or with another value of it.
fn changed<'a>(name: &str, value: Option<&'a str>) -> Lines<'a> {
    let lines = get("/").into_iter();
    lines
        .filter_map(|(key, old)| match (key == name, value) {
            (false, _) => Some((key, old)),
            (true, Some(value)) => Some((key, value)),
            (true, None) => None,
        })
        .collect()
}

/// The next request that the cell sees is this one's: nothing came before it.
async fn nothing_reached(router: &Router, cell: &ScriptedCell) {
    let fence = tokio::spawn(client::get(router.addr(), HOST, "/fence"));
    let (mut upstream, head) = cell.request().await;
    assert!(head.starts_with("GET /fence "), "{head}");
    upstream
        .write("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 0\r\n\r\n")
        .await
        .unwrap();
    fence.await.unwrap().unwrap();
}

/// How a router refuses.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Refusal {
    /// By a reset of the stream.
    Stream,
    /// By the end of the connection.
    Connection,
    /// By an answer.
    Answer,
}

fn refusal(frame: &Frame) -> Option<Refusal> {
    match (frame.kind, frame.code()) {
        (RST_STREAM, Some(PROTOCOL_ERROR)) => Some(Refusal::Stream),
        (GOAWAY, Some(PROTOCOL_ERROR)) => Some(Refusal::Connection),
        (HEADERS, _) => Some(Refusal::Answer),
        _ => None,
    }
}

#[tokio::test]
async fn malformed_heads_are_refused_before_a_cell_gets_a_byte() {
    use Refusal::{Answer, Connection, Stream};
    let (router, cell) = scripted().await;
    let connect = vec![(":method", "CONNECT"), (":authority", HOST)];
    let mut late = vec![("x", "1")];
    late.extend(get("/"));
    let extended = with(&[(":protocol", "websocket")]);
    for (what, lines, how, reason) in [
        (
            "no method",
            changed(":method", None),
            Stream,
            "bad_http2_message",
        ),
        (
            "no scheme",
            changed(":scheme", None),
            Stream,
            "bad_http2_message",
        ),
        (
            "no path",
            changed(":path", None),
            Stream,
            "bad_http2_message",
        ),
        (
            "an empty path",
            changed(":path", Some("")),
            Stream,
            "bad_http2_message",
        ),
        (
            "two methods",
            with(&[(":method", "GET")]),
            Stream,
            "bad_http2_message",
        ),
        (
            "two paths",
            with(&[(":path", "/b")]),
            Stream,
            "bad_http2_message",
        ),
        (
            "two authorities",
            with(&[(":authority", HOST)]),
            Stream,
            "bad_http2_message",
        ),
        (
            "a status",
            with(&[(":status", "200")]),
            Stream,
            "bad_http2_message",
        ),
        ("a protocol", extended, Stream, "bad_http2_message"),
        (
            "a late pseudo-header field",
            late,
            Stream,
            "bad_http2_message",
        ),
        (
            "an unknown one",
            with(&[(":x", "1")]),
            Connection,
            "bad_http2_frames",
        ),
        (
            "an upper-case name",
            with(&[("X-A", "1")]),
            Connection,
            "bad_http2_frames",
        ),
        (
            "a blank in a name",
            with(&[("x a", "1")]),
            Connection,
            "bad_http2_frames",
        ),
        (
            "a colon in a name",
            with(&[("x:a", "1")]),
            Connection,
            "bad_http2_frames",
        ),
        (
            "an empty name",
            with(&[("", "1")]),
            Connection,
            "bad_http2_frames",
        ),
        (
            "connection",
            with(&[("connection", "close")]),
            Stream,
            "bad_http2_message",
        ),
        (
            "transfer-encoding",
            with(&[("transfer-encoding", "chunked")]),
            Stream,
            "bad_http2_message",
        ),
        (
            "keep-alive",
            with(&[("keep-alive", "1")]),
            Stream,
            "bad_http2_message",
        ),
        (
            "proxy-connection",
            with(&[("proxy-connection", "close")]),
            Stream,
            "bad_http2_message",
        ),
        (
            "upgrade",
            with(&[("upgrade", "websocket")]),
            Stream,
            "bad_http2_message",
        ),
        ("te", with(&[("te", "gzip")]), Stream, "bad_http2_message"),
        (
            "te as a list",
            with(&[("te", "trailers, gzip")]),
            Stream,
            "bad_http2_message",
        ),
        (
            "CR in a value",
            with(&[("x", "a\rb: c")]),
            Connection,
            "bad_http2_frames",
        ),
        (
            "LF in a value",
            with(&[("x", "a\nb: c")]),
            Connection,
            "bad_http2_frames",
        ),
        (
            "NUL in a value",
            with(&[("x", "a\0b")]),
            Connection,
            "bad_http2_frames",
        ),
        (
            "a blank before a value",
            with(&[("x", " a")]),
            Answer,
            "bad_header_value",
        ),
        (
            "a tab after a value",
            with(&[("x", "a\t")]),
            Answer,
            "bad_header_value",
        ),
        (
            "a blank in the path",
            changed(":path", Some("/a b")),
            Stream,
            "bad_http2_message",
        ),
        (
            "CR LF in the path",
            changed(":path", Some("/ HTTP/1.1\r\nx: y")),
            Stream,
            "bad_http2_message",
        ),
        (
            "a path without a slash",
            changed(":path", Some("a")),
            Stream,
            "bad_http2_message",
        ),
        (
            "a path in UTF-8",
            changed(":path", Some("/ä")),
            Answer,
            "bad_target",
        ),
        (
            "a foreign scheme",
            changed(":scheme", Some("ftp")),
            Answer,
            "bad_target",
        ),
        (
            "a user",
            changed(":authority", Some("u@alice.example.com")),
            Answer,
            "bad_target",
        ),
        (
            "a path in the authority",
            changed(":authority", Some("alice.example.com/x")),
            Stream,
            "bad_http2_message",
        ),
        (
            "an empty authority",
            changed(":authority", Some("")),
            Stream,
            "bad_http2_message",
        ),
        (
            "no authority and no host",
            changed(":authority", None),
            Answer,
            "bad_host",
        ),
        (
            "another host",
            with(&[("host", "bob.example.com")]),
            Answer,
            "authority_mismatch",
        ),
        (
            "two hosts",
            with(&[("host", HOST), ("host", HOST)]),
            Answer,
            "bad_host",
        ),
        ("CONNECT", connect, Answer, "method_not_served"),
        (
            "TRACE",
            changed(":method", Some("TRACE")),
            Answer,
            "method_not_served",
        ),
        (
            "a method that is none",
            changed(":method", Some("G T")),
            Connection,
            "bad_http2_frames",
        ),
        (
            "two lengths",
            with(&[("content-length", "0"), ("content-length", "0")]),
            Answer,
            "bad_content_length",
        ),
        (
            "a length that is none",
            with(&[("content-length", "+0")]),
            Stream,
            "bad_http2_message",
        ),
        (
            "a length and no body",
            with(&[("content-length", "5")]),
            Stream,
            "bad_http2_message",
        ),
    ] {
        let mut client = Frames::connect(router.addr(), &[]).await.unwrap();
        client.send(head(1, END_STREAM, &lines)).await.unwrap();
        let mut answered = None;
        while answered.is_none() {
            let frame = client.next().await;
            answered = refusal(&frame.unwrap_or_else(|| panic!("{what}: no refusal")));
        }
        assert_eq!(answered, Some(how), "{what}");
        let record = router.next_record(|_| true).await;
        assert_eq!(
            (&record["reason"], &record["version"], &record["error_by"]),
            (&json!(reason), &json!("2"), &json!("client")),
            "{what}"
        );
        if how != Connection {
            // One bad request costs nobody else the connection.
            let mut lines = get("/");
            lines[3].1 = "nobody.example.org";
            client.send(head(3, END_STREAM, &lines)).await.unwrap();
            assert!(client.stream(3).await.last().unwrap().ends(), "{what}");
            router.next_record(|line| line["status"] == 404).await;
        }
    }
    nothing_reached(&router, &cell).await;
}

#[tokio::test]
async fn options_of_the_whole_server_are_refused() {
    let (router, cell) = scripted().await;
    let mut client = Frames::connect(router.addr(), &[]).await.unwrap();
    let mut lines = get("*");
    lines[0].1 = "OPTIONS";
    client.send(head(1, END_STREAM, &lines)).await.unwrap();
    assert!(client.stream(1).await.last().unwrap().ends());
    assert_eq!(router.next_record(|_| true).await["reason"], "bad_target");
    nothing_reached(&router, &cell).await;
}

#[tokio::test]
async fn a_length_that_disagrees_with_the_body_cuts_the_request() {
    let (router, cell) = scripted().await;
    let mut lines = with(&[("content-length", "5")]);
    lines[0].1 = "POST";
    for rest in [
        frame(DATA, END_STREAM, 1, "lo"),
        frame(DATA, END_STREAM, 1, "lo!!"),
        frame(DATA, 0, 1, "lo!!"),
        [frame(DATA, 0, 1, "lo!"), frame(DATA, END_STREAM, 1, "!")].concat(),
    ] {
        let mut client = Frames::connect(router.addr(), &[]).await.unwrap();
        client.send(head(1, 0, &lines)).await.unwrap();
        client.send(frame(DATA, 0, 1, "he")).await.unwrap();
        let (mut upstream, _) = cell.request().await;
        assert_eq!(upstream.bytes(2).await.unwrap(), b"he");
        client.send(&rest).await.unwrap();
        let frames = client.stream(1).await;
        assert_eq!(frames[0].code(), Some(PROTOCOL_ERROR), "{frames:?}");
        // The cell never gets all that it was promised.
        let got = upstream.rest().await.unwrap_or_default();
        assert!(got.len() < 3, "{got:?}");
        let record = router.next_record(|_| true).await;
        assert_eq!(record["error_by"], "client", "{record}");
    }
}

#[tokio::test]
async fn trailers_that_do_not_end_the_stream_cut_the_request() {
    let (router, cell) = scripted().await;
    let mut client = Frames::connect(router.addr(), &[]).await.unwrap();
    let mut lines = get("/");
    lines[0].1 = "POST";
    client.send(head(1, 0, &lines)).await.unwrap();
    client.send(frame(DATA, 0, 1, "he")).await.unwrap();
    let (mut upstream, _) = cell.request().await;
    assert_eq!(upstream.chunk().await.unwrap(), b"he");
    client.send(head(1, 0, &[("x-sum", "1")])).await.unwrap();
    assert_eq!(client.stream(1).await[0].code(), Some(PROTOCOL_ERROR));
    assert!(upstream.chunk().await.is_err());
}

#[tokio::test]
async fn pseudo_header_fields_in_trailers_never_reach_the_cell() {
    let (router, cell) = scripted().await;
    let mut client = Frames::connect(router.addr(), &[]).await.unwrap();
    let mut lines = with(&[("trailer", "x-sum")]);
    lines[0].1 = "POST";
    client.send(head(1, 0, &lines)).await.unwrap();
    client.send(frame(DATA, 0, 1, "he")).await.unwrap();
    let (mut upstream, _) = cell.request().await;
    assert_eq!(upstream.chunk().await.unwrap(), b"he");
    let trailers = [(":path", "/admin"), ("x-sum", "1")];
    client.send(head(1, END_STREAM, &trailers)).await.unwrap();
    assert_eq!(upstream.chunk().await.unwrap(), b"");
    assert_eq!(upstream.head().await.unwrap(), "x-sum: 1\r\n\r\n");
}

async fn limited() -> (Router, ScriptedCell) {
    let cell = ScriptedCell::listen().await;
    let options = options(json!({ "alice": at(cell.addr()) }));
    let limits = ["--max-head-bytes", "8192", "--max-headers", "20"];
    (Router::start(options.args(limits)).await, cell)
}

#[tokio::test]
async fn heads_over_the_limits_are_refused() {
    let (router, cell) = limited().await;
    let long = "x".repeat(9000);
    let names: Vec<_> = (0..21).map(|number| format!("x-{number}")).collect();
    let many: Lines<'_> = names.iter().map(|name| (name.as_str(), "1")).collect();
    for lines in [with(&[("x", &long)]), with(&many)] {
        let mut client = Frames::connect(router.addr(), &[]).await.unwrap();
        client.send(head(1, END_STREAM, &lines)).await.unwrap();
        assert_eq!(client.stream(1).await[0].kind, HEADERS);
        let record = router.next_record(|_| true).await;
        assert_eq!(
            (&record["status"], &record["reason"]),
            (&json!(431), &json!("head_too_large"))
        );
    }
    // Far over them, the connection ends.
    let mut client = Frames::connect(router.addr(), &[]).await.unwrap();
    let block = fields(&with(&vec![("x", long.as_str()); 10]));
    let mut pieces = block.chunks(16_000);
    let first = frame(HEADERS, END_STREAM, 1, pieces.next().unwrap());
    client.send(first).await.unwrap();
    for piece in pieces {
        if client.send(frame(CONTINUATION, 0, 1, piece)).await.is_err() {
            break;
        }
    }
    let goaway = client.find(|frame| frame.kind == GOAWAY).await.unwrap();
    // COMPRESSION_ERROR: what is not decoded to its end leaves nothing to decode with.
    assert_eq!(goaway.code(), Some(9));
    let record = router.next_record(|_| true).await;
    assert_eq!(record["reason"], "bad_http2_frames");
    nothing_reached(&router, &cell).await;
}

#[tokio::test]
async fn a_head_that_never_ends_is_given_up() {
    let cell = ScriptedCell::listen().await;
    let options = options(json!({ "alice": at(cell.addr()) }));
    let times = ["--head-timeout-ms", "300", "--idle-timeout-ms", "86400000"];
    let router = Router::start(options.args(times)).await;
    let block = fields(&get("/"));
    for beginning in [
        // Its frames are whole, and the last is missing.
        [
            frame(HEADERS, END_STREAM, 1, &block),
            frame(CONTINUATION, 0, 1, fields(&[("x", "y")])),
        ]
        .concat(),
        // Or a frame is not whole.
        frame(HEADERS, END_STREAM | END_HEADERS, 1, &block)[..20].to_vec(),
    ] {
        let mut client = Frames::connect(router.addr(), &[]).await.unwrap();
        // Acknowledged, so that nothing comes between what follows.
        client.find(|frame| frame.kind == SETTINGS).await.unwrap();
        client.send(beginning).await.unwrap();
        let goaway = client.find(|frame| frame.kind == GOAWAY).await.unwrap();
        assert_eq!(goaway.code(), Some(ENHANCE_YOUR_CALM));
        let record = router.next_record(|_| true).await;
        assert_eq!(
            (&record["status"], &record["reason"]),
            (&json!(408), &json!("head_timeout"))
        );
    }
    nothing_reached(&router, &cell).await;
}

/// Sends this over and over until the router has had enough.
async fn flood(router: &Router, before: &[u8], mut piece: impl FnMut(u32) -> Vec<u8>) {
    let mut client = Frames::connect(router.addr(), &[]).await.unwrap();
    client.send(before).await.unwrap();
    let mut number = 0;
    let goaway = loop {
        // In small batches, each with a look at what has come, so that neither side waits for the other.
        let batch: Vec<u8> = (0..100)
            .flat_map(|_| {
                number += 1;
                piece(number)
            })
            .collect();
        if client.send(batch).await.is_err() {
            break client.find(|frame| frame.kind == GOAWAY).await;
        }
        let mut found = None;
        while client.0.has_some() {
            found = client.next().await.filter(|frame| frame.kind == GOAWAY);
            if found.is_some() {
                break;
            }
        }
        if found.is_some() {
            break found;
        }
        assert!(number < 10_000_000, "the router puts up with everything");
        tokio::task::yield_now().await;
    };
    if let Some(goaway) = goaway {
        assert_eq!(goaway.code(), Some(ENHANCE_YOUR_CALM));
    }
    assert_eq!(
        router.next_record(|line| line["reason"] == "flood").await["status"],
        429
    );
}

#[tokio::test]
async fn floods_of_frames_that_ask_for_nothing_end_the_connection() {
    let (router, cell) = scripted().await;
    flood(&router, &[], |_| frame(PING, 0, 0, [0; 8])).await;
    flood(&router, &[], |_| frame(SETTINGS, 0, 0, [])).await;
    flood(&router, &[], |_| {
        frame(WINDOW_UPDATE, 0, 0, 1_u32.to_be_bytes())
    })
    .await;
    flood(&router, &[], |_| frame(PRIORITY, 0, 1, [0, 0, 0, 3, 1])).await;
    flood(&router, &[], |_| frame(0x7b, 0, 0, "unknown")).await;
    nothing_reached(&router, &cell).await;
}

#[tokio::test]
async fn empty_frames_of_a_body_end_the_connection() {
    let (router, _cell) = scripted().await;
    let mut lines = get("/");
    lines[0].1 = "POST";
    flood(&router, &head(1, 0, &lines), |_| frame(DATA, 0, 1, [])).await;
}

/// What a client had on its way when its request was answered early is no flood, however often that happens.
#[tokio::test]
async fn small_frames_after_early_answers_cost_nobody_a_request() {
    let (router, cell) = scripted().await;
    let mut lines = get("/");
    lines[0].1 = "POST";
    let (mut client, mut stream) = (None, 1);
    let mut connections = 0;
    for _ in 0..200 {
        let frames = match &mut client {
            Some(frames) => frames,
            none => {
                (connections, stream) = (connections + 1, 1);
                none.insert(Frames::connect(router.addr(), &[]).await.unwrap())
            }
        };
        frames.send(head(stream, 0, &lines)).await.unwrap();
        // Who is told to go elsewhere is served for a while.
        let (mut upstream, _) = cell.request().await;
        let early = "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\nok";
        upstream.write(early).await.unwrap();
        let mut told = false;
        let ended = |frame: &Frame| {
            assert_ne!(frame.code(), Some(ENHANCE_YOUR_CALM));
            told |= frame.kind == GOAWAY;
            frame.stream == stream && frame.kind == RST_STREAM
        };
        frames.find(ended).await.expect("each is answered");
        if told {
            client = None;
            continue;
        }
        frames
            .send(frame(DATA, 0, stream, "small").repeat(100))
            .await
            .unwrap();
        stream += 2;
    }
    assert!(connections < 4, "{connections}");
}

#[tokio::test]
async fn continuations_without_end_end_the_connection() {
    let (router, cell) = scripted().await;
    let beginning = frame(HEADERS, END_STREAM, 1, fields(&get("/")));
    flood(&router, &beginning, |_| frame(CONTINUATION, 0, 1, [])).await;
    nothing_reached(&router, &cell).await;
}

#[tokio::test]
async fn requests_taken_back_in_a_burst_end_the_connection() {
    let (router, _cell) = scripted().await;
    let cancel = 8_u32.to_be_bytes();
    flood(&router, &[], |number| {
        let stream = 2 * number - 1;
        let mut request = head(stream, END_STREAM, &get("/"));
        request.extend(frame(RST_STREAM, 0, stream, cancel));
        request
    })
    .await;
}

#[tokio::test]
async fn requests_taken_back_one_by_one_come_to_an_end() {
    let (router, cell) = scripted().await;
    let mut client = Frames::connect(router.addr(), &[]).await.unwrap();
    let running = head(1, END_STREAM, &get("/running"));
    client.send(running).await.unwrap();
    let (mut running, _) = cell.request().await;
    let mut stream = 1;
    // Each is looked at, and its cell told, before it is taken back; no cell hangs up by itself.
    let mut asked = Vec::new();
    loop {
        stream += 2;
        client
            .send(head(stream, END_STREAM, &get("/")))
            .await
            .unwrap();
        let refused = tokio::select! {
            (upstream, _) = cell.request() => {
                asked.push(upstream);
                None
            }
            refused = client.find(|frame| frame.code() == Some(7)) => refused,
        };
        if refused.is_some() {
            break;
        }
        let cancel = 8_u32.to_be_bytes();
        client
            .send(frame(RST_STREAM, 0, stream, cancel))
            .await
            .unwrap();
        assert!(stream < 100_000, "the router puts up with everything");
    }
    router.next_record(|line| line["reason"] == "flood").await;
    // What runs is finished all the same.
    running.write(OK).await.unwrap();
    assert!(client.stream(1).await.last().unwrap().ends());
}

#[tokio::test]
async fn streams_beyond_the_limit_are_refused() {
    let (router, cell) = scripted().await;
    let mut client = Frames::connect(router.addr(), &[]).await.unwrap();
    let mut upstreams = Vec::new();
    for number in 0..256 {
        client
            .send(head(2 * number + 1, END_STREAM, &get("/")))
            .await
            .unwrap();
        upstreams.push(cell.request().await);
    }
    client
        .send(head(1001, END_STREAM, &get("/")))
        .await
        .unwrap();
    let refused = client.stream(1001).await;
    // REFUSED_STREAM.
    assert_eq!(refused[0].code(), Some(7), "{refused:?}");
    upstreams[0].0.write(OK).await.unwrap();
    assert!(client.stream(1).await.last().unwrap().ends());
    client
        .send(head(1003, END_STREAM, &get("/next")))
        .await
        .unwrap();
    assert!(
        upstreams[0]
            .0
            .head()
            .await
            .unwrap()
            .starts_with("GET /next ")
    );
}

#[tokio::test]
async fn broken_framing_ends_the_connection() {
    let (router, cell) = scripted().await;
    for (what, bytes, code) in [
        ("DATA without a stream", frame(DATA, 0, 0, "x"), 1),
        ("DATA on an idle stream", frame(DATA, 0, 1, "x"), 1),
        (
            "HEADERS on an even stream",
            head(2, END_STREAM, &get("/")),
            1,
        ),
        (
            "a frame that is too long",
            frame(DATA, 0, 1, [0; 17_000]),
            6,
        ),
        ("a PING of seven bytes", frame(PING, 0, 0, [0; 7]), 6),
        ("SETTINGS on a stream", frame(SETTINGS, 0, 1, []), 1),
        (
            "no head at all",
            frame(HEADERS, END_HEADERS, 1, [0xff; 8]),
            1,
        ),
        (
            "a window that overflows",
            [
                frame(WINDOW_UPDATE, 0, 0, i32::MAX.to_be_bytes()),
                frame(WINDOW_UPDATE, 0, 0, i32::MAX.to_be_bytes()),
            ]
            .concat(),
            3,
        ),
        (
            "CONTINUATION out of turn",
            frame(CONTINUATION, END_HEADERS, 1, fields(&get("/"))),
            1,
        ),
    ] {
        let mut client = Frames::connect(router.addr(), &[]).await.unwrap();
        client.send(bytes).await.unwrap();
        let goaway = client.find(|frame| frame.kind == GOAWAY).await;
        let goaway = goaway.unwrap_or_else(|| panic!("{what}: no GOAWAY"));
        assert_eq!(goaway.code(), Some(code), "{what}");
        let record = router.next_record(|_| true).await;
        assert_eq!(record["reason"], "bad_http2_frames", "{what}");
    }
    nothing_reached(&router, &cell).await;
}
