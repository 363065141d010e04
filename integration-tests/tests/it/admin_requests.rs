//! The last requests of a cell and its uploads under way, as the admin API tells them.

use integration_tests::client::{self, Raw};
use integration_tests::{RouterOptions, ScriptedCell};
use serde_json::{Value, json};

use crate::admin_api::Admin;
use crate::scene::{HOST, at, registry};

const TARGET: &str = "/v1/cells/alice/requests";
const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok";

/// A router of two workers, each of which has its own to tell.
fn two_workers(cells: Value) -> RouterOptions {
    RouterOptions::new(registry(cells)).args(["--workers", "2"])
}

async fn alice(cell: &ScriptedCell) -> Admin {
    let bob = json!({ "address": "127.0.0.1:9" });
    Admin::start(two_workers(json!({ "alice": at(cell.addr()), "bob": bob }))).await
}

/// Waits until a request to this path is over.
async fn over(admin: &Admin, path: &str) -> Value {
    admin
        .router
        .next_record(|record| record["path"] == path)
        .await
}

async fn answered(admin: &Admin, cell: &ScriptedCell, path: &str) {
    let asked = client::get(admin.router.addr(), HOST, path);
    let answering = async {
        let (mut upstream, _) = cell.request().await;
        upstream.write(OK).await.unwrap();
        upstream
    };
    let (answer, _) = tokio::join!(asked, answering);
    assert_eq!(answer.unwrap().text(), "ok");
}

/// Some keys of a request, or of an upload.
fn keys(of: &Value, keys: &[&str]) -> Vec<Value> {
    keys.iter().map(|key| of[*key].clone()).collect()
}

#[tokio::test]
async fn what_has_been_asked_is_told_the_newest_first_to_whoever_looks_later() {
    let cell = ScriptedCell::listen().await;
    let admin = alice(&cell).await;
    // Each comes by a connection of its own, to whichever worker.
    for number in 0..20 {
        answered(&admin, &cell, &format!("/{number}?token=hidden")).await;
        over(&admin, &format!("/{number}")).await;
    }
    let seen = admin.get(TARGET).await;
    let told = seen["requests"].as_array().unwrap();
    let paths: Vec<_> = told.iter().map(|one| one["path"].clone()).collect();
    let last: Vec<_> = (4..20).rev().map(|number| format!("/{number}")).collect();
    assert_eq!(paths, last);
    let ordered = told
        .windows(2)
        .all(|pair| pair[0]["at"].as_str() >= pair[1]["at"].as_str());
    assert!(ordered, "{seen}");
    assert!(!seen.to_string().contains("hidden"), "{seen}");
    assert_eq!(
        keys(
            &told[0],
            &[
                "method",
                "status",
                "lane",
                "reason",
                "error_by",
                "bytes_in",
                "bytes_out"
            ]
        ),
        [
            json!("GET"),
            json!(200),
            json!("stream"),
            json!("not_on_fly"),
            Value::Null,
            json!(0),
            json!(2)
        ]
    );
    assert!(told[0]["duration_ms"].is_u64(), "{seen}");
    let nothing = json!({ "requests": [], "uploads": [] });
    assert_eq!(admin.get("/v1/cells/bob/requests").await, nothing);
}

#[tokio::test]
async fn what_went_wrong_is_told_with_who_made_it() {
    let cell = ScriptedCell::listen().await;
    let admin = alice(&cell).await;
    let posted = tokio::spawn(client::post(admin.router.addr(), HOST, "/hung-up", "12345"));
    let (mut upstream, _) = cell.request().await;
    upstream.bytes(5).await.unwrap();
    drop(upstream);
    assert_eq!(posted.await.unwrap().unwrap().status, 502);
    let logged = over(&admin, "/hung-up").await;
    let mut left = Raw::connect(admin.router.addr()).await.unwrap();
    let head = format!("GET /left HTTP/1.1\r\nhost: {HOST}\r\n\r\n");
    left.write(head).await.unwrap();
    let _asked = cell.request().await;
    left.reset().unwrap();
    over(&admin, "/left").await;
    let seen = admin.get(TARGET).await;
    let what = ["path", "status", "reason", "error_by", "bytes_in"];
    assert_eq!(
        keys(&seen["requests"][0], &what),
        [
            json!("/left"),
            json!(499),
            json!("client_gone"),
            json!("client"),
            json!(0)
        ]
    );
    assert_eq!(
        keys(&seen["requests"][1], &what),
        [
            json!("/hung-up"),
            json!(502),
            logged["reason"].clone(),
            json!("cell"),
            json!(5)
        ]
    );
}

