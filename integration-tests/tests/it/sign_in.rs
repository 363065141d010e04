//! Signing in before a cell: by a password, by asking a server, on every lane; and what attackers try.

use std::path::Path;

use http::{Request, StatusCode};
use integration_tests::client::{self, Answer, Http, Raw};
use integration_tests::fly::{Action, State};
use integration_tests::{Router, RouterOptions, ScriptedCell};
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpListener;

use crate::cell_tls::{Authority, head};
use crate::echo::Echo;
use crate::scene::{HOST, at, options, registry, said};
use crate::wake::sleeping;

/// `alice` and `secret`, by bcrypt of the least cost.
const ALICE: &str = "alice:$2b$04$abcdefghijklmnopqrstuu2r9OfJnfCsdneAXAGHnS4UpFFP8WIrW\n";
const RIGHT: (&str, &str) = ("authorization", "Basic YWxpY2U6c2VjcmV0");
const WRONG: (&str, &str) = ("authorization", "Basic YWxpY2U6d3Jvbmc=");

async fn ask(
    router: &Router,
    version: Http,
    target: &str,
    headers: &[(&'static str, &str)],
) -> Answer {
    let mut request = Request::get(target).header("host", HOST);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let request = request.body(client::full("")).unwrap();
    client::send(router.addr(), version, request).await.unwrap()
}

async fn reason(router: &Router) -> String {
    let record = router.next_record(|_| true).await;
    assert!(record["error_by"] != "cell", "{record}");
    record["reason"].as_str().unwrap().to_owned()
}

/// A cell `alice` whose file of passwords lies beside the registry.
async fn basic(folder: &Path, more: Value) -> (Router, Echo) {
    let cell = Echo::start("alice").await;
    std::fs::write(folder.join("alice.htpasswd"), ALICE).unwrap();
    let mut entry = at(cell.address());
    entry["sign_in"] = json!({ "basic": "{cell}.htpasswd" });
    for (name, value) in more.as_object().unwrap() {
        entry["sign_in"][name] = value.clone();
    }
    let options = RouterOptions {
        registry_file: Some(folder.join("registry.json")),
        ..options(json!({ "alice": entry }))
    };
    (Router::start(options).await, cell)
}

fn sent<'a>(answer: &'a Value, name: &str) -> &'a Value {
    &answer["headers"][name]
}

#[tokio::test]
async fn a_password_opens_the_way_to_the_cell_which_learns_who_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let (router, cell) = basic(folder.path(), json!({ "realm": "Alice's notes" })).await;
    for version in [Http::One, Http::Two] {
        let stranger = ask(&router, version, "/", &[]).await;
        assert_eq!(stranger.status, StatusCode::UNAUTHORIZED);
        let challenge = "Basic realm=\"Alice's notes\", charset=\"UTF-8\"";
        assert_eq!(stranger.header("www-authenticate"), challenge);
        assert_eq!(stranger.header("cache-control"), "no-store");
        assert_eq!(reason(&router).await, "sign_in_required");
        let wrong = ask(&router, version, "/", &[WRONG]).await;
        assert_eq!(wrong.status, StatusCode::UNAUTHORIZED);
        assert_eq!(reason(&router).await, "sign_in_wrong");
    }
    assert_eq!(cell.seen(), 0);
    for version in [Http::One, Http::Two] {
        let forged = [RIGHT, ("cell-user", "admin"), ("cell_user", "admin")];
        let answer = ask(&router, version, "/x", &forged).await;
        assert_eq!(answer.status, StatusCode::OK);
        let told = answer.json();
        assert_eq!(sent(&told, "cell-user"), &json!(["alice"]));
        assert!(sent(&told, "authorization").is_null() && sent(&told, "cell_user").is_null());
        let record = router.next_record(|_| true).await;
        assert_eq!(record["user"], "alice");
    }
}

