//! The admin API: who may do what, edits of the registry, operations on cells, and live state.

use std::net::SocketAddr;
use std::path::Path;

use http::{HeaderMap, Method, Request, StatusCode};
use integration_tests::client::{self, Answer, Http, Raw};
use integration_tests::fly::{Action, Fly, MachineSpec, State};
use integration_tests::{Binaries, Router, RouterOptions, ScriptedCell};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::scene::{HOST, at, options, said};
use crate::wake::{APP, entry, on_fly};

/// A router with an admin listener and a token of each role.
pub(crate) struct Admin {
    pub(crate) router: Router,
    pub(crate) address: SocketAddr,
    tokens: [String; 3],
    folder: TempDir,
}

pub(crate) const ROLES: [&str; 3] = ["read", "operate", "edit"];

impl Admin {
    pub(crate) async fn start(options: RouterOptions) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("tokens");
        let mut lines = Vec::new();
        let tokens = ROLES.map(|role| {
            let made = std::process::Command::new(&Binaries::built().cell_router)
                .args(["token", &format!("anna-{role}"), "--role", role])
                .output()
                .unwrap();
            lines.extend(made.stdout);
            let token = String::from_utf8(made.stderr).unwrap().trim().to_owned();
            std::fs::write(folder.path().join(role), &token).unwrap();
            token
        });
        std::fs::write(&file, lines).unwrap();
        let options = options.args(["--admin-listen", "127.0.0.1:0"]);
        let options = options.args(["--admin-tokens", file.to_str().unwrap()]);
        let router = Router::start(options).await;
        let open = said(&router, "admin listener open").await;
        Self {
            address: open["address"].as_str().unwrap().parse().unwrap(),
            router,
            tokens,
            folder,
        }
    }

    /// The file with the token of a role.
    pub(crate) fn token_file(&self, role: &str) -> std::path::PathBuf {
        self.folder.path().join(role)
    }

    fn token(&self, role: &str) -> &str {
        let index = ROLES.iter().position(|one| *one == role).unwrap();
        &self.tokens[index]
    }

    fn request(
        &self,
        role: Option<&str>,
        method: &str,
        target: &str,
        headers: &[(&'static str, &str)],
    ) -> http::request::Builder {
        let mut request = Request::builder().method(method).uri(target);
        request = request.header("host", "admin");
        if let Some(role) = role {
            request = request.header("authorization", format!("Bearer {}", self.token(role)));
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request
    }

    pub(crate) async fn send(
        &self,
        role: &str,
        method: &str,
        target: &str,
        headers: &[(&'static str, &str)],
        body: impl Into<bytes::Bytes>,
    ) -> Answer {
        let request = self.request(Some(role), method, target, headers);
        let request = request.body(client::full(body)).unwrap();
        client::send(self.address, Http::One, request)
            .await
            .unwrap()
    }

    pub(crate) async fn get(&self, target: &str) -> Value {
        let answer = self.send("read", "GET", target, &[], "").await;
        assert_eq!(answer.status, StatusCode::OK, "{target} {}", answer.text());
        answer.json()
    }

    pub(crate) async fn edit(&self, method: &str, target: &str, body: Value) -> Answer {
        self.send("edit", method, target, &[], body.to_string())
            .await
    }

    /// Waits until this router has put what is stored in force.
    pub(crate) async fn in_force(&self, version: &str) {
        let is_it =
            |event: &Value| event["message"] == "registry loaded" && event["version"] == version;
        self.router.next_event(is_it).await;
    }

    /// Only the head of the answer, whatever follows it.
    pub(crate) async fn status(&self, role: Option<&str>, method: &str, target: &str) -> u16 {
        let authorization = role.map_or_else(String::new, |role| {
            format!("authorization: Bearer {}\r\n", self.token(role))
        });
        let mut raw = Raw::connect(self.address).await.unwrap();
        raw.write(format!(
            "{method} {target} HTTP/1.1\r\nhost: admin\r\nconnection: close\r\ncontent-length: 2\r\n{authorization}\r\n{{}}"
        ))
        .await
        .unwrap();
        let head = raw.head().await.unwrap();
        head.split(' ').nth(1).unwrap().parse().unwrap()
    }
}

fn problem(answer: &Answer, status: u16, error: &str) -> Value {
    assert_eq!(answer.status.as_u16(), status, "{}", answer.text());
    assert_eq!(answer.header("content-type"), "application/problem+json");
    let problem = answer.json();
    assert_eq!(problem["error"], error, "{problem}");
    problem
}

fn tag(headers: &HeaderMap) -> String {
    headers["etag"].to_str().unwrap().to_owned()
}

async fn one() -> Admin {
    Admin::start(options(json!({ "alice": { "address": "127.0.0.1:9" } }))).await
}

/// The table in the documents: method, path, role.
pub(crate) fn table() -> Vec<(String, String, String)> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/admin.md");
    let text = std::fs::read_to_string(file).unwrap();
    let rows = text.lines().filter_map(|line| {
        let (operation, rest) = line.strip_prefix("| `")?.split_once("` | ")?;
        let (method, path) = operation.split_once(' ')?;
        let (role, _) = rest.split_once(" |")?;
        Some((method.to_owned(), path.to_owned(), role.to_owned()))
    });
    rows.collect()
}

#[tokio::test]
async fn each_operation_is_allowed_and_refused_as_the_table_says() {
    let admin = one().await;
    let document = admin.get("/v1/openapi.json").await;
    let mut described = Vec::new();
    for (path, operations) in document["paths"].as_object().unwrap() {
        for (method, operation) in operations.as_object().unwrap() {
            let role = operation["security"][0]["token"][0].as_str().unwrap();
            described.push((method.to_uppercase(), path.clone(), role.to_owned()));
        }
    }
    let mut table = table();
    let rank = |role: &str| ROLES.iter().position(|one| *one == role).unwrap();
    for (method, path, needs) in &table {
        let target = path
            .replace("{name}", "alice")
            .replace("{version}", "0123456789abcdef");
        assert_eq!(
            admin.status(None, method, &target).await,
            401,
            "{method} {path}"
        );
        for role in ROLES {
            let status = admin.status(Some(role), method, &target).await;
            if rank(role) < rank(needs) {
                assert_eq!(status, 403, "{method} {path} as {role}");
            } else {
                assert!(
                    ![401, 403, 404, 405].contains(&status)
                        || (status == 404 && path.contains("version")),
                    "{method} {path} as {role}: {status}"
                );
                assert!(status < 500, "{method} {path} as {role}: {status}");
            }
            if method == "DELETE" && status == 200 {
                let back = json!({ "address": "127.0.0.1:9" });
                let answer = admin.edit("PUT", "/v1/cells/alice/entry", back).await;
                let version = answer.json()["version"].as_str().unwrap().to_owned();
                admin.in_force(&version).await;
            }
        }
    }
    table.sort();
    described.sort();
    assert_eq!(table, described, "docs/admin.md and the document");
}

#[tokio::test]
async fn operators_do_not_edit_and_do_not_bring_back_what_is_disabled() {
    let admin = one().await;
    let state = |role, state: &str| {
        let body = json!({ "state": state }).to_string();
        let admin = &admin;
        async move {
            admin
                .send(role, "PUT", "/v1/cells/alice/state", &[], body)
                .await
                .status
        }
    };
    for (role, to, status) in [
        ("operate", "paused", 200),
        ("operate", "maintenance", 200),
        ("operate", "disabled", 403),
        ("edit", "disabled", 200),
        ("operate", "active", 403),
        ("edit", "active", 200),
    ] {
        assert_eq!(state(role, to).await, status, "{role} {to}");
    }
    let steps = |op: &str| {
        json!({ "steps": [
        { "op": "state", "cell": "alice", "value": "paused" },
        { "op": op, "cell": "alice", "keys": ["max_in_flight"], "value": 5, "to": "alicia" },
    ] })
    };
    for op in ["set", "rename", "remove"] {
        let answer = admin
            .send(
                "operate",
                "POST",
                "/v1/registry/edits",
                &[],
                steps(op).to_string(),
            )
            .await;
        problem(&answer, 403, "denied");
    }
    let entry = admin.get("/v1/cells/alice/entry").await;
    assert_eq!(entry, json!({ "address": "127.0.0.1:9" }), "all or nothing");
    let answer = admin.edit("POST", "/v1/registry/edits", steps("set")).await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.text());
}

#[tokio::test]
async fn operators_do_not_bring_back_what_is_disabled_in_a_broken_entry() {
    let admin = one().await;
    let broken = json!({ "alice": { "address": "127.0.0.1:9", "state": "disabled", "colour": 1 } });
    // Of two that claim one host the first has it, and the second is left out.
    let twice = json!({
        "bob": { "address": "127.0.0.1:9", "hosts": ["x.org"] },
        "alice": { "address": "127.0.0.1:9", "hosts": ["x.org"], "state": "disabled" },
    });
    for cells in [broken, twice] {
        let text = json!({ "version": 1, "domain": "example.com", "cells": cells }).to_string();
        admin.router.save(&text);
        let by_state = ("PUT", "/v1/cells/alice/state", json!({ "state": "active" }));
        let step = json!({ "op": "state", "cell": "alice", "value": "active" });
        let by_steps = ("POST", "/v1/registry/edits", json!({ "steps": [step] }));
        for (method, target, body) in [by_state, by_steps] {
            let body = body.to_string();
            let answer = admin.send("operate", method, target, &[], body).await;
            problem(&answer, 403, "denied");
        }
        let stored = std::fs::read_to_string(admin.router.registry()).unwrap();
        assert_eq!(stored, text);
    }
}

#[tokio::test]
async fn a_cell_is_added_edited_renamed_and_removed() {
    let cell = ScriptedCell::listen().await;
    let admin = one().await;
    let asked = json!({ "address": cell.addr().to_string() });
    let added = admin
        .edit("PUT", "/v1/cells/bob/entry", asked.clone())
        .await;
    assert_eq!(added.status, StatusCode::CREATED, "{}", added.text());
    assert_eq!(added.header("location"), "/v1/cells/bob");
    admin
        .in_force(added.json()["version"].as_str().unwrap())
        .await;
    let served = tokio::spawn(client::get(admin.router.addr(), "bob.example.com", "/"));
    let (mut upstream, _) = cell.request().await;
    upstream
        .write("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
        .await
        .unwrap();
    assert_eq!(served.await.unwrap().unwrap().text(), "ok");

    let only_new = [("if-none-match", "*")];
    let again = admin
        .send(
            "edit",
            "PUT",
            "/v1/cells/bob/entry",
            &only_new,
            asked.to_string(),
        )
        .await;
    problem(&again, 412, "conflict");

    let patch = json!({ "max_in_flight": 7, "hosts": ["bob.example.org"] });
    let patched = admin.edit("PATCH", "/v1/cells/bob/entry", patch).await;
    assert_eq!(patched.status, StatusCode::OK, "{}", patched.text());
    assert_eq!(patched.json()["changes"].as_array().unwrap().len(), 2);
    let patched = admin
        .edit(
            "PATCH",
            "/v1/cells/bob/entry",
            json!({ "max_in_flight": null }),
        )
        .await;
    assert_eq!(patched.json()["changes"][0]["after"], Value::Null);

    let renamed = admin
        .edit("PUT", "/v1/cells/bob/name", json!({ "name": "rob" }))
        .await;
    assert_eq!(
        renamed.header("location"),
        "/v1/cells/rob",
        "{}",
        renamed.text()
    );
    problem(
        &admin.edit("PATCH", "/v1/cells/bob/entry", json!({})).await,
        404,
        "not_found",
    );
    let taken = admin
        .edit("PUT", "/v1/cells/rob/name", json!({ "name": "alice" }))
        .await;
    problem(&taken, 409, "refused");
    let removed = admin.edit("DELETE", "/v1/cells/rob/entry", json!({})).await;
    assert_eq!(removed.status, StatusCode::OK, "{}", removed.text());
    let gone = admin
        .send("read", "GET", "/v1/cells/rob/entry", &[], "")
        .await;
    problem(&gone, 404, "not_found");

    let past = admin.get("/v1/registry/versions?limit=3").await;
    let through: Vec<_> = past["versions"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| &one["through"])
        .collect();
    assert_eq!(
        through,
        ["api, cell remove", "api, cell rename", "api, cell set"]
    );
    assert_eq!(past["versions"][0]["who"], "anna-edit");
    assert_eq!(past["versions"][0]["version"], removed.json()["version"]);
    let older = admin
        .get(&format!("/v1/registry/versions?before={}", past["next"]))
        .await;
    assert_eq!(older["versions"].as_array().unwrap().len(), 3);
    assert_eq!(older["next"], Value::Null);
    let done = admin
        .router
        .next_event(|event| event["message"] == "admin: done" && event["method"] == "DELETE")
        .await;
    assert_eq!(
        (&done["who"], &done["path"]),
        (&json!("anna-edit"), &json!("/v1/cells/rob/entry"))
    );
    assert!(
        done["what"].as_str().unwrap().contains("cells.rob"),
        "{done}"
    );
}

#[tokio::test]
async fn nobody_writes_over_what_they_have_not_seen() {
    let admin = Admin::start(options(
        json!({ "alice": { "address": "127.0.0.1:9" }, "bob": { "address": "127.0.0.1:9" } }),
    ))
    .await;
    let whole = admin.send("read", "GET", "/v1/registry", &[], "").await;
    let entry = admin
        .send("read", "GET", "/v1/cells/alice/entry", &[], "")
        .await;
    let known = [("if-none-match", &*tag(&whole.headers))];
    let same = admin.send("read", "GET", "/v1/registry", &known, "").await;
    assert_eq!(same.status, StatusCode::NOT_MODIFIED);

    // An edit of another cell is none of this one.
    let patch = json!({ "max_in_flight": 7 }).to_string();
    assert_eq!(
        admin
            .edit(
                "PATCH",
                "/v1/cells/bob/entry",
                json!({ "max_in_flight": 3 })
            )
            .await
            .status,
        StatusCode::OK
    );
    let seen = tag(&entry.headers);
    let seen = [("if-match", &*seen)];
    let first = admin
        .send(
            "edit",
            "PATCH",
            "/v1/cells/alice/entry",
            &seen,
            patch.clone(),
        )
        .await;
    assert_eq!(first.status, StatusCode::OK, "{}", first.text());
    let second = admin
        .send("edit", "PATCH", "/v1/cells/alice/entry", &seen, patch)
        .await;
    problem(&second, 412, "conflict");
    problem(
        &admin
            .send("edit", "DELETE", "/v1/cells/alice/entry", &seen, "")
            .await,
        412,
        "conflict",
    );

    let text = whole.text();
    problem(
        &admin
            .send("edit", "PUT", "/v1/registry", &[], text.clone())
            .await,
        428,
        "malformed",
    );
    let seen = tag(&whole.headers);
    let seen = [("if-match", &*seen)];
    let refused = problem(
        &admin
            .send("edit", "PUT", "/v1/registry", &seen, text.clone())
            .await,
        412,
        "conflict",
    );
    let now = format!("\"{}\"", refused["version"].as_str().unwrap());
    let put = admin
        .send(
            "edit",
            "PUT",
            "/v1/registry",
            &[("if-match", &*now)],
            text.clone(),
        )
        .await;
    assert_eq!(put.status, StatusCode::OK, "{}", put.text());
    assert_eq!(tag(&put.headers), tag(&whole.headers));
    assert_eq!(
        std::fs::read_to_string(admin.router.registry()).unwrap(),
        text
    );

    let undone = admin.edit("POST", "/v1/registry/undo", json!({})).await;
    assert_eq!(undone.status, StatusCode::OK, "{}", undone.text());
    let alice = admin.get("/v1/cells/alice/entry").await;
    assert_eq!(alice["max_in_flight"], 7);
    let diff = admin.get("/v1/registry/diff").await;
    assert_eq!(diff["changes"].as_array().unwrap().len(), 2, "{diff}");
    let version = diff["from"].as_str().unwrap();
    let then = admin.get(&format!("/v1/registry/versions/{version}")).await;
    assert_eq!(then, serde_json::from_str::<Value>(&text).unwrap());
}

#[tokio::test]
async fn edits_at_once_are_all_made() {
    let names: Vec<_> = (0..32).map(|number| format!("c{number}")).collect();
    let cells = names
        .iter()
        .map(|name| (name.clone(), json!({ "address": "127.0.0.1:9" })));
    let admin = Admin::start(options(Value::Object(cells.collect()))).await;
    let edits = names.iter().map(|name| {
        let patch = json!({ "max_in_flight": 7 });
        let target = format!("/v1/cells/{name}/entry");
        let admin = &admin;
        async move { admin.edit("PATCH", &target, patch).await }
    });
    for answer in futures_util::future::join_all(edits).await {
        assert_eq!(answer.status, StatusCode::OK, "{}", answer.text());
    }
    let text = std::fs::read_to_string(admin.router.registry()).unwrap();
    let stored: Value = serde_json::from_str(&text).unwrap();
    for name in &names {
        assert_eq!(stored["cells"][name]["max_in_flight"], 7, "{name}");
    }
}

/// Begins to send a large text, whose body is sent when it is wanted.
async fn large(admin: &Admin) -> Raw {
    let mut raw = Raw::connect(admin.address).await.unwrap();
    let token = admin.token("edit");
    raw.write(format!(
        "PUT /v1/registry HTTP/1.1\r\nhost: admin\r\nauthorization: Bearer {token}\r\nif-match: *\r\nexpect: 100-continue\r\ncontent-length: {LARGE}\r\nconnection: close\r\n\r\n"
    ))
    .await
    .unwrap();
    raw
}

const LARGE: usize = 2 * 1024 * 1024;

#[tokio::test]
async fn only_whole_registries_are_large_and_one_at_a_time() {
    let admin = one().await;
    let text = std::fs::read_to_string(admin.router.registry()).unwrap();
    let filled = text.clone() + &" ".repeat(LARGE - text.len());
    // More than the sockets on the way hold: the refusal arrives though it came before the body's end.
    let larger = filled.repeat(6);
    for (method, target) in [
        ("PUT", "/v1/cells/alice/entry"),
        ("PATCH", "/v1/cells/alice/entry"),
        ("POST", "/v1/registry/edits"),
        ("POST", "/v1/explain"),
    ] {
        let answer = admin
            .send("edit", method, target, &[], larger.clone())
            .await;
        problem(&answer, 413, "malformed");
    }
    let checked = admin
        .send("read", "POST", "/v1/registry/check", &[], filled.clone())
        .await;
    assert_eq!(checked.json()["valid"], true, "{}", checked.text());

    let mut first = large(&admin).await;
    assert!(first.head().await.unwrap().contains("100 Continue"));
    let mut second = large(&admin).await;
    // Neither small texts nor those who only look wait for it.
    let ok = [("if-match", "*")];
    let small = admin.send("edit", "PUT", "/v1/registry", &ok, text.clone());
    assert_eq!(small.await.status, StatusCode::OK);
    let checked = admin
        .send("read", "POST", "/v1/registry/check", &[], filled.clone())
        .await;
    assert_eq!(checked.json()["valid"], true, "{}", checked.text());
    assert!(!second.has_some(), "it is not its turn");
    first.write(filled.clone()).await.unwrap();
    assert!(first.head().await.unwrap().contains("200 OK"));
    assert!(second.head().await.unwrap().contains("100 Continue"));
    second.write(filled).await.unwrap();
    assert!(second.head().await.unwrap().contains("200 OK"));
}

#[tokio::test]
async fn what_would_break_or_unplug_is_refused_with_its_place() {
    let cells: serde_json::Map<_, _> = (0..20)
        .map(|number| (format!("c{number}"), json!({ "address": "127.0.0.1:9" })))
        .collect();
    let admin = Admin::start(options(Value::Object(cells))).await;
    let before = std::fs::read(admin.router.registry()).unwrap();
    let broken = admin
        .edit(
            "PATCH",
            "/v1/cells/c1/entry",
            json!({ "address": "h:70000" }),
        )
        .await;
    let found = &problem(&broken, 422, "refused")["problems"][0];
    assert_eq!(found["path"], "$.cells.c1.address", "{found}");
    assert!(found["line"].is_u64() && found["column"].is_u64() && found["fix"].is_string());

    let draft =
        json!({ "version": 1, "domain": "example.com", "cells": { "c1": { "addres": "h:1" } } });
    let checked = admin
        .send("read", "POST", "/v1/registry/check", &[], draft.to_string())
        .await
        .json();
    assert_eq!(checked["valid"], false);
    assert!(
        !checked["problems"].as_array().unwrap().is_empty(),
        "{checked}"
    );
    let draft = json!({ "version": 1, "domain": "example.com", "cells": {} });
    let checked = admin
        .send("read", "POST", "/v1/registry/check", &[], draft.to_string())
        .await
        .json();
    assert_eq!(checked["valid"], true);
    assert!(
        checked["unplugs"].as_str().unwrap().starts_with("20 of 20"),
        "{checked}"
    );

    let steps: Vec<_> = (0..15)
        .map(|number| json!({ "op": "remove", "cell": format!("c{number}") }))
        .collect();
    let steps = json!({ "steps": steps });
    problem(
        &admin
            .edit("POST", "/v1/registry/edits", steps.clone())
            .await,
        409,
        "unconfirmed",
    );
    let dry = "/v1/registry/edits?dry_run=true&confirm_unplug=true";
    let dry = admin.edit("POST", dry, steps.clone()).await.json();
    assert_eq!(
        (&dry["changed"], &dry["dry_run"]),
        (&json!(true), &json!(true))
    );
    assert_eq!(
        std::fs::read(admin.router.registry()).unwrap(),
        before,
        "nothing was written"
    );
    let done = admin
        .edit("POST", "/v1/registry/edits?confirm_unplug=true", steps)
        .await
        .json();
    admin.in_force(done["version"].as_str().unwrap()).await;
    assert_eq!(admin.get("/v1/router").await["cells"], 5);
}

#[tokio::test]
async fn a_broken_entry_is_told_and_explained_requests_go_nowhere() {
    let admin = one().await;
    let text = std::fs::read_to_string(admin.router.registry()).unwrap();
    admin.router.save(&text.replace("127.0.0.1:9", "nowhere"));
    let loaded = said(&admin.router, "registry loaded").await;
    assert_eq!(loaded["flagged"], 1);
    let standing = admin.get("/v1/router").await;
    assert_eq!(standing["flags"][0]["cell"], "alice");
    assert_eq!(standing["flags"][0]["kept"], true);
    assert_eq!(admin.get("/v1/cells?state=flagged").await["total"], 1);
    // As a whole it is no registry any more.
    admin.router.save("{");
    admin
        .router
        .next_event(|event| {
            event["message"]
                .as_str()
                .is_some_and(|it| it.starts_with("registry refused"))
        })
        .await;
    let standing = admin.get("/v1/router").await;
    assert!(
        !standing["refused"].as_array().unwrap().is_empty(),
        "{standing}"
    );
    // Nor can it be read where it is not.
    std::fs::remove_file(admin.router.registry()).unwrap();
    let standing = admin.get("/v1/router").await;
    assert!(
        standing["unreadable"].is_string() && standing["stored"].is_null(),
        "{standing}"
    );
    assert_eq!(standing["cells"], 1, "what is in force serves on");
    admin.router.save("{");
    let past = admin.get("/v1/registry/versions").await;
    let first = past["versions"].as_array().unwrap().last().unwrap();
    let back = json!({ "to": first["version"] });
    let undone = admin.edit("POST", "/v1/registry/undo", back).await;
    assert_eq!(undone.status, StatusCode::OK, "{}", undone.text());

    let asked = json!({ "method": "GET", "url": "http://alice.example.com/x" });
    let told = admin
        .send("read", "POST", "/v1/explain", &[], asked.to_string())
        .await
        .json();
    assert_eq!(
        (&told["cell"], &told["lane"]),
        (&json!("alice"), &json!("stream"))
    );
    let bad = json!({ "method": "GET", "url": "/x" });
    let bad = admin
        .send("read", "POST", "/v1/explain", &[], bad.to_string())
        .await;
    problem(&bad, 422, "refused");
}

#[tokio::test]
async fn a_cell_is_woken_and_put_to_sleep_and_never_by_looking() {
    let fly = Fly::start().await.unwrap();
    let machine = fly.machine(MachineSpec::cell(APP, "alice")).unwrap();
    let cells = json!({ "alice": entry(&machine), "bob": { "address": "127.0.0.1:9" } });
    let admin = Admin::start(on_fly(&fly, cells)).await;
    let paths: Vec<_> = table()
        .into_iter()
        .filter(|(method, path, role)| role == "read" && method == "GET" && path != "/v1/events")
        .collect();
    for (method, path, _) in &paths {
        let target = path
            .replace("{name}", "alice")
            .replace("{version}", "0123456789abcdef");
        admin.status(Some("read"), method, &target).await;
    }
    assert!(paths.len() > 8);
    let asleep = admin.get("/v1/cells/alice/machine").await;
    assert_eq!(
        (&asleep["state"], &asleep["asleep"]),
        (&json!("stopped"), &json!(true))
    );
    assert_eq!(fly.starts(), Vec::<String>::new(), "looking wakes nothing");

    let woken = admin
        .send("operate", "POST", "/v1/cells/alice/wake?wait_s=60", &[], "")
        .await;
    assert_eq!(
        (woken.status, woken.json()),
        (StatusCode::OK, json!({ "stage": "ready" }))
    );
    assert_eq!(admin.get("/v1/cells/alice/machine").await["asleep"], false);
    let slept = admin
        .send("operate", "POST", "/v1/cells/alice/sleep", &[], "")
        .await;
    assert_eq!(slept.status, StatusCode::ACCEPTED, "{}", slept.text());
    machine.reached(&[State::Stopped]).await;
    assert_eq!(fly.calls(Action::Start, &machine.id), 1);
    for what in ["wake", "sleep"] {
        let answer = admin
            .send("operate", "POST", &format!("/v1/cells/bob/{what}"), &[], "")
            .await;
        problem(&answer, 409, "refused");
    }
}

#[tokio::test]
async fn those_who_look_at_machines_do_not_hold_up_a_wake() {
    let fly = Fly::start().await.unwrap();
    let machine = |name: &str| fly.machine(MachineSpec::cell(APP, name)).unwrap();
    let alice = machine("alice");
    let others: Vec<_> = (0..20)
        .map(|number| machine(&format!("c{number}")))
        .collect();
    let gates: Vec<_> = others
        .iter()
        .map(|one| fly.faults().api_hangs(Action::Get, &one.id))
        .collect();
    let cells = others.iter().enumerate();
    let cells = cells.map(|(number, one)| (format!("c{number}"), entry(one)));
    let cells = cells.chain([("alice".to_owned(), entry(&alice))]).collect();
    let admin = Admin::start(on_fly(&fly, Value::Object(cells))).await;
    let mut looks = Vec::new();
    for number in 0..others.len() {
        let mut look = Raw::connect(admin.address).await.unwrap();
        let token = admin.token("read");
        look.write(format!(
            "GET /v1/cells/c{number}/machine HTTP/1.1\r\nhost: admin\r\nauthorization: Bearer {token}\r\n\r\n"
        ))
        .await
        .unwrap();
        looks.push(look);
    }
    let woken = client::get(admin.router.addr(), HOST, "/whoami").await;
    assert_eq!(woken.unwrap().status, StatusCode::OK);
    let asked = others.iter().map(|one| fly.calls(Action::Get, &one.id));
    assert!(asked.sum::<usize>() <= 2);
    // Who does not wait any more is nobody's turn.
    drop(looks);
    assert_eq!(admin.get("/v1/cells/alice/machine").await["asleep"], false);
    drop(gates);
}

#[tokio::test]
async fn a_cell_with_a_request_is_not_put_to_sleep() {
    let fly = Fly::start().await.unwrap();
    let machine = fly.machine(MachineSpec::cell(APP, "alice")).unwrap();
    let admin = Admin::start(on_fly(&fly, json!({ "alice": entry(&machine) }))).await;
    let (upload, stored) = crate::scene::driven(&admin.router);
    upload.send("begun".into()).await.unwrap();
    said(&admin.router, "wake").await;
    let mut events = Events::open(&admin, None).await;
    events.until(|kind, _| kind == "resync").await;
    if admin.get("/v1/cells/alice").await["in_flight"] == 0 {
        events
            .until(|kind, data| kind == "cells" && data["cells"][0]["in_flight"] == 1)
            .await;
    }
    let refused = admin
        .send("operate", "POST", "/v1/cells/alice/sleep", &[], "")
        .await;
    let refused = problem(&refused, 409, "refused");
    assert!(
        refused["detail"].as_str().unwrap().contains("in flight"),
        "{refused}"
    );
    drop(upload);
    assert!(stored.await.unwrap().unwrap().status.is_success());
}

/// The stream of events.
pub(crate) struct Events(Raw);

impl Events {
    pub(crate) async fn open(admin: &Admin, last: Option<&str>) -> Self {
        let mut raw = Raw::connect(admin.address).await.unwrap();
        let last = last.map_or_else(String::new, |last| format!("last-event-id: {last}\r\n"));
        let token = admin.token("read");
        raw.write(format!(
            "GET /v1/events HTTP/1.1\r\nhost: admin\r\nconnection: close\r\nauthorization: Bearer {token}\r\n{last}\r\n"
        ))
        .await
        .unwrap();
        let head = raw.head().await.unwrap();
        assert!(
            head.contains("200 OK") && head.contains("text/event-stream"),
            "{head}"
        );
        Self(raw)
    }

    /// The id of the next event that fits.
    pub(crate) async fn until(&mut self, fits: impl Fn(&str, &Value) -> bool) -> String {
        let (mut id, mut kind) = (String::new(), String::new());
        loop {
            let line = self.0.line().await.unwrap();
            if let Some(said) = line.strip_prefix("id: ") {
                id = said.to_owned();
            } else if let Some(said) = line.strip_prefix("event: ") {
                kind = said.to_owned();
            } else if let Some(said) = line.strip_prefix("data: ")
                && fits(&kind, &serde_json::from_str(said).unwrap())
            {
                return id;
            }
        }
    }

    /// The kind of the next event.
    async fn kind(&mut self) -> String {
        let seen = std::cell::RefCell::new(String::new());
        self.until(|kind, _| {
            *seen.borrow_mut() = kind.to_owned();
            true
        })
        .await;
        seen.into_inner()
    }
}

#[tokio::test]
async fn changes_are_told_as_they_happen_and_after_a_break() {
    let cell = ScriptedCell::listen().await;
    let admin = Admin::start(options(json!({ "alice": at(cell.addr()) }))).await;
    let mut events = Events::open(&admin, None).await;
    let mut others = Events::open(&admin, None).await;
    events.until(|kind, _| kind == "resync").await;
    let answered = tokio::spawn(client::get(admin.router.addr(), HOST, "/"));
    let (mut upstream, _) = cell.request().await;
    let first = events
        .until(|kind, data| kind == "cells" && data["cells"][0]["in_flight"] == 1)
        .await;
    drop(events);
    upstream
        .write("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
        .await
        .unwrap();
    answered.await.unwrap().unwrap();
    others
        .until(|kind, data| kind == "cells" && data["cells"][0]["in_flight"] == 0)
        .await;
    let body = json!({ "state": "paused" });
    let version = admin
        .edit("PUT", "/v1/cells/alice/state", body)
        .await
        .json()["version"]
        .clone();
    let is_it = |kind: &str, data: &Value| kind == "registry" && data["version"] == version;
    others.until(is_it).await;
    // What happened meanwhile is told, and nothing else.
    let mut back = Events::open(&admin, Some(&first)).await;
    assert_eq!(back.kind().await, "cells");
    back.until(is_it).await;
    for unknown in ["1-1", "x", "18446744073709551615-18446744073709551615"] {
        let mut back = Events::open(&admin, Some(unknown)).await;
        assert_eq!(back.kind().await, "resync", "{unknown}");
    }
}

#[tokio::test]
async fn who_loses_their_token_hears_no_more() {
    let cell = ScriptedCell::listen().await;
    let admin = Admin::start(options(json!({ "alice": at(cell.addr()) }))).await;
    let mut events = Events::open(&admin, None).await;
    events.until(|kind, _| kind == "resync").await;
    let file = admin.folder.path().join("tokens");
    let lines = std::fs::read_to_string(&file).unwrap();
    let others: Vec<_> = lines
        .lines()
        .filter(|line| !line.starts_with("read "))
        .collect();
    std::fs::write(&file, others.join("\n")).unwrap();
    let answered = tokio::spawn(client::get(admin.router.addr(), HOST, "/"));
    let (mut upstream, _) = cell.request().await;
    while let Ok(line) = events.0.line().await {
        assert!(!line.starts_with("event:"), "{line}");
    }
    upstream
        .write("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
        .await
        .unwrap();
    answered.await.unwrap().unwrap();
}

#[tokio::test]
async fn what_is_refused_is_on_record() {
    let admin = one().await;
    let request = admin.request(None, "DELETE", "/v1/cells/alice/entry", &[]);
    let request = request.body(client::full("")).unwrap();
    let answer = client::send(admin.address, Http::One, request)
        .await
        .unwrap();
    problem(&answer, 401, "denied");
    said(&admin.router, "admin: refused").await;
    for (role, who) in [("read", "anna-read"), ("edit", "anna-edit")] {
        let answer = admin
            .send(
                role,
                Method::PUT.as_str(),
                "/v1/cells/nobody/name",
                &[],
                r#"{"name":"x"}"#,
            )
            .await;
        assert!(answer.status.is_client_error());
        let line = said(&admin.router, "admin: refused").await;
        assert_eq!(line["who"], who, "{line}");
        assert_eq!(line["path"], "/v1/cells/nobody/name");
    }
}

#[tokio::test]
async fn the_page_is_for_everybody_and_lets_nothing_in() {
    let admin = one().await;
    for (target, kind) in [
        ("/", "text/html; charset=utf-8"),
        ("/page/main.js", "text/javascript; charset=utf-8"),
        ("/page/style.css", "text/css; charset=utf-8"),
        ("/page/schema.json", "application/schema+json"),
    ] {
        let get = |known: &str| {
            let request = admin.request(None, "GET", target, &[("if-none-match", known)]);
            client::send(
                admin.address,
                Http::One,
                request.body(client::full("")).unwrap(),
            )
        };
        let answer = get("\"x\"").await.unwrap();
        assert_eq!(answer.status, StatusCode::OK, "{target}");
        assert_eq!(answer.header("content-type"), kind);
        let policy = answer.header("content-security-policy");
        assert!(
            policy.starts_with("default-src 'none'; script-src 'self'; style-src 'self'"),
            "{policy}"
        );
        assert!(
            !policy.contains("unsafe") && !policy.contains('*'),
            "{policy}"
        );
        let known = get(&tag(&answer.headers)).await.unwrap();
        assert_eq!(known.status, StatusCode::NOT_MODIFIED, "{target}");
    }
}
