//! Many routers and many who edit share one registry in a store, which may do anything: nothing is lost, and all serve.

use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicBool, AtomicU32};

use http::{Method, StatusCode};
use integration_tests::process::Process;
use integration_tests::s3::{Asked, BUCKET, Carried, Fault, S3};
use integration_tests::{Binaries, Router, RouterOptions, client};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::{TcpListener, TcpStream};

use crate::admin_api::Admin;
use crate::cell_tls::Authority;
use crate::scene::{at, registry, said};

const NAME: &str = "s3:///prod/registry.json";
const KEY: &str = "prod/registry.json";
const HISTORY: &str = "prod/registry.history/";
/// The key of a record: the newest is listed first.
fn record(number: u32) -> String {
    format!("{HISTORY}{:012}.json", 999_999_999_999 - u64::from(number))
}

const LOADED: &str = "registry loaded";

/// Cells that answer 502, since nobody is where they are.
fn cells(names: &[&str]) -> String {
    let cell = at(([127, 0, 0, 1], 1).into());
    let cells = names.iter().map(|name| ((*name).to_owned(), cell.clone()));
    registry(cells.collect::<serde_json::Map<_, _>>().into())
}

fn crowd(count: usize) -> String {
    let names: Vec<_> = (0..count).map(|number| format!("c{number}")).collect();
    cells(&names.iter().map(String::as_str).collect::<Vec<_>>())
}

fn command(s3: &S3, args: &[&str]) -> Command {
    let mut command = Command::new(&Binaries::built().cell_router);
    command
        .args(args)
        .env_clear()
        .envs(s3.writer())
        .env("CELL_ROUTER_REGISTRY", NAME)
        .env("USER", "alice")
        .stdin(Stdio::null());
    command
}

/// Runs a command to its end; its exit code, and all that it said.
async fn run(s3: &S3, args: &[&str]) -> (i32, String) {
    let mut command = command(s3, args);
    let output: Output = tokio::task::spawn_blocking(move || command.output().unwrap())
        .await
        .unwrap();
    let said = [output.stdout, output.stderr].concat();
    (
        output.status.code().unwrap(),
        String::from_utf8(said).unwrap(),
    )
}

async fn done(s3: &S3, args: &[&str]) -> String {
    let (code, said) = run(s3, args).await;
    assert_eq!(code, 0, "{args:?}: {said}");
    said
}

/// Runs a command that a router carries out.
async fn by_url(s3: &S3, admin: &Admin, args: &[&str]) -> (i32, String) {
    let (url, token) = (
        format!("http://{}", admin.address),
        admin.token_file("edit"),
    );
    let which = ["--url", &url, "--token-file", token.to_str().unwrap()];
    run(s3, &[&which, args].concat()).await
}

async fn refused(s3: &S3, args: &[&str], expected: i32, parts: &[&str]) {
    let (code, said) = run(s3, args).await;
    assert_eq!(code, expected, "{args:?}: {said}");
    for part in parts {
        assert!(said.contains(part), "{args:?}: {part} in {said}");
    }
    assert!(!said.contains("secret"), "{said}");
}

/// The lines of the history, oldest first; every version in it can be had.
async fn history(s3: &S3) -> Vec<Value> {
    let lines = done(s3, &["registry", "history", "--json", "-n", "1000"]).await;
    let lines: Vec<Value> = serde_json::from_str(&lines).unwrap();
    for pair in lines.windows(2) {
        assert_eq!(pair[1]["of"], pair[0]["version"], "{lines:#?}");
    }
    lines
}

fn through(history: &[Value]) -> Vec<&str> {
    history
        .iter()
        .map(|line| line["through"].as_str().unwrap())
        .collect()
}

/// The history is complete and ends in what is there; its length.
async fn complete(s3: &S3) -> usize {
    let lines = history(s3).await;
    for line in &lines {
        let version = line["version"].as_str().unwrap();
        let (code, said) = run(s3, &["registry", "diff", version, version]).await;
        assert_eq!(code, 0, "{said}");
    }
    let now = cell_router::registry::Version::of(s3.text(KEY).unwrap().as_bytes());
    assert_eq!(lines.last().unwrap()["version"], now.to_string());
    lines.len()
}

/// A store with these cells, put there by hand.
async fn store(names: &[&str]) -> S3 {
    let s3 = S3::start().await;
    s3.put(KEY, &cells(names));
    s3
}

fn options(variables: Vec<(String, String)>) -> RouterOptions {
    let mut options = RouterOptions::new("").args(["--workers", "1"]);
    options.registry_file = Some(NAME.into());
    options.env.extend(variables);
    options
}

fn with_copy(s3: &S3, folder: &TempDir, name: &str) -> RouterOptions {
    let copy = folder.path().join(name);
    options(s3.writer()).args(["--registry-copy", copy.to_str().unwrap()])
}