#[tokio::test]
async fn the_cell_sees_the_password_where_its_entry_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let (router, _cell) = basic(folder.path(), json!({ "keep_authorization": true })).await;
    let told = ask(&router, Http::One, "/", &[RIGHT]).await.json();
    assert_eq!(sent(&told, "authorization"), &json!([RIGHT.1]));
}

#[tokio::test]
async fn a_cell_without_sign_in_gets_no_claim_of_who_somebody_is() {
    let cell = Echo::start("alice").await;
    let router = Router::start(options(json!({ "alice": at(cell.address()) }))).await;
    let forged = [("cell-user", "admin"), ("cell_user", "admin"), RIGHT];
    let told = ask(&router, Http::One, "/", &forged).await.json();
    assert!(sent(&told, "cell-user").is_null() && sent(&told, "cell_user").is_null());
    assert_eq!(sent(&told, "authorization"), &json!([RIGHT.1]));
}

#[tokio::test]
async fn nothing_of_a_strangers_upload_is_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let (router, cell) = basic(folder.path(), json!({})).await;
    let mut client = Raw::connect(router.addr()).await.unwrap();
    client
        .write(format!(
            "PUT /files/x HTTP/1.1\r\nhost: {HOST}\r\nexpect: 100-continue\r\ncontent-length: 1048576\r\n\r\n"
        ))
        .await
        .unwrap();
    let refused = client.answer().await.unwrap();
    assert_eq!(refused.status, StatusCode::UNAUTHORIZED);
    assert_eq!(cell.seen(), 0);
}

#[tokio::test]
async fn a_websocket_signs_in_like_every_request() {
    let folder = tempfile::tempdir().unwrap();
    let (router, cell) = basic(folder.path(), json!({})).await;
    let refused = client::websocket(router.addr(), HOST, "/live", &[WRONG]).await;
    assert!(refused.unwrap_err().to_string().contains("401"));
    assert_eq!(cell.seen(), 0);
    let upgrade = [
        RIGHT,
        ("connection", "upgrade"),
        ("upgrade", "websocket"),
        ("cell-user", "x"),
    ];
    let told = ask(&router, Http::One, "/live", &upgrade).await.json();
    assert_eq!(sent(&told, "upgrade"), &json!(["websocket"]));
    assert_eq!(sent(&told, "cell-user"), &json!(["alice"]));
}

#[tokio::test]
async fn what_is_public_needs_no_password_and_tricks_do_not_help() {
    let folder = tempfile::tempdir().unwrap();
    let (router, _cell) = basic(folder.path(), json!({ "public": ["/assets"] })).await;
    for (target, status) in [
        ("/assets", 200),
        ("/assets/a.css?v=../../x", 200),
        ("/assetsx", 401),
        ("/assets/../admin", 401),
        ("/assets/..;/admin", 401),
        ("/assets/%2e%2e/admin", 401),
        ("/assets%2f..%2fadmin", 401),
        ("/assets//admin", 401),
        ("//assets/x", 401),
        ("/assets;x", 401),
        ("/assets\\..\\admin", 401),
        ("/ASSETS/x", 401),
        ("/assets/%61", 401),
        ("http://alice.example.com/admin", 401),
        ("http://alice.example.com/assets/x", 200),
    ] {
        let mut client = Raw::connect(router.addr()).await.unwrap();
        let request = format!(
            "GET {target} HTTP/1.1\r\nhost: {HOST}\r\ncell-user: admin\r\ncell_user: x\r\n\r\n"
        );
        client.write(request).await.unwrap();
        let answer = client.answer().await.unwrap();
        assert_eq!(answer.status.as_u16(), status, "{target}");
        assert!(sent(&answer.json(), "cell-user").is_null(), "{target}");
        assert!(sent(&answer.json(), "cell_user").is_null(), "{target}");
    }
    let with = ask(&router, Http::One, "/assets/x", &[RIGHT]).await.json();
    assert!(sent(&with, "authorization").is_null());
    for other in ["x-original-url", "x_rewrite_url"] {
        let answer = ask(&router, Http::One, "/assets/x", &[(other, "/admin")]).await;
        assert_eq!(answer.status, StatusCode::UNAUTHORIZED, "{other}");
    }
}

