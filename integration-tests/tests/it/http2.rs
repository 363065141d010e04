//! HTTP/2 as clients speak it: interim answers, early ones, cuts on either side, windows, the end.

use std::future::poll_fn;

use bytes::Bytes;
use h2::client::{ResponseFuture, SendRequest};
use h2::{Reason, RecvStream, SendStream};
use http::{HeaderMap, Request, Response, StatusCode};
use integration_tests::client::{self, Raw};
use integration_tests::http2::{
    ACK, DATA, END_STREAM, Frame, Frames, GOAWAY, HEADERS, INITIAL_WINDOW, PING, PREFACE,
    RST_STREAM, Room, SETTINGS, WINDOW_UPDATE, frame, head, setting,
};
use integration_tests::{Router, ScriptedCell};
use serde_json::{Value, json};
use tokio::net::{TcpSocket, TcpStream};

use crate::scene::{HOST, at, options, said, scripted};

const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

async fn connect(router: &Router) -> SendRequest<Bytes> {
    let socket = TcpStream::connect(router.addr()).await.unwrap();
    let (sender, connection) = h2::client::handshake(socket).await.unwrap();
    // Its errors come out of the streams.
    tokio::spawn(async move { drop(connection.await) });
    sender.ready().await.unwrap()
}

fn request(method: &str, path: &str) -> http::request::Builder {
    Request::builder()
        .method(method)
        .uri(format!("http://{HOST}{path}"))
}

fn get(client: &mut SendRequest<Bytes>, path: &str) -> ResponseFuture {
    let request = request("GET", path).body(()).unwrap();
    client.send_request(request, true).unwrap().0
}

fn upload(
    client: &mut SendRequest<Bytes>,
    path: &str,
    length: Option<usize>,
) -> (ResponseFuture, SendStream<Bytes>) {
    let mut request = request("PUT", path);
    if let Some(length) = length {
        request = request.header("content-length", length);
    }
    client
        .send_request(request.body(()).unwrap(), false)
        .unwrap()
}

async fn interim(answer: &mut ResponseFuture) -> Response<()> {
    let interim = poll_fn(|context| answer.poll_informational(context)).await;
    interim.expect("an interim answer").unwrap()
}

async fn read(body: &mut RecvStream) -> Result<Bytes, h2::Error> {
    let mut all = Vec::new();
    while let Some(data) = body.data().await {
        let data = data?;
        body.flow_control().release_capacity(data.len())?;
        all.extend(data);
    }
    Ok(all.into())
}

/// Sends as the window allows.
async fn send(body: &mut SendStream<Bytes>, mut data: Bytes) -> Result<(), h2::Error> {
    while !data.is_empty() {
        body.reserve_capacity(data.len());
        match poll_fn(|context| body.poll_capacity(context)).await {
            Some(room) => body.send_data(data.split_to(room?.min(data.len())), false)?,
            None => return Err(Reason::STREAM_CLOSED.into()),
        }
    }
    Ok(())
}

fn post(path: &'static str) -> [(&'static str, &'static str); 4] {
    [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", path),
        (":authority", HOST),
    ]
}

fn at_path(path: &str) -> impl FnMut(&Value) -> bool {
    let path = path.to_owned();
    move |line| line["path"] == path
}

#[tokio::test]
async fn interim_answers_are_passed_on_without_what_would_steer_the_edge() {
    let (router, cell) = scripted().await;
    let mut client = connect(&router).await;
    let mut answer = get(&mut client, "/");
    let (mut upstream, _) = cell.request().await;
    // Nobody asked for this one.
    upstream
        .write("HTTP/1.1 100 Continue\r\n\r\n")
        .await
        .unwrap();
    for (status, link) in [(103, "</a.css>"), (103, "</b.css>"), (104, "</c>")] {
        upstream
            .write(format!(
                "HTTP/1.1 {status} X\r\nlink: {link}\r\nfly-replay: app=x\r\nconnection: x-hop\r\nx-hop: 1\r\n\r\n"
            ))
            .await
            .unwrap();
        let interim = interim(&mut answer).await;
        assert_eq!(interim.status(), status);
        let headers: Vec<_> = interim.headers().iter().collect();
        assert_eq!(headers.len(), 1, "{headers:?}");
        assert_eq!(interim.headers()["link"], link);
    }
    upstream.write(OK).await.unwrap();
    let mut response = answer.await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(read(response.body_mut()).await.unwrap(), "ok");
}

