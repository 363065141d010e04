//! Beats: who may post one, who is missing, who hears of it; and that none of it wakes a cell.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use data_encoding::{BASE64, HEXLOWER};
use http::{Request, StatusCode};
use integration_tests::client::{self, Answer, Http, Raw};
use integration_tests::fly::{Action, Fly, Machine, MachineSpec, State};
use integration_tests::{Router, RouterOptions, ScriptedCell};
use ring::hmac;
use rustix::process::Signal;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::admin_api::{Admin, Events};
use crate::scene::{HOST, at, options, registry, said};
use crate::wake::{APP, entry, on_fly};

pub(crate) const SECRET: &str = "correct horse battery staple";
const HOOK: &[u8; 32] = b"thirty-two bytes that nobody has";

/// A router that takes beats, with its webhook.
pub(crate) struct Heard {
    pub(crate) admin: Admin,
    pub(crate) beats: SocketAddr,
    hook: ScriptedCell,
    _folder: TempDir,
}

impl Heard {
    pub(crate) async fn start(options: RouterOptions) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("hook");
        let hook = ScriptedCell::listen().await;
        std::fs::write(&file, format!("whsec_{}\n", BASE64.encode(HOOK))).unwrap();
        let url = format!("http://{}/cells", hook.addr());
        let options = options
            .env("ALICE", SECRET)
            .args(["--beat-listen", "127.0.0.1:0", "--webhook", &url])
            .args(["--webhook-secret", file.to_str().unwrap()]);
        let admin = Admin::start(options).await;
        let open = said(&admin.router, "listener for beats open").await;
        Self {
            beats: open["address"].as_str().unwrap().parse().unwrap(),
            admin,
            hook,
            _folder: folder,
        }
    }

    /// The metric of this name and these labels; 0 where it was never counted.
    pub(crate) async fn metric(&self, name: &str) -> f64 {
        let text = self.admin.send("read", "GET", "/metrics", &[], "").await;
        let text = text.text();
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.map_or(0.0, |value| value.parse().unwrap())
    }

    pub(crate) async fn missing_since(&self) -> Value {
        self.admin.get("/v1/cells/alice").await["missing_since"].clone()
    }

    /// The next notice, whose answer has this status.
    async fn notice(&self, answer: &str) -> (String, Value) {
        let (mut raw, head) = self.hook.request().await;
        let field = |name: &str| {
            let line = head.lines().find_map(|line| {
                let (field, value) = line.split_once(": ")?;
                field.eq_ignore_ascii_case(name).then_some(value)
            });
            line.unwrap_or_else(|| panic!("{name} in {head}"))
                .to_owned()
        };
        assert!(head.starts_with("POST /cells HTTP/1.1\r\n"), "{head}");
        let body = raw
            .bytes(field("content-length").parse().unwrap())
            .await
            .unwrap();
        let (id, timestamp) = (field("webhook-id"), field("webhook-timestamp"));
        let signed = [id.as_bytes(), timestamp.as_bytes(), &body].join(&b'.');
        let signature = field("webhook-signature");
        let mac = BASE64
            .decode(signature.strip_prefix("v1,").unwrap().as_bytes())
            .unwrap();
        let key = hmac::Key::new(hmac::HMAC_SHA256, HOOK);
        hmac::verify(&key, &signed, &mac).expect("the notice is signed");
        let answer = format!("HTTP/1.1 {answer}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
        raw.write(answer).await.unwrap();
        (id, serde_json::from_slice(&body).unwrap())
    }

    /// What the next notice says of `alice`.
    async fn told(&self) -> String {
        let (_, notice) = self.notice("204 No Content").await;
        assert_eq!(notice["data"]["cell"], "alice", "{notice}");
        notice["type"].as_str().unwrap().to_owned()
    }

    pub(crate) async fn post(&self, cell: &str, tokens: &[String]) -> Answer {
        post(self.beats, cell, tokens, "").await
    }
}

async fn post(beats: SocketAddr, cell: &str, tokens: &[String], body: &'static str) -> Answer {
    let mut request = Request::post(format!("/v1/cells/{cell}/beat")).header("host", "router");
    for token in tokens {
        request = request.header("cell-signature", token);
    }
    let request = request.body(client::full(body)).unwrap();
    client::send(beats, Http::One, request).await.unwrap()
}

pub(crate) fn now_ms() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    u64::try_from(now.as_millis()).unwrap()
}

pub(crate) fn token(secret: &str, cell: &str, time_ms: u64) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
    let message = format!("cell-beat-v1\n{cell}\n{time_ms}");
    let mac = hmac::sign(&key, message.as_bytes());
    format!("v1.{time_ms}.{}", HEXLOWER.encode(mac.as_ref()))
}