#[tokio::test]
async fn guesses_at_once_are_as_few_as_one_after_the_other() {
    let folder = tempfile::tempdir().unwrap();
    let (router, cell) = basic(folder.path(), json!({})).await;
    assert_eq!(
        ask(&router, Http::One, "/", &[RIGHT]).await.status,
        StatusCode::OK
    );
    let guesses = (0..40).map(|_| ask(&router, Http::One, "/", &[WRONG]));
    let answers = futures_util::future::join_all(guesses).await;
    let limited: Vec<_> = answers
        .iter()
        .filter(|answer| answer.status == StatusCode::TOO_MANY_REQUESTS)
        .collect();
    let tried = answers
        .iter()
        .filter(|answer| answer.status == StatusCode::UNAUTHORIZED);
    // Ten, and what is forgotten while they run.
    assert!((10..20).contains(&tried.count()), "{}", limited.len());
    for answer in limited {
        assert!(!answer.header("retry-after").is_empty());
    }
    assert_eq!(cell.seen(), 1);
    // Who has signed in goes on.
    assert_eq!(
        ask(&router, Http::One, "/", &[RIGHT]).await.status,
        StatusCode::OK
    );
}

#[tokio::test]
async fn a_password_that_is_taken_out_is_out_with_the_reload() {
    let folder = tempfile::tempdir().unwrap();
    let (router, _cell) = basic(folder.path(), json!({})).await;
    assert_eq!(
        ask(&router, Http::One, "/", &[RIGHT]).await.status,
        StatusCode::OK
    );
    let file = folder.path().join("alice.htpasswd");
    std::fs::write(&file, ALICE.replace("alice", "bob")).unwrap();
    router.hang_up();
    said(&router, "registry loaded").await;
    let out = ask(&router, Http::One, "/", &[RIGHT]).await;
    assert_eq!(out.status, StatusCode::UNAUTHORIZED);
    // A file that cannot be used changes nothing.
    std::fs::write(&file, "alice:secret").unwrap();
    router.hang_up();
    let told = "line 1: the password is hashed neither by bcrypt nor by argon2";
    let event = router
        .next_event(|event| event.to_string().contains(told))
        .await;
    assert!(!event.to_string().contains("secret"), "{event}");
    let bob = ("authorization", "Basic Ym9iOnNlY3JldA==");
    assert_eq!(
        ask(&router, Http::One, "/", &[bob]).await.status,
        StatusCode::OK
    );
}

#[tokio::test]
async fn who_signed_in_by_an_earlier_entry_is_nobody_by_the_next() {
    let folder = tempfile::tempdir().unwrap();
    let cell = Echo::start("alice").await;
    for name in ["before", "after"] {
        std::fs::write(folder.path().join(name), ALICE).unwrap();
    }
    let entry = |state: &str, sign_in: Value| {
        let mut entry = at(cell.address());
        entry["state"] = json!(state);
        entry["sign_in"] = sign_in;
        json!({ "alice": entry })
    };
    let paused = RouterOptions {
        registry_file: Some(folder.path().join("registry.json")),
        ..options(entry("paused", json!({ "basic": "before" })))
    };
    // With room for one, the refusal of either proves that the other has signed in, and waits.
    let router = Router::start(paused.args(["--max-held", "1"])).await;
    let asking = || Box::pin(ask(&router, Http::One, "/x", &[RIGHT]));
    let (refused, held) = futures_util::future::select(asking(), asking())
        .await
        .factor_first();
    assert_eq!(refused.status, StatusCode::SERVICE_UNAVAILABLE);
    let open = json!({ "basic": "after", "public": ["/"] });
    router.save(&registry(entry("active", open)));
    let told = held.await.json();
    assert_eq!(told["target"], "/x");
    assert_eq!(sent(&told, "cell-user"), &Value::Null);
    let record = router.next_record(|record| record["status"] == 200).await;
    assert_eq!(record["user"], Value::Null);
}

