//! Many cells and many clients at once, and a Machines API that has a bad day.

use std::sync::Arc;

use http::{Request, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo};
use integration_tests::Router;
use integration_tests::client::{self, Answer, Error};
use integration_tests::fly::{Action, Fly, Machine, MachineSpec, State};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

use crate::scene::HOST;
use crate::wake::{
    APP, entry, on_fly, outcome, past_the_breaker, reason, sleeping, waking, whoami,
};

/// So many sleeping cells, `c0` and so on, and a router before them. The first entry says `more` too.
async fn many(cells: usize, more: &Value) -> (Fly, Vec<Arc<Machine>>, Router) {
    let fly = Fly::start().await.unwrap();
    let name = |number: usize| format!("c{number}");
    let machines: Vec<_> = (0..cells)
        .map(|number| fly.machine(MachineSpec::cell(APP, &name(number))).unwrap())
        .collect();
    let mut entries = serde_json::Map::new();
    for (number, machine) in machines.iter().enumerate() {
        let mut entry = entry(machine);
        for (name, value) in more.as_object().unwrap() {
            entry[name] = value.clone();
        }
        entries.insert(name(number), entry);
    }
    let router = Router::start(on_fly(&fly, Value::Object(entries))).await;
    (fly, machines, router)
}

fn ask(router: &Router, cell: usize) -> JoinHandle<Result<Answer, Error>> {
    let (address, host) = (router.addr(), format!("c{cell}.example.com"));
    tokio::spawn(async move { client::get(address, &host, "/whoami").await })
}

/// The machines that the router set out to wake, in that order.
fn woken(router: &Router) -> Vec<String> {
    let lines = router.process().stderr.all();
    lines
        .iter()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .filter(|event| event["message"] == "waking")
        .filter_map(|event| Some(event["machine"].as_str()?.to_owned()))
        .collect()
}

#[tokio::test]
async fn a_thousand_clients_of_two_hundred_sleeping_cells_are_one_start_each_in_fair_order() {
    const CELLS: usize = 200;
    const CLIENTS: usize = 5;
    const NEVER_STARTS: usize = 7;
    let (fly, machines, router) = many(CELLS, &json!({ "wake_timeout_ms": 600_000 })).await;
    let _gate = fly.faults().hold_start(&machines[NEVER_STARTS].id);
    let waiting: Vec<_> = (0..CELLS * CLIENTS)
        .map(|number| (number % CELLS, ask(&router, number % CELLS)))
        .collect();
    let mut left_waiting = Vec::new();
    for (cell, waiting) in waiting {
        if cell == NEVER_STARTS {
            left_waiting.push(waiting);
            continue;
        }
        let answer = waiting.await.unwrap().unwrap();
        assert_eq!(
            answer.json()["machine"],
            machines[cell].id,
            "{}",
            answer.text()
        );
    }
    assert!(left_waiting.iter().all(|waiting| !waiting.is_finished()));
    assert_eq!(fly.calls_over_limit(), 0);
    for machine in &machines {
        assert_eq!(fly.calls(Action::Start, &machine.id), 1);
    }
    // As many calls as are under way at once may overtake one another on their way.
    let (wanted, started) = (woken(&router), fly.starts());
    assert_eq!(wanted.len(), CELLS);
    for (turn, machine) in wanted.iter().enumerate() {
        let at = started.iter().position(|started| started == machine);
        let late = at.unwrap().abs_diff(turn);
        assert!(late <= 48, "turn {turn} came {late} places off");
    }
    left_waiting.iter().for_each(JoinHandle::abort);
}

#[tokio::test]
async fn calls_that_hang_keep_no_other_cell_waiting() {
    const HANG: usize = 40;
    let (fly, machines, router) = many(HANG + 1, &json!({})).await;
    let _gates: Vec<_> = machines[..HANG]
        .iter()
        .map(|machine| fly.faults().api_hangs(Action::Start, &machine.id))
        .collect();
    let hanging: Vec<_> = (0..HANG).map(|cell| ask(&router, cell)).collect();
    for _ in 0..HANG {
        waking(&router).await;
    }
    let answer = ask(&router, HANG).await.unwrap().unwrap();
    assert_eq!(answer.status, StatusCode::OK);
    assert!(hanging.iter().all(|waiting| !waiting.is_finished()));
}

