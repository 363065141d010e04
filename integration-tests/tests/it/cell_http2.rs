//! Cells that speak HTTP/2: one connection for many requests, both bodies at once, and every end told as it was.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::{join_all, poll_fn};
use futures_util::{FutureExt as _, StreamExt as _};
use h2::server::{self, SendResponse};
use h2::{Reason, RecvStream, client as h2client};
use http::{HeaderMap, Method, Request, Response, StatusCode, Version};
use http_body_util::{BodyExt as _, StreamBody};
use integration_tests::client::{self, Answer, Error, Http, Raw};
use integration_tests::http2::{
    ACK, DATA, END_STREAM, Frame, Frames, GOAWAY, HEADERS, INITIAL_WINDOW, PING, PREFACE,
    RST_STREAM, SETTINGS, frame, head, setting,
};
use integration_tests::{Router, RouterOptions};
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::admin_api::Admin;
use crate::identity::proof;
use crate::scene::{HOST, at, options, registry, said};

/// `SETTINGS_MAX_CONCURRENT_STREAMS` (RFC 9113 section 6.5.2).
const MAX_CONCURRENT_STREAMS: u16 = 3;

/// What a test tells a connection of a cell to do.
enum Order {
    /// Finish what runs, and say so.
    GoAway,
}

/// A request that has come to a cell.
struct Asked {
    request: Request<RecvStream>,
    respond: SendResponse<Bytes>,
}

impl Asked {
    /// Answers with a short text.
    fn answer(&mut self, status: u16, text: &'static str) {
        let head = Response::builder().status(status).body(()).unwrap();
        let mut body = self.respond.send_response(head, false).unwrap();
        body.send_data(Bytes::from_static(text.as_bytes()), true)
            .unwrap();
    }

    /// Reads the whole body.
    async fn body(&mut self) -> Vec<u8> {
        let mut whole = Vec::new();
        while let Some(piece) = self.piece().await {
            whole.extend_from_slice(&piece);
        }
        whole
    }

    /// Reads the next piece of the body.
    async fn piece(&mut self) -> Option<Bytes> {
        let body = self.request.body_mut();
        let piece = body.data().await?.unwrap();
        body.flow_control().release_capacity(piece.len()).unwrap();
        Some(piece)
    }
}

/// A connection to a cell.
struct Line {
    requests: mpsc::UnboundedReceiver<Asked>,
    orders: mpsc::UnboundedSender<Order>,
}

impl Line {
    /// The next request.
    async fn asked(&mut self) -> Asked {
        self.requests
            .recv()
            .await
            .expect("another request on this connection")
    }

    fn over<I>(io: I, builder: server::Builder) -> Self
    where
        I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (sender, requests) = mpsc::unbounded_channel();
        let (orders, mut ordered) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            let mut connection = builder.handshake::<_, Bytes>(io).await.unwrap();
            loop {
                tokio::select! {
                    accepted = connection.accept() => match accepted {
                        Some(Ok((request, respond))) => {
                            let _ = sender.send(Asked { request, respond });
                        }
                        Some(Err(_)) | None => return,
                    },
                    order = ordered.recv() => match order {
                        Some(Order::GoAway) => connection.graceful_shutdown(),
                        None => return,
                    },
                }
            }
        });
        Self { requests, orders }
    }
}

/// A cell whose requests a test answers itself.
struct Http2Cell {
    listener: TcpListener,
    builder: server::Builder,
}

impl Http2Cell {
    async fn listen() -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let builder = server::Builder::new();
        Self { listener, builder }
    }

    fn addr(&self) -> SocketAddr {
        self.listener.local_addr().unwrap()
    }

    async fn line(&self) -> Line {
        let (socket, _) = self.listener.accept().await.unwrap();
        Line::over(socket, self.builder.clone())
    }

    /// The next connection, frame by frame, with these settings: the router has taken note of them, and sent a request.
    async fn frames(&self, settings: &[u8]) -> Frames {
        let (socket, _) = self.listener.accept().await.unwrap();
        let mut raw = Raw::from(socket);
        raw.bytes(PREFACE.len()).await.unwrap();
        let mut frames = Frames(raw);
        frames.send(frame(SETTINGS, 0, 0, settings)).await.unwrap();
        let (mut agreed, mut asked) = (false, false);
        while !(agreed && asked) {
            let frame = frames.next().await.unwrap();
            agreed |= frame.kind == SETTINGS && frame.flags & ACK != 0;
            asked |= frame.kind == HEADERS;
        }
        frames
    }

    fn nobody_else_connects(&self) -> bool {
        self.listener.accept().now_or_never().is_none()
    }
}