async fn serves(router: &Router, cell: &str) -> bool {
    let host = format!("{cell}.example.com");
    let status = client::get(router.addr(), &host, "/").await.unwrap().status;
    // After some of these the cell's breaker is open, and says 503.
    let there = [StatusCode::BAD_GATEWAY, StatusCode::SERVICE_UNAVAILABLE].contains(&status);
    assert!(there || status == StatusCode::NOT_FOUND, "{status}");
    there
}

/// Waits for a line of the log with all these parts.
async fn told(router: &Router, parts: &[&str]) -> Value {
    let told = router.next_event(|event| {
        let message = event["message"].as_str().unwrap_or_default();
        parts.iter().all(|part| message.contains(part))
    });
    told.await
}

async fn loaded(router: &Router, cells: usize) {
    let event = router.next_event(|event| event["message"] == LOADED && event["cells"] == cells);
    event.await;
}

fn is_write(asked: &Asked) -> bool {
    asked.method == Method::PUT
}

fn of_object(asked: &Asked) -> bool {
    asked.key == KEY
}

#[tokio::test]
async fn an_edit_through_any_is_served_by_all() {
    let s3 = S3::start().await;
    let folder = tempfile::tempdir().unwrap();
    let draft = folder.path().join("draft.json");
    std::fs::write(&draft, cells(&["alice"])).unwrap();
    done(&s3, &["registry", "apply", draft.to_str().unwrap()]).await;
    let mut routers = Vec::new();
    for name in ["one", "two", "three"] {
        routers.push(Router::start(with_copy(&s3, &folder, name)).await);
    }
    done(&s3, &["cell", "add", "bob", "address=127.0.0.1:1"]).await;
    for router in &routers {
        loaded(router, 2).await;
        assert!(serves(router, "bob").await);
    }
    // By hand: it is put on record by one of the three, once.
    s3.put(KEY, &cells(&["alice", "carol", "dave"]));
    for router in &routers {
        loaded(router, 3).await;
        assert!(serves(router, "carol").await && !serves(router, "bob").await);
    }
    done(&s3, &["registry", "undo"]).await;
    for router in &routers {
        loaded(router, 2).await;
    }
    // What is told of a second time was kept the first time.
    routers[2].hang_up();
    loaded(&routers[2], 2).await;
    let kept = std::fs::read_to_string(folder.path().join("three")).unwrap();
    assert_eq!(kept, s3.text(KEY).unwrap());
    let lines = history(&s3).await;
    assert_eq!(
        through(&lines),
        ["registry apply", "cell add", "by hand", "registry undo"]
    );
    assert_eq!(lines[2]["what"].as_array().unwrap().len(), 3);
    let diff = run(&s3, &["registry", "diff"]).await;
    assert_eq!(diff.0, 1);
    assert!(diff.1.contains("cells.carol"), "{}", diff.1);
    complete(&s3).await;
}

#[tokio::test]
async fn routers_start_and_serve_while_the_store_is_away() {
    let mut s3 = store(&["alice"]).await;
    let folder = tempfile::tempdir().unwrap();
    for name in ["one", "two", "three"] {
        let router = Router::start(with_copy(&s3, &folder, name)).await;
        router.terminate();
        router.exited().await;
    }
    let stays = Router::start(options(s3.writer())).await;
    s3.go_away().await;
    told(
        &stays,
        &["the store is away", "the last good registry serves on"],
    )
    .await;
    assert!(serves(&stays, "alice").await);
    let (status, said_at_start) = Router::refused(options(s3.writer())).await;
    assert!(!status.success());
    assert!(
        said_at_start.contains("the store is away"),
        "{said_at_start}"
    );
    let mut routers = vec![stays];
    for name in ["one", "two", "three"] {
        let router = Router::start(with_copy(&s3, &folder, name)).await;
        said(&router, "the copy of the registry serves").await;
        assert!(serves(&router, "alice").await);
        routers.push(router);
    }
    refused(
        &s3,
        &["cell", "pause", "alice"],
        1,
        &["s3://cells/prod/registry.json: the store is away"],
    )
    .await;
    // A hangup reads again what the copy names, and keeps it in force.
    routers[1].hang_up();
    loaded(&routers[1], 1).await;
    s3.put(KEY, &cells(&["alice", "bob"]));
    s3.come_back().await;
    for router in &routers {
        said(router, "the registry can be read again").await;
        loaded(router, 2).await;
        assert!(serves(router, "bob").await);
    }
}

#[tokio::test]
async fn of_two_conflicting_edits_one_wins_and_the_other_is_told() {
    let s3 = store(&["alice"]).await;
    done(&s3, &["cell", "set", "alice", "max_in_flight=1"]).await;
    let shown: Value =
        serde_json::from_str(&done(&s3, &["cell", "show", "alice", "--json"]).await).unwrap();
    let version = shown["version"].as_str().unwrap();
    let edit = async |limit: &str| {
        let value = format!("max_in_flight={limit}");
        run(
            &s3,
            &["cell", "set", "alice", &value, "--if-version", version],
        )
        .await
    };
    let (two, three) = tokio::join!(edit("2"), edit("3"));
    let mut codes = [two.0, three.0];
    codes.sort_unstable();
    assert_eq!(codes, [0, 3], "{two:?} {three:?}");
    let loser = if two.0 == 3 { two.1 } else { three.1 };
    assert!(loser.contains("look again, then edit again"), "{loser}");
    assert_eq!(complete(&s3).await, 3);
}

