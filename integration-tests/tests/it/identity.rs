//! Who is at an address: asked on each new connection, before anything of a tenant's request is sent.

use futures_util::FutureExt as _;
use http::StatusCode;
use integration_tests::client::{self, Answer, Error, Raw};
use integration_tests::{Router, RouterOptions, ScriptedCell};
use ring::hmac;
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use crate::scene::{HOST, at, options};

const SECRET: &str = "s-alice";
const FOUND: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

/// A router before a scripted cell that shares a secret with it, whose entry says `more` too.
async fn proving(more: Value) -> (Router, ScriptedCell) {
    let cell = ScriptedCell::listen().await;
    let mut entry = at(cell.addr());
    entry["secret"] = json!({ "env": "SECRET" });
    for (name, value) in more.as_object().unwrap() {
        entry[name] = value.clone();
    }
    let options: RouterOptions = options(json!({ "alice": entry })).env("SECRET", SECRET);
    (Router::start(options).await, cell)
}

/// A request with a body, on its way.
fn posting(router: &Router) -> JoinHandle<Result<Answer, Error>> {
    tokio::spawn(client::post(
        router.addr(),
        HOST,
        "/tenant?a=b",
        "tenant-body",
    ))
}

fn getting(router: &Router) -> JoinHandle<Result<Answer, Error>> {
    tokio::spawn(client::get(router.addr(), HOST, "/tenant"))
}

/// One line of the answer to the challenge in `head`, as docs/signature.md has it.
pub(crate) fn proof(head: &str, secret: &str) -> String {
    let target = head.split(' ').nth(1).unwrap();
    let value = |name: &str| {
        let rest = target.split_once(name).unwrap().1;
        rest.split('&').next().unwrap()
    };
    let (nonce, address) = (value("nonce="), value("address="));
    let message = format!("cell-identity-v1\nalice\n{nonce}\n{address}");
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
    let mac = hmac::sign(&key, message.as_bytes());
    mac.as_ref().iter().map(|b| format!("{b:02x}")).collect()
}