fn entry(address: SocketAddr) -> Value {
    let mut entry = at(address);
    entry["protocol"] = json!("http2");
    entry
}

async fn before(cell: &Http2Cell) -> Router {
    Router::start(options(json!({ "alice": entry(cell.addr()) }))).await
}

async fn started() -> (Router, Http2Cell) {
    let cell = Http2Cell::listen().await;
    (before(&cell).await, cell)
}

fn getting(router: &Router, path: &'static str) -> JoinHandle<Result<Answer, Error>> {
    let address = router.addr();
    tokio::spawn(async move { client::get(address, HOST, path).await })
}

/// A request of an HTTP/2 client of which the test drives both bodies.
async fn conversation(router: &Router) -> (h2client::ResponseFuture, h2::SendStream<Bytes>) {
    let socket = TcpStream::connect(router.addr()).await.unwrap();
    let (sender, connection) = h2client::handshake(socket).await.unwrap();
    tokio::spawn(async move { drop(connection.await) });
    let request = Request::post(format!("http://{HOST}/pkg.Service/Talk"))
        .header("te", "trailers")
        .header("content-type", "application/grpc")
        .body(())
        .unwrap();
    sender
        .ready()
        .await
        .unwrap()
        .send_request(request, false)
        .unwrap()
}

async fn next(body: &mut RecvStream) -> Option<Bytes> {
    let piece = body.data().await?.unwrap();
    body.flow_control().release_capacity(piece.len()).unwrap();
    Some(piece)
}

#[tokio::test]
async fn a_request_comes_as_http2_with_its_authority_and_its_body() {
    let (router, cell) = started().await;
    let mut line = None;
    for version in [Http::One, Http::Two] {
        let request = Request::put("/files/a?b=c")
            .header("host", HOST)
            .header("x-own", "1");
        let request = request.body(client::full("tenant")).unwrap();
        let answered = tokio::spawn(client::send(router.addr(), version, request));
        if line.is_none() {
            line = Some(cell.line().await);
        }
        check(line.as_mut().unwrap()).await;
        assert_eq!(answered.await.unwrap().unwrap().text(), "stored");
    }
    async fn check(line: &mut Line) {
        let mut asked = line.asked().await;
        assert_eq!(asked.request.version(), Version::HTTP_2);
        assert_eq!(asked.request.method(), Method::PUT);
        assert_eq!(asked.request.uri(), &*format!("http://{HOST}/files/a?b=c"));
        let headers = asked.request.headers();
        assert_eq!(
            (&headers["x-own"], &headers["content-length"]),
            (&"1".parse().unwrap(), &"6".parse().unwrap())
        );
        assert_eq!(headers["cell-name"], "alice");
        assert!(!headers.contains_key("host") && !headers.contains_key("connection"));
        assert_eq!(asked.body().await, b"tenant");
        asked.answer(200, "stored");
    }
    assert!(cell.nobody_else_connects());
}

#[tokio::test]
async fn many_at_once_share_one_connection_that_one_of_them_opened() {
    let (router, cell) = started().await;
    let waiting: Vec<_> = (0..50).map(|_| getting(&router, "/")).collect();
    let mut line = cell.line().await;
    let mut asked = Vec::new();
    for _ in 0..50 {
        asked.push(line.asked().await);
    }
    asked.iter_mut().for_each(|asked| asked.answer(200, "ok"));
    for answer in join_all(waiting).await {
        assert_eq!(answer.unwrap().unwrap().text(), "ok");
    }
    assert!(cell.nobody_else_connects());
}

#[tokio::test]
async fn thousands_one_after_the_other_leave_nothing_behind() {
    const TIMES: usize = 3000;
    let (router, cell) = started().await;
    let socket = TcpStream::connect(router.addr()).await.unwrap();
    let (mut sender, connection) = h2client::handshake(socket).await.unwrap();
    tokio::spawn(async move { drop(connection.await) });
    let asking = async {
        for time in 0..TIMES {
            sender = sender.ready().await.unwrap();
            let request = Request::post(format!("http://{HOST}/{time}"))
                .body(())
                .unwrap();
            let (answer, mut body) = sender.send_request(request, false).unwrap();
            body.send_data(Bytes::from_static(b"in"), true).unwrap();
            let mut answer = answer.await.unwrap();
            assert_eq!(next(answer.body_mut()).await.unwrap(), "out");
            assert!(answer.body_mut().data().await.is_none());
        }
    };
    let answering = async {
        // It takes one at a time: what is not over would be in the way of the next.
        let mut cell = cell;
        cell.builder.max_concurrent_streams(1);
        let mut line = cell.line().await;
        for _ in 0..TIMES {
            let mut asked = line.asked().await;
            assert_eq!(asked.body().await, b"in");
            asked.answer(200, "out");
        }
        line
    };
    let (_line, ()) = tokio::join!(answering, asking);
}