#[tokio::test]
async fn edits_through_the_api_of_any_router_are_made_in_one_order() {
    let s3 = store(&["alice"]).await;
    let mut routers = Vec::new();
    for _ in 0..3 {
        routers.push(Admin::start(options(s3.writer())).await);
    }
    let adds = (0..12).map(|number| {
        let (admin, target) = (&routers[number % 3], format!("/v1/cells/c{number}/entry"));
        async move {
            let entry = json!({ "address": "127.0.0.1:1" });
            let answer = admin.edit("PUT", &target, entry).await;
            assert_eq!(answer.status, StatusCode::CREATED, "{}", answer.text());
        }
    });
    futures_util::future::join_all(adds).await;
    // Two have seen the same: one is told.
    let entry = "/v1/cells/alice/entry";
    let seen = routers[0].send("read", "GET", entry, &[], "").await;
    let seen = seen.header("etag").to_owned();
    let patch = async |admin: &Admin, limit: u32| {
        let patch = json!({ "max_in_flight": limit }).to_string();
        let based_on = [("if-match", &*seen)];
        let answer = admin.send("edit", "PATCH", entry, &based_on, patch);
        answer.await.status.as_u16()
    };
    let (one, two) = tokio::join!(patch(&routers[1], 1), patch(&routers[2], 2));
    assert_eq!((one.min(two), one.max(two)), (200, 412));
    let limit = if one == 200 { 1 } else { 2 };
    assert!(
        s3.text(KEY)
            .unwrap()
            .contains(&format!("\"max_in_flight\":{limit}"))
    );
    // Any of them undoes it for all.
    let undone = routers[0]
        .edit("POST", "/v1/registry/undo", json!({}))
        .await;
    let version = undone.json()["version"].as_str().unwrap().to_owned();
    for admin in &routers {
        admin.in_force(&version).await;
        for cell in ["alice", "c0", "c11"] {
            assert!(serves(&admin.router, cell).await, "{cell}");
        }
        let past = admin.get("/v1/registry/versions?limit=2").await;
        assert_eq!(
            past["versions"][0]["through"], "api, registry undo",
            "{past}"
        );
        assert_eq!(past["versions"][0]["version"], *version);
        assert_eq!(past["versions"][1]["who"], "anna-edit");
    }
    assert_eq!(complete(&s3).await, 1 + 12 + 1 + 1);
}

#[tokio::test]
async fn edits_at_once_are_all_made() {
    let s3 = store(&[]).await;
    let names: Vec<_> = (0..12).map(|number| format!("cell-{number}")).collect();
    let adds = names.iter().map(|name| async {
        done(&s3, &["cell", "add", name, "address=127.0.0.1:1"]).await;
    });
    futures_util::future::join_all(adds).await;
    let text: Value = serde_json::from_str(&s3.text(KEY).unwrap()).unwrap();
    assert_eq!(text["cells"].as_object().unwrap().len(), names.len());
    assert_eq!(complete(&s3).await, names.len() + 1);
}

#[tokio::test]
async fn a_kill_at_any_request_leaves_nothing_half_done() {
    let s3 = store(&["alice"]).await;
    done(&s3, &["cell", "set", "alice", "max_in_flight=1"]).await;
    let (mut kills, mut made) = (0, 2);
    for carried in [Carried::Not, Carried::Out] {
        for number in 0.. {
            let name = format!("killed-{number}-{carried:?}").to_lowercase();
            s3.fault(Fault::Stopped(carried), move |asked| asked.number == number);
            let mut command = command(&s3, &["cell", "add", &name, "address=127.0.0.1:1"]);
            let process = Process::spawn("cell add", &mut command, None).unwrap();
            let ended = tokio::select! {
                () = s3.stopped(kills + 1) => false,
                status = process.exited() => status.success(),
            };
            drop(process);
            s3.mend();
            if ended {
                // It has no more requests than this.
                made += 1;
                break;
            }
            kills += 1;
            let broken = serde_json::from_str::<Value>(&s3.text(KEY).unwrap()).is_err();
            assert!(!broken, "killed at request {number}");
            // Whoever comes next finishes what was on record.
            let on_record = s3
                .keys()
                .iter()
                .filter(|key| key.starts_with(HISTORY))
                .count();
            done(
                &s3,
                &[
                    "cell",
                    "set",
                    "alice",
                    &format!("max_in_flight={}", kills + 1),
                ],
            )
            .await;
            assert!(
                on_record == made || on_record == made + 1,
                "{on_record} of {made}"
            );
            let is_there = s3.text(KEY).unwrap().contains(&name);
            assert_eq!(
                is_there,
                on_record == made + 1,
                "killed at request {number}, {carried:?}"
            );
            made = on_record + 1;
        }
    }
    assert!(kills >= 12, "{kills}");
    assert_eq!(complete(&s3).await, made);
}

