//! The registry changes under a running router, and nothing that runs notices.

use std::path::Path;

use futures_util::{SinkExt, StreamExt};
use http::StatusCode;
use integration_tests::client;
use integration_tests::fly::MachineSpec;
use integration_tests::{Router, RouterOptions, ScriptedCell};
use ring::digest::{Context, SHA256};
use rustix::fs::{CWD, FileType, Mode};
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;

use crate::scene::{
    HOST, at, driven, hex, options, pieces, real, registry, router, running, said, starve,
};

const LOADED: &str = "registry loaded";
const REFUSED: &str = "registry refused: the last good one serves on";

async fn status(router: &Router, host: &str) -> StatusCode {
    client::get(router.addr(), host, "/whoami")
        .await
        .unwrap()
        .status
}

/// Waits for a line of the log with all these parts.
async fn told(router: &Router, parts: &[&str]) -> Value {
    let told = router.next_event(|event| {
        let message = event["message"].as_str().unwrap_or_default();
        parts.iter().all(|part| message.contains(part))
    });
    told.await
}

async fn cells_of(router: &Router) -> Value {
    said(router, LOADED).await["cells"].take()
}

#[tokio::test]
async fn an_upload_outlives_every_edit() {
    let (router, alice, fly) = real(MachineSpec::cell("cells", "alice")).await;
    let bob = running(&fly, MachineSpec::cell("cells", "bob")).await;
    let (upload, stored) = driven(&router);
    let (mut body, mut digest) = (pieces(96 * 64 * 1024), Context::new(&SHA256));
    let mut go_on = async || {
        for _ in 0..16 {
            let piece = body.next().await.unwrap();
            digest.update(&piece);
            upload.send(piece).await.unwrap();
        }
    };
    go_on().await;

    let both = json!({ "alice": at(alice.address()), "bob": at(bob.address()) });
    assert_eq!(
        status(&router, "bob.example.com").await,
        StatusCode::NOT_FOUND
    );
    router.save(&registry(both.clone()));
    assert_eq!(cells_of(&router).await, 2);
    assert_eq!(status(&router, "bob.example.com").await, StatusCode::OK);
    go_on().await;

    let mut edited = both.clone();
    edited["alice"]["max_in_flight"] = json!(3);
    edited["alice"]["hosts"] = json!(["www.alice.org"]);
    router.save(&registry(edited));
    assert_eq!(cells_of(&router).await, 2);
    assert_eq!(status(&router, "www.alice.org").await, StatusCode::OK);
    go_on().await;

    router
        .save("{\n  \"version\": 1,\n  \"colour\": \"red\",\n  \"cells\": { \"alice\": {} }\n}\n");
    assert_eq!(said(&router, REFUSED).await["problems"], 2);
    told(&router, &["registry.json:3:3: $.colour"]).await;
    for host in [HOST, "bob.example.com", "www.alice.org"] {
        assert_eq!(status(&router, host).await, StatusCode::OK, "{host}");
    }
    go_on().await;

    // Even without its entry, what runs to the cell runs on.
    router.save(&registry(json!({ "bob": at(bob.address()) })));
    assert_eq!(cells_of(&router).await, 1);
    assert_eq!(status(&router, HOST).await, StatusCode::NOT_FOUND);
    go_on().await;

    router.save(&registry(both));
    assert_eq!(cells_of(&router).await, 2);
    assert_eq!(status(&router, HOST).await, StatusCode::OK);
    go_on().await;

    drop(upload);
    let stored = stored.await.unwrap().unwrap();
    assert_eq!(stored.json()["sha256"], hex(digest));
}

#[tokio::test]
async fn every_way_of_saving_is_seen() {
    let cell = at(([127, 0, 0, 1], 1).into());
    let router = router(json!({ "a": cell })).await;
    router.save(&registry(json!({ "a": cell, "b": cell })));
    assert_eq!(cells_of(&router).await, 2);
    router.save_in_place(&registry(json!({ "a": cell, "b": cell, "c": cell })));
    assert_eq!(cells_of(&router).await, 3);
    for count in [1, 2] {
        let cells: Value = ["a", "b"][..count]
            .iter()
            .map(|name| ((*name).to_owned(), cell.clone()))
            .collect::<serde_json::Map<_, _>>()
            .into();
        router.save_by_symlink(&registry(cells));
        assert_eq!(cells_of(&router).await, count);
    }
}