#[tokio::test]
async fn both_sides_talk_at_once_and_trailers_pass_both_ways() {
    let (router, cell) = started().await;
    let (answer, mut say) = conversation(&router).await;
    let mut line = cell.line().await;
    let mut asked = line.asked().await;
    assert_eq!(asked.request.headers()["te"], "trailers");
    let head = Response::builder()
        .header("content-type", "application/grpc")
        .body(())
        .unwrap();
    let mut reply = asked.respond.send_response(head, false).unwrap();
    let mut answer = answer.await.unwrap();
    for round in 0..20u8 {
        say.send_data(Bytes::from(vec![round; 100]), false).unwrap();
        assert_eq!(asked.piece().await.unwrap(), vec![round; 100]);
        reply
            .send_data(Bytes::from(vec![round; 200]), false)
            .unwrap();
        assert_eq!(next(answer.body_mut()).await.unwrap(), vec![round; 200]);
    }
    let trailers =
        |name: &'static str| HeaderMap::from_iter([(name.parse().unwrap(), "0".parse().unwrap())]);
    say.send_trailers(trailers("x-client-sum")).unwrap();
    assert_eq!(asked.piece().await, None);
    let came = asked.request.body_mut().trailers().await.unwrap().unwrap();
    assert_eq!(came["x-client-sum"], "0");
    reply.send_trailers(trailers("grpc-status")).unwrap();
    assert_eq!(next(answer.body_mut()).await, None);
    let came = answer.body_mut().trailers().await.unwrap().unwrap();
    assert_eq!(came["grpc-status"], "0");
    let record = router.next_record(|record| record["status"] == 200).await;
    assert_eq!(
        (&record["bytes_in"], &record["bytes_out"]),
        (&json!(2000), &json!(4000))
    );
    assert_eq!(
        (&record["request_body"], &record["response_body"]),
        (&json!("complete"), &json!("complete"))
    );
}

#[tokio::test]
async fn what_follows_the_promised_length_is_heard() {
    let (router, cell) = started().await;
    let mut line = None;
    // Trailers, or nothing but the end.
    for trailers in [true, false] {
        let (answer, mut say) = conversation(&router).await;
        say.send_data(Bytes::new(), true).unwrap();
        if line.is_none() {
            line = Some(cell.line().await);
        }
        let mut asked = line.as_mut().unwrap().asked().await;
        let head = Response::builder().header("content-length", 2);
        let mut reply = asked
            .respond
            .send_response(head.body(()).unwrap(), false)
            .unwrap();
        reply.send_data(Bytes::from_static(b"ok"), false).unwrap();
        let mut answer = answer.await.unwrap();
        assert_eq!(next(answer.body_mut()).await.unwrap(), "ok");
        // The router has not taken it back.
        assert!(
            poll_fn(|context| reply.poll_reset(context))
                .now_or_never()
                .is_none()
        );
        if trailers {
            let sum = HeaderMap::from_iter([("x-sum".parse().unwrap(), "0".parse().unwrap())]);
            reply.send_trailers(sum).unwrap();
        } else {
            reply.send_data(Bytes::new(), true).unwrap();
        }
        while let Some(more) = next(answer.body_mut()).await {
            assert_eq!(more, "", "nothing but the end");
        }
        let came = answer.body_mut().trailers().await.unwrap();
        assert_eq!(came.is_some_and(|came| came["x-sum"] == "0"), trailers);
        let record = router.next_record(|record| record["status"] == 200).await;
        assert_eq!(record["response_body"], "complete");
    }
}

#[tokio::test]
async fn a_status_that_is_none_is_counted_with_the_cells_errors() {
    let cell = Http2Cell::listen().await;
    let admin = Admin::start(options(json!({ "alice": entry(cell.addr()) }))).await;
    let mut line = None;
    for status in [500, 700] {
        let answered = getting(&admin.router, "/");
        if line.is_none() {
            line = Some(cell.line().await);
        }
        line.as_mut().unwrap().asked().await.answer(status, "odd");
        assert_eq!(answered.await.unwrap().unwrap().status, status);
        let path = |record: &Value| record["status"] == status;
        admin.router.next_record(path).await;
    }
    let metrics = admin.send("read", "GET", "/metrics", &[], "").await.text();
    let requests = metrics
        .lines()
        .filter(|line| line.starts_with("cell_router_requests_total{"));
    let counted: Vec<_> = requests.filter(|line| line.contains("5xx")).collect();
    assert!(
        counted.len() == 1 && counted[0].ends_with(" 2"),
        "{counted:?}"
    );
}

