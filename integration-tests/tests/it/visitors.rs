//! What a person in front of a browser sees of a wake, and whom no cell has to be woken for.

use http::{Request, StatusCode};
use integration_tests::Router;
use integration_tests::client::{self, Answer, Http};
use integration_tests::fly::{Action, Fly, MachineSpec, State};
use serde_json::{Value, json};

use crate::scene::HOST;
use crate::wake::{APP, entry, on_fly, sleeping, waking, whoami};

const HTML: (&str, &str) = ("accept", "text/html,application/xhtml+xml,*/*;q=0.8");
const CRAWLER: (&str, &str) = ("user-agent", "Mozilla/5.0 (compatible; Googlebot/2.1)");

async fn ask(router: &Router, method: &str, headers: &[(&'static str, &str)]) -> Answer {
    let mut request = Request::builder().method(method).uri("/whoami");
    for (name, value) in headers.iter().chain(&[("host", HOST)]) {
        request = request.header(*name, *value);
    }
    let request = request.body(client::full("")).unwrap();
    client::send(router.addr(), Http::One, request)
        .await
        .unwrap()
}

async fn navigate(router: &Router) -> Answer {
    ask(router, "GET", &[HTML, ("sec-fetch-mode", "navigate")]).await
}

/// The last line of the log about a request.
async fn record(router: &Router) -> Value {
    router.next_record(|_| true).await
}

/// Loads the page again until it says so of where the wake stands.
async fn until(router: &Router, stands: &str) -> Answer {
    loop {
        let page = navigate(router).await;
        assert_eq!(page.status, StatusCode::SERVICE_UNAVAILABLE);
        if page
            .text()
            .contains(&format!("aria-current=\"step\">{stands}"))
        {
            return page;
        }
    }
}

#[tokio::test]
async fn a_navigation_gets_a_page_that_says_how_far_the_wake_is_until_it_is_there() {
    let fly = Fly::start().await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let ready = folder.path().join("ready");
    let script = format!(
        "while [ ! -e {ready} ]; do sleep 0.02; done; exec {app}",
        ready = ready.display(),
        app = integration_tests::Binaries::built().cell_app.display(),
    );
    let mut spec = MachineSpec::cell(APP, "alice");
    spec.program = Some(("/bin/sh".into(), vec!["-c".into(), script]));
    let machine = fly.machine(spec).unwrap();
    let asked = fly.faults().api_hangs(Action::Start, &machine.id);
    let started = fly.faults().hold_start(&machine.id);
    let mut entry = entry(&machine);
    entry["waking_page_after_ms"] = json!(0);
    let router = Router::start(on_fly(&fly, json!({ "alice": entry }))).await;

    let page = until(&router, "Asking the platform").await;
    assert_eq!(page.header("retry-after"), "2");
    assert_eq!(page.header("cache-control"), "no-store");
    assert_eq!(page.header("content-type"), "text/html; charset=utf-8");
    assert!(page.text().contains("http-equiv=\"refresh\" content=\"2\""));
    let record = record(&router).await;
    assert_eq!(
        (&record["lane"], &record["reason"]),
        (&json!("stream"), &json!("waking"))
    );
    assert!(record["error_by"].is_null(), "{record}");
    asked.open();
    until(&router, "The machine is starting").await;
    started.open();
    until(&router, "The machine runs").await;
    std::fs::write(&ready, "").unwrap();
    let page = loop {
        let page = navigate(&router).await;
        if page.status != StatusCode::SERVICE_UNAVAILABLE {
            break page;
        }
    };
    assert_eq!(page.json()["machine"], machine.id);
    assert_eq!(
        fly.calls(Action::Start, &machine.id),
        1,
        "nobody was waiting meanwhile"
    );
}

#[tokio::test]
async fn a_navigation_to_a_cell_that_wakes_fast_sees_the_cell_only() {
    let (_fly, machine, router) = sleeping(json!({ "waking_page_after_ms": 600_000 })).await;
    let page = navigate(&router).await;
    assert_eq!(page.json()["machine"], machine.id);
}

#[tokio::test]
async fn whatever_is_no_navigation_waits() {
    let (fly, machine, router) = sleeping(json!({ "waking_page_after_ms": 0 })).await;
    let gate = fly.faults().hold_start(&machine.id);
    let waiting = async {
        tokio::join!(
            ask(&router, "GET", &[("accept", "application/json")]),
            ask(&router, "GET", &[HTML, ("sec-fetch-mode", "cors")]),
            ask(&router, "POST", &[HTML, ("sec-fetch-mode", "navigate")]),
            ask(&router, "HEAD", &[HTML]),
        )
    };
    let open = async {
        machine.reached(&[State::Starting]).await;
        gate.open();
    };
    let ((json, fetch, form, head), ()) = tokio::join!(waiting, open);
    for answer in [json, fetch, form, head] {
        assert_ne!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
    }
}

#[tokio::test]
async fn a_navigation_to_a_cell_that_cannot_be_started_is_told_when_the_next_try_is() {
    let (fly, machine, router) = sleeping(json!({ "waking_page_after_ms": 600_000 })).await;
    fly.faults().fail_starts(&machine.id, 1000);
    let page = navigate(&router).await;
    assert!(
        page.text().contains("The last start failed."),
        "{}",
        page.text()
    );
    assert!(page.text().contains("Next try in"), "{}", page.text());
    assert_eq!(record(&router).await["reason"], "wake_failed");
    fly.faults().fail_starts(&machine.id, 0);
    let page = loop {
        let page = navigate(&router).await;
        if page.status != StatusCode::SERVICE_UNAVAILABLE {
            break page;
        }
        assert_eq!(record(&router).await["reason"], "breaker_open");
        assert!(page.text().contains("http-equiv=\"refresh\""));
    };
    assert_eq!(page.json()["machine"], machine.id);
}

#[tokio::test]
async fn a_navigation_for_which_there_is_no_room_to_wait_keeps_the_wake_going_too() {
    let fly = Fly::start().await.unwrap();
    let machine = fly.machine(MachineSpec::cell(APP, "alice")).unwrap();
    let gate = fly.faults().hold_start(&machine.id);
    let options = on_fly(&fly, json!({ "alice": entry(&machine) }));
    let router = Router::start(options.args(["--max-held", "1"])).await;
    let only = whoami(&router);
    waking(&router).await;
    machine.reached(&[State::Starting]).await;
    assert!(navigate(&router).await.text().contains("Waking up"));
    only.abort();
    assert!(only.await.unwrap_err().is_cancelled());
    gate.open();
    let page = loop {
        let page = navigate(&router).await;
        if page.status != StatusCode::SERVICE_UNAVAILABLE {
            break page;
        }
    };
    assert_eq!(page.json()["machine"], machine.id);
    assert_eq!(fly.calls(Action::Start, &machine.id), 1);
}

#[tokio::test]
async fn a_sleeping_cell_that_nobody_here_can_wake_is_not_ill() {
    let fly = Fly::start().await.unwrap();
    let machine = fly.machine(MachineSpec::cell(APP, "alice")).unwrap();
    let mut alice = entry(&machine);
    alice["wake_for"] = json!("visitors");
    let mut options = on_fly(&fly, json!({ "alice": alice }));
    options.env.remove("CELL_ROUTER_FLY_API_TOKEN");
    let router = Router::start(options).await;
    // More than a breaker stands.
    for (headers, status, reason) in [(CRAWLER, 503, "asleep"), (HTML, 502, "unreachable")] {
        for _ in 0..7 {
            let answer = ask(&router, "GET", &[headers]).await;
            assert_eq!(answer.status.as_u16(), status);
            assert_eq!(record(&router).await["reason"], reason);
        }
    }
}

#[tokio::test]
async fn a_crawler_wakes_no_cell_that_wakes_for_visitors() {
    let (fly, machine, router) = sleeping(json!({
        "wake_for": "visitors", "replay": "strict", "retry_after_s": 60,
    }))
    .await;
    for headers in [CRAWLER, ("sec-purpose", "prefetch"), ("x-moz", "prefetch")] {
        let answer = ask(&router, "GET", &[headers, HTML]).await;
        assert_eq!(
            (answer.status.as_u16(), answer.header("retry-after")),
            (503, "60")
        );
        let record = record(&router).await;
        assert_eq!(
            (&record["lane"], &record["reason"]),
            (&json!("stream"), &json!("asleep"))
        );
    }
    assert_eq!(machine.state(), State::Stopped);
    assert_eq!(fly.calls(Action::Start, &machine.id), 0);
    // A visitor is replayed, which wakes the cell.
    let visitor = ask(&router, "GET", &[HTML]).await;
    assert!(!visitor.header("fly-replay").is_empty());

    fly.wake(&machine).await.unwrap();
    loop {
        // Until DNS is asked again.
        let answer = ask(&router, "GET", &[CRAWLER]).await;
        if answer.status == StatusCode::OK {
            assert_eq!(answer.json()["machine"], machine.id);
            break;
        }
    }
    router
        .next_record(|record| record["reason"] == "not_to_wake")
        .await;
}