#[tokio::test]
async fn an_answer_that_is_lost_is_not_an_edit_that_is_lost() {
    let s3 = store(&["alice"]).await;
    done(&s3, &["cell", "set", "alice", "max_in_flight=1"]).await;
    for (number, carried) in [(0, Carried::Out), (1, Carried::Not)] {
        for object in [false, true] {
            // The first such write only. The store is asked beforehand whether it keeps to conditions.
            let last = record(2 + 2 * number + u32::from(object) + 1);
            let key = if object { KEY.to_owned() } else { last };
            let cut = AtomicBool::new(false);
            s3.fault(Fault::Cut(carried), move |asked| {
                is_write(asked) && asked.key == key && !cut.swap(true, Relaxed)
            });
            let name = format!("cell-{number}-{object}");
            done(&s3, &["cell", "add", &name, "address=127.0.0.1:1"]).await;
            s3.mend();
            assert!(s3.text(KEY).unwrap().contains(&name));
        }
    }
    assert_eq!(complete(&s3).await, 6);
}

#[tokio::test]
async fn a_router_that_runs_finishes_what_a_dead_program_left() {
    let s3 = store(&["alice"]).await;
    done(&s3, &["cell", "set", "alice", "max_in_flight=1"]).await;
    let router = Router::start(options(s3.writer())).await;
    let process = stopped_at_the_object(&s3, Carried::Not).await;
    drop(process);
    assert!(!s3.text(KEY).unwrap().contains("bob"));
    loaded(&router, 2).await;
    assert!(serves(&router, "bob").await);
    assert_eq!(complete(&s3).await, 3);
}

/// A command that adds a cell, and gets no answer of the store when it writes the object, until the store is mended.
async fn stopped_at_the_object(s3: &S3, carried: Carried) -> Process {
    let first = AtomicBool::new(true);
    s3.fault(Fault::Stopped(carried), move |asked| {
        is_write(asked) && of_object(asked) && first.swap(false, Relaxed)
    });
    let mut add = command(s3, &["cell", "add", "bob", "address=127.0.0.1:1"]);
    let process = Process::spawn("cell add", &mut add, None).unwrap();
    s3.stopped(1).await;
    process
}

#[tokio::test]
async fn an_edit_whose_answer_is_lost_is_not_made_again_over_an_undo() {
    let s3 = store(&["alice"]).await;
    done(&s3, &["cell", "set", "alice", "max_in_flight=1"]).await;
    let text = s3.text(KEY);
    let process = stopped_at_the_object(&s3, Carried::Out).await;
    done(&s3, &["registry", "undo"]).await;
    assert_eq!(s3.text(KEY), text);
    s3.mend();
    assert!(process.exited().await.success());
    assert_eq!(s3.text(KEY), text);
    let lines = history(&s3).await;
    assert_eq!(
        through(&lines),
        ["by hand", "cell set", "cell add", "registry undo"]
    );
    complete(&s3).await;
}

#[tokio::test]
async fn an_edit_that_is_on_record_only_is_told_of_as_one() {
    let s3 = store(&["alice"]).await;
    done(&s3, &["cell", "set", "alice", "max_in_flight=1"]).await;
    // From when the object is to be written, nothing that is asked holds.
    let begun = AtomicBool::new(false);
    let unmet = Fault::Refused(StatusCode::PRECONDITION_FAILED, "PreconditionFailed");
    s3.fault(unmet, move |asked| {
        let begins = is_write(asked) && of_object(asked);
        begun.fetch_or(begins, Relaxed) || begins
    });
    let edit = ["cell", "pause", "alice"];
    refused(&s3, &edit, 1, &["on record as version"]).await;
    s3.mend();
    done(&s3, &["cell", "set", "alice", "max_in_flight=2"]).await;
    assert!(s3.text(KEY).unwrap().contains("paused"));
    assert_eq!(complete(&s3).await, 4);
}

#[tokio::test]
async fn a_history_that_is_taken_away_begins_anew() {
    let s3 = store(&["alice"]).await;
    done(&s3, &["cell", "set", "alice", "max_in_flight=1"]).await;
    let admin = Admin::start(options(s3.writer())).await;
    let add = async |name: &str| {
        let add = ["cell", "add", name, "address=127.0.0.1:1"];
        let (code, said) = by_url(&s3, &admin, &add).await;
        assert_eq!(code, 0, "{said}");
    };
    add("bob").await;
    for key in s3.keys().iter().filter(|key| key.starts_with(HISTORY)) {
        s3.remove(key);
    }
    add("carol").await;
    let lines = history(&s3).await;
    assert_eq!(through(&lines).first(), Some(&"by hand"), "{lines:?}");
    assert_eq!(complete(&s3).await, 2);
}