#[tokio::test]
async fn an_answer_of_trailers_only_passes() {
    let (router, cell) = started().await;
    let (answer, _say) = conversation(&router).await;
    let mut line = cell.line().await;
    let mut asked = line.asked().await;
    let head = Response::builder()
        .header("grpc-status", "12")
        .body(())
        .unwrap();
    asked.respond.send_response(head, true).unwrap();
    let mut answer = answer.await.unwrap();
    assert_eq!(answer.headers()["grpc-status"], "12");
    assert!(answer.body_mut().data().await.is_none());
}

#[tokio::test]
async fn what_the_cell_resets_is_cut_at_the_client() {
    let (router, cell) = started().await;
    let (answer, _say) = conversation(&router).await;
    let mut line = cell.line().await;
    let mut asked = line.asked().await;
    let mut reply = asked
        .respond
        .send_response(Response::new(()), false)
        .unwrap();
    reply.send_data(Bytes::from_static(b"half"), false).unwrap();
    let mut answer = answer.await.unwrap();
    assert_eq!(next(answer.body_mut()).await.unwrap(), "half");
    reply.send_reset(Reason::INTERNAL_ERROR);
    assert!(answer.body_mut().data().await.unwrap().is_err());
    let record = router.next_record(|record| record["status"] == 200).await;
    assert_eq!(
        (&record["response_body"], &record["error_by"]),
        (&json!("cell_cut"), &json!("cell"))
    );

    // Over HTTP/1.1 there is nothing but the end of the connection in the middle of a chunked body.
    let mut client = Raw::connect(router.addr()).await.unwrap();
    client
        .write(format!("GET / HTTP/1.1\r\nhost: {HOST}\r\n\r\n"))
        .await
        .unwrap();
    let mut asked = line.asked().await;
    let mut reply = asked
        .respond
        .send_response(Response::new(()), false)
        .unwrap();
    reply.send_data(Bytes::from_static(b"half"), false).unwrap();
    client.head().await.unwrap();
    assert_eq!(client.chunk().await.unwrap(), b"half");
    reply.send_reset(Reason::CANCEL);
    assert!(
        !client
            .rest()
            .await
            .unwrap_or_default()
            .ends_with(b"0\r\n\r\n")
    );

    // Nor is it the end if it comes without an error.
    let (answer, _say) = conversation(&router).await;
    let mut asked = line.asked().await;
    let head = Response::new(());
    let mut reply = asked.respond.send_response(head, false).unwrap();
    reply.send_data(Bytes::from_static(b"half"), false).unwrap();
    let mut answer = answer.await.unwrap();
    assert_eq!(next(answer.body_mut()).await.unwrap(), "half");
    reply.send_reset(Reason::NO_ERROR);
    assert!(answer.body_mut().data().await.unwrap().is_err());
}

#[tokio::test]
async fn what_the_client_takes_back_is_reset_at_the_cell() {
    let (router, cell) = started().await;
    let mut line = None;
    for answered in [false, true] {
        let (answer, mut say) = conversation(&router).await;
        say.send_data(Bytes::from_static(b"half"), false).unwrap();
        if line.is_none() {
            line = Some(cell.line().await);
        }
        let mut asked = line.as_mut().unwrap().asked().await;
        assert_eq!(asked.piece().await.unwrap(), "half");
        if answered {
            let _reply = asked
                .respond
                .send_response(Response::new(()), false)
                .unwrap();
            let answer = answer.await.unwrap();
            say.send_reset(Reason::CANCEL);
            let reason = asked
                .request
                .body_mut()
                .data()
                .await
                .unwrap()
                .unwrap_err()
                .reason();
            assert_eq!(reason, Some(Reason::CANCEL));
            drop(answer);
        } else {
            say.send_reset(Reason::CANCEL);
            let reason = poll_fn(|context| asked.respond.poll_reset(context))
                .await
                .unwrap();
            assert_eq!(reason, Reason::CANCEL);
        }
    }
}