#[tokio::test]
async fn nobody_wakes_a_cell_who_has_not_signed_in_and_nobody_is_replayed() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("alice.htpasswd");
    std::fs::write(&file, ALICE).unwrap();
    for replay in ["strict", "cached"] {
        let sign_in = json!({ "basic": file.to_str().unwrap(), "public": ["/whoami"] });
        let (fly, machine, router) =
            sleeping(json!({ "replay": replay, "sign_in": sign_in })).await;
        for headers in [
            &[][..],
            &[WRONG],
            &[("fly-replay-failed", "reason=timeout")],
        ] {
            for target in ["/", "/whoami/../", "/whoami%2f"] {
                let refused = ask(&router, Http::One, target, headers).await;
                assert_eq!(refused.status, StatusCode::UNAUTHORIZED);
                assert!(refused.header("fly-replay").is_empty());
            }
        }
        assert_eq!(machine.state(), State::Stopped);
        assert_eq!(fly.calls(Action::Start, &machine.id), 0);
        let member = ask(&router, Http::One, "/", &[RIGHT]).await;
        assert_eq!(member.status, StatusCode::OK);
        let public = ask(&router, Http::One, "/whoami", &[("cell-user", "admin")]).await;
        assert_eq!(public.status, StatusCode::OK);
        for answer in [member, public] {
            assert!(answer.header("fly-replay").is_empty());
            assert!(answer.header("fly-replay-cache").is_empty());
        }
        router
            .next_record(|record| record["reason"] == "signs_in" && record["path"] == "/whoami")
            .await;
    }
}

/// A cell `alice` before which a server is asked.
async fn forward(auth: &ScriptedCell, more: Value) -> (Router, Echo) {
    let cell = Echo::start("alice").await;
    let mut entry = at(cell.address());
    entry["sign_in"] = json!({
        "forward": format!("http://{}/verify?cell={{cell}}", auth.addr()), "copy_headers": ["remote-groups"],
    });
    for (name, value) in more.as_object().unwrap() {
        entry["sign_in"][name] = value.clone();
    }
    (
        Router::start(options(json!({ "alice": entry }))).await,
        cell,
    )
}

#[tokio::test]
async fn a_server_lets_pass_and_says_who_it_is() {
    let auth = ScriptedCell::listen().await;
    let (router, _cell) = forward(&auth, json!({})).await;
    let body = client::chunked(futures_util::stream::iter(["hello".into()]));
    let request = Request::post("/a?b=c")
        .header("host", HOST)
        .header("cookie", "session=1")
        .header("x-forwarded-uri", "/open")
        .header("remote_groups", "admins")
        .header("remote-groups", "admins")
        .header("remote-user", "root")
        .header("cell-user", "root")
        .body(body)
        .unwrap();
    let answer = tokio::spawn(client::send(router.addr(), Http::One, request));
    let (mut server, head) = auth.request().await;
    let head = head.to_ascii_lowercase();
    assert!(
        head.starts_with("get /verify?cell=alice http/1.1\r\n"),
        "{head}"
    );
    for line in [
        "x-forwarded-method: post",
        "x-forwarded-uri: /a?b=c",
        "x-forwarded-host: alice.example.com",
        "x-forwarded-proto: http",
        "x-forwarded-for: 127.0.0.1",
        "cookie: session=1",
        "cell-name: alice",
    ] {
        assert!(head.contains(&format!("{line}\r\n")), "{line} in {head}");
    }
    for never in [
        "root",
        "admins",
        "/open",
        "transfer-encoding",
        "content-length",
    ] {
        assert!(!head.contains(never), "{never} in {head}");
    }
    server
        .write(
            "HTTP/1.1 204 No Content\r\nremote-user: alice\r\nremote-groups: a\r\nremote-groups: b\r\n\
             remote-email: x\r\n\r\n",
        )
        .await
        .unwrap();
    let told = answer.await.unwrap().unwrap().json();
    assert_eq!(sent(&told, "cell-user"), &json!(["alice"]));
    assert_eq!(sent(&told, "remote-groups"), &json!(["a", "b"]));
    for never in ["remote-user", "remote_groups", "remote-email"] {
        assert!(sent(&told, never).is_null(), "{never}");
    }
    assert_eq!(told["body_bytes"], 5);
    assert_eq!(sent(&told, "cookie"), &json!(["session=1"]));
}