fn ok(body: &str) -> String {
    format!(
        "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
}

/// A new connection on which the cell proves who it is.
async fn proven(cell: &ScriptedCell) -> Raw {
    let (mut connection, head) = cell.request().await;
    connection.write(ok(&proof(&head, SECRET))).await.unwrap();
    connection
}

async fn refused(router: &Router) -> Value {
    router.next_record(|record| record["status"] == 502).await
}

#[tokio::test]
async fn a_cell_proves_who_it_is_before_it_gets_a_byte_and_once_for_each_connection() {
    let (router, cell) = proving(json!({})).await;
    let answered = posting(&router);
    let (mut connection, asked) = cell.request().await;
    let line = asked.lines().next().unwrap();
    assert!(
        line.starts_with("GET /.well-known/cell-identity?nonce="),
        "{asked}"
    );
    assert!(
        line.ends_with(&format!("&address={} HTTP/1.1", cell.addr())),
        "{asked}"
    );
    assert!(
        asked.contains("host: alice\r\n") && asked.contains("cell-signature: v1."),
        "{asked}"
    );
    assert!(
        !asked.contains("tenant") && !asked.contains(HOST),
        "{asked}"
    );
    assert!(
        connection.some().now_or_never().is_none(),
        "nothing is sent before the answer"
    );
    connection.write(ok(&proof(&asked, SECRET))).await.unwrap();
    let head = connection.head().await.unwrap();
    assert!(head.starts_with("POST /tenant?a=b "), "{head}");
    assert_eq!(connection.bytes(11).await.unwrap(), b"tenant-body");
    connection.write(FOUND).await.unwrap();
    assert_eq!(answered.await.unwrap().unwrap().text(), "ok");

    let answered = getting(&router);
    let head = connection.head().await.unwrap();
    assert!(
        head.starts_with("GET /tenant "),
        "the connection is known: {head}"
    );
    connection.write(FOUND).await.unwrap();
    assert_eq!(answered.await.unwrap().unwrap().text(), "ok");
}

#[tokio::test]
async fn no_nonce_comes_twice() {
    let (router, cell) = proving(json!({})).await;
    let (first, second) = (posting(&router), posting(&router));
    let (one, other) = (cell.request().await, cell.request().await);
    assert_ne!(one.1.lines().next(), other.1.lines().next());
    drop((one, other));
    for answered in [first, second] {
        assert_eq!(
            answered.await.unwrap().unwrap().status,
            StatusCode::BAD_GATEWAY
        );
    }
}

#[tokio::test]
async fn who_cannot_prove_gets_not_a_byte_of_the_request() {
    type Impostor = fn(&str) -> String;
    let rows: [(&str, Impostor); 8] = [
        ("its answer was made with no secret", |head| {
            ok(&proof(head, "another"))
        }),
        ("its answer was made with no secret", |_| ok("welcome")),
        ("answered the challenge with 404", |_| {
            "HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n".into()
        }),
        ("refused the challenge with 403", |_| {
            "HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\n\r\n".into()
        }),
        ("answered the challenge with 302", |_| {
            "HTTP/1.1 302 Found\r\nlocation: /\r\ncontent-length: 0\r\n\r\n".into()
        }),
        ("longer than 4096 bytes", |head| {
            ok(&format!("{}\n{}", "0".repeat(5000), proof(head, SECRET)))
        }),
        ("the challenge broke off", |_| "SSH-2.0-OpenSSH\r\n".into()),
        ("the challenge broke off", |_| {
            "HTTP/1.1 200 OK\r\ncontent-length: 64\r\n\r\nab".into()
        }),
    ];
    for (said, answer) in rows {
        // Each its own: after some failures in a row the cell would be left alone.
        let (router, cell) = proving(json!({})).await;
        let answered = posting(&router);
        let (mut connection, head) = cell.request().await;
        connection.write(answer(&head)).await.unwrap();
        connection.finish().await.unwrap();
        assert_eq!(connection.rest().await.unwrap(), b"", "{said}");
        let answered = answered.await.unwrap().unwrap();
        assert_eq!(answered.status, StatusCode::BAD_GATEWAY, "{said}");
        assert!(
            !answered.text().contains("secret"),
            "the client is told nothing of it"
        );
        let record = refused(&router).await;
        assert_eq!(
            (&record["reason"], &record["error_by"]),
            (&json!("not_the_cell"), &json!("cell"))
        );
        assert!(record["error"].as_str().unwrap().contains(said), "{record}");
        assert_eq!(record["bytes_in"], 0, "the body was not even read");
    }
}

#[tokio::test]
async fn who_is_silent_gets_not_a_byte_of_the_request() {
    let (router, cell) = proving(json!({ "first_byte_timeout_ms": 200 })).await;
    let answered = posting(&router);
    let (mut connection, _) = cell.request().await;
    assert_eq!(
        answered.await.unwrap().unwrap().status,
        StatusCode::BAD_GATEWAY
    );
    assert_eq!(connection.rest().await.unwrap(), b"");
    let record = refused(&router).await;
    assert!(
        record["error"]
            .as_str()
            .unwrap()
            .contains("no answer in 200 ms"),
        "{record}"
    );
}

#[tokio::test]
async fn a_cell_that_closes_after_the_challenge_is_told_so() {
    let (router, cell) = proving(json!({})).await;
    let answered = posting(&router);
    let (mut connection, head) = cell.request().await;
    let proof = proof(&head, SECRET);
    let answer =
        format!("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 64\r\n\r\n{proof}");
    connection.write(answer).await.unwrap();
    assert_eq!(connection.rest().await.unwrap(), b"");
    assert_eq!(
        answered.await.unwrap().unwrap().status,
        StatusCode::BAD_GATEWAY
    );
    let record = refused(&router).await;
    assert_eq!(record["reason"], "closed_after_challenge");
    assert!(
        record["error"]
            .as_str()
            .unwrap()
            .contains("\"identity\": \"none\""),
        "{record}"
    );
}

#[tokio::test]
async fn a_cell_may_answer_with_a_line_for_each_of_its_secrets() {
    let (router, cell) = proving(json!({})).await;
    let answered = posting(&router);
    let (mut connection, head) = cell.request().await;
    let lines = format!("{}\r\n{}\r\n", proof(&head, "newer"), proof(&head, SECRET));
    connection.write(ok(&lines)).await.unwrap();
    connection.head().await.unwrap();
    connection.write(FOUND).await.unwrap();
    assert_eq!(answered.await.unwrap().unwrap().status, StatusCode::OK);
}

#[tokio::test]
async fn a_cell_that_cannot_answer_is_not_asked() {
    let (router, cell) = proving(json!({ "identity": "none" })).await;
    let answered = posting(&router);
    let (mut connection, head) = cell.request().await;
    assert!(
        head.starts_with("POST /tenant") && head.contains("cell-signature: v1."),
        "{head}"
    );
    connection.write(FOUND).await.unwrap();
    assert_eq!(answered.await.unwrap().unwrap().status, StatusCode::OK);
}

#[tokio::test]
async fn a_connection_that_proved_nothing_is_not_used_once_proof_is_asked_for() {
    let (router, cell) = proving(json!({ "identity": "none" })).await;
    let answered = getting(&router);
    let (mut unproven, _) = cell.request().await;
    unproven.write(FOUND).await.unwrap();
    answered.await.unwrap().unwrap();
    let registry = std::fs::read_to_string(router.registry()).unwrap();
    router.save(&registry.replace("none", "challenge"));
    crate::scene::said(&router, "registry loaded").await;
    let answered = getting(&router);
    let mut connection = proven(&cell).await;
    connection.head().await.unwrap();
    connection.write(FOUND).await.unwrap();
    assert_eq!(answered.await.unwrap().unwrap().status, StatusCode::OK);
    assert_eq!(unproven.rest().await.unwrap(), b"");
}

#[tokio::test]
async fn a_retry_goes_over_a_connection_that_was_challenged_too() {
    let (router, cell) = proving(json!({})).await;
    let answered = getting(&router);
    let mut first = proven(&cell).await;
    first.head().await.unwrap();
    first.write(FOUND).await.unwrap();
    answered.await.unwrap().unwrap();

    let answered = getting(&router);
    first.head().await.unwrap();
    drop(first);
    let (mut second, head) = cell.request().await;
    assert!(
        head.starts_with("GET /.well-known/cell-identity?"),
        "{head}"
    );
    second.write(ok(&proof(&head, SECRET))).await.unwrap();
    assert!(second.head().await.unwrap().starts_with("GET /tenant "));
    second.write(FOUND).await.unwrap();
    assert_eq!(answered.await.unwrap().unwrap().status, StatusCode::OK);
}

#[tokio::test]
async fn no_client_gets_a_challenge_answered() {
    let (router, cell) = proving(json!({})).await;
    for path in [
        "/.well-known/cell-identity?nonce=00&address=192.0.2.7:80",
        "//.well-known/%63ell-identity",
        "/x/..%2f.WELL-KNOWN%252fcell-identity",
    ] {
        let answer = client::get(router.addr(), HOST, path).await.unwrap();
        assert_eq!(answer.status, StatusCode::NOT_FOUND, "{path}");
        let record = router.next_record(|record| record["status"] == 404).await;
        assert_eq!(record["reason"], "reserved_path");
    }
    assert!(
        cell.accept().now_or_never().is_none(),
        "the cell hears nothing of it"
    );
}