#[tokio::test]
async fn a_cell_that_takes_no_more_learns_that_the_client_left() {
    /// `SETTINGS_INITIAL_WINDOW_SIZE` where nobody says another (RFC 9113 section 6.5.2).
    const WINDOW: usize = 65_535;
    let (router, cell) = started().await;
    let (answer, mut say) = conversation(&router).await;
    // All of it is there, and its last part waits.
    say.send_data(vec![7; WINDOW + 1].into(), true).unwrap();
    let mut line = cell.line().await;
    let mut asked = line.asked().await;
    let head = Response::new(());
    let _reply = asked.respond.send_response(head, false).unwrap();
    let answer = answer.await.unwrap();
    let (body, mut came) = (asked.request.body_mut(), 0);
    while came < WINDOW {
        came += body.data().await.unwrap().unwrap().len();
    }
    drop((answer, say));
    assert!(body.data().await.is_none_or(|more| more.is_err()));
    // Others go elsewhere.
    let other = getting(&router, "/");
    let mut line = cell.line().await;
    line.asked().await.answer(200, "ok");
    assert_eq!(other.await.unwrap().unwrap().status, StatusCode::OK);
}

#[tokio::test]
async fn an_upload_that_is_cut_is_reset_and_never_ended() {
    let (router, cell) = started().await;
    let mut client = Raw::connect(router.addr()).await.unwrap();
    client
        .write(format!(
            "PUT /x HTTP/1.1\r\nhost: {HOST}\r\ntransfer-encoding: chunked\r\n\r\n4\r\nhalf\r\n"
        ))
        .await
        .unwrap();
    let mut line = cell.line().await;
    let mut asked = line.asked().await;
    assert_eq!(asked.piece().await.unwrap(), "half");
    drop(client);
    let ended = asked.request.body_mut().data().await;
    assert_eq!(ended.unwrap().unwrap_err().reason(), Some(Reason::CANCEL));
    // And the connection is good for others.
    let answered = getting(&router, "/");
    line.asked().await.answer(200, "ok");
    assert_eq!(answered.await.unwrap().unwrap().text(), "ok");
}

#[tokio::test]
async fn an_early_answer_arrives_whole_and_its_upload_ends() {
    let (router, cell) = started().await;
    let body = StreamBody::new(
        client::zeros(1 << 40).map(|piece| Ok::<_, Error>(http_body::Frame::data(piece))),
    );
    let request = Request::put("/x").header("host", HOST).body(body).unwrap();
    let answered = tokio::spawn(client::send(router.addr(), Http::One, request));
    let mut line = cell.line().await;
    let mut asked = line.asked().await;
    asked.piece().await.unwrap();
    asked.answer(413, "too large");
    let answer = answered.await.unwrap();
    if let Ok(answer) = answer {
        assert_eq!(
            (answer.status, answer.text()),
            (StatusCode::PAYLOAD_TOO_LARGE, "too large".into())
        );
    }
    let record = router.next_record(|record| record["status"] == 413).await;
    assert_eq!(record["response_body"], "complete", "{record}");
    while let Some(Ok(piece)) = asked.request.body_mut().data().await {
        asked
            .request
            .body_mut()
            .flow_control()
            .release_capacity(piece.len())
            .unwrap();
    }
    let answered = getting(&router, "/");
    line.asked().await.answer(200, "ok");
    assert_eq!(answered.await.unwrap().unwrap().text(), "ok");
    assert!(cell.nobody_else_connects());
}

#[tokio::test]
async fn what_runs_when_the_cell_goes_away_ends_well_and_what_comes_goes_elsewhere() {
    let (router, cell) = started().await;
    let running = getting(&router, "/running");
    let mut first = cell.line().await;
    let mut asked = first.asked().await;
    first.orders.send(Order::GoAway).unwrap();
    let next = tokio::spawn(client::post(router.addr(), HOST, "/next", "body"));
    // It may be on its way before the word of going away has come: either way it is answered once.
    let (_elsewhere, mut moved) = tokio::select! {
        mut elsewhere = cell.line() => {
            let moved = elsewhere.asked().await;
            (Some(elsewhere), moved)
        }
        moved = first.asked() => (None, moved),
    };
    assert_eq!(moved.body().await, b"body");
    moved.answer(200, "next");
    assert_eq!(next.await.unwrap().unwrap().text(), "next");
    asked.answer(200, "running");
    assert_eq!(running.await.unwrap().unwrap().text(), "running");
}

/// Has the router take note of all that was sent before; it must not end the connection.
async fn heard(line: &mut Frames) {
    line.send(frame(PING, 0, 0, [7; 8])).await.unwrap();
    let heard = |frame: &Frame| frame.kind == GOAWAY || (frame.kind, frame.flags) == (PING, ACK);
    let heard = line.find(heard).await.expect("the connection goes on");
    assert_eq!(heard.kind, PING, "{heard:?}");
}

