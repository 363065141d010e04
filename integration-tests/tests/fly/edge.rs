//! The edge: deliveries, replays, failures, the replay cache, the 1 MB limit, upgrades.

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use http::{Request, Response};
use http_body_util::Full;
use integration_tests::client::{Answer, Http, chunked, full, get, post, send, websocket, zeros};
use integration_tests::fly::{FailureReason, Fly, Kind};

use crate::{Stub, replay};

const ROUTER: &str = "0000000000000a";
const CELL: &str = "0000000000000c";

/// An edge before a router that answers with `instruction`, and a cell.
struct Scene {
    fly: Fly,
    router: Stub,
    cell: Stub,
    door: std::net::SocketAddr,
}

impl Scene {
    async fn new(router: Stub) -> Self {
        let cell = Stub::named("cell").await;
        let mut fly = Fly::start().await.unwrap();
        fly.attach("router", ROUTER, router.address).unwrap();
        fly.attach("cells", CELL, cell.address).unwrap();
        let door = fly.listen("router", 443).await.unwrap();
        Self {
            fly,
            router,
            cell,
            door,
        }
    }

    async fn get(&self) -> Answer {
        get(self.door, "a.test", "/acme/1?q").await.unwrap()
    }

    fn kinds(&self) -> Vec<Kind> {
        self.fly
            .deliveries()
            .iter()
            .map(|delivery| delivery.kind)
            .collect()
    }
}

#[tokio::test]
async fn an_answer_without_instruction_is_the_answer() {
    let scene = Scene::new(Stub::named("router").await).await;
    let answer = scene.get().await;
    assert_eq!(answer.text(), "router");
    assert!(answer.header("fly-request-id").ends_with("-ams"));
    let headers = scene.router.headers();
    assert_eq!(headers["host"], "a.test");
    assert_eq!(headers["fly-client-ip"], "127.0.0.1");
    assert_eq!(headers["x-forwarded-proto"], "https");
    assert_eq!(headers["fly-request-id"], answer.header("fly-request-id"));
    assert_eq!(scene.kinds(), [Kind::First]);
}

#[tokio::test]
async fn a_replay_reaches_the_instance_with_its_state() {
    let scene =
        Scene::new(Stub::replaying("app=cells;instance=0000000000000c;state=v1.9.ab").await).await;
    let answer = post(scene.door, "a.test", "/posts", "hello").await.unwrap();
    assert_eq!(answer.text(), "cell");
    assert_eq!(scene.cell.body(), "hello");
    let source = scene.cell.headers()["fly-replay-src"]
        .to_str()
        .unwrap()
        .to_owned();
    assert!(
        source.starts_with("instance=0000000000000a;region=ams;t="),
        "{source}"
    );
    assert!(source.ends_with(";state=v1.9.ab"), "{source}");
    assert_eq!(scene.cell.headers()["fly-replay-cache-status"], "miss");
    assert_eq!(scene.kinds(), [Kind::First, Kind::Replay]);
}

#[tokio::test]
async fn the_json_form_transforms_the_request() {
    let router = Stub::start(|_| {
        Response::builder()
            .header("content-type", "application/vnd.fly.replay+json")
            .body(Full::from(
                r#"{"app":"cells","transform":{"path":"/new?x=1","delete_headers":["cookie"],
                    "set_headers":[{"name":"x-cell","value":"acme"}]}}"#,
            ))
            .unwrap()
    });
    let scene = Scene::new(router.await).await;
    let request = Request::get("/old")
        .header("host", "a.test")
        .header("cookie", "a=b")
        .body(full(""))
        .unwrap();
    assert_eq!(
        send(scene.door, Http::One, request).await.unwrap().text(),
        "cell"
    );
    let seen = scene.cell.seen.lock().unwrap()[0].clone();
    assert_eq!(seen.uri(), "/new?x=1");
    assert_eq!(seen.headers()["x-cell"], "acme");
    assert!(!seen.headers().contains_key("cookie"));
}

#[tokio::test]
async fn a_failed_replay_comes_back_and_may_not_replay_again() {
    let instruction = "app=cells;instance=0000000000000c;fallback=force_self";
    let rescuing = Stub::start(
        move |request| match request.headers().get("fly-replay-failed") {
            Some(_) => Response::new(Full::from("rescued")),
            None => replay(&[("fly-replay", instruction)]),
        },
    );
    let scene = Scene::new(rescuing.await).await;
    scene
        .fly
        .faults()
        .unreachable(CELL, Some(FailureReason::Timeout));
    assert_eq!(scene.get().await.text(), "rescued");
    let failed = scene.router.headers()["fly-replay-failed"]
        .to_str()
        .unwrap()
        .to_owned();
    let expected = "instance=0000000000000c;app=cells;region=ams;replay_source=0000000000000a;reason=timeout;elapsed_ms=";
    assert!(failed.starts_with(expected), "{failed}");
    assert_eq!(scene.kinds(), [Kind::First, Kind::Fallback]);

    let stubborn = Scene::new(Stub::replaying(instruction).await).await;
    stubborn
        .fly
        .faults()
        .unreachable(CELL, Some(FailureReason::NoCandidate));
    assert_eq!(stubborn.get().await.header("fly-emulated-error"), "PA03");
}