#[tokio::test]
async fn a_lost_object_is_put_back_through_a_router_and_tried_before() {
    let s3 = store(&["alice"]).await;
    done(&s3, &["cell", "set", "alice", "max_in_flight=1"]).await;
    let (text, folder) = (s3.text(KEY), tempfile::tempdir().unwrap());
    let draft = folder.path().join("draft.json");
    std::fs::write(&draft, cells(&["alice", "bob"])).unwrap();
    let admin = Admin::start(options(s3.writer())).await;
    let (undo, apply) = (
        ["registry", "undo"],
        ["registry", "apply", draft.to_str().unwrap()],
    );
    for (edit, back) in [(&undo[..], text), (&apply, Some(cells(&["alice", "bob"])))] {
        s3.remove(KEY);
        let other = ["cell", "pause", "alice"];
        let (code, said) = by_url(&s3, &admin, &other).await;
        assert!(
            code == 1 && said.contains("there is no such object"),
            "{code} {said}"
        );
        let tried = [edit, &["--dry-run"]].concat();
        done(&s3, &tried).await;
        let (code, said) = by_url(&s3, &admin, &tried).await;
        assert_eq!((code, s3.text(KEY)), (0, None), "{said}");
        let (code, said) = by_url(&s3, &admin, edit).await;
        assert_eq!((code, s3.text(KEY)), (0, back), "{said}");
    }
    assert_eq!(complete(&s3).await, 4);
}

#[tokio::test]
async fn an_older_copy_is_not_read_again_while_the_store_is_away() {
    let mut s3 = store(&["alice"]).await;
    let folder = tempfile::tempdir().unwrap();
    let router = Router::start(with_copy(&s3, &folder, "copy")).await;
    // Where the next one would be written is a folder now.
    let fresh = format!(".copy.{}.new", router.process().id());
    std::fs::create_dir(folder.path().join(fresh)).unwrap();
    s3.put(KEY, &cells(&["alice", "bob"]));
    loaded(&router, 2).await;
    told(&router, &["no copy of the registry is kept"]).await;
    s3.go_away().await;
    told(&router, &["the store is away"]).await;
    router.hang_up();
    told(&router, &["the copy is not what is in force"]).await;
    assert!(serves(&router, "bob").await);
}

#[tokio::test]
async fn a_hangup_while_the_store_is_away_takes_nothing_of_what_is_held() {
    let mut s3 = S3::start().await;
    s3.put(KEY, &crowd(40));
    let folder = tempfile::tempdir().unwrap();
    let router = Router::start(with_copy(&s3, &folder, "copy")).await;
    s3.put(KEY, &crowd(20));
    told(&router, &["unplugs 20 of 40"]).await;
    s3.go_away().await;
    told(&router, &["the store is away"]).await;
    router.hang_up();
    loaded(&router, 40).await;
    s3.come_back().await;
    said(&router, "the registry can be read again").await;
    router.hang_up();
    loaded(&router, 20).await;
}

#[tokio::test]
async fn only_the_end_of_a_long_history_is_read() {
    let s3 = store(&["alice"]).await;
    for limit in 1..15 {
        let value = format!("max_in_flight={limit}");
        done(&s3, &["cell", "set", "alice", &value]).await;
    }
    let admin = Admin::start(options(s3.writer())).await;
    let (lists, reads) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicU32::new(0)));
    let counted = (Arc::clone(&lists), Arc::clone(&reads));
    s3.fault(Fault::Cut(Carried::Not), move |asked| {
        let is_read = asked.method == Method::GET && asked.key.starts_with(HISTORY);
        counted
            .0
            .fetch_add(u32::from(asked.key.is_empty()), Relaxed);
        counted.1.fetch_add(u32::from(is_read), Relaxed);
        false
    });
    done(&s3, &["cell", "set", "alice", "max_in_flight=99"]).await;
    let asked = (lists.swap(0, Relaxed), reads.swap(0, Relaxed));
    assert!(asked.0 <= 2 && asked.1 <= 2, "{asked:?}");
    let shown = done(&s3, &["registry", "history", "-n", "1", "--json"]).await;
    assert!(shown.contains("99"), "{shown}");
    let page = admin.get("/v1/registry/versions?limit=2").await;
    let next = page["next"].as_u64().unwrap();
    let older = admin
        .get(&format!("/v1/registry/versions?limit=1&before={next}"))
        .await;
    assert!(
        older["versions"][0].to_string().contains("-> 13"),
        "{older}"
    );
    let asked = (lists.swap(0, Relaxed), reads.swap(0, Relaxed));
    assert!(asked.0 <= 6 && asked.1 <= 8, "{asked:?}");
}