/// An entry of a cell that is to beat.
pub(crate) fn beating(mut entry: Value, every_s: u64) -> Value {
    entry["secret"] = json!({ "env": "ALICE" });
    entry["beat_every_s"] = json!(every_s);
    entry
}

/// A machine whose cell beats each second, asleep.
pub(crate) fn machine(fly: &Fly, cell: &str, beats: SocketAddr) -> Arc<Machine> {
    let spec = MachineSpec::cell(APP, cell).secret(SECRET);
    let spec = spec.env("CELL_BEAT_TO", &beats.to_string());
    fly.machine(spec.env("CELL_BEAT_EVERY_S", "1")).unwrap()
}

/// Puts these cells in force.
pub(crate) async fn save(router: &Router, cells: Value) {
    router.save(&registry(cells));
    router
        .next_event(|event| event["message"] == "registry loaded" && event["cells"] != 0)
        .await;
}

#[tokio::test]
async fn a_beat_counts_only_if_it_is_signed_fresh_and_new() {
    let cells = json!({
        "alice": beating(json!({ "address": "127.0.0.1:9" }), 3600),
        "bob": beating(json!({ "address": "127.0.0.1:9" }), 3600),
        "carol": beating(json!({ "address": "127.0.0.1:9" }), 0),
    });
    let heard = Heard::start(options(cells)).await;
    let alice = |time_ms| token(SECRET, "alice", time_ms);
    let now = now_ms();
    assert_eq!(
        heard.post("alice", &[alice(now)]).await.status,
        StatusCode::NO_CONTENT
    );
    for (cell, tokens, status, why) in [
        (
            "alice",
            vec![alice(now)],
            409,
            "not newer than the last one",
        ),
        (
            "alice",
            vec![alice(now - 1)],
            409,
            "not newer than the last one",
        ),
        (
            "alice",
            vec![alice(now - 61_000)],
            409,
            "off the router's clock",
        ),
        (
            "alice",
            vec![alice(now + 120_000)],
            409,
            "off the router's clock",
        ),
        (
            "alice",
            vec![token("guess", "alice", now + 1)],
            401,
            "not made with a secret",
        ),
        (
            "alice",
            vec![token(SECRET, "bob", now + 1)],
            401,
            "not made with a secret",
        ),
        (
            "alice",
            vec!["v1.1.00".to_owned()],
            401,
            "not made with a secret",
        ),
        ("alice", vec![], 401, "one field cell-signature"),
        (
            "alice",
            vec![alice(now + 1), alice(now + 2)],
            401,
            "one field cell-signature",
        ),
        (
            "nobody",
            vec![token(SECRET, "nobody", now)],
            404,
            "no such cell",
        ),
        (
            "carol",
            vec![token(SECRET, "carol", now)],
            409,
            "no beat_every_s",
        ),
    ] {
        let answer = heard.post(cell, &tokens).await;
        assert_eq!(answer.status.as_u16(), status, "{cell} {tokens:?}");
        assert_eq!(answer.header("content-type"), "application/problem+json");
        let detail = answer.json()["detail"].as_str().unwrap().to_owned();
        assert!(detail.contains(why), "{cell} {tokens:?}: {detail}");
    }
    let large = post(heard.beats, "alice", &[alice(now + 1)], "{}").await;
    assert_eq!(large.status, StatusCode::PAYLOAD_TOO_LARGE);
    // Not one of those has taken a time from the cell.
    assert_eq!(
        heard.post("alice", &[alice(now + 1)]).await.status,
        StatusCode::NO_CONTENT
    );

    let mut last = StatusCode::OK;
    for _ in 0..60 {
        last = heard.post("alice", &[]).await.status;
    }
    assert_eq!(last, StatusCode::TOO_MANY_REQUESTS);
    let good = heard.post("alice", &[alice(now + 2)]).await;
    assert_eq!(good.status, StatusCode::NO_CONTENT, "who is right passes");

    for (outcome, count) in [
        ("accepted", 3.0),
        ("replayed", 2.0),
        ("stale", 2.0),
        ("forged", 3.0),
        ("no_such_cell", 1.0),
        ("not_awaited", 1.0),
        ("too_large", 1.0),
    ] {
        let name = format!("cell_router_beats_total{{outcome=\"{outcome}\"}}");
        assert_eq!(heard.metric(&name).await, count, "{outcome}");
    }
    let alice = heard.admin.get("/v1/cells/alice").await;
    assert_eq!(alice["beat_every_s"], 3600);
    assert!(alice["last_beat"].is_u64(), "{alice}");
    let bob = heard.admin.get("/v1/cells/bob").await;
    assert_eq!(bob["last_beat"], Value::Null);
}