#[tokio::test]
async fn a_request_leaves_all_connections_behind_that_the_cell_is_about_to_close() {
    let (router, cell) = started().await;
    let two_at_once = setting(MAX_CONCURRENT_STREAMS, 2);
    let ok = [(":status", "200")];
    let ask = async || {
        let mut client = Raw::connect(router.addr()).await.unwrap();
        let request = format!("GET /running HTTP/1.1\r\nhost: {HOST}\r\n\r\n");
        client.write(request).await.unwrap();
        client
    };
    let (mut lines, mut leaving, mut staying) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..4 {
        let mut first = ask().await;
        let mut line = cell.frames(&two_at_once).await;
        line.send(head(1, 0, &ok)).await.unwrap();
        first.head().await.unwrap();
        let mut second = ask().await;
        line.find(|frame| frame.kind == HEADERS).await.unwrap();
        line.send(head(3, 0, &ok)).await.unwrap();
        second.head().await.unwrap();
        lines.push(line);
        leaving.push(first);
        staying.push(second);
    }
    // Each has room for one more, and will take none.
    drop(leaving);
    for line in &mut lines {
        line.find(|frame| frame.kind == RST_STREAM).await.unwrap();
        let last = [3_u32.to_be_bytes(), 0_u32.to_be_bytes()].concat();
        line.send(frame(GOAWAY, 0, 0, last)).await.unwrap();
        heard(line).await;
    }
    let mut next = tokio::spawn(client::post(router.addr(), HOST, "/next", "body"));
    let mut fresh = tokio::select! {
        answer = &mut next => panic!("{answer:?}"),
        fresh = cell.frames(&[]) => fresh,
    };
    fresh.send(head(1, END_STREAM, &ok)).await.unwrap();
    assert_eq!(next.await.unwrap().unwrap().status, StatusCode::OK);
    drop(staying);
}

#[tokio::test]
async fn small_frames_for_who_reads_nothing_cut_nobody_else() {
    let (router, cell) = started().await;
    let reads_nothing = setting(INITIAL_WINDOW, 0);
    let mut idle = Frames::connect(router.addr(), &reads_nothing)
        .await
        .unwrap();
    let lines = [
        (":method", "GET"),
        (":scheme", "http"),
        (":path", "/events"),
        (":authority", HOST),
    ];
    idle.send(head(1, END_STREAM, &lines)).await.unwrap();
    let mut line = cell.frames(&[]).await;
    line.send(head(1, 0, &[(":status", "200")])).await.unwrap();
    // As much as the stream's window takes.
    for _ in 0..64 {
        line.send(frame(DATA, 0, 1, "tick").repeat(1024))
            .await
            .unwrap();
    }
    heard(&mut line).await;
    let other = getting(&router, "/other");
    line.find(|frame| frame.kind == HEADERS).await.unwrap();
    line.send(head(3, END_STREAM, &[(":status", "200")]))
        .await
        .unwrap();
    assert_eq!(other.await.unwrap().unwrap().status, StatusCode::OK);
    let peak = router.peak_memory_bytes();
    assert!(peak < 64 * 1024 * 1024, "{peak}");
}

#[tokio::test]
async fn what_the_cell_refuses_untouched_is_sent_again_and_what_it_may_have_seen_is_not() {
    let (router, cell) = started().await;
    let answered = getting(&router, "/again");
    let mut line = cell.line().await;
    line.asked()
        .await
        .respond
        .send_reset(Reason::REFUSED_STREAM);
    let mut second = cell.line().await;
    second.asked().await.answer(200, "ok");
    assert_eq!(answered.await.unwrap().unwrap().text(), "ok");

    for (method, reason) in [
        ("POST", Reason::REFUSED_STREAM),
        ("GET", Reason::INTERNAL_ERROR),
        ("GET", Reason::CANCEL),
    ] {
        let body = if method == "POST" { "body" } else { "" };
        let request = Request::builder()
            .method(method)
            .uri("/once")
            .header("host", HOST);
        let request = request.body(client::full(body)).unwrap();
        let answered = tokio::spawn(client::send(router.addr(), Http::One, request));
        let mut asked = match second.requests.recv().now_or_never().flatten() {
            Some(asked) => asked,
            None => tokio::select! {
                Some(asked) = second.requests.recv() => asked,
                line = cell.line() => {
                    second = line;
                    second.asked().await
                }
            },
        };
        if method == "POST" {
            assert_eq!(asked.body().await, b"body");
        }
        asked.respond.send_reset(reason);
        let answer = answered.await.unwrap().unwrap();
        assert_eq!(
            answer.status,
            StatusCode::BAD_GATEWAY,
            "{method} {reason:?}"
        );
        assert!(cell.nobody_else_connects(), "{method} {reason:?}");
    }
}