#[tokio::test]
async fn bodies_that_have_been_sent_leave_their_room_though_their_answers_go_on() {
    const EACH: usize = 16 * 1024;
    let (router, cell) = scripted().await;
    let mut client = connect(&router).await;
    let mut going_on = Vec::new();
    // More than the window of the connection.
    for _ in 0..12 {
        let post = request("POST", "/").header("content-length", EACH);
        let (answer, mut body) = client.send_request(post.body(()).unwrap(), false).unwrap();
        body.send_data(vec![7; EACH].into(), true).unwrap();
        let (mut upstream, _) = cell.request().await;
        upstream.bytes(EACH).await.unwrap();
        upstream
            .write("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
            .await
            .unwrap();
        assert_eq!(answer.await.unwrap().status(), StatusCode::OK);
        going_on.push((upstream, body));
    }
}

#[tokio::test]
async fn the_cell_decides_whether_the_body_is_sent() {
    let (router, cell) = scripted().await;
    let mut client = connect(&router).await;
    let expecting = |client: &mut SendRequest<Bytes>| {
        let request = request("PUT", "/x")
            .header("expect", "100-continue")
            .header("content-length", 5);
        client
            .send_request(request.body(()).unwrap(), false)
            .unwrap()
    };
    let (mut answer, mut body) = expecting(&mut client);
    let (mut upstream, head) = cell.request().await;
    assert!(head.contains("expect: 100-continue"), "{head}");
    // More than is passed on of anything but this word.
    let hint = format!("HTTP/1.1 103 X\r\nlink: {}\r\n\r\n", "a".repeat(5_000));
    upstream.write(hint.repeat(20)).await.unwrap();
    let least = "HTTP/1.1 103 X\r\n\r\n";
    upstream.write(least.repeat(100)).await.unwrap();
    upstream
        .write("HTTP/1.1 100 Continue\r\n\r\n")
        .await
        .unwrap();
    let mut hints = 0;
    while interim(&mut answer).await.status() != StatusCode::CONTINUE {
        hints += 1;
    }
    assert!((1..120).contains(&hints), "{hints}");
    body.send_data("hello".into(), true).unwrap();
    assert_eq!(upstream.bytes(5).await.unwrap(), b"hello");
    upstream
        .write("HTTP/1.1 201 Created\r\ncontent-length: 0\r\n\r\n")
        .await
        .unwrap();
    assert_eq!(answer.await.unwrap().status(), StatusCode::CREATED);

    for status in [417, 413] {
        let (answer, mut body) = expecting(&mut client);
        upstream.head().await.unwrap();
        upstream
            .write(format!(
                "HTTP/1.1 {status} No\r\ncontent-length: 3\r\n\r\nno\n"
            ))
            .await
            .unwrap();
        let mut response = answer.await.unwrap();
        assert_eq!(response.status(), status);
        assert_eq!(read(response.body_mut()).await.unwrap(), "no\n");
        let reset = poll_fn(|context| body.poll_reset(context)).await.unwrap();
        assert_eq!(reset, Reason::NO_ERROR);
        // No request may follow one whose body was never sent.
        upstream.ended().await;
        if status == 417 {
            let again = get(&mut client, "/again");
            upstream = cell.request().await.0;
            upstream.write(OK).await.unwrap();
            assert_eq!(again.await.unwrap().status(), StatusCode::OK);
        }
    }
}

#[tokio::test]
async fn an_early_answer_arrives_whole_and_gives_the_window_back() {
    const BYTES: usize = 200_000;
    let (router, cell) = scripted().await;
    let mut client = connect(&router).await;
    let page = "x".repeat(100_000);
    // In all more than the window of a connection ever is.
    for status in [413, 401, 302, 413, 401, 302].repeat(4) {
        let (answer, mut body) = upload(&mut client, "/early", Some(1_000_000_000));
        let (mut upstream, _) = cell.request().await;
        let sending = tokio::spawn(async move {
            let mut sent = 0;
            // It goes on until it is told to stop.
            while send(&mut body, Bytes::from_static(&[0; 16 * 1024]))
                .await
                .is_ok()
            {
                sent += 16 * 1024;
            }
            (sent, poll_fn(|context| body.poll_reset(context)).await)
        });
        upstream.bytes(BYTES).await.unwrap();
        upstream
            .write(format!(
                "HTTP/1.1 {status} Early\r\ncontent-length: {}\r\n\r\n{page}",
                page.len()
            ))
            .await
            .unwrap();
        let mut response = answer.await.unwrap();
        assert_eq!(response.status(), status);
        assert_eq!(read(response.body_mut()).await.unwrap(), page);
        let (sent, reset) = sending.await.unwrap();
        assert!(sent >= BYTES, "{sent}");
        assert_eq!(reset.unwrap(), Reason::NO_ERROR);
        upstream.ended().await;
        let record = router.next_record(at_path("/early")).await;
        assert_eq!(record["request_body"], "not_wanted");
    }
    let next = get(&mut client, "/next");
    let (mut upstream, head) = cell.request().await;
    assert!(head.starts_with("GET /next "), "{head}");
    upstream.write(OK).await.unwrap();
    assert_eq!(next.await.unwrap().status(), StatusCode::OK);
}

#[tokio::test]
async fn an_early_success_ends_the_upload_too() {
    let (router, cell) = scripted().await;
    let mut client = Frames::connect(router.addr(), &[]).await.unwrap();
    client.send(head(1, 0, &post("/x"))).await.unwrap();
    client.send(frame(DATA, 0, 1, "piece")).await.unwrap();
    let (mut upstream, _) = cell.request().await;
    assert_eq!(upstream.chunk().await.unwrap(), b"piece");
    upstream.write(OK).await.unwrap();
    let frames = client.stream(1).await;
    assert!(frames.last().unwrap().ends(), "{frames:?}");
    let reset = client.next().await.unwrap();
    assert_eq!((reset.kind, reset.code()), (RST_STREAM, Some(0)));
    upstream.ended().await;
}

#[tokio::test]
async fn a_cut_upload_reaches_the_cell_as_cut() {
    let (router, cell) = scripted().await;
    for promised in [Some("10"), Some("5"), None] {
        let mut lines = post("/cut").to_vec();
        lines.extend(promised.map(|length| ("content-length", length)));
        for by_reset in [true, false] {
            let mut client = Frames::connect(router.addr(), &[]).await.unwrap();
            client.send(head(1, 0, &lines)).await.unwrap();
            client.send(frame(DATA, 0, 1, "he")).await.unwrap();
            let (mut upstream, _) = cell.request().await;
            if promised.is_some() {
                assert_eq!(upstream.bytes(2).await.unwrap(), b"he");
            } else {
                assert_eq!(upstream.chunk().await.unwrap(), b"he");
            }
            client.send(frame(DATA, 0, 1, "llo")).await.unwrap();
            if by_reset {
                client.send(frame(RST_STREAM, 0, 1, [0; 4])).await.unwrap();
            }
            drop(client);
            // What was promised had come, but its sender had not said that it was the end.
            let rest = upstream.rest().await.unwrap_or_default();
            assert!(
                !rest.ends_with(b"0\r\n\r\n") && (promised != Some("5") || rest.len() < 3),
                "{promised:?} {rest:?}"
            );
            let record = router.next_record(at_path("/cut")).await;
            assert_eq!(
                (&record["status"], &record["error_by"]),
                (&json!(499), &json!("client")),
                "{record}"
            );
        }
    }
}

#[tokio::test]
async fn a_request_taken_back_leaves_its_cell_at_once() {
    let (router, cell) = scripted().await;
    let mut client = Frames::connect(router.addr(), &[]).await.unwrap();
    client
        .send(head(1, END_STREAM, &post("/slow")))
        .await
        .unwrap();
    let (mut upstream, _) = cell.request().await;
    let cancel = 8_u32.to_be_bytes();
    client.send(frame(RST_STREAM, 0, 1, cancel)).await.unwrap();
    upstream.ended().await;
    let record = router.next_record(at_path("/slow")).await;
    assert_eq!(
        (&record["status"], &record["reason"], &record["error_by"]),
        (&json!(499), &json!("client_gone"), &json!("client"))
    );

    client
        .send(head(3, END_STREAM, &post("/half")))
        .await
        .unwrap();
    let (mut upstream, _) = cell.request().await;
    upstream
        .write("HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\nhalf")
        .await
        .unwrap();
    let data = client.find(|frame| frame.kind == DATA).await.unwrap();
    assert_eq!(data.payload, b"half");
    client.send(frame(RST_STREAM, 0, 3, cancel)).await.unwrap();
    upstream.ended().await;
    let record = router.next_record(at_path("/half")).await;
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
async fn a_cut_download_is_a_reset_and_never_an_end() {
    let (router, cell) = scripted().await;
    let mut client = Frames::connect(router.addr(), &[]).await.unwrap();
    for (stream, framing) in [
        (1, "content-length: 1000\r\n\r\nhalf"),
        (3, "transfer-encoding: chunked\r\n\r\n4\r\nhalf\r\n"),
        (5, "transfer-encoding: chunked\r\n\r\n4\r\nhalf\r\nzz\r\n"),
    ] {
        client
            .send(head(stream, END_STREAM, &post("/")))
            .await
            .unwrap();
        let (mut upstream, _) = cell.request().await;
        upstream
            .write(format!("HTTP/1.1 200 OK\r\n{framing}"))
            .await
            .unwrap();
        drop(upstream);
        let frames = client.stream(stream).await;
        let kinds: Vec<_> = frames.iter().map(|frame| frame.kind).collect();
        assert_eq!(kinds, [HEADERS, DATA, RST_STREAM], "{framing}");
        assert!(!frames.iter().any(Frame::ends));
        assert_eq!(frames[1].payload, b"half");
        // INTERNAL_ERROR: some clients take CANCEL for an end.
        assert_eq!(frames[2].code(), Some(2));
        let record = router.next_record(|line| line["status"] == 200).await;
        assert_eq!(record["response_body"], "cell_cut");
    }
}

#[tokio::test]
async fn trailers_go_both_ways() {
    let (router, cell) = scripted().await;
    let mut client = connect(&router).await;
    let (answer, mut body) = upload(&mut client, "/", None);
    body.send_data("hi".into(), false).unwrap();
    let mut trailers = HeaderMap::new();
    trailers.insert("x-sum", "asked".parse().unwrap());
    trailers.insert("cell-signature", "v1.forged".parse().unwrap());
    body.send_trailers(trailers).unwrap();
    let (mut upstream, _) = cell.request().await;
    assert_eq!(upstream.chunk().await.unwrap(), b"hi");
    assert_eq!(upstream.chunk().await.unwrap(), b"");
    // The codec towards the cell sends those trailers only that were announced.
    upstream.head().await.unwrap();
    upstream
        .write(
            "HTTP/1.1 200 OK\r\ntrailer: x-sum\r\ntransfer-encoding: chunked\r\n\r\n2\r\nho\r\n0\r\n\
             x-sum: told\r\nconnection: close\r\nfly-replay: app=x\r\n\r\n",
        )
        .await
        .unwrap();
    let mut response = answer.await.unwrap();
    assert_eq!(read(response.body_mut()).await.unwrap(), "ho");
    let trailers = response.body_mut().trailers().await.unwrap().unwrap();
    assert_eq!(trailers.len(), 1, "{trailers:?}");
    assert_eq!(trailers["x-sum"], "told");
}

#[tokio::test]
async fn answers_without_a_body_end_with_their_head() {
    let (router, cell) = scripted().await;
    let mut client = Frames::connect(router.addr(), &[]).await.unwrap();
    let mut kept: Option<Raw> = None;
    for (stream, method, answer) in [
        (
            1,
            "HEAD",
            "HTTP/1.1 200 OK\r\ncontent-length: 12345\r\n\r\n",
        ),
        (3, "DELETE", "HTTP/1.1 204 No Content\r\n\r\n"),
        (5, "GET", "HTTP/1.1 304 Not Modified\r\netag: \"a\"\r\n\r\n"),
        (7, "GET", "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"),
    ] {
        let mut lines = post("/");
        lines[0].1 = method;
        client.send(head(stream, END_STREAM, &lines)).await.unwrap();
        if kept.is_none() {
            kept = Some(cell.accept().await);
        }
        let upstream = kept.as_mut().unwrap();
        upstream.head().await.unwrap();
        upstream.write(answer).await.unwrap();
        let frames = client.stream(stream).await;
        assert_eq!(frames.len(), 1, "{answer}");
        assert!(frames[0].kind == HEADERS && frames[0].ends(), "{answer}");
    }
}

#[tokio::test]
async fn a_slow_cells_upload_leaves_the_others_room() {
    const BYTES: usize = 8 * 1024 * 1024;
    let slow = ScriptedCell::listen_with_room(4096);
    let cell = ScriptedCell::listen().await;
    let router =
        crate::scene::router(json!({ "alice": at(cell.addr()), "slow": at(slow.addr()) })).await;
    let mut client = connect(&router).await;
    let mut stuck = Vec::new();
    for number in 0..3 {
        let request = Request::put(format!("http://slow.example.com/{number}"));
        let (answer, mut body) = client
            .send_request(request.body(()).unwrap(), false)
            .unwrap();
        let (upstream, _) = slow.request().await;
        let filling = tokio::spawn(async move {
            let _ = send(&mut body, Bytes::from(vec![0; 64 * 1024 * 1024])).await;
        });
        stuck.push((answer, upstream, filling));
    }
    let (answer, mut body) = upload(&mut client, "/quick", Some(BYTES));
    let (mut upstream, _) = cell.request().await;
    let sending = async {
        send(&mut body, Bytes::from(vec![1; BYTES])).await.unwrap();
        body.send_data(Bytes::new(), true).unwrap();
    };
    let taking = async {
        upstream.bytes(BYTES).await.unwrap();
        upstream.write(OK).await.unwrap();
    };
    tokio::join!(sending, taking);
    assert_eq!(answer.await.unwrap().status(), StatusCode::OK);
    for (_, _, filling) in &stuck {
        assert!(!filling.is_finished(), "the slow cell took everything");
    }
}

#[tokio::test]
async fn windows_grow_once_a_cell_has_taken_many() {
    let (router, cell) = scripted().await;
    let mut client = Frames::connect(router.addr(), &[]).await.unwrap();
    client.send(head(1, 0, &post("/big"))).await.unwrap();
    let (mut upstream, _) = cell.request().await;
    let swallowing =
        tokio::spawn(async move { while !upstream.some().await.unwrap().is_empty() {} });
    let piece = frame(DATA, 0, 1, [0; 16 * 1024]);
    let (mut room, mut sizes) = (Room::default(), vec![]);
    while sizes.len() < 4 {
        while room.left() >= 16 * 1024 {
            client.send(&piece).await.unwrap();
            room.spend(16 * 1024);
        }
        let before = room.initial();
        room.note(&client.next().await.unwrap());
        if room.initial() != before {
            sizes.push(room.initial());
        }
    }
    assert_eq!(sizes, [16, 32, 64, 128].map(|kib| kib * 1024));
    swallowing.abort();
}

#[tokio::test]
async fn what_the_kernel_takes_for_a_cell_that_does_not_read_opens_no_window() {
    let (router, cell) = scripted().await;
    let mut client = Frames::connect(router.addr(), &[]).await.unwrap();
    client.send(head(1, 0, &post("/big"))).await.unwrap();
    let (_upstream, _) = cell.request().await;
    let piece = frame(DATA, 0, 1, [0; 16 * 1024]);
    let (mut room, mut sent, mut pauses) = (Room::default(), 0, 0);
    // Until the router has been asked so many times in vain whether there is room for more.
    while pauses < 10 {
        pauses += 1;
        while room.left() >= 16 * 1024 {
            client.send(&piece).await.unwrap();
            room.spend(16 * 1024);
            sent += 16;
            pauses = 0;
        }
        client.send(frame(PING, 0, 0, [7; 8])).await.unwrap();
        while let Some(next) = client.next().await
            && (next.kind, next.flags & ACK) != (PING, ACK)
        {
            room.note(&next);
        }
        assert!(room.initial() < 64 * 1024, "grown after {sent} KiB");
    }
    assert_eq!(room.initial(), 16 * 1024);
}

#[tokio::test]
async fn what_is_sent_before_the_settings_are_known_leaves_room() {
    const PIECE: usize = 16 * 1024;
    let (router, cell) = scripted().await;
    let mut client = Frames::connect(router.addr(), &[]).await.unwrap();
    let lines = [&post("/big")[..], &[("content-length", "1000000")]].concat();
    client.send(head(1, 0, &lines)).await.unwrap();
    let (mut upstream, _) = cell.request().await;
    let mut room = Room::default();
    for _ in 0..3 {
        client.send(frame(DATA, 0, 1, [0; PIECE])).await.unwrap();
        room.spend(PIECE as i64);
        upstream.bytes(PIECE).await.unwrap();
    }
    // With the first frame that is read the client takes note of the settings, by which it has sent too much.
    for _ in 0..10 {
        client.send(frame(PING, 0, 0, [7; 8])).await.unwrap();
        while let Some(next) = client.next().await
            && (next.kind, next.flags & ACK) != (PING, ACK)
        {
            room.note(&next);
        }
    }
    assert_eq!(room.left(), PIECE as i64);
}

#[tokio::test]
async fn a_client_that_reads_late_gets_the_tail_of_its_answer() {
    let cell = ScriptedCell::listen().await;
    let options = options(json!({ "alice": at(cell.addr()) }));
    let router = Router::start(options.args(["--idle-timeout-ms", "1000"])).await;
    let mut readers = Vec::new();
    // Whatever the kernel has room for, some of these end in what is beyond it.
    for size in (1..40).map(|pieces| pieces * 64 * 1024) {
        let socket = TcpSocket::new_v4().unwrap();
        // Room for a few segments, or else the kernel sends by its slow timers.
        socket.set_recv_buffer_size(128 * 1024).unwrap();
        let mut raw: Raw = socket.connect(router.addr()).await.unwrap().into();
        let room = setting(INITIAL_WINDOW, 1 << 22);
        let all = [
            PREFACE.to_vec(),
            frame(SETTINGS, 0, 0, room),
            frame(WINDOW_UPDATE, 0, 0, (1_u32 << 22).to_be_bytes()),
            head(1, END_STREAM, &post("/late")),
        ];
        // All at once: a connection on which nothing is asked for is let go soon.
        raw.write(all.concat()).await.unwrap();
        let client = Frames(raw);
        let (mut upstream, _) = cell.request().await;
        tokio::spawn(async move {
            let answer =
                format!("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {size}\r\n\r\n");
            upstream.write(answer).await?;
            upstream.write(vec![b'x'; size]).await
        });
        readers.push((size, client));
    }
    // Several idle connections, one after the other, are let go meanwhile.
    for _ in 0..4 {
        let mut idle = Frames::connect(router.addr(), &[]).await.unwrap();
        idle.end().await;
    }
    for (size, mut client) in readers {
        let frames = client.stream(1).await;
        let came: usize = frames
            .iter()
            .filter(|frame| frame.kind == DATA)
            .map(|frame| frame.payload.len())
            .sum();
        assert!(
            came == size && frames.last().unwrap().ends(),
            "{came} of {size}"
        );
    }
}

#[tokio::test]
async fn a_client_that_opens_no_window_does_not_keep_its_cell() {
    let cell = ScriptedCell::listen().await;
    let options = options(json!({ "alice": at(cell.addr()) }));
    let router = Router::start(options.args(["--client-stall-ms", "200"])).await;
    let mut client = Frames::connect(router.addr(), &setting(INITIAL_WINDOW, 0))
        .await
        .unwrap();
    client
        .send(head(1, END_STREAM, &post("/stuck")))
        .await
        .unwrap();
    let (mut upstream, _) = cell.request().await;
    upstream.write(OK).await.unwrap();
    let frames = client.stream(1).await;
    assert_eq!(frames[0].kind, HEADERS);
    // ENHANCE_YOUR_CALM: some clients take CANCEL for an end.
    assert_eq!(frames[1].code(), Some(11), "{frames:?}");
    upstream.ended().await;
    let record = router.next_record(at_path("/stuck")).await;
    assert_eq!(
        (&record["response_body"], &record["error_by"]),
        (&json!("client_stalled"), &json!("client"))
    );
    // The connection serves on.
    let mut lines = post("/head");
    lines[0].1 = "HEAD";
    client.send(head(3, END_STREAM, &lines)).await.unwrap();
    let (mut upstream, _) = cell.request().await;
    upstream
        .write("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n")
        .await
        .unwrap();
    assert!(client.stream(3).await[0].ends());
}

#[tokio::test]
async fn an_idle_connection_is_told_to_go() {
    let cell = ScriptedCell::listen().await;
    let options = options(json!({ "alice": at(cell.addr()) }));
    let times = ["--idle-timeout-ms", "200", "--client-stall-ms", "400"];
    let router = Router::start(options.args(times)).await;
    for requests in [0, 1] {
        let mut client = Frames::connect(router.addr(), &[]).await.unwrap();
        if requests > 0 {
            client.send(head(1, END_STREAM, &post("/"))).await.unwrap();
            let (mut upstream, _) = cell.request().await;
            upstream.write(OK).await.unwrap();
            client.stream(1).await;
        }
        let goaway = client.find(|frame| frame.kind == GOAWAY).await.unwrap();
        assert_eq!(goaway.code(), Some(0));
        // It answers nothing, and the connection ends all the same.
        while client.next().await.is_some() {}
    }
}

#[tokio::test]
async fn a_request_outlives_the_idle_time() {
    let cell = ScriptedCell::listen().await;
    let options = options(json!({ "alice": at(cell.addr()) }));
    let router = Router::start(options.args(["--idle-timeout-ms", "200"])).await;
    let mut busy = connect(&router).await;
    let answer = get(&mut busy, "/long");
    let (mut upstream, _) = cell.request().await;
    // Another connection has been idle for longer by now.
    let mut idle = Frames::connect(router.addr(), &[]).await.unwrap();
    idle.end().await;
    upstream.write(OK).await.unwrap();
    assert_eq!(answer.await.unwrap().status(), StatusCode::OK);
}

#[tokio::test]
async fn a_stop_lets_running_streams_end_and_refuses_new_ones() {
    let (router, cell) = scripted().await;
    let mut client = Frames::connect(router.addr(), &[]).await.unwrap();
    client
        .send(head(1, END_STREAM, &post("/one")))
        .await
        .unwrap();
    let (mut upstream, _) = cell.request().await;
    router.terminate();
    said(&router, "draining: running work may finish").await;
    let goaway = client.find(|frame| frame.kind == GOAWAY).await.unwrap();
    // Of no stream in particular, for some may be on their way (RFC 9113 section 6.8).
    assert_eq!(
        goaway.payload,
        [&i32::MAX.to_be_bytes()[..], &[0; 4]].concat()
    );
    let ping = client.find(|frame| frame.kind == PING).await.unwrap();
    let mut lines = post("/late");
    lines[3].1 = "nobody.example.org";
    // What was on its way is answered; who goes on is refused.
    for stream in (3..).step_by(2) {
        client.send(head(stream, END_STREAM, &lines)).await.unwrap();
        match client.stream(stream).await[0].code() {
            None => router.next_record(|line| line["status"] == 404).await,
            code => {
                // REFUSED_STREAM: it may be sent again elsewhere.
                assert_eq!(code, Some(7));
                assert!(stream > 3);
                break;
            }
        };
    }
    client
        .send(frame(PING, ACK, 0, ping.payload))
        .await
        .unwrap();
    let goaway = client.find(|frame| frame.kind == GOAWAY).await.unwrap();
    assert_eq!(goaway.code(), Some(0));
    upstream.write(OK).await.unwrap();
    assert!(client.stream(1).await.last().unwrap().ends());
    while client.next().await.is_some() {}
    assert_eq!(router.exited().await.code(), Some(0));
}

#[tokio::test]
async fn what_runs_at_the_deadline_is_cut() {
    let cell = ScriptedCell::listen().await;
    let options = options(json!({ "alice": at(cell.addr()) }));
    let router = Router::start(options.args(["--drain-ms", "300"])).await;
    let mut client = Frames::connect(router.addr(), &[]).await.unwrap();
    client.send(head(1, END_STREAM, &post("/"))).await.unwrap();
    let (mut upstream, _) = cell.request().await;
    upstream
        .write("HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\nhalf")
        .await
        .unwrap();
    client.find(|frame| frame.kind == DATA).await.unwrap();
    router.terminate();
    assert!(!client.stream(1).await.iter().any(Frame::ends));
    upstream.ended().await;
    assert_eq!(router.exited().await.code(), Some(0));
}

#[tokio::test]
async fn cookies_are_one_line_for_the_cell() {
    let (router, cell) = scripted().await;
    let mut client = Frames::connect(router.addr(), &[]).await.unwrap();
    let mut lines = post("/").to_vec();
    lines.extend([("cookie", "a=1"), ("x", "y"), ("cookie", "b=2; c=3")]);
    client.send(head(1, END_STREAM, &lines)).await.unwrap();
    let (_upstream, head) = cell.request().await;
    assert!(head.contains("cookie: a=1; b=2; c=3\r\n"), "{head}");
    assert_eq!(head.matches("cookie:").count(), 1, "{head}");
}

#[tokio::test]
async fn padding_and_empty_frames_are_not_part_of_a_body() {
    let (router, cell) = scripted().await;
    let mut client = Frames::connect(router.addr(), &[]).await.unwrap();
    let mut lines = post("/").to_vec();
    lines.push(("content-length", "4"));
    client.send(head(1, 0, &lines)).await.unwrap();
    client.send(frame(DATA, 0, 1, [])).await.unwrap();
    client
        .send(frame(DATA, 8, 1, b"\x03ab\0\0\0"))
        .await
        .unwrap();
    client.send(frame(DATA, 0, 1, b"cd")).await.unwrap();
    client.send(frame(DATA, END_STREAM, 1, [])).await.unwrap();
    let (mut upstream, head) = cell.request().await;
    assert!(head.contains("content-length: 4"), "{head}");
    assert_eq!(upstream.bytes(4).await.unwrap(), b"abcd");
    upstream.write(OK).await.unwrap();
    assert!(client.stream(1).await.last().unwrap().ends());
    let record = router.next_record(|_| true).await;
    assert_eq!(
        (&record["bytes_in"], &record["request_body"]),
        (&json!(4), &json!("complete"))
    );
    // Its cell's connection is fit for the next.
    let next = tokio::spawn(client::get(router.addr(), HOST, "/next"));
    assert!(upstream.head().await.unwrap().starts_with("GET /next "));
    upstream.write(OK).await.unwrap();
    assert_eq!(next.await.unwrap().unwrap().status, StatusCode::OK);
}
