//! One router takes another's place, and no client notices.

use std::io::{IoSlice, Write as _};
use std::mem::MaybeUninit;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::AsFd as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use cell_router::inbound::takeover;
use http::StatusCode;
use integration_tests::client::{self, Raw};
use integration_tests::process::Process;
use integration_tests::{Binaries, Router, RouterOptions};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags};
use rustix::process::Signal;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::AsyncReadExt as _;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::echo::Echo;
use crate::scene::{HOST, at, driven, registry, said};

const DRAINING: &str = "draining: running work may finish";

/// Where routers of one story replace each other.
struct Place {
    _folder: TempDir,
    path: PathBuf,
    cells: Value,
}

impl Place {
    fn new(cell: SocketAddr) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("takeover.sock");
        Self {
            _folder: folder,
            path,
            cells: json!({ "alice": at(cell) }),
        }
    }

    fn options(&self, workers: &str) -> RouterOptions {
        let path = self.path.to_str().unwrap();
        RouterOptions::new(registry(self.cells.clone())).args([
            "--takeover",
            path,
            "--workers",
            workers,
        ])
    }

    async fn first(&self, workers: &str) -> Router {
        Router::start(self.options(workers)).await
    }

    fn options_after(&self, old: &Router, workers: &str) -> RouterOptions {
        RouterOptions {
            listen: Some(old.addr()),
            ..self.options(workers)
        }
    }

    async fn after(&self, old: &Router, workers: &str) -> Router {
        Router::start(self.options_after(old, workers)).await
    }
}

async fn serves(address: SocketAddr) {
    let answer = client::get(address, HOST, "/").await.unwrap();
    assert_eq!(answer.status, StatusCode::OK);
}

/// The old router has drained and gone by itself.
async fn left(old: Router) {
    said(&old, "taken over").await;
    said(&old, DRAINING).await;
    assert_eq!(old.exited().await.code(), Some(0));
}

/// Asks once on a connection of its own, which has to end well.
async fn ask_once(address: SocketAddr) {
    let mut client = Raw::connect(address).await.unwrap();
    let request = format!("GET / HTTP/1.1\r\nhost: {HOST}\r\nconnection: close\r\n\r\n");
    client.write(request).await.unwrap();
    assert_eq!(client.answer().await.unwrap().status, StatusCode::OK);
    assert_eq!(client.rest().await.unwrap(), b"");
}

