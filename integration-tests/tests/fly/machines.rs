//! Machines as real cells: autostart, autostop, ports, ends.

use integration_tests::client::{get, post};
use integration_tests::fly::{Action, Fly, Machine, MachineSpec, State};
use std::sync::Arc;

use crate::Stub;

const ID: &str = "0000000000000c";

/// An edge before a router that replays to a sleeping cell.
async fn sleeping(spec: MachineSpec) -> (Fly, Arc<Machine>, Stub, std::net::SocketAddr) {
    let router = Stub::replaying("app=cells;instance=0000000000000c").await;
    let mut fly = Fly::start().await.unwrap();
    fly.attach("router", "0000000000000a", router.address)
        .unwrap();
    let machine = fly.machine(spec.id(ID)).unwrap();
    let door = fly.listen("router", 80).await.unwrap();
    (fly, machine, router, door)
}

#[tokio::test]
async fn a_replay_starts_the_sleeping_cell_once_for_all() {
    let (fly, machine, _router, door) = sleeping(MachineSpec::cell("cells", "alice")).await;
    assert!(get(machine.address(), "a.test", "/up").await.is_err());
    let (one, two, three) = tokio::join!(
        get(door, "a.test", "/up"),
        get(door, "a.test", "/up"),
        get(door, "a.test", "/up")
    );
    for answer in [one, two, three] {
        assert_eq!(answer.unwrap().status, 200);
    }
    assert_eq!(machine.launches(), 1);
    assert_eq!(
        fly.calls(Action::Start, ID),
        0,
        "autostart is no call of the API"
    );
}

#[tokio::test]
async fn without_autostart_a_sleeping_cell_is_no_candidate() {
    let spec = MachineSpec {
        autostart: false,
        ..MachineSpec::cell("cells", "alice")
    };
    let (_fly, machine, _router, door) = sleeping(spec).await;
    assert_eq!(get(door, "a.test", "/up").await.unwrap().status, 503);
    assert_eq!(machine.launches(), 0);
}

#[tokio::test]
async fn autostop_stops_an_idle_cell_and_the_next_request_starts_it() {
    let (fly, machine, _router, door) =
        sleeping(MachineSpec::cell("cells", "alice").autostop(true)).await;
    assert!(fly.autostop_pass().await.is_empty());
    get(door, "a.test", "/up").await.unwrap();
    // The edge counts the request until its answer has left.
    while machine.load() > 0 {
        tokio::task::yield_now().await;
    }
    assert_eq!(fly.autostop_pass().await, [ID]);
    assert_eq!(machine.state(), State::Stopped);
    assert!(get(machine.address(), "a.test", "/up").await.is_err());
    assert_eq!(get(door, "a.test", "/up").await.unwrap().status, 200);
    assert_eq!(machine.launches(), 2);
}

#[tokio::test]
async fn data_outlives_a_stop() {
    let (fly, machine, _router, door) = sleeping(MachineSpec::cell("cells", "alice")).await;
    let made = post(
        door,
        "a.test",
        "/posts.json",
        r#"{"title":"kept","body":"b"}"#,
    )
    .await
    .unwrap();
    fly.stop(&machine).await.unwrap();
    fly.wake(&machine).await.unwrap();
    assert_eq!(machine.launches(), 2);
    assert!(!made.status.is_server_error());
}

#[tokio::test]
async fn a_suspended_cell_keeps_its_process() {
    let (fly, machine, _router, door) = sleeping(MachineSpec::cell("cells", "alice")).await;
    fly.wake(&machine).await.unwrap();
    fly.suspend(&machine).unwrap();
    assert_eq!(machine.state(), State::Suspended);
    assert_eq!(get(door, "a.test", "/up").await.unwrap().status, 200);
    assert_eq!(machine.launches(), 1);
}

#[tokio::test]
async fn a_cell_that_ends_by_itself_is_stopped_and_a_crashed_one_restarts() {
    let (fly, machine, _router, _door) = sleeping(MachineSpec::cell("cells", "alice")).await;
    fly.wake(&machine).await.unwrap();
    machine.with_process(|process| process.signal(rustix::process::Signal::KILL));
    machine.launched(2).await;
    machine.listens().await;
    machine.with_process(|process| process.signal(rustix::process::Signal::TERM));
    machine.reached(&[State::Stopped]).await;
    assert_eq!(machine.launches(), 2);
}

#[tokio::test]
async fn a_failing_start_ends_in_stopped() {
    let (fly, machine, _router, door) = sleeping(MachineSpec::cell("cells", "alice")).await;
    fly.faults().fail_starts(ID, 100);
    assert_eq!(
        get(door, "a.test", "/up")
            .await
            .unwrap()
            .header("fly-emulated-error"),
        "PR03"
    );
    assert_eq!(machine.state(), State::Stopped);
}

#[tokio::test]
async fn dropping_everything_ends_the_processes() {
    let (fly, machine, _router, _door) = sleeping(MachineSpec::cell("cells", "alice")).await;
    fly.wake(&machine).await.unwrap();
    let id = machine.with_process(|process| process.id()).unwrap();
    drop(fly);
    assert!(!std::path::Path::new(&format!("/proc/{id}")).exists());
}