#[tokio::test]
async fn a_store_that_passes_over_conditions_is_told_of_and_holds_no_edits() {
    let s3 = store(&["alice"]).await;
    done(&s3, &["cell", "set", "alice", "max_in_flight=1"]).await;
    let (text, keys) = (s3.text(KEY), s3.keys());
    s3.fault(Fault::Unconditional, |_| true);
    refused(
        &s3,
        &["cell", "pause", "alice"],
        1,
        &["If-None-Match", "edits would be lost"],
    )
    .await;
    assert_eq!((s3.text(KEY), s3.keys()), (text, keys));
    let router = Router::start(options(s3.writer())).await;
    told(&router, &["whatever the condition", "put on record"]).await;
    told(&router, &["passes over If-None-Match"]).await;
    s3.put(KEY, &cells(&["alice", "bob"]));
    loaded(&router, 2).await;
    // Where there is no history yet, it is found out before the object is touched.
    let fresh = store(&["alice"]).await;
    let text = fresh.text(KEY);
    fresh.fault(Fault::Unconditional, |_| true);
    refused(
        &fresh,
        &["cell", "pause", "alice"],
        1,
        &["edits would be lost"],
    )
    .await;
    assert_eq!(fresh.text(KEY), text);
    // Where there is nothing yet, it stays so, however often it is tried.
    let empty = S3::start().await;
    empty.fault(Fault::Unconditional, |_| true);
    let folder = tempfile::tempdir().unwrap();
    let draft = folder.path().join("draft.json");
    std::fs::write(&draft, cells(&["alice"])).unwrap();
    let apply = ["registry", "apply", draft.to_str().unwrap()];
    refused(&empty, &apply, 1, &["edits would be lost", "on record"]).await;
    refused(&empty, &apply, 1, &["edits would be lost"]).await;
    assert_eq!(empty.text(KEY), None);
}

#[tokio::test]
async fn a_large_cut_by_hand_is_confirmed_for_one_or_for_all() {
    let s3 = S3::start().await;
    s3.put(KEY, &crowd(40));
    done(&s3, &["cell", "set", "c0", "max_in_flight=1"]).await;
    let folder = tempfile::tempdir().unwrap();
    let (one, two) = (
        Router::start(options(s3.writer())).await,
        Router::start(options(s3.writer())).await,
    );
    let cut = crowd(20);
    s3.put(KEY, &cut);
    for router in [&one, &two] {
        told(
            router,
            &["unplugs 20 of 40", "kill -HUP", "--confirm-unplug"],
        )
        .await;
        assert!(serves(router, "c30").await);
    }
    one.hang_up();
    loaded(&one, 20).await;
    let draft = folder.path().join("draft.json");
    std::fs::write(&draft, &cut).unwrap();
    done(
        &s3,
        &[
            "registry",
            "apply",
            draft.to_str().unwrap(),
            "--confirm-unplug",
        ],
    )
    .await;
    loaded(&two, 20).await;
    assert!(!serves(&two, "c30").await);
    // A command says so itself.
    let remove: Vec<_> = (0..12).map(|number| format!("c{number}")).collect();
    let mut remove: Vec<&str> = remove.iter().map(String::as_str).collect();
    remove.splice(0..0, ["cell", "remove"]);
    refused(&s3, &remove, 4, &["--confirm-unplug"]).await;
    remove.push("--confirm-unplug");
    done(&s3, &remove).await;
    for router in [&one, &two] {
        loaded(router, 8).await;
    }
    assert_eq!(complete(&s3).await, 5);
}

#[tokio::test]
async fn a_large_cut_is_confirmed_for_all_through_a_router_that_holds_it() {
    let s3 = S3::start().await;
    s3.put(KEY, &crowd(40));
    done(&s3, &["cell", "set", "c0", "max_in_flight=1"]).await;
    let admin = Admin::start(options(s3.writer())).await;
    let other = Router::start(options(s3.writer())).await;
    let folder = tempfile::tempdir().unwrap();
    let draft = folder.path().join("draft.json");
    std::fs::write(&draft, crowd(20)).unwrap();
    s3.put(KEY, &crowd(20));
    for router in [&admin.router, &other] {
        told(router, &["unplugs 20 of 40"]).await;
    }
    let apply = ["registry", "apply", draft.to_str().unwrap()];
    let confirmed = [&apply[..], &["--confirm-unplug"]].concat();
    let (code, said) = by_url(&s3, &admin, &confirmed).await;
    assert_eq!(code, 0, "{said}");
    for router in [&admin.router, &other] {
        loaded(router, 20).await;
    }
    assert_eq!(complete(&s3).await, 4);
}