#[tokio::test]
async fn a_hangup_reads_the_file_again_though_nothing_changed() {
    let router = router(json!({ "a": at(([127, 0, 0, 1], 1).into()) })).await;
    for _ in 0..2 {
        router.hang_up();
        assert_eq!(cells_of(&router).await, 1);
    }
}

#[tokio::test]
async fn a_file_that_is_half_written_changes_nothing_until_it_is_whole() {
    let (router, alice, _fly) = real(MachineSpec::cell("cells", "alice")).await;
    let whole = registry(json!({ "alice": at(alice.address()), "bob": at(alice.address()) }));
    let (first, second) = whole.split_at(whole.len() / 2);
    router.save_in_place(first);
    said(&router, REFUSED).await;
    assert_eq!(status(&router, HOST).await, StatusCode::OK);
    let mut file = std::fs::OpenOptions::new()
        .append(true)
        .open(router.registry())
        .unwrap();
    std::io::Write::write_all(&mut file, second.as_bytes()).unwrap();
    assert_eq!(cells_of(&router).await, 2);
    assert_eq!(status(&router, "bob.example.com").await, StatusCode::OK);
}

#[tokio::test]
async fn a_file_that_is_gone_for_a_while_changes_nothing() {
    let (router, alice, _fly) = real(MachineSpec::cell("cells", "alice")).await;
    std::fs::remove_file(router.registry()).unwrap();
    router.hang_up();
    said(&router, REFUSED).await;
    assert_eq!(status(&router, HOST).await, StatusCode::OK);
    let cell = at(alice.address());
    router.save(&registry(json!({ "alice": cell, "bob": cell })));
    assert_eq!(cells_of(&router).await, 2);
}

#[tokio::test]
async fn an_edit_that_could_not_be_read_is_read_again() {
    let cell = at(([127, 0, 0, 1], 1).into());
    let router = router(json!({ "a": cell })).await;
    starve(&router, true);
    router.save(&registry(json!({ "a": cell, "b": cell })));
    said(&router, REFUSED).await;
    starve(&router, false);
    assert_eq!(cells_of(&router).await, 2);
    let log = router.process().stderr.all();
    let refusals = log.iter().filter(|line| line.contains(REFUSED));
    assert_eq!(refusals.count(), 1, "the same is said once");
}

#[tokio::test]
async fn a_secret_that_could_not_be_read_is_read_again() {
    let folder = tempfile::tempdir().unwrap();
    let secret = folder.path().join("secret");
    std::fs::write(&secret, "0123456789abcdef0123456789abcdef").unwrap();
    let mut cell = at(([127, 0, 0, 1], 1).into());
    let plain = cell.clone();
    cell["secret"] = json!({ "file": secret });
    let router = router(json!({ "a": cell })).await;
    // The system fails to read this file, which is as regular as any.
    let swap = |target: &Path| {
        let link = folder.path().join("link");
        std::os::unix::fs::symlink(target, &link).unwrap();
        std::fs::rename(&link, &secret).unwrap();
    };
    swap(Path::new("/proc/self/mem"));
    router.save(&registry(json!({ "a": cell, "b": plain })));
    let loaded = said(&router, LOADED).await;
    assert_eq!(
        (&loaded["cells"], &loaded["flagged"]),
        (&json!(2), &json!(1))
    );
    let good = folder.path().join("good");
    std::fs::write(&good, "0123456789abcdef0123456789abcdef").unwrap();
    swap(&good);
    assert_eq!(said(&router, LOADED).await["flagged"], 0);
    let log = router.process().stderr.all();
    let flagged = log
        .iter()
        .filter(|line| line.contains("good version serves on"));
    assert_eq!(flagged.count(), 1, "the same is said once");
}

