//! Who is let in, who is sent elsewhere, and what the routes then see.

use std::time::{SystemTime, UNIX_EPOCH};

use ring::hmac;

use crate::cell::Cell;

const SECRET: &str = "correct horse battery staple";

/// A token as `docs/signature.md` has it, good for the next minute.
fn token(cell: &str, method: &str, target: &str) -> String {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap()
        .as_secs();
    let expiry = (now + 60).to_string();
    let message = [
        "cell-router-v1",
        cell,
        &expiry,
        method,
        "alice.example.com",
        target,
    ]
    .join("\n");
    let key = hmac::Key::new(hmac::HMAC_SHA256, SECRET.as_bytes());
    let mac = hmac::sign(&key, message.as_bytes());
    let hex: String = mac
        .as_ref()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    format!("v1.{expiry}.{hex}")
}

#[test]
fn without_a_signature_only_up_answers() {
    let data = tempfile::tempdir().unwrap();
    let cell = Cell::start(
        data.path(),
        &[
            ("CELL_SECRET", SECRET),
            ("FLY_MACHINE_ID", "7811ab2c9d04e5"),
        ],
    );
    let up = cell.get("/up");
    let expected =
        serde_json::json!({ "cell": "alice", "machine": "7811ab2c9d04e5", "status": "ok" });
    assert_eq!((up.status, up.json()), (200, expected));
    assert_eq!(up.header("fly-machine-id"), "7811ab2c9d04e5");
    for path in [
        "/",
        "/posts",
        "/whoami",
        "/assets/cell.css",
        "/nowhere",
        "/up/",
        "/upload",
    ] {
        assert_eq!(cell.get(path).status, 403, "{path}");
    }
    let mut upload = cell.connect();
    upload.head("PUT /files/a HTTP/1.1\r\nexpect: 100-continue\r\ncontent-length: 1000000");
    assert_eq!(upload.answer().status, 403, "the body is not asked for");
}

#[test]
fn a_signature_is_good_on_either_lane_and_for_one_request() {
    let data = tempfile::tempdir().unwrap();
    let cell = Cell::start(data.path(), &[("CELL_SECRET", &format!("newer,{SECRET}"))]);
    let good = token("alice", "GET", "/whoami?a=1");
    let stream = cell.ask(
        &format!("GET /whoami?a=1 HTTP/1.1\r\ncell-signature: {good}"),
        "",
    );
    assert_eq!(
        (&stream.json()["lane"], stream.status),
        (&"stream".into(), 200)
    );
    assert_eq!(stream.json()["path"], "/whoami?a=1");
    let replay = format!("GET /whoami?a=1 HTTP/1.1\r\nfly-replay-src: instance=a;t=1;state={good}");
    let replay = cell.ask(&replay, "");
    assert_eq!(replay.json()["lane"], "replay");
    assert!(!replay.text().contains(&good), "the token is not shown");
    for head in [
        format!("GET /whoami?a=2 HTTP/1.1\r\ncell-signature: {good}"),
        format!("POST /whoami?a=1 HTTP/1.1\r\ncell-signature: {good}"),
        format!(
            "GET /whoami HTTP/1.1\r\ncell-signature: {}",
            token("bob", "GET", "/whoami")
        ),
    ] {
        assert_eq!(cell.ask(&head, "").status, 403, "{head}");
    }
}

#[test]
fn a_challenge_is_answered_if_it_is_signed_and_for_this_address() {
    let data = tempfile::tempdir().unwrap();
    let settings = [
        ("CELL_SECRET", SECRET),
        ("FLY_PRIVATE_IP", "fdaa:7:1b2c:a7b:2f1:9c4d:11aa:2"),
    ];
    let cell = Cell::start(data.path(), &settings);
    let nonce = "000102030405060708090a0b0c0d0e0f";
    let ask = |address: &str, lane: &str| {
        let target = format!("/.well-known/cell-identity?nonce={nonce}&address={address}");
        let token = token("alice", "GET", &target);
        cell.ask(&format!("GET {target} HTTP/1.1\r\n{lane}{token}"), "")
    };
    let own = "%5Bfdaa:7:1b2c:a7b:2f1:9c4d:11aa:2%5D:8080";
    let answer = ask(own, "cell-signature: ");
    assert_eq!(answer.status, 200, "{}", answer.text());
    let key = hmac::Key::new(hmac::HMAC_SHA256, SECRET.as_bytes());
    let address = "[fdaa:7:1b2c:a7b:2f1:9c4d:11aa:2]:8080";
    let message = ["cell-identity-v1", "alice", nonce, address].join("\n");
    let mac = hmac::sign(&key, message.as_bytes());
    let line: String = mac.as_ref().iter().map(|b| format!("{b:02x}")).collect();
    assert_eq!(answer.text(), format!("{line}\n"));

    let relayed = ask(
        "%5Bfdaa:7:1b2c:a7b:2f1:9c4d:11aa:3%5D:8080",
        "cell-signature: ",
    );
    assert_eq!(
        relayed.status, 421,
        "another machine hands its challenge on"
    );
    assert!(!relayed.text().contains(&line));
    assert_eq!(ask("nowhere", "cell-signature: ").status, 400);
    let replayed = ask(own, "fly-replay-src: t=1;state=");
    assert_eq!(replayed.status, 404, "no replay is a challenge");
    assert_eq!(cell.get("/.well-known/cell-identity").status, 403);
}