#[tokio::test]
async fn cells_reach_nothing_else_at_their_listener() {
    let heard = Heard::start(options(json!({}))).await;
    for (line, status) in [
        ("GET / HTTP/1.1", "404"),
        ("GET /metrics HTTP/1.1", "404"),
        ("GET /v1/cells HTTP/1.1", "404"),
        ("POST /v1/cells/alice/wake HTTP/1.1", "404"),
        ("GET /v1/cells/alice/beat HTTP/1.1", "405"),
    ] {
        let mut raw = Raw::connect(heard.beats).await.unwrap();
        raw.write(format!("{line}\r\nhost: router\r\n\r\n"))
            .await
            .unwrap();
        let head = raw.head().await.unwrap();
        assert!(
            head.starts_with(&format!("HTTP/1.1 {status} ")),
            "{line}: {head}"
        );
        raw.ended().await;
    }
}

#[tokio::test]
async fn a_router_that_takes_over_takes_the_beats_too() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("takeover.sock");
    let start = |listen: Option<SocketAddr>, beats: String| {
        let cells = json!({ "alice": beating(json!({ "address": "127.0.0.1:9" }), 3600) });
        let options = options(cells)
            .env("ALICE", SECRET)
            .args(["--beat-listen", &beats]);
        let options = options.args(["--takeover", path.to_str().unwrap()]);
        Router::start(RouterOptions { listen, ..options })
    };
    let old = start(None, "127.0.0.1:0".to_owned()).await;
    let open = said(&old, "listener for beats open").await;
    let beats: SocketAddr = open["address"].as_str().unwrap().parse().unwrap();
    let now = now_ms();
    let first = post(beats, "alice", &[token(SECRET, "alice", now)], "").await;
    assert_eq!(first.status, StatusCode::NO_CONTENT);
    let _new = start(Some(old.addr()), beats.to_string()).await;
    assert!(old.exited().await.success());
    let next = post(beats, "alice", &[token(SECRET, "alice", now + 1)], "").await;
    assert_eq!(next.status, StatusCode::NO_CONTENT);
}

#[tokio::test]
async fn a_cell_that_falls_silent_is_missing_and_is_told_of_once_until_it_is_back() {
    let fly = Fly::start().await.unwrap();
    let heard = Heard::start(options(json!({}))).await;
    let machine = machine(&fly, "alice", heard.beats);
    let mut events = Events::open(&heard.admin, None).await;
    events.until(|kind, _| kind == "resync").await;
    save(
        &heard.admin.router,
        json!({ "alice": beating(at(machine.address()), 1) }),
    )
    .await;

    // At an address nothing sleeps: it is awaited from the beginning.
    let (id, first) = heard.notice("500 Internal Server Error").await;
    assert_eq!(first["type"], "cell.missing", "{first}");
    let (again, second) = heard.notice("204 No Content").await;
    assert_eq!(
        (&again, &second),
        (&id, &first),
        "the same notice, tried again"
    );
    assert!(
        first["data"]["router"]
            .as_str()
            .unwrap()
            .starts_with("cell-router-")
    );
    let missing =
        |kind: &str, data: &Value| kind == "cells" && data["cells"][0]["missing_since"].is_u64();
    events.until(missing).await;
    assert!(heard.missing_since().await.is_u64());
    assert_eq!(heard.metric("cell_router_cells_missing").await, 1.0);
    let list = heard.admin.get("/v1/cells?state=missing").await;
    assert_eq!(list["cells"][0]["name"], "alice");

    fly.wake(&machine).await.unwrap();
    assert_eq!(heard.told().await, "cell.returned");
    events
        .until(|kind, data| kind == "cells" && !missing(kind, data))
        .await;
    assert_eq!(heard.missing_since().await, Value::Null);
    assert_eq!(heard.metric("cell_router_cells_missing").await, 0.0);
    assert_eq!(heard.admin.get("/v1/cells?state=missing").await["total"], 0);
    let delivered = "cell_router_webhooks_total{outcome=\"delivered\"}";
    said(&heard.admin.router, "webhook: delivered").await;
    said(&heard.admin.router, "webhook: delivered").await;
    assert_eq!(heard.metric(delivered).await, 2.0);
}

#[tokio::test]
async fn an_entry_that_comes_good_while_the_text_stays_is_awaited() {
    let folder = tempfile::tempdir().unwrap();
    let secret = folder.path().join("secret");
    let heard = Heard::start(options(json!({}))).await;
    let mut events = Events::open(&heard.admin, None).await;
    events.until(|kind, _| kind == "resync").await;
    let nowhere = || beating(json!({ "address": "127.0.0.1:9" }), 1);
    let mut alice = nowhere();
    alice["secret"] = json!({ "file": secret });
    let cells = json!({ "alice": alice, "bob": nowhere() });
    heard.admin.router.save(&registry(cells));
    let flagged = |kind: &str, data: &Value| (kind == "registry").then(|| data["flagged"].clone());
    events
        .until(|kind, data| flagged(kind, data) == Some(json!(1)))
        .await;
    let (_, first) = heard.notice("204 No Content").await;
    assert_eq!(first["data"]["cell"], "bob", "{first}");
    std::fs::write(&secret, SECRET).unwrap();
    heard.admin.router.hang_up();
    events
        .until(|kind, data| flagged(kind, data) == Some(json!(0)))
        .await;
    assert_eq!(heard.told().await, "cell.missing");
}