/// Asks on one connection until an answer says that it was the last.
async fn ask_on(address: SocketAddr, answered: &watch::Sender<u64>) {
    let mut client = Raw::connect(address).await.unwrap();
    loop {
        let request = format!("GET / HTTP/1.1\r\nhost: {HOST}\r\n\r\n");
        client.write(request).await.unwrap();
        let answer = client.answer().await.unwrap();
        assert_eq!(answer.status, StatusCode::OK);
        answered.send_modify(|count| *count += 1);
        if answer.header("connection") == "close" {
            assert_eq!(client.rest().await.unwrap(), b"");
            return;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn under_load_no_connection_is_refused_reset_or_left_without_an_answer() {
    let cell = Echo::start("alice").await;
    let place = Place::new(cell.address());
    let mut serving = place.first("2").await;
    let address = serving.addr();
    let (counted, mut answered) = watch::channel(0);
    let mut clients = JoinSet::new();
    for number in 0..12 {
        let counted = counted.clone();
        clients.spawn(async move {
            loop {
                if number % 3 == 0 {
                    ask_on(address, &counted).await;
                } else {
                    ask_once(address).await;
                    counted.send_modify(|count| *count += 1);
                }
            }
        });
    }
    // Fewer workers than sockets, more, and as many.
    for workers in ["1", "3", "3", "2", "4"] {
        let enough = *answered.borrow() + 1000;
        tokio::select! {
            _ = answered.wait_for(|count| *count >= enough) => {}
            failed = clients.join_next() => panic!("{failed:?}"),
        }
        let next = place.after(&serving, workers).await;
        left(std::mem::replace(&mut serving, next)).await;
    }
    let enough = *answered.borrow() + 1000;
    tokio::select! {
        _ = answered.wait_for(|count| *count >= enough) => {}
        failed = clients.join_next() => panic!("{failed:?}"),
    }
}

#[tokio::test]
async fn running_work_ends_at_the_old_router_while_new_ones_come_and_go() {
    let fly = integration_tests::fly::Fly::start().await.unwrap();
    let machine = integration_tests::fly::MachineSpec::cell("cells", "alice");
    let machine = crate::scene::running(&fly, machine).await;
    let place = Place::new(machine.address());
    let first = place.first("1").await;
    let (upload, stored) = driven(&first);
    upload.send(Bytes::from_static(b"one ")).await.unwrap();
    let second = place.after(&first, "1").await;
    said(&first, DRAINING).await;
    upload.send(Bytes::from_static(b"two ")).await.unwrap();
    let third = place.after(&second, "1").await;
    left(second).await;
    upload.send(Bytes::from_static(b"three")).await.unwrap();
    drop(upload);
    let stored = stored.await.unwrap().unwrap();
    assert_eq!(
        (stored.status.as_u16(), &stored.json()["bytes"]),
        (201, &json!(13))
    );
    assert_eq!(first.exited().await.code(), Some(0));
    let answer = client::get(third.addr(), HOST, "/up").await.unwrap();
    assert_eq!(answer.status, StatusCode::OK);
}

#[tokio::test]
async fn operators_find_the_new_router_where_the_old_one_was() {
    let cell = Echo::start("alice").await;
    let place = Place::new(cell.address());
    let admin = ["--admin-listen", "127.0.0.1:0"];
    let old = Router::start(place.options("1").args(admin)).await;
    let opened = old.next_event(|event| event["message"] == "admin listener open");
    let address = opened.await["address"].as_str().unwrap().to_owned();
    let admin = ["--admin-listen", &address];
    let new = Router::start(place.options_after(&old, "1").args(admin)).await;
    left(old).await;
    let document = client::get(address.parse().unwrap(), &address, "/v1/router").await;
    assert_eq!(document.unwrap().status, StatusCode::OK);
    new.terminate();
    assert_eq!(new.exited().await.code(), Some(0));
}

#[tokio::test]
async fn addresses_of_the_old_configuration_are_given_up_and_new_ones_bound() {
    let cell = Echo::start("alice").await;
    let place = Place::new(cell.address());
    let old = Router::start(place.options("2").args(["--listen", "127.0.0.1:0"])).await;
    let both = [said(&old, "listening").await, said(&old, "listening").await];
    let [kept, given_up] = both.map(|line| line["address"].as_str().unwrap().parse().unwrap());
    serves(given_up).await;
    let options = RouterOptions {
        listen: Some(kept),
        ..place.options("2").args(["--listen", "127.0.0.1:0"])
    };
    let new = Router::start(options).await;
    left(old).await;
    let both = [said(&new, "listening").await, said(&new, "listening").await];
    for line in both {
        serves(line["address"].as_str().unwrap().parse().unwrap()).await;
    }
    let refused = Raw::connect(given_up).await.unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
}

#[tokio::test]
async fn a_new_router_that_cannot_start_takes_nothing() {
    let cell = Echo::start("alice").await;
    let place = Place::new(cell.address());
    let old = place.first("2").await;
    let broken = RouterOptions {
        registry: "{".to_owned(),
        ..place.options_after(&old, "2")
    };
    let (status, said) = Router::refused(broken).await;
    assert_eq!(status.code(), Some(1), "{said}");
    serves(old.addr()).await;

    // This one fails with the sockets in its hands already.
    let stranger = TcpListener::bind("127.0.0.1:0").unwrap();
    let stranger = stranger.local_addr().map(|a| (a.to_string(), stranger));
    let (taken, _stranger) = stranger.unwrap();
    let options = place.options_after(&old, "2").args(["--listen", &taken]);
    let (status, said) = Router::refused(options).await;
    assert_eq!(status.code(), Some(1));
    assert!(said.contains("cannot listen on"), "{said}");
    old.next_event(|line| {
        line["message"]
            .as_str()
            .is_some_and(|text| text.starts_with("takeover failed"))
    })
    .await;
    serves(old.addr()).await;

    let new = place.after(&old, "2").await;
    left(old).await;
    serves(new.addr()).await;
}

#[tokio::test]
async fn a_new_router_that_dies_with_the_sockets_in_its_hands_harms_nobody() {
    let cell = Echo::start("alice").await;
    let place = Place::new(cell.address());
    let old = place.first("2").await;
    let path = place.path.clone();
    let take = || {
        tokio::task::spawn_blocking({
            let path = path.clone();
            move || takeover::take(&path).unwrap()
        })
    };
    let taken = take().await.unwrap();
    assert_eq!(taken.sockets.len(), 2);
    // A second one waits for its turn, and gets it once the first is dead.
    let waiting = take();
    drop(taken);
    let taken = waiting.await.unwrap();
    assert_eq!(taken.sockets.len(), 2);
    drop(taken);
    for _ in 0..20 {
        serves(old.addr()).await;
    }
    let new = place.after(&old, "1").await;
    left(old).await;
    serves(new.addr()).await;
}

/// Says what an old router says, hands out one socket, and promises another.
fn hand_out_one_of_two(path: &Path, socket: &TcpListener) -> std::os::unix::net::UnixListener {
    let door = std::os::unix::net::UnixListener::bind(path).unwrap();
    let (mut heir, _) = door.accept().unwrap();
    heir.write_all(b"cell-router takeover 1\n").unwrap();
    heir.write_all(&2_u32.to_be_bytes()).unwrap();
    let descriptors = [socket.as_fd()];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    assert!(control.push(SendAncillaryMessage::ScmRights(&descriptors)));
    let byte = [IoSlice::new(b"s")];
    rustix::net::sendmsg(&heir, &byte, &mut control, SendFlags::empty()).unwrap();
    door
}

#[tokio::test]
async fn what_an_old_router_that_dies_had_handed_out_is_served() {
    let cell = Echo::start("alice").await;
    let place = Place::new(cell.address());
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    socket.set_nonblocking(true).unwrap();
    let address = socket.local_addr().unwrap();
    // It came to the old router, and is answered by the new one.
    let early = tokio::spawn(ask_once(address));
    let path = place.path.clone();
    let dies = std::thread::spawn(move || drop(hand_out_one_of_two(&path, &socket)));
    while !place.path.exists() {
        tokio::task::yield_now().await;
    }
    let options = RouterOptions {
        listen: Some(address),
        ..place.options("2")
    };
    let new = Router::start(options).await;
    dies.join().unwrap();
    early.await.unwrap();
    serves(address).await;
    let next = place.after(&new, "2").await;
    left(new).await;
    serves(next.addr()).await;
}

#[tokio::test]
async fn a_signal_before_it_has_taken_over_ends_the_new_router_only() {
    let cell = Echo::start("alice").await;
    let place = Place::new(cell.address());
    let old = place.first("1").await;
    // In the place of the old router, of which the new one waits for a word.
    let path = place.path.with_extension("busy");
    let busy = tokio::net::UnixListener::bind(&path).unwrap();
    let mut command = std::process::Command::new(&Binaries::built().cell_router);
    command
        .args(["serve", "--listen", &old.addr().to_string()])
        .arg("--registry")
        .arg(old.registry())
        .arg("--takeover")
        .arg(&path);
    let new = Process::spawn("cell-router", &mut command, None).unwrap();
    let (mut heir, _) = busy.accept().await.unwrap();
    new.signal(Signal::TERM);
    assert_eq!(new.exited().await.code(), None);
    let mut said = Vec::new();
    heir.read_to_end(&mut said).await.unwrap();
    assert_eq!(said, b"", "it never said that it serves");
    serves(old.addr()).await;
}

#[tokio::test]
async fn only_the_same_user_may_ask_and_no_file_is_lost() {
    let cell = Echo::start("alice").await;
    let place = Place::new(cell.address());
    let router = place.first("1").await;
    let mode = std::fs::metadata(&place.path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    drop(router);

    // What a killed router leaves behind is no obstacle.
    let router = place.first("1").await;
    serves(router.addr()).await;
    drop(router);

    std::fs::remove_file(&place.path).unwrap();
    std::fs::write(&place.path, "precious").unwrap();
    let (status, said) = Router::refused(place.options("1")).await;
    assert_eq!(status.code(), Some(1));
    assert!(said.contains("no socket"), "{said}");
    assert_eq!(std::fs::read(&place.path).unwrap(), b"precious");
}