#[tokio::test]
async fn an_api_that_never_works_is_asked_within_its_limits_until_time_is_up() {
    for status in [429, 500, 408] {
        let (fly, machine, router) = sleeping(json!({ "wake_timeout_ms": 4000 })).await;
        fly.faults()
            .api_error(Action::Start, &machine.id, status, usize::MAX);
        let answer = whoami(&router).await.unwrap().unwrap();
        assert_eq!(answer.status, StatusCode::GATEWAY_TIMEOUT);
        assert_eq!(reason(&router, answer.status).await, "wake_timeout");
        assert_eq!(fly.calls_over_limit(), 0);
        fly.faults()
            .api_error(Action::Start, &machine.id, status, 0);
        assert_eq!(past_the_breaker(&router).await.status, StatusCode::OK);
    }
}

#[tokio::test]
async fn an_api_that_says_when_to_come_back_is_not_asked_before() {
    let (fly, machine, router) = sleeping(json!({ "wake_timeout_ms": 3000 })).await;
    fly.faults().api_busy(Action::Start, &machine.id, 3600);
    let answer = whoami(&router).await.unwrap().unwrap();
    assert_eq!(answer.status, StatusCode::GATEWAY_TIMEOUT);
    assert_eq!(fly.calls(Action::Start, &machine.id), 1);
}

#[tokio::test]
async fn an_api_that_talks_nonsense_is_asked_again() {
    let (fly, machine, router) = sleeping(json!({})).await;
    fly.faults().api_error(Action::Get, &machine.id, 200, 3);
    let answer = whoami(&router).await.unwrap().unwrap();
    assert_eq!(answer.status, StatusCode::OK);
    assert_eq!(fly.calls(Action::Start, &machine.id), 1);
    assert_eq!(fly.calls_over_limit(), 0);
}

#[tokio::test]
async fn a_cell_that_crashes_whenever_it_starts_is_given_up_in_a_while() {
    let fly = Fly::start().await.unwrap();
    let mut spec = MachineSpec::cell(APP, "alice");
    spec.program = Some(("/bin/sh".into(), vec!["-c".into(), "exit 1".into()]));
    let machine = fly.machine(spec).unwrap();
    let router = Router::start(on_fly(&fly, json!({ "alice": entry(&machine) }))).await;
    let answer = whoami(&router).await.unwrap().unwrap();
    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(reason(&router, answer.status).await, "wake_failed");
    assert_eq!(fly.calls(Action::Start, &machine.id), 3);
    assert_eq!(fly.calls_over_limit(), 0);
}

#[tokio::test]
async fn a_cell_that_goes_down_before_it_is_ready_is_started_again() {
    let fly = Fly::start().await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let been = folder.path().join("been");
    // The first time it runs, and ends of itself before it has listened.
    let script = format!(
        "if [ -e {been} ]; then exec {app}; fi; touch {been}; sleep 1",
        been = been.display(),
        app = integration_tests::Binaries::built().cell_app.display(),
    );
    let mut spec = MachineSpec::cell(APP, "alice");
    spec.program = Some(("/bin/sh".into(), vec!["-c".into(), script]));
    let machine = fly.machine(spec).unwrap();
    let router = Router::start(on_fly(&fly, json!({ "alice": entry(&machine) }))).await;
    let answer = whoami(&router).await.unwrap().unwrap();
    assert_eq!(answer.status, StatusCode::OK);
    assert_eq!(machine.launches(), 2);
}

#[tokio::test]
async fn a_machine_that_is_destroyed_while_it_wakes_is_told() {
    let (fly, machine, router) = sleeping(json!({})).await;
    let gate = fly.faults().hold_start(&machine.id);
    let waiting = whoami(&router);
    machine.reached(&[State::Starting]).await;
    fly.lose(&machine);
    drop(gate);
    let answer = waiting.await.unwrap().unwrap();
    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(reason(&router, answer.status).await, "wake_failed");
}