#[tokio::test]
async fn a_server_that_sends_elsewhere_is_heard_whole_and_steers_nothing() {
    let auth = ScriptedCell::listen().await;
    let (router, cell) = forward(&auth, json!({})).await;
    for version in [Http::One, Http::Two] {
        let asking = ask(&router, version, "/a", &[]);
        let answering = async {
            let (mut server, _) = auth.request().await;
            server
                .write(
                    "HTTP/1.1 302 Found\r\nlocation: https://login.example.com/?rd=x\r\nset-cookie: a=1\r\n\
                     set-cookie: b=2\r\nfly-replay: app=evil\r\nconnection: close, x-hop\r\nx-hop: 1\r\n\
                     transfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
                )
                .await
                .unwrap();
        };
        let (answer, ()) = tokio::join!(asking, answering);
        assert_eq!(answer.status, StatusCode::FOUND);
        assert_eq!(answer.header("location"), "https://login.example.com/?rd=x");
        assert_eq!(answer.headers.get_all("set-cookie").iter().count(), 2);
        assert_eq!(
            (&*answer.text(), answer.header("content-length")),
            ("hello", "5")
        );
        assert_eq!(answer.header("cache-control"), "no-store");
        assert!(answer.header("fly-replay").is_empty() && answer.header("x-hop").is_empty());
        assert_eq!(reason(&router).await, "sign_in_elsewhere");
    }
    assert_eq!(cell.seen(), 0);
}

#[tokio::test]
async fn a_server_that_says_nothing_good_lets_nobody_in() {
    let auth = ScriptedCell::listen().await;
    let (router, cell) = forward(&auth, json!({ "timeout_ms": 1000 })).await;
    let huge = format!("HTTP/1.1 401 Unauthorized\r\n\r\n{}", "x".repeat(300_000));
    for said in [
        "garbage\r\n\r\n",
        "HTTP/1.1 200 OK",
        "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: x\r\n\r\n",
        "HTTP/1.1 302 Found\r\ncontent-length: 10\r\n\r\nhalf",
        &huge,
    ] {
        let answering = async {
            let (mut server, _) = auth.request().await;
            // It may be heard enough of before it has said all.
            let _ = server.write(said).await;
        };
        let (answer, ()) = tokio::join!(ask(&router, Http::One, "/", &[]), answering);
        assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE, "{said:.40}");
        assert_eq!(answer.header("retry-after"), "30");
        assert_eq!(reason(&router).await, "sign_in_unavailable");
    }
    // One that says nothing at all.
    let silent = async { auth.request().await };
    let (answer, _server) = tokio::join!(ask(&router, Http::One, "/", &[]), silent);
    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
    let record = router.next_record(|_| true).await;
    assert_eq!(record["error"], "the sign-in server: no answer in 1000 ms");
    assert_eq!(record["error_by"], "router");
    // One that is gone.
    drop(auth);
    let answer = ask(&router, Http::One, "/", &[]).await;
    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(reason(&router).await, "sign_in_unavailable");
    assert_eq!(cell.seen(), 0);
}