#[tokio::test]
async fn a_confirmation_that_cannot_be_read_at_once_is_read_again() {
    let s3 = S3::start().await;
    s3.put(KEY, &crowd(40));
    done(&s3, &["cell", "set", "c0", "max_in_flight=1"]).await;
    let router = Router::start(options(s3.writer())).await;
    let folder = tempfile::tempdir().unwrap();
    let draft = folder.path().join("draft.json");
    std::fs::write(&draft, crowd(20)).unwrap();
    s3.put(KEY, &crowd(20));
    told(&router, &["unplugs 20 of 40"]).await;
    // The history is away when the router has seen that there is something new in it.
    let confirmation = record(4);
    let step = AtomicU32::new(0);
    let away = Fault::Refused(StatusCode::INTERNAL_SERVER_ERROR, "InternalError");
    s3.fault(away, move |asked| {
        let is_read = asked.method == Method::GET && asked.key == confirmation;
        let next = u32::from(is_read && step.load(Relaxed) == 0);
        let seen = step.fetch_add(next, Relaxed);
        seen == 1 && asked.key.is_empty() && step.fetch_add(1, Relaxed) == 1
    });
    done(
        &s3,
        &[
            "registry",
            "apply",
            draft.to_str().unwrap(),
            "--confirm-unplug",
        ],
    )
    .await;
    loaded(&router, 20).await;
}

#[tokio::test]
async fn a_router_finishes_what_its_own_api_left() {
    let s3 = store(&["alice"]).await;
    let admin = Admin::start(options(s3.writer())).await;
    let away = Fault::Refused(StatusCode::INTERNAL_SERVER_ERROR, "InternalError");
    s3.fault(away, |asked| is_write(asked) && of_object(asked));
    let add = ["cell", "add", "bob", "address=127.0.0.1:1"];
    let (code, said) = by_url(&s3, &admin, &add).await;
    assert!(code == 1 && said.contains("on record"), "{code} {said}");
    s3.mend();
    loaded(&admin.router, 2).await;
    assert_eq!(complete(&s3).await, 2);
}

#[tokio::test]
async fn what_the_store_refuses_is_said_and_nobody_is_cut_off() {
    let s3 = store(&["alice"]).await;
    let router = Router::start(options(s3.writer())).await;
    let edit = ["cell", "pause", "alice"];
    for (status, code, parts) in [
        (
            StatusCode::FORBIDDEN,
            "AccessDenied",
            ["does not allow it", "AWS_ACCESS_KEY_ID"],
        ),
        (
            StatusCode::FORBIDDEN,
            "RequestTimeTooSkewed",
            ["RequestTimeTooSkewed", "clock"],
        ),
        (
            StatusCode::NOT_FOUND,
            "NoSuchBucket",
            ["no such bucket", "AWS_ENDPOINT_URL_S3"],
        ),
        (
            StatusCode::INTERNAL_SERVER_ERROR,
            "InternalError",
            ["the store is away", "500 InternalError"],
        ),
        (
            StatusCode::BAD_REQUEST,
            "InvalidArgument",
            ["the store says", "400 InvalidArgument"],
        ),
    ] {
        s3.fault(Fault::Refused(status, code), |_| true);
        told(&router, &[&parts[..], &["serves on"]].concat()).await;
        assert!(serves(&router, "alice").await);
        refused(&s3, &edit, 1, &parts).await;
        s3.mend();
        said(&router, "the registry can be read again").await;
    }
    s3.fault(Fault::Large(2 << 30), |asked| asked.method == Method::GET);
    s3.put(KEY, &(cells(&["alice"]) + "\n"));
    told(&router, &["2147483648 bytes"]).await;
    s3.mend();
    said(&router, "the registry can be read again").await;
    done(&s3, &["cell", "set", "alice", "max_in_flight=2"]).await;
    let text = s3.text(KEY);
    s3.remove(KEY);
    told(&router, &["there is no such object", "registry apply"]).await;
    refused(&s3, &edit, 1, &["there is no such object"]).await;
    assert!(serves(&router, "alice").await);
    // What is gone comes back from the history, and by a save.
    done(&s3, &["registry", "undo"]).await;
    said(&router, "the registry can be read again").await;
    assert_eq!(s3.text(KEY), text);
    done(&s3, &edit).await;
    complete(&s3).await;
    let log = router.process().stderr.all().join("\n");
    assert!(
        !log.contains("secret") && !log.contains("Signature"),
        "{log}"
    );
}

#[tokio::test]
async fn a_store_that_asks_to_slow_down_gets_its_edits_all_the_same() {
    let s3 = store(&["alice"]).await;
    let router = Router::start(options(s3.writer())).await;
    let slow = Fault::Refused(StatusCode::SERVICE_UNAVAILABLE, "SlowDown");
    s3.fault(slow.clone(), |_| true);
    told(&router, &["asks to slow down", "serves on"]).await;
    s3.fault(slow, |asked| asked.number % 2 == 0);
    done(&s3, &["cell", "add", "bob", "address=127.0.0.1:1"]).await;
    s3.mend();
    loaded(&router, 2).await;
    complete(&s3).await;
}