#[tokio::test]
async fn where_the_cell_takes_no_more_at_once_another_connection_is_opened() {
    let mut cell = Http2Cell::listen().await;
    cell.builder.max_concurrent_streams(2);
    let router = before(&cell).await;
    let answered = getting(&router, "/first");
    let mut lines = vec![cell.line().await];
    lines[0].asked().await.answer(200, "ok");
    answered.await.unwrap().unwrap();
    let waiting: Vec<_> = (0..6).map(|_| getting(&router, "/")).collect();
    let mut asked = vec![lines[0].asked().await, lines[0].asked().await];
    for _ in 0..2 {
        let mut line = cell.line().await;
        asked.push(line.asked().await);
        asked.push(line.asked().await);
        lines.push(line);
    }
    asked.iter_mut().for_each(|asked| asked.answer(200, "ok"));
    for answer in join_all(waiting).await {
        assert_eq!(answer.unwrap().unwrap().text(), "ok");
    }
}

#[tokio::test]
async fn who_tries_a_cell_connects_though_a_connection_is_there() {
    let mut cell = Http2Cell::listen().await;
    let address = cell.addr();
    cell.builder.max_concurrent_streams(1);
    let router = before(&cell).await;
    let first = getting(&router, "/first");
    let mut kept = cell.line().await;
    kept.asked().await.answer(200, "ok");
    first.await.unwrap().unwrap();
    let request = Request::get("/long").header("host", HOST);
    let request = request.body(client::full("")).unwrap();
    let begun = async {
        let mut asked = kept.asked().await;
        let head = Response::new(());
        asked.respond.send_response(head, false).unwrap()
    };
    let (long, mut body) = tokio::join!(client::open(router.addr(), Http::One, request), begun);
    drop(cell);
    // What is kept has no room: each connects.
    for _ in 0..5 {
        let answer = getting(&router, "/").await.unwrap().unwrap();
        assert_eq!(answer.status, StatusCode::BAD_GATEWAY);
    }
    said(&router, "breaker opens").await;
    body.send_data(Bytes::from_static(b"ok"), true).unwrap();
    let long = long.unwrap().into_body().collect().await.unwrap();
    assert_eq!(long.to_bytes(), "ok");
    // Now it has, and says nothing of whether others could connect.
    let status = loop {
        tokio::select! {
            answer = getting(&router, "/trial") => {
                let answer = answer.unwrap().unwrap();
                if answer.status != StatusCode::SERVICE_UNAVAILABLE {
                    break answer.status;
                }
            }
            _ = kept.asked() => panic!("what was kept says nothing of the cell"),
        }
    };
    assert_eq!(status, StatusCode::BAD_GATEWAY);
    let cell = Http2Cell {
        listener: TcpListener::bind(address).await.unwrap(),
        builder: server::Builder::new(),
    };
    let mut line = loop {
        tokio::select! {
            early = getting(&router, "/trial") => {
                assert_eq!(early.unwrap().unwrap().status, StatusCode::SERVICE_UNAVAILABLE);
            }
            line = cell.line() => break line,
        }
    };
    line.asked().await.answer(200, "ok");
    said(&router, "breaker closes").await;
}

#[tokio::test]
async fn who_reads_nothing_keeps_nobody_waiting_and_costs_little() {
    let (router, cell) = started().await;
    let mut idle = Vec::new();
    let mut line = None;
    for _ in 0..20 {
        let mut client = Raw::connect(router.addr()).await.unwrap();
        client
            .write(format!("GET /much HTTP/1.1\r\nhost: {HOST}\r\n\r\n"))
            .await
            .unwrap();
        if line.is_none() {
            line = Some(cell.line().await);
        }
        let mut asked = line.as_mut().unwrap().asked().await;
        let mut reply = asked
            .respond
            .send_response(Response::new(()), false)
            .unwrap();
        client.head().await.unwrap();
        // More than any window and any socket on the way holds.
        reply
            .send_data(Bytes::from(vec![0; 64 * 1024 * 1024]), true)
            .unwrap();
        idle.push((client, reply, asked));
    }
    let answered = getting(&router, "/other");
    line.as_mut().unwrap().asked().await.answer(200, "ok");
    assert_eq!(answered.await.unwrap().unwrap().text(), "ok");
    let peak = router.peak_memory_bytes();
    assert!(peak < 64 * 1024 * 1024, "{peak}");
    // Who reads after all gets all of it.
    let (mut client, reply, _asked) = idle.pop().unwrap();
    let mut left = 64 * 1024 * 1024;
    while left > 0 {
        left -= client.chunk().await.unwrap().len();
    }
    drop(reply);
}