#[tokio::test]
async fn an_upload_is_told_of_until_all_of_it_has_come() {
    let cell = ScriptedCell::listen().await;
    let admin = alice(&cell).await;
    let mut film = Raw::connect(admin.router.addr()).await.unwrap();
    let head =
        format!("PUT /film?token=hidden HTTP/1.1\r\nhost: {HOST}\r\ncontent-length: 10\r\n\r\n");
    film.write(head).await.unwrap();
    let (mut to_film, _) = cell.request().await;
    let mut live = Raw::connect(admin.router.addr()).await.unwrap();
    let head = format!("POST /live HTTP/1.1\r\nhost: {HOST}\r\ntransfer-encoding: chunked\r\n\r\n");
    live.write(head).await.unwrap();
    let (mut to_live, _) = cell.request().await;

    let what = ["method", "path", "lane", "bytes", "of"];
    let seen = admin.get(TARGET).await;
    let uploads = &seen["uploads"];
    assert_eq!(
        keys(&uploads[0], &what),
        [
            json!("PUT"),
            json!("/film"),
            json!("stream"),
            json!(0),
            json!(10)
        ],
        "the oldest first"
    );
    assert_eq!(
        keys(&uploads[1], &what),
        [
            json!("POST"),
            json!("/live"),
            json!("stream"),
            json!(0),
            Value::Null
        ]
    );
    assert!(
        uploads[0]["age_ms"].is_u64() && uploads[0]["silent_ms"].is_u64(),
        "{seen}"
    );
    assert!(!seen.to_string().contains("hidden"), "{seen}");

    film.write("12345").await.unwrap();
    assert_eq!(to_film.bytes(5).await.unwrap(), b"12345");
    live.write("3\r\nabc\r\n").await.unwrap();
    assert_eq!(to_live.chunk().await.unwrap(), b"abc");
    let seen = admin.get(TARGET).await;
    assert_eq!(
        (&seen["uploads"][0]["bytes"], &seen["uploads"][1]["bytes"]),
        (&json!(5), &json!(3))
    );

    film.write("67890").await.unwrap();
    assert_eq!(to_film.bytes(5).await.unwrap(), b"67890");
    let seen = admin.get(TARGET).await;
    assert_eq!(
        seen["uploads"].as_array().unwrap().len(),
        1,
        "one waits for its answer"
    );
    assert_eq!(seen["requests"], json!([]));
    to_film.write(OK).await.unwrap();
    assert_eq!(film.answer().await.unwrap().text(), "ok");
    over(&admin, "/film").await;

    live.reset().unwrap();
    over(&admin, "/live").await;
    let seen = admin.get(TARGET).await;
    assert_eq!(seen["uploads"], json!([]));
    let what = ["path", "bytes_in", "error_by"];
    assert_eq!(
        keys(&seen["requests"][1], &what),
        [json!("/film"), json!(10), Value::Null]
    );
    assert_eq!(
        keys(&seen["requests"][0], &what),
        [json!("/live"), json!(3), json!("client")]
    );
}

#[tokio::test]
async fn an_upload_that_waits_for_its_cell_is_told_of() {
    let paused = json!({ "address": "127.0.0.1:9", "state": "paused", "hold_timeout_ms": 60_000 });
    let options = two_workers(json!({ "alice": paused })).args(["--max-held", "1"]);
    let admin = Admin::start(options).await;
    let post = || Box::pin(client::post(admin.router.addr(), HOST, "/film", "kept"));
    // With room for one, the refusal of either proves that the other waits.
    let (refused, waiting) = futures_util::future::select(post(), post())
        .await
        .factor_first();
    assert_eq!(refused.unwrap().status, 503);
    over(&admin, "/film").await;
    let seen = admin.get(TARGET).await;
    let what = ["method", "path", "lane", "bytes", "of"];
    assert_eq!(
        keys(&seen["uploads"][0], &what),
        [
            json!("POST"),
            json!("/film"),
            json!("hold"),
            json!(0),
            json!(4)
        ]
    );
    assert_eq!(seen["uploads"].as_array().unwrap().len(), 1, "{seen}");
    assert_eq!(seen["requests"][0]["reason"], "too_many_held");
    drop(waiting);
    over(&admin, "/film").await;
    let seen = admin.get(TARGET).await;
    assert_eq!(seen["uploads"], json!([]));
    assert_eq!(seen["requests"].as_array().unwrap().len(), 2);
}