#[test]
fn a_request_for_another_machine_is_sent_there() {
    let data = tempfile::tempdir().unwrap();
    let settings = [
        ("CELL_SECRET", SECRET),
        ("FLY_MACHINE_ID", "7811ab2c9d04e5"),
    ];
    let cell = Cell::start(data.path(), &settings);
    let other = "POST /posts HTTP/1.1\r\nfly-force-instance-id: 148e21ea7de489";
    let answer = cell.ask(other, "title=a");
    assert_eq!((answer.status, answer.body.len()), (409, 0));
    assert_eq!(answer.header("fly-replay"), "instance=148e21ea7de489");
    let state = token("bob", "POST", "/posts");
    let answer = cell.ask(
        &format!("{other}\r\nfly-replay-src: t=1;state={state}"),
        "title=a",
    );
    let expected = format!("instance=148e21ea7de489;state={state}");
    assert_eq!(
        answer.header("fly-replay"),
        expected,
        "the machine named there asks for the proof"
    );
    for named in ["7811ab2c9d04e5", "a;app=b", "A48e21ea7de489", ""] {
        let answer = cell.ask(
            &format!("GET / HTTP/1.1\r\nfly-force-instance-id: {named}"),
            "",
        );
        assert_eq!(
            (answer.status, answer.header("fly-replay")),
            (403, ""),
            "{named}"
        );
    }
}

#[test]
fn links_carry_the_path_by_which_the_cell_was_reached() {
    let data = tempfile::tempdir().unwrap();
    let cell = Cell::start(
        data.path(),
        &[("CELL_BASE_PATH", "/alice"), ("CELL_SECRET", SECRET)],
    );
    let page = |target: &str, headers: &str| {
        let token = token("alice", "GET", target);
        cell.ask(
            &format!("GET {target} HTTP/1.1\r\ncell-signature: {token}{headers}"),
            "",
        )
    };
    for (target, headers, link) in [
        ("/", "", r#"action="/posts""#),
        ("/alice", "", r#"action="/alice/posts""#),
        ("/alice/?a=1", "", r#"action="/alice/posts""#),
        (
            "/",
            "\r\nx-forwarded-prefix: /a/b",
            r#"action="/a/b/posts""#,
        ),
        ("/", "\r\nx-forwarded-prefix: //evil", r#"action="/posts""#),
    ] {
        let answer = page(target, headers);
        assert!(
            answer.text().contains(link),
            "{target} {headers} {}",
            answer.text()
        );
    }
    assert_eq!(page("/alicia", "").status, 404);
}

#[test]
fn a_page_tells_its_machine_and_pins_only_where_a_pinned_request_is_served() {
    let data = tempfile::tempdir().unwrap();
    let machine = ("FLY_MACHINE_ID", "7811ab2c9d04e5");
    let meta = r#"<meta name="fly-instance-id" content="7811ab2c9d04e5">"#;
    let open = Cell::start(data.path(), &[machine]).get("/");
    assert!(open.text().contains(meta) && open.text().contains("data-pin=\"7811ab2c9d04e5\""));
    let data = tempfile::tempdir().unwrap();
    let signed = Cell::start(data.path(), &[machine, ("CELL_SECRET", SECRET)]);
    let token = token("alice", "GET", "/");
    let signed = signed.ask(&format!("GET / HTTP/1.1\r\ncell-signature: {token}"), "");
    assert!(signed.text().contains(meta) && !signed.text().contains("data-pin"));
    let data = tempfile::tempdir().unwrap();
    let nowhere = Cell::start(data.path(), &[]).get("/");
    assert!(!nowhere.text().contains("fly-instance-id") && !nowhere.text().contains("data-pin"));
}