#[tokio::test]
async fn without_fallback_a_failed_replay_is_a_503() {
    let scene = Scene::new(Stub::replaying("app=cells;instance=0000000000000d").await).await;
    let answer = scene.get().await;
    assert_eq!(
        (answer.status.as_u16(), answer.header("fly-emulated-error")),
        (503, "PR01")
    );
}

#[tokio::test]
async fn unknown_apps_and_bad_instructions_are_errors() {
    for (instruction, code) in [("app=nowhere", "PA04"), ("app=cells, state=1", "PA03")] {
        let scene = Scene::new(Stub::replaying(instruction).await).await;
        assert_eq!(
            scene.get().await.header("fly-emulated-error"),
            code,
            "{instruction}"
        );
    }
}

#[tokio::test]
async fn the_instance_must_be_in_the_app_and_serve_the_port() {
    let mut scene = Scene::new(Stub::replaying("app=router;instance=0000000000000c").await).await;
    assert_eq!(scene.get().await.header("fly-emulated-error"), "PR01");
    let strange = scene.fly.listen("router", 9090).await.unwrap();
    let answer = get(strange, "a.test", "/").await.unwrap();
    assert_eq!(answer.header("fly-emulated-error"), "PR01");
}

#[tokio::test]
async fn ten_replays_pass_and_the_eleventh_does_not() {
    let scene = Scene::new(Stub::replaying("app=router").await).await;
    assert_eq!(scene.get().await.header("fly-emulated-error"), "PA02");
    assert_eq!(scene.router.count(), 11);
}

#[tokio::test]
async fn a_million_bytes_are_replayed_and_one_more_is_not() {
    for (bytes, error) in [(1_000_000, ""), (1_000_001, "PA01")] {
        let scene = Scene::new(Stub::replaying("app=cells").await).await;
        let answer = post(scene.door, "a.test", "/", vec![7; bytes])
            .await
            .unwrap();
        assert_eq!(answer.header("fly-emulated-error"), error, "{bytes}");
        assert_eq!(scene.cell.count(), usize::from(error.is_empty()));
    }
}

#[tokio::test]
async fn a_body_of_unknown_length_is_replayed_while_it_is_small() {
    for version in [Http::One, Http::Two] {
        for (bytes, error) in [(70_000, ""), (1_000_001, "PA01")] {
            let scene = Scene::new(Stub::replaying("app=cells").await).await;
            let request = Request::post("/")
                .header("host", "a.test")
                .body(chunked(zeros(bytes)))
                .unwrap();
            let answer = send(scene.door, version, request).await.unwrap();
            assert_eq!(
                answer.header("fly-emulated-error"),
                error,
                "{version:?} {bytes}"
            );
            if error.is_empty() {
                assert_eq!(scene.cell.body().len() as u64, bytes);
                assert_eq!(scene.cell.headers()["transfer-encoding"], "chunked");
            }
        }
    }
}

#[tokio::test]
async fn a_get_keeps_its_chunked_body() {
    let scene = Scene::new(Stub::named("router").await).await;
    let pieces = chunked(futures_util::stream::iter([Bytes::from("hello")]));
    let request = Request::get("/")
        .header("host", "a.test")
        .header("transfer-encoding", "chunked")
        .body(pieces)
        .unwrap();
    send(scene.door, Http::One, request).await.unwrap();
    assert_eq!(scene.router.body(), "hello");
}

#[tokio::test]
async fn a_cached_replay_skips_the_router_until_its_time_is_up() {
    let router = Stub::start(|_| {
        replay(&[
            ("fly-replay", "app=cells"),
            ("fly-replay-cache", "/acme/*"),
            ("fly-replay-cache-ttl-secs", "60"),
        ])
    });
    let scene = Scene::new(router.await).await;
    scene.get().await;
    assert_eq!(scene.get().await.text(), "cell");
    assert_eq!(scene.router.count(), 1);
    assert_eq!(scene.cell.headers()["fly-replay-cache-status"], "hit");
    assert!(!scene.cell.headers().contains_key("fly-replay-src"));
    get(scene.door, "b.test", "/acme/1").await.unwrap();
    assert_eq!(scene.router.count(), 2, "another host is another entry");
    scene.fly.advance_clock(std::time::Duration::from_secs(60));
    scene.get().await;
    assert_eq!(scene.router.count(), 3);
    let big = post(scene.door, "a.test", "/acme/big", vec![7; 1_000_001])
        .await
        .unwrap();
    assert_eq!(big.text(), "cell", "a hit needs no second sending");
}