#[tokio::test]
async fn an_entry_that_is_edited_while_its_cell_wakes_holds_only_who_came_before() {
    let (fly, old, router) = sleeping(json!({})).await;
    let gate = fly.faults().hold_start(&old.id);
    let waiting = whoami(&router);
    old.reached(&[State::Starting]).await;
    let new = crate::scene::running(&fly, MachineSpec::cell(APP, "alice")).await;
    router.save(&crate::scene::registry(json!({ "alice": entry(&new) })));
    router
        .next_event(|event| {
            event["message"]
                .as_str()
                .is_some_and(|said| said.contains("registry"))
        })
        .await;
    assert_eq!(
        whoami(&router).await.unwrap().unwrap().json()["machine"],
        new.id
    );
    assert!(!waiting.is_finished());
    gate.open();
    assert_eq!(waiting.await.unwrap().unwrap().json()["machine"], old.id);
}

#[tokio::test]
async fn of_thousands_who_wait_those_who_leave_are_forgotten() {
    const WAITERS: usize = 4000;
    const STAY: usize = 40;
    let fly = Fly::start().await.unwrap();
    let machine = fly.machine(MachineSpec::cell(APP, "alice")).unwrap();
    let gate = fly.faults().hold_start(&machine.id);
    let mut entry = entry(&machine);
    entry["max_in_flight"] = json!(2 * WAITERS);
    let options = on_fly(&fly, json!({ "alice": entry }));
    let held = WAITERS.to_string();
    let router = Router::start(options.args(["--max-held", &held])).await;
    let mut waiting = Vec::new();
    for _ in 0..WAITERS / 100 {
        waiting.extend(streams(&router, 100).await);
    }
    // One more than may: when one is turned away, all others have their places.
    waiting.extend(streams(&router, 1).await);
    let turned_away = StatusCode::SERVICE_UNAVAILABLE;
    assert_eq!(reason(&router, turned_away).await, "too_many_held");
    let done = loop {
        match waiting.iter().position(JoinHandle::is_finished) {
            Some(done) => break done,
            None => tokio::task::yield_now().await,
        }
    };
    let answer = waiting.swap_remove(done).await.unwrap().unwrap();
    assert_eq!(answer.status, turned_away);
    let stay = waiting.split_off(WAITERS - STAY);
    waiting.iter().for_each(JoinHandle::abort);
    let gone = StatusCode::from_u16(499).unwrap();
    for _ in 0..WAITERS - STAY {
        assert_eq!(reason(&router, gone).await, "client_gone");
    }
    // As many places are free again as were left.
    let next: Vec<_> = (0..STAY).map(|_| whoami(&router)).collect();
    gate.open();
    for waiting in stay.into_iter().chain(next) {
        let answer = waiting.await.unwrap().unwrap();
        assert_eq!(answer.status, StatusCode::OK);
    }
    assert!(outcome(&router).await.starts_with("Ready"));
    assert_eq!(fly.calls(Action::Start, &machine.id), 1);
}

/// So many requests over one HTTP/2 connection.
async fn streams(router: &Router, count: usize) -> Vec<JoinHandle<Result<Answer, Error>>> {
    let stream = TokioIo::new(TcpStream::connect(router.addr()).await.unwrap());
    let (sender, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), stream)
        .await
        .unwrap();
    tokio::spawn(async move { drop(connection.await) });
    let ask = |_| {
        let mut sender = sender.clone();
        let request = Request::get(format!("http://{HOST}/whoami"));
        let request = request.body(client::full("")).unwrap();
        tokio::spawn(async move {
            let (head, body) = sender.send_request(request).await?.into_parts();
            Ok(Answer {
                status: head.status,
                headers: head.headers,
                body: http_body_util::BodyExt::collect(body).await?.to_bytes(),
            })
        })
    };
    (0..count).map(ask).collect()
}