#[tokio::test]
async fn a_server_is_asked_by_https_if_its_certificate_is_right() {
    let folder = tempfile::tempdir().unwrap();
    let (authority, other) = (Authority::new(), Authority::new());
    let file = folder.path().join("ca.pem");
    authority.write(&file);
    let cell = Echo::start("alice").await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let mut entry = at(cell.address());
    entry["sign_in"] = json!({ "forward": format!("https://localhost:{port}/verify") });
    let given = ["--sign-in-ca", file.to_str().unwrap()];
    for (args, acceptor, good) in [
        (&given[..], authority.certify("localhost").0, true),
        (&given, authority.certify("elsewhere").0, false),
        (&given, other.certify("localhost").0, false),
        (&[], authority.certify("localhost").0, false),
    ] {
        let router =
            Router::start(options(json!({ "alice": entry })).args(args.iter().copied())).await;
        let serving = async {
            let (socket, _) = listener.accept().await.unwrap();
            let Ok(mut stream) = acceptor.accept(socket).await else {
                return;
            };
            let head = head(&mut stream).await;
            assert!(
                good && head.starts_with("GET /verify HTTP/1.1\r\n"),
                "{head}"
            );
            let passes = b"HTTP/1.1 204 No Content\r\nremote-user: alice\r\n\r\n";
            stream.write_all(passes).await.unwrap();
        };
        let (answer, ()) = tokio::join!(ask(&router, Http::One, "/", &[]), serving);
        if good {
            assert_eq!(sent(&answer.json(), "cell-user"), &json!(["alice"]));
        } else {
            assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
            let record = router.next_record(|_| true).await;
            assert_eq!(record["reason"], "sign_in_unavailable");
            let error = record["error"].as_str().unwrap();
            assert!(error.contains("certificate"), "{error}");
        }
    }
    assert_eq!(cell.seen(), 1);
}

#[tokio::test]
async fn a_server_behind_its_own_door_is_a_loop_and_no_storm() {
    let cell = Echo::start("alice").await;
    let listen = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listen.local_addr().unwrap();
    drop(listen);
    let mut entry = at(cell.address());
    entry["sign_in"] = json!({ "forward": format!("http://{address}/verify") });
    entry["hosts"] = json!(["127.0.0.1"]);
    let options = RouterOptions {
        listen: Some(address),
        ..options(json!({ "alice": entry }))
    };
    let router = Router::start(options).await;
    let answer = ask(&router, Http::One, "/", &[]).await;
    assert_eq!(answer.status, StatusCode::LOOP_DETECTED);
    assert_eq!(cell.seen(), 0);
}

#[tokio::test]
async fn trailers_say_no_more_of_a_client_than_its_head_may() {
    let (auth, cell) = (ScriptedCell::listen().await, ScriptedCell::listen().await);
    let mut entry = at(cell.addr());
    entry["sign_in"] = json!({
        "forward": format!("http://{}/verify", auth.addr()), "copy_headers": ["remote-groups"],
    });
    let router = Router::start(options(json!({ "alice": entry }))).await;
    let mut client = Raw::connect(router.addr()).await.unwrap();
    client
        .write(format!(
            "POST / HTTP/1.1\r\nhost: {HOST}\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\
             remote-groups: admins\r\nremote_user: root\r\ncell-user: root\r\nx-original-url: /a\r\n\
             X_Rewrite_URL: /b\r\nx-sum: 1\r\n\r\n"
        ))
        .await
        .unwrap();
    let (mut server, _) = auth.request().await;
    server
        .write("HTTP/1.1 204 No Content\r\nremote-user: alice\r\n\r\n")
        .await
        .unwrap();
    let (mut upstream, head) = cell.request().await;
    assert!(head.contains("cell-user: alice\r\n"), "{head}");
    assert_eq!(upstream.chunk().await.unwrap(), b"hello");
    assert_eq!(upstream.chunk().await.unwrap(), b"");
    let trailers = [
        upstream.line().await.unwrap(),
        upstream.line().await.unwrap(),
    ];
    assert_eq!(trailers, ["x-sum: 1", ""]);
}