#[tokio::test]
async fn a_cached_replay_with_state_is_replayed_and_not_remembered() {
    let router = Stub::start(|_| {
        let cache = [
            ("fly-replay-cache", "/acme/*"),
            ("fly-replay-cache-ttl-secs", "60"),
        ];
        replay(&[("fly-replay", "app=cells;state=1"), cache[0], cache[1]])
    });
    let scene = Scene::new(router.await).await;
    scene.get().await;
    assert_eq!(scene.get().await.text(), "cell");
    assert_eq!(scene.router.count(), 2);
    assert_eq!(scene.fly.violations().len(), 2);
}

#[tokio::test]
async fn the_cell_can_drop_the_cached_replay() {
    let router = Stub::start(|request| {
        if request.headers().contains_key("fly-replay-src") {
            return Response::new(Full::from("router"));
        }
        let cache = [
            ("fly-replay-cache", "/acme/*"),
            ("fly-replay-cache-ttl-secs", "60"),
        ];
        replay(&[("fly-replay", "app=cells"), cache[0], cache[1]])
    });
    let moved =
        Stub::start(
            |request| match request.headers()["fly-replay-cache-status"].to_str() {
                Ok("hit") => replay(&[
                    ("fly-replay", "app=router"),
                    ("fly-replay-cache", "invalidate"),
                ]),
                _ => Response::new(Full::from("cell")),
            },
        );
    let mut scene = Scene::new(router.await).await;
    scene.cell = moved.await;
    scene.fly.attach("cells", CELL, scene.cell.address).unwrap();
    let answers = [
        scene.get().await.text(),
        scene.get().await.text(),
        scene.get().await.text(),
    ];
    assert_eq!(answers, ["cell", "router", "cell"]);
}

#[tokio::test]
async fn force_instance_is_hard_and_prefer_instance_is_soft() {
    let scene = Scene::new(Stub::named("router").await).await;
    let asked = |name: &str, id: &str| {
        let request = Request::get("/")
            .header("host", "a.test")
            .header(name, id)
            .body(full(""))
            .unwrap();
        send(scene.door, Http::One, request)
    };
    assert_eq!(
        asked("fly-force-instance-id", ROUTER).await.unwrap().text(),
        "router"
    );
    assert_eq!(
        asked("fly-force-instance-id", CELL).await.unwrap().status,
        503
    );
    assert_eq!(
        asked("fly-prefer-instance-id", CELL).await.unwrap().text(),
        "router"
    );
    assert_eq!(
        scene.router.headers()["fly-preferred-instance-unavailable"],
        CELL
    );
}

#[tokio::test]
async fn http2_arrives_as_http11_with_its_authority_as_host() {
    let scene = Scene::new(Stub::replaying("app=cells").await).await;
    let request = Request::get("/a")
        .header("host", "b.test")
        .body(full(""))
        .unwrap();
    assert_eq!(
        send(scene.door, Http::Two, request).await.unwrap().text(),
        "cell"
    );
    let seen = scene.cell.seen.lock().unwrap()[0].clone();
    assert_eq!(seen.version(), http::Version::HTTP_11);
    assert_eq!(seen.headers()["host"], "b.test");
}

#[tokio::test]
async fn a_websocket_is_replayed_and_counts_as_load_while_it_is_open() {
    let echo = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = echo.local_addr().unwrap();
    tokio::spawn(async move {
        let (stream, _) = echo.accept().await.unwrap();
        let mut socket = tokio_tungstenite::accept_async(stream).await.unwrap();
        while let Some(Ok(message)) = socket.next().await {
            if message.is_text() {
                socket.send(message).await.unwrap();
            }
        }
    });
    let scene = Scene::new(Stub::replaying("app=cells").await).await;
    let cell = scene.fly.attach("cells", CELL, address).unwrap();
    let mut socket = websocket(scene.door, "a.test", "/live", &[]).await.unwrap();
    socket.send("hello".into()).await.unwrap();
    assert_eq!(socket.next().await.unwrap().unwrap(), "hello".into());
    assert_eq!(cell.load(), 1);
    assert_eq!(scene.kinds(), [Kind::First, Kind::Replay]);
}

#[tokio::test]
async fn forged_replay_headers_reach_the_router() {
    let scene = Scene::new(Stub::named("router").await).await;
    let request = Request::get("/")
        .header("fly-replay-failed", "reason=x")
        .header("fly-replay-src", "state=x");
    send(
        scene.door,
        Http::One,
        request.header("host", "a.test").body(full("")).unwrap(),
    )
    .await
    .unwrap();
    assert_eq!(scene.router.headers()["fly-replay-failed"], "reason=x");
    assert_eq!(scene.router.headers()["fly-replay-src"], "state=x");
}