#[tokio::test]
async fn an_upgrade_is_passed_over() {
    let (router, cell) = started().await;
    let mut client = Raw::connect(router.addr()).await.unwrap();
    client
        .write(format!("GET /live HTTP/1.1\r\nhost: {HOST}\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n"))
        .await
        .unwrap();
    let mut line = cell.line().await;
    let mut asked = line.asked().await;
    assert!(!asked.request.headers().contains_key("upgrade"));
    asked.answer(426, "no upgrades here");
    assert_eq!(
        client.answer().await.unwrap().status,
        StatusCode::UPGRADE_REQUIRED
    );
}

#[tokio::test]
async fn the_challenge_goes_before_all_and_once_for_each_connection() {
    let cell = Http2Cell::listen().await;
    let mut entry = entry(cell.addr());
    entry["secret"] = json!({ "env": "SECRET" });
    let options: RouterOptions = options(json!({ "alice": entry })).env("SECRET", "s-alice");
    let router = Router::start(options).await;
    let answered = tokio::spawn(client::post(router.addr(), HOST, "/x", "tenant"));
    let mut line = cell.line().await;
    let mut asked = line.asked().await;
    let target = asked.request.uri().path_and_query().unwrap().as_str();
    assert_eq!(asked.request.uri().authority().unwrap(), "alice");
    let line_of_proof = proof(&format!("GET {target} HTTP/2"), "s-alice");
    assert!(
        line.requests.recv().now_or_never().is_none(),
        "nothing is sent before the answer"
    );
    asked.answer(200, Box::leak(line_of_proof.into_boxed_str()));
    let mut tenant = line.asked().await;
    assert_eq!(tenant.body().await, b"tenant");
    tenant.answer(200, "ok");
    assert_eq!(answered.await.unwrap().unwrap().text(), "ok");
    let again = getting(&router, "/y");
    let mut asked = line.asked().await;
    assert_eq!(asked.request.uri().path(), "/y");
    asked.answer(200, "ok");
    again.await.unwrap().unwrap();
}

#[tokio::test]
async fn who_does_not_speak_http2_is_told_as_broken() {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let router = Router::start(options(
        json!({ "alice": entry(listener.local_addr().unwrap()) }),
    ))
    .await;
    let answered = getting(&router, "/");
    let (socket, _) = listener.accept().await.unwrap();
    let mut connection = Raw::from(socket);
    connection.bytes(24).await.unwrap();
    connection
        .write("HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n")
        .await
        .unwrap();
    let answer = tokio::time::timeout(Duration::from_secs(60), answered)
        .await
        .unwrap();
    assert_eq!(answer.unwrap().unwrap().status, StatusCode::BAD_GATEWAY);
}

/// A suspended machine keeps its sockets, and whoever waits on them waits in vain.
#[tokio::test]
async fn a_connection_that_has_fallen_silent_is_left_for_a_fresh_one() {
    let cell = Http2Cell::listen().await;
    let mut entry = entry(cell.addr());
    entry["first_byte_timeout_ms"] = json!(1100);
    let router = Router::start(options(json!({ "alice": entry }))).await;
    let answered = getting(&router, "/");
    let mut line = cell.line().await;
    line.asked().await.answer(200, "ok");
    assert_eq!(answered.await.unwrap().unwrap().text(), "ok");
    let silent = getting(&router, "/silent");
    let _asked = line.asked().await;
    assert_eq!(
        silent.await.unwrap().unwrap().status,
        StatusCode::GATEWAY_TIMEOUT
    );
    let answered = getting(&router, "/next");
    let mut fresh = tokio::select! {
        biased;
        _ = line.asked() => panic!("it goes where nobody answers"),
        fresh = cell.line() => fresh,
    };
    fresh.asked().await.answer(200, "ok");
    assert_eq!(answered.await.unwrap().unwrap().text(), "ok");
}

#[tokio::test]
async fn a_cell_that_moved_is_reached_though_nobody_answers_where_it_was() {
    let (old, new) = (Http2Cell::listen().await, Http2Cell::listen().await);
    let mut was = entry(old.addr());
    was["secret"] = json!({ "env": "SECRET" });
    let options: RouterOptions = options(json!({ "alice": was })).env("SECRET", "s-alice");
    let router = Router::start(options).await;
    let first = getting(&router, "/first");
    // It never says who it is.
    let _silent = old.listener.accept().await.unwrap();
    let mut is = entry(new.addr());
    is["identity"] = json!("none");
    router.save(&registry(json!({ "alice": is })));
    said(&router, "registry loaded").await;
    let second = getting(&router, "/second");
    let mut line = new.line().await;
    line.asked().await.answer(200, "here");
    assert_eq!(second.await.unwrap().unwrap().text(), "here");
    assert!(!first.is_finished());
}
