//! A night of a cell that sleeps: all that has to do with it and is no visit, and that none of it wakes it.

use http::{Request, StatusCode};
use integration_tests::RouterOptions;
use integration_tests::client::{self, Http};
use integration_tests::fly::{Action, Fly, Machine, State};
use serde_json::{Value, json};

use crate::admin_api::{Events, table};
use crate::beats::{Heard, SECRET, beating, machine, now_ms, save, token};
use crate::scene::{HOST, said};
use crate::wake::{entry, on_fly};

/// Who comes by without being a visitor.
const PASSERS_BY: [(&str, &str); 6] = [
    ("user-agent", "kube-probe/1.31"),
    ("user-agent", "Consul Health Check"),
    (
        "user-agent",
        "Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)",
    ),
    ("sec-purpose", "prefetch;prerender"),
    ("purpose", "prefetch"),
    ("x-moz", "prefetch"),
];

/// Each GET of the admin API that a token of the role `read` may send, and an explanation.
async fn looks(heard: &Heard) {
    for (method, path, role) in table() {
        if role == "read" && method == "GET" && path != "/v1/events" {
            let target = path
                .replace("{name}", "alice")
                .replace("{version}", "0123456789abcdef");
            let status = heard.admin.status(Some("read"), &method, &target).await;
            let none_such = path.contains("{version}") || path.ends_with("/diff");
            assert!(status == 200 || none_such, "{target}: {status}");
        }
    }
    for target in ["/v1/cells?search=ali", "/v1/cells?state=missing"] {
        heard.admin.get(target).await;
    }
    let asked = json!({ "method": "GET", "url": "http://alice.example.com/up" }).to_string();
    let told = heard.admin.send("read", "POST", "/v1/explain", &[], asked);
    assert_eq!(told.await.json()["cell"], "alice");
    for target in ["/", "/page/main.js", "/page/schema.json", "/up"] {
        let page = heard.admin.send("read", "GET", target, &[], "").await;
        assert_eq!(page.status, StatusCode::OK, "{target}");
    }
}

/// What reaches the listener for clients: those who are no visitors, and one for whose file the cell is not needed.
async fn passes_by(heard: &Heard) {
    let ask = async |method: &str, path: &str, (name, value): (&'static str, &str)| {
        let request = Request::builder().method(method).uri(path);
        let request = request.header("host", HOST).header(name, value);
        let request = request.body(client::full("")).unwrap();
        let router = heard.admin.router.addr();
        client::send(router, Http::One, request).await.unwrap()
    };
    for who in PASSERS_BY {
        for method in ["GET", "HEAD"] {
            let answer = ask(method, "/", who).await;
            assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE, "{who:?}");
        }
    }
    let reader = (
        "user-agent",
        "Mozilla/5.0 (X11; Linux x86_64) Firefox/140.0",
    );
    let file = ask("GET", "/files-here/a.txt", reader).await;
    assert_eq!(file.text(), "a file");
    let none = ask("GET", "/files-here/none.txt", reader).await;
    assert_eq!(none.status, StatusCode::NOT_FOUND);
}

/// Beats of both cells, good and bad. One of the sleeping cell is late; after it the platform is asked again.
async fn beats(heard: &Heard, fly: &Fly, alice: &Machine) {
    let asked = fly.calls(Action::Get, &alice.id);
    for (cell, secret, status) in [
        ("alice", SECRET, StatusCode::NO_CONTENT),
        ("alice", "guess", StatusCode::UNAUTHORIZED),
        ("bob", SECRET, StatusCode::NO_CONTENT),
    ] {
        // Ahead of what the cell sends itself meanwhile.
        let beat = [token(secret, cell, now_ms() + 20_000)];
        assert_eq!(heard.post(cell, &beat).await.status, status, "{cell}");
    }
    let silent = |event: &Value| {
        event["message"] == "silent" && event["cell"] == "alice" && event["machine"] == "Asleep"
    };
    heard.admin.router.next_event(silent).await;
    assert!(fly.calls(Action::Get, &alice.id) > asked);
}

/// All of it; the stream of events is open meanwhile.
async fn night(heard: &Heard, fly: &Fly, alice: &Machine) {
    let mut events = Events::open(&heard.admin, None).await;
    events.until(|kind, _| kind == "resync").await;
    for _ in 0..2 {
        looks(heard).await;
        passes_by(heard).await;
        beats(heard, fly, alice).await;
    }
    let change = json!({ "max_in_flight": now_ms() % 1000 + 1 });
    let edited = heard
        .admin
        .edit("PATCH", "/v1/cells/alice/entry", change)
        .await;
    assert_eq!(edited.status, StatusCode::OK, "{}", edited.text());
    let version = edited.json()["version"].clone();
    heard.admin.in_force(version.as_str().unwrap()).await;
    events
        .until(|kind, data| kind == "registry" && data["version"] == version)
        .await;
    looks(heard).await;
    passes_by(heard).await;
    assert_eq!(heard.missing_since().await, Value::Null);
    let waking = heard.metric("cell_router_cells_waking").await;
    assert_eq!(waking, 0.0);
}

fn sleeps(fly: &Fly, alice: &Machine, launches: usize) {
    assert_eq!(fly.starts(), Vec::<String>::new());
    assert_eq!(
        (alice.state(), alice.launches()),
        (State::Stopped, launches)
    );
}

#[tokio::test]
async fn a_cell_sleeps_through_all_that_is_no_visit_an_edit_and_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("a.txt"), "a file").unwrap();
    let fly = Fly::start().await.unwrap();
    let options = || RouterOptions {
        registry_file: Some(folder.path().join("registry.json")),
        ..on_fly(&fly, json!({}))
    };
    let heard = Heard::start(options()).await;
    let alice = machine(&fly, "alice", heard.beats);
    let bob = machine(&fly, "bob", heard.beats);
    let mut entries = [&alice, &bob].map(|machine| beating(entry(machine), 1));
    entries[0]["wake_for"] = json!("visitors");
    entries[0]["static"] = json!({ "folder": folder.path(), "path": "/files-here" });
    let [for_alice, for_bob] = entries;
    let cells = json!({ "alice": for_alice, "bob": for_bob });
    save(&heard.admin.router, cells).await;
    // Awake, and heard of; then put to sleep. The other one beats all night.
    for machine in [&alice, &bob] {
        fly.wake(machine).await.unwrap();
        said(&heard.admin.router, "beats").await;
    }
    let slept = heard
        .admin
        .send("operate", "POST", "/v1/cells/alice/sleep", &[], "")
        .await;
    assert_eq!(slept.status, StatusCode::ACCEPTED, "{}", slept.text());
    alice.reached(&[State::Stopped]).await;

    night(&heard, &fly, &alice).await;
    sleeps(&fly, &alice, 1);
    heard.admin.router.terminate();
    assert!(heard.admin.router.exited().await.success());
    let restarted = RouterOptions {
        registry: String::new(),
        ..options()
    };
    let heard = Heard::start(restarted).await;
    night(&heard, &fly, &alice).await;
    sleeps(&fly, &alice, 1);

    // A visit wakes it: all of the above would have shown.
    let visit = client::get(heard.admin.router.addr(), HOST, "/whoami");
    assert_eq!(visit.await.unwrap().json()["machine"], alice.id);
    assert_eq!(fly.starts(), std::slice::from_ref(&alice.id));
    assert_eq!((alice.state(), alice.launches()), (State::Started, 2));
}