#[tokio::test]
async fn a_machine_that_runs_while_its_cell_hangs_is_missing_until_nothing_is_expected() {
    let fly = Fly::start().await.unwrap();
    let heard = Heard::start(on_fly(&fly, json!({}))).await;
    let machine = machine(&fly, "alice", heard.beats);
    let mut alice = beating(entry(&machine), 1);
    // Time to start, and for some looks.
    alice["wake_timeout_ms"] = json!(10_000);
    save(&heard.admin.router, json!({ "alice": alice })).await;
    let woken = client::get(heard.admin.router.addr(), HOST, "/up")
        .await
        .unwrap();
    assert_eq!(woken.status, StatusCode::OK);
    said(&heard.admin.router, "beats").await;
    machine
        .with_process(|process| process.signal(Signal::STOP))
        .unwrap();
    assert_eq!(heard.told().await, "cell.missing");
    let line = heard
        .admin
        .router
        .next_event(|event| event["message"] == "missing")
        .await;
    assert_eq!(line["machine"], "Running");
    assert_eq!(machine.state(), State::Started);

    // To be woken says nothing of a machine that runs already.
    let since = heard.missing_since().await;
    let wake = "/v1/cells/alice/wake";
    let wake = heard.admin.send("operate", "POST", wake, &[], "").await;
    assert_eq!(wake.status, StatusCode::ACCEPTED, "{}", wake.text());
    said(&heard.admin.router, "wake").await;
    assert_eq!(heard.missing_since().await, since);

    let state = json!({ "state": "maintenance" });
    let set = heard
        .admin
        .edit("PUT", "/v1/cells/alice/state", state)
        .await;
    assert_eq!(set.status, StatusCode::OK, "{}", set.text());
    assert_eq!(heard.told().await, "cell.excused");
    assert_eq!(heard.missing_since().await, Value::Null);
    assert_eq!(heard.metric("cell_router_cells_missing").await, 0.0);
    machine
        .with_process(|process| process.signal(Signal::CONT))
        .unwrap();
}

#[tokio::test]
async fn a_sleeping_cell_is_not_missing_and_nothing_of_this_wakes_it() {
    let fly = Fly::start().await.unwrap();
    let heard = Heard::start(on_fly(&fly, json!({}))).await;
    let machine = machine(&fly, "alice", heard.beats);
    let cells = json!({ "alice": beating(entry(&machine), 1) });
    save(&heard.admin.router, cells).await;
    // Awake for once, and then it goes to sleep by itself.
    let router = heard.admin.router.addr();
    assert_eq!(
        client::get(router, HOST, "/up").await.unwrap().status,
        StatusCode::OK
    );
    said(&heard.admin.router, "beats").await;
    assert_eq!(fly.calls(Action::Start, &machine.id), 1);
    fly.stop(&machine).await.unwrap();
    let asleep = |event: &Value| event["message"] == "silent" && event["machine"] == "Asleep";
    heard.admin.router.next_event(asleep).await;

    // What else is no visit: `asleep`.
    let beat = heard
        .post("alice", &[token(SECRET, "alice", now_ms())])
        .await;
    assert_eq!(beat.status, StatusCode::NO_CONTENT);
    // The beat that came last was an echo from before: the machine sleeps, says the platform once more.
    heard.admin.router.next_event(asleep).await;
    assert_eq!(
        fly.calls(Action::Start, &machine.id),
        1,
        "since it was awake"
    );
    assert_eq!((machine.launches(), machine.state()), (1, State::Stopped));
    assert_eq!(heard.missing_since().await, Value::Null);
    assert_eq!(heard.metric("cell_router_cells_missing").await, 0.0);
    assert_eq!(
        heard
            .metric("cell_router_webhooks_total{outcome=\"delivered\"}")
            .await,
        0.0
    );

    // Woken, it is awaited again.
    assert_eq!(
        client::get(router, HOST, "/up").await.unwrap().status,
        StatusCode::OK
    );
    machine
        .with_process(|process| process.signal(Signal::STOP))
        .unwrap();
    assert_eq!(heard.told().await, "cell.missing");
    machine
        .with_process(|process| process.signal(Signal::CONT))
        .unwrap();
    assert_eq!(heard.told().await, "cell.returned");
}