#[tokio::test]
async fn a_pipe_in_the_place_of_a_file_holds_nothing_up() {
    let folder = tempfile::tempdir().unwrap();
    let pipe = folder.path().join("error.html");
    rustix::fs::mknodat(CWD, &pipe, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
    let cell = at(([127, 0, 0, 1], 1).into());
    let router = router(json!({ "a": cell })).await;
    let mut cells = json!({ "a": cell, "b": cell });
    for (key, value) in [
        ("secret", json!({ "file": pipe })),
        ("tls", json!({ "ca": pipe })),
        ("sign_in", json!({ "basic": pipe })),
        ("pages", json!(folder.path())),
    ] {
        cells[format!("with-{}", key.replace('_', "-"))] = cell.clone();
        cells[format!("with-{}", key.replace('_', "-"))][key] = value;
    }
    router.save(&registry(cells));
    for _ in 0..4 {
        told(&router, &["it is no regular file"]).await;
    }
    assert_eq!(cells_of(&router).await, 2);
    router.terminate();
    assert!(router.exited().await.success());
}

#[tokio::test]
async fn a_websocket_stays_open_whatever_is_edited_of_its_cell() {
    let (router, alice, fly) = real(MachineSpec::cell("cells", "alice")).await;
    let bob = running(&fly, MachineSpec::cell("cells", "bob")).await;
    let mut socket = client::websocket(router.addr(), HOST, "/live", &[])
        .await
        .unwrap();
    let hello = socket.next().await.unwrap().unwrap();
    assert!(hello.to_text().unwrap().contains("alice"));
    let mut entry = at(alice.address());
    entry["tunnel_idle_timeout_ms"] = json!(60_000);
    for cells in [
        json!({ "alice": at(alice.address()), "bob": at(bob.address()) }),
        json!({ "alice": entry, "bob": at(bob.address()) }),
        json!({ "alice": entry }),
        json!({ "alice": at(bob.address()) }),
    ] {
        router.save(&registry(cells));
        said(&router, LOADED).await;
        socket.send(Message::text("still here")).await.unwrap();
        let echo = socket.next().await.unwrap().unwrap();
        assert_eq!(echo.to_text().unwrap(), "still here");
    }
    socket.close(None).await.unwrap();
    // The close handshake: the cell's frame, then its end.
    while socket.next().await.is_some() {}
    drop(socket);
    let record = router.next_record(|record| record["status"] == 101).await;
    assert_eq!(record["response_body"], "complete");
}

#[tokio::test]
async fn a_pooled_connection_does_not_outlive_a_move() {
    let (old, new) = (ScriptedCell::listen().await, ScriptedCell::listen().await);
    let router = router(json!({ "alice": at(old.addr()) })).await;
    let answered = tokio::spawn(client::get(router.addr(), HOST, "/one"));
    let (mut upstream, _) = old.request().await;
    upstream
        .write("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
        .await
        .unwrap();
    answered.await.unwrap().unwrap();
    router.save(&registry(json!({ "alice": at(new.addr()) })));
    said(&router, LOADED).await;
    let answered = tokio::spawn(client::get(router.addr(), HOST, "/two"));
    let (mut upstream, head) = new.request().await;
    assert!(head.starts_with("GET /two "), "{head}");
    upstream
        .write("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
        .await
        .unwrap();
    assert_eq!(answered.await.unwrap().unwrap().status, StatusCode::OK);
}

#[tokio::test]
async fn who_waits_while_the_host_moves_is_the_other_cells() {
    let bob = ScriptedCell::listen().await;
    let cells = |first: &str, second: &str| {
        let (mut one, mut other) = (at(bob.addr()), at(bob.addr()));
        one["state"] = json!("paused");
        one["hosts"] = json!([first]);
        other["hosts"] = json!([second]);
        json!({ "alice": one, "bob": other })
    };
    let (host, elsewhere) = ("www.example.net", "www.example.org");
    // With room for one, the refusal of either proves that the other waits.
    let options = options(cells(host, elsewhere)).args(["--max-held", "1"]);
    let router = Router::start(options).await;
    let asking = || Box::pin(client::get(router.addr(), host, "/"));
    let (refused, waits) = futures_util::future::select(asking(), asking())
        .await
        .factor_first();
    assert_eq!(refused.unwrap().status, StatusCode::SERVICE_UNAVAILABLE);
    router.save(&registry(cells(elsewhere, host)));
    let answering = async {
        let (mut upstream, _) = bob.request().await;
        upstream
            .write("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
            .await
            .unwrap();
        upstream
    };
    let (answer, _upstream) = tokio::join!(waits, answering);
    assert_eq!(answer.unwrap().status, StatusCode::OK);
    let record = router.next_record(|record| record["status"] == 200).await;
    assert_eq!(record["cell"], "bob");
}

#[tokio::test]
async fn secrets_that_are_missing_are_told_with_their_place() {
    let with = |secret: Value| {
        let mut cell = at(([127, 0, 0, 1], 1).into());
        cell["secret"] = secret;
        json!({ "alice": cell })
    };
    let nowhere = with(json!({ "env": "NO_SUCH_SECRET" }));
    let (status, said_at_start) =
        Router::refused(RouterOptions::new(registry(nowhere.clone()))).await;
    assert!(!status.success());
    for part in ["$.cells.alice.secret", "NO_SUCH_SECRET"] {
        assert!(said_at_start.contains(part), "{part} in {said_at_start}");
    }

    let router = Router::start(options(with(json!({ "env": "THERE" }))).env("THERE", "s")).await;
    router.save(&registry(nowhere));
    told(
        &router,
        &["$.cells.alice.secret", "NO_SUCH_SECRET", "serves on"],
    )
    .await;
    assert_eq!(said(&router, LOADED).await["flagged"], 1);
}

#[tokio::test]
async fn a_hold_is_not_taken_for_the_cells_silence() {
    let cell = ScriptedCell::listen().await;
    let cells = |state: &str| {
        let mut alice = at(cell.addr());
        alice["state"] = json!(state);
        alice["first_byte_timeout_ms"] = json!(1000);
        let mut bob = at(cell.addr());
        bob["state"] = json!("paused");
        bob["hold_timeout_ms"] = json!(1500);
        json!({ "alice": alice, "bob": bob })
    };
    let router = router(cells("active")).await;
    let answered = tokio::spawn(client::get(router.addr(), HOST, "/one"));
    let (mut upstream, _) = cell.request().await;
    let answer = "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
    upstream.write(answer).await.unwrap();
    answered.await.unwrap().unwrap();
    router.save(&registry(cells("paused")));
    said(&router, LOADED).await;
    let held = tokio::spawn(client::get(router.addr(), HOST, "/two"));
    // The other cell's hold outlasts the time that this one has for its first byte.
    let bob = client::get(router.addr(), "bob.example.com", "/").await;
    assert_eq!(bob.unwrap().status, StatusCode::SERVICE_UNAVAILABLE);
    router.save(&registry(cells("active")));
    let head = upstream.head().await.unwrap();
    assert!(head.starts_with("GET /two "), "{head}");
    upstream.write(answer).await.unwrap();
    assert_eq!(held.await.unwrap().unwrap().status, StatusCode::OK);
}

#[tokio::test]
async fn a_broken_entry_stays_as_it_was_and_the_others_go_live() {
    let (router, alice, fly) = real(MachineSpec::cell("cells", "alice")).await;
    let bob = running(&fly, MachineSpec::cell("cells", "bob")).await;
    let mut kept = at(alice.address());
    kept["hosts"] = json!(["www.alice.org"]);
    router.save(&registry(json!({ "alice": kept })));
    assert_eq!(cells_of(&router).await, 1);

    // Bob is new and good, carol is new and wants what alice has, dave is new and broken.
    let mut carol = at(bob.address());
    carol["hosts"] = json!(["www.alice.org"]);
    let broken = registry(json!({
        "alice": { "address": alice.address().to_string(), "hosts": "www.alice.org" },
        "bob": at(bob.address()), "carol": carol, "dave": {},
    }));
    router.save(&broken);
    let parts = [
        "$.cells.alice.hosts: a text stands",
        "its last good version serves on",
    ];
    let event = told(&router, &parts).await;
    assert_eq!(
        (&event["cell"], &event["kept"]),
        (&json!("alice"), &json!(true))
    );
    told(
        &router,
        &[
            "$.cells.carol.hosts[0]",
            "belongs to cell \"alice\"",
            "left out",
        ],
    )
    .await;
    told(&router, &["$.cells.dave: ", "left out"]).await;
    let loaded = said(&router, LOADED).await;
    assert_eq!(
        (&loaded["cells"], &loaded["flagged"]),
        (&json!(2), &json!(3))
    );
    for (host, cell) in [
        ("www.alice.org", "alice"),
        (HOST, "alice"),
        ("bob.example.com", "bob"),
    ] {
        let answer = client::get(router.addr(), host, "/whoami").await.unwrap();
        assert_eq!(answer.json()["cell"], cell, "{host}");
    }
    for host in ["carol.example.com", "dave.example.com"] {
        assert_eq!(status(&router, host).await, StatusCode::NOT_FOUND, "{host}");
    }

    // It stays flagged until it is mended, and then is as written.
    router.hang_up();
    assert_eq!(said(&router, LOADED).await["flagged"], 3);
    router.save(&registry(json!({ "alice": at(bob.address()) })));
    assert_eq!(said(&router, LOADED).await["flagged"], 0);
    assert_eq!(
        status(&router, "www.alice.org").await,
        StatusCode::NOT_FOUND
    );
    assert_eq!(status(&router, HOST).await, StatusCode::OK);
}

#[tokio::test]
async fn a_secret_that_is_gone_is_one_cells_trouble() {
    let cell = ScriptedCell::listen().await;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("alice");
    std::fs::write(&path, "secret").unwrap();
    let mut alice = at(cell.addr());
    alice["secret"] = json!({ "file": path });
    alice["identity"] = json!("none");
    let bob = at(cell.addr());
    let router = router(json!({ "alice": alice })).await;
    std::fs::remove_file(&path).unwrap();
    router.save(&registry(json!({ "alice": alice, "bob": bob })));
    told(&router, &["$.cells.alice.secret", "serves on"]).await;
    assert_eq!(cells_of(&router).await, 2);
    for (host, signed) in [(HOST, true), ("bob.example.com", false)] {
        let answered = tokio::spawn(client::get(router.addr(), host, "/"));
        let (mut upstream, head) = cell.request().await;
        assert_eq!(
            head.to_ascii_lowercase().contains("cell-signature"),
            signed,
            "{head}"
        );
        let answer = "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
        upstream.write(answer).await.unwrap();
        assert_eq!(answered.await.unwrap().unwrap().status, StatusCode::OK);
    }
}

#[tokio::test]
async fn an_edit_that_unplugs_many_cells_waits_for_a_word() {
    let cells = |count: usize| -> Value {
        let cell = at(([127, 0, 0, 1], 1).into());
        let cells = (0..count).map(|number| (format!("c{number}"), cell.clone()));
        cells.collect::<serde_json::Map<_, _>>().into()
    };
    let router = router(cells(40)).await;
    router.save(&registry(cells(31)));
    assert_eq!(cells_of(&router).await, 31);
    let held_back = async |count| {
        router.save(&registry(cells(count)));
        told(&router, &["unplugs", "of 31 cells (c", "kill -HUP"]).await;
    };
    held_back(21).await;
    assert_eq!(
        status(&router, "c30.example.com").await,
        StatusCode::BAD_GATEWAY
    );
    // The word is for what was held back, not for what comes after it.
    held_back(20).await;
    router.save(&registry(cells(31)));
    assert_eq!(cells_of(&router).await, 31);
    held_back(20).await;
    router.hang_up();
    assert_eq!(cells_of(&router).await, 20);
    assert_eq!(
        status(&router, "c30.example.com").await,
        StatusCode::NOT_FOUND
    );

    let all = Router::start(options(cells(40)).args(["--max-unplug-percent", "100"])).await;
    all.save(&registry(json!({})));
    assert_eq!(cells_of(&all).await, 0);
}