#[tokio::test]
async fn who_may_only_read_serves_and_cannot_edit() {
    let s3 = store(&["alice"]).await;
    let router = Router::start(options(s3.reader())).await;
    told(&router, &["AccessDenied", "is not put on record"]).await;
    assert!(serves(&router, "alice").await);
    s3.put(KEY, &cells(&["alice", "bob"]));
    loaded(&router, 2).await;
    let mut edit = command(&s3, &["cell", "pause", "alice"]);
    edit.envs(s3.reader());
    let output = tokio::task::spawn_blocking(move || edit.output().unwrap())
        .await
        .unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(
        said.contains("AccessDenied") && said.contains("what the key may do"),
        "{said}"
    );
    let mut stranger = options(s3.writer());
    stranger
        .env
        .insert("AWS_ACCESS_KEY_ID".to_owned(), "stranger".to_owned());
    let (status, said) = Router::refused(stranger).await;
    assert!(
        !status.success() && said.contains("InvalidAccessKeyId"),
        "{said}"
    );
}

#[tokio::test]
async fn a_broken_object_is_as_a_broken_file_also_from_the_copy() {
    let mut s3 = store(&["alice", "bob"]).await;
    let folder = tempfile::tempdir().unwrap();
    let router = Router::start(with_copy(&s3, &folder, "copy")).await;
    s3.put(KEY, "{ \"version\": 1,");
    said(&router, "registry refused: the last good one serves on").await;
    assert!(serves(&router, "alice").await);
    // Bob's entry is broken, carol's is new.
    let mut broken: Value = serde_json::from_str(&cells(&["alice", "bob", "carol"])).unwrap();
    broken["cells"]["bob"] = json!({ "address": 1 });
    let broken = broken.to_string();
    s3.put(KEY, &broken);
    told(
        &router,
        &["$.cells.bob.address", "its last good version serves on"],
    )
    .await;
    loaded(&router, 3).await;
    drop(router);
    // A start has the history for it; without the store, the copy.
    let again = Router::start(with_copy(&s3, &folder, "copy")).await;
    told(
        &again,
        &["$.cells.bob.address", "its last good version serves on"],
    )
    .await;
    drop(again);
    s3.go_away().await;
    let alone = Router::start(with_copy(&s3, &folder, "copy")).await;
    told(
        &alone,
        &["$.cells.bob.address", "its last good version serves on"],
    )
    .await;
    for cell in ["alice", "bob", "carol"] {
        assert!(serves(&alone, cell).await, "{cell}");
    }
    assert!(Path::new(&folder.path().join("copy.good")).exists());
}

#[tokio::test]
async fn a_name_that_means_no_bucket_is_refused_at_start() {
    let s3 = store(&["alice"]).await;
    for (name, without, part) in [
        (
            "s3:///prod/registry.json",
            "BUCKET_NAME",
            "BUCKET_NAME is not set",
        ),
        ("s3://cells", "", "names no object"),
        (
            "s3://cells/registry.json",
            "AWS_ACCESS_KEY_ID",
            "set AWS_ACCESS_KEY_ID",
        ),
        ("s3://other/registry.json", "", "there is no such bucket"),
        ("s3://cells/other.json", "", "there is no such object"),
    ] {
        let mut options = options(s3.writer());
        options.env.remove(without);
        options.registry_file = Some(name.into());
        let (status, said) = Router::refused(options).await;
        assert!(!status.success() && said.contains(part), "{name}: {said}");
    }
    assert_eq!(BUCKET, "cells");
}

#[tokio::test]
async fn a_store_is_believed_by_its_certificate() {
    let s3 = store(&["alice"]).await;
    let folder = tempfile::tempdir().unwrap();
    let (authority, file) = (Authority::new(), folder.path().join("ca.pem"));
    authority.write(&file);
    let (acceptor, _) = authority.certify("localhost");
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let endpoint = format!(
        "https://localhost:{}",
        listener.local_addr().unwrap().port()
    );
    let address = s3.addr();
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let mut client = acceptor.accept(socket).await?;
                let mut store = TcpStream::connect(address).await?;
                tokio::io::copy_bidirectional(&mut client, &mut store).await
            });
        }
    });
    let mut secure = options(s3.writer());
    secure
        .env
        .insert("AWS_ENDPOINT_URL_S3".to_owned(), endpoint);
    let (status, said) = Router::refused(RouterOptions {
        env: secure.env.clone(),
        ..options(Vec::new())
    })
    .await;
    assert!(
        !status.success() && said.contains("UnknownIssuer"),
        "{said}"
    );
    secure.env.insert(
        "AWS_CA_BUNDLE".to_owned(),
        file.to_str().unwrap().to_owned(),
    );
    let router = Router::start(secure).await;
    done(&s3, &["cell", "add", "bob", "address=127.0.0.1:1"]).await;
    loaded(&router, 2).await;
    let mut nothing = options(s3.writer());
    nothing
        .env
        .insert("AWS_CA_BUNDLE".to_owned(), "/nowhere.pem".to_owned());
    let (status, said) = Router::refused(nothing).await;
    assert!(
        !status.success() && said.contains("AWS_CA_BUNDLE: /nowhere.pem"),
        "{said}"
    );
}
