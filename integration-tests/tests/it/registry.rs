//! The registry file is edited by commands, by programs and by hand.

use std::ffi::OsStr;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use cell_router::control::store::Store;
use cell_router::control::store::history::text_at;
use cell_router::registry::Version;
use http::StatusCode;
use integration_tests::{Binaries, Router, RouterOptions, client};
use rustix::process::Signal;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::scene::{at, registry, said};

const START: &str = "{\n  \"version\": 1,\n  \"domain\": \"example.com\",\n  \"cells\": {\n    \"first\": { \"address\": \"127.0.0.1:1\" }\n  }\n}\n";

/// A registry file in a folder of its own.
struct Place {
    _folder: TempDir,
    file: std::path::PathBuf,
}

impl Place {
    fn new(text: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("registry.json");
        std::fs::write(&file, text).unwrap();
        Self {
            _folder: folder,
            file,
        }
    }

    fn command(&self, args: &[&str]) -> Command {
        command(&self.file, args)
    }

    fn run(&self, args: &[&str]) -> Output {
        self.command(args).output().unwrap()
    }

    /// The exit code, and what was said to whom.
    fn said(&self, args: &[&str]) -> (i32, String, String) {
        let output = self.run(args);
        let text = |bytes| String::from_utf8(bytes).unwrap();
        let code = output.status.code().unwrap();
        (code, text(output.stdout), text(output.stderr))
    }

    fn done(&self, args: &[&str]) -> String {
        let (code, out, err) = self.said(args);
        assert_eq!(code, 0, "{args:?}: {out}{err}");
        out
    }

    fn json(&self, args: &[&str]) -> Value {
        serde_json::from_str(&self.done(args)).unwrap()
    }

    fn text(&self) -> String {
        std::fs::read_to_string(&self.file).unwrap()
    }

    fn version(&self) -> String {
        Version::of(self.text().as_bytes()).to_string()
    }

    fn options(&self) -> RouterOptions {
        let mut options = RouterOptions::new("").args(["--workers", "1"]);
        options.registry_file = Some(self.file.clone());
        options
    }

    /// Asserts that every step from the first text to this one is on record, and every text can be had; what the steps
    /// were.
    fn complete_history(&self) -> Vec<String> {
        let records = Store::new(&self.file).records().unwrap();
        for (number, record) in records.iter().enumerate() {
            let text = text_at(&records, number).expect("the text can be had");
            assert_eq!(Version::of(&text), record.version);
            let before = number.checked_sub(1).map(|before| records[before].version);
            assert_eq!(
                record.of, before,
                "record {number} follows the one before it"
            );
        }
        let last = records.last().unwrap();
        assert_eq!(last.version.to_string(), self.version());
        records.into_iter().map(|record| record.through).collect()
    }
}

fn command(file: &Path, args: &[impl AsRef<OsStr>]) -> Command {
    let mut command = Command::new(&Binaries::built().cell_router);
    command
        .args(args)
        .env_clear()
        .env("CELL_ROUTER_REGISTRY", file)
        .env("USER", "alice")
        .stdin(Stdio::null());
    command
}

#[test]
fn commands_edit_the_file_and_leave_the_rest_of_it_alone() {
    let place = Place::new(START);
    place.done(&[
        "cell",
        "add",
        "shop",
        "address=127.0.0.1:2",
        "hosts=shop.org,www.shop.org",
    ]);
    let added = START.replace(
        "127.0.0.1:1\" }\n",
        "127.0.0.1:1\" },\n    \"shop\": { \"address\": \"127.0.0.1:2\", \"hosts\": [\"shop.org\", \"www.shop.org\"] }\n",
    );
    assert_eq!(place.text(), added);
    place.done(&["cell", "pause", "shop", "first"]);
    place.done(&["cell", "resume", "shop", "first"]);
    assert_eq!(place.text(), added);
    place.done(&["cell", "set", "shop", "hosts-=shop.org", "max_in_flight=5"]);
    place.done(&["cell", "rename", "shop", "store"]);
    let shown = place.json(&["cell", "show", "store", "--json"]);
    assert_eq!(
        shown["entry"],
        json!({ "address": "127.0.0.1:2", "hosts": ["www.shop.org"], "max_in_flight": 5 })
    );
    assert_eq!(shown["version"], place.version());
    let listed = place.json(&["cell", "list", "--json", "shop.org"]);
    assert_eq!(listed["cells"].as_array().unwrap().len(), 1);
    let table = place.done(&["cell", "list"]);
    assert!(
        table.starts_with("CELL   STATE"),
        "no colours in a pipe: {table:?}"
    );
    place.done(&["cell", "remove", "store"]);
    assert_eq!(place.text(), START);
    let history = place.json(&["registry", "history", "--json"]);
    let through: Vec<_> = history
        .as_array()
        .unwrap()
        .iter()
        .map(|line| &line["through"])
        .collect();
    assert_eq!(
        through,
        [
            "by hand",
            "cell add",
            "cell pause",
            "cell resume",
            "cell set",
            "cell rename",
            "cell remove"
        ]
    );
    assert_eq!(history[1]["who"], "alice");
    assert_eq!(
        history[2]["what"],
        json!([
            "+ cells.first.state: \"paused\"",
            "+ cells.shop.state: \"paused\""
        ])
    );
    place.complete_history();
}

#[test]
fn exit_codes_tell_what_is_to_be_done() {
    let place = Place::new(START);
    let version = place.version();
    let many: Vec<String> = (0..12)
        .map(|n| format!("\"c{n}\": {{ \"address\": \"h:1\" }}"))
        .collect();
    let crowd = Place::new(&format!(
        "{{\"version\": 1, \"cells\": {{{}}}}}",
        many.join(", ")
    ));
    let all: Vec<String> = (0..12).map(|n| format!("c{n}")).collect();
    let mut remove = vec!["cell", "remove"];
    remove.extend(all.iter().map(String::as_str));
    for (place, args, code, word) in [
        (
            &place,
            &["cell", "set", "first", "port=1"][..],
            1,
            "$.cells.first.port",
        ),
        (
            &place,
            &["cell", "add", "first", "address=h:1"],
            1,
            "already",
        ),
        (&place, &["cell", "set", "first", "port"], 2, "KEY=VALUE"),
        (&place, &["cell", "pause", "First"], 2, "lower case"),
        (
            &place,
            &["cell", "pause", "first", "--if-version", "0123456789abcdef"],
            3,
            version.as_str(),
        ),
        (&crowd, &remove, 4, "--confirm-unplug"),
        (
            &place,
            &["cell", "pause", "nobody"],
            5,
            "no cell \"nobody\"",
        ),
        (&place, &["cell", "show", "nobody"], 5, "no cell"),
        (
            &place,
            &["registry", "undo", "0123456789abcdef"],
            5,
            "no version",
        ),
        (&place, &["registry", "format", "--check"], 0, ""),
        (
            &crowd,
            &["registry", "format", "--check"],
            1,
            "not formatted",
        ),
    ] {
        let before = place.text();
        let (found, out, err) = place.said(args);
        assert_eq!(found, code, "{args:?}: {out}{err}");
        assert!(err.contains(word), "{args:?}: {err}");
        assert_eq!(place.text(), before, "{args:?}");
    }
    let (_, _, err) = place.said(&["cell", "pause", "nobody", "--json"]);
    let told: Value = serde_json::from_str(&err).unwrap();
    assert_eq!(told["error"], "not_found");
    place.done(&["cell", "pause", "first", "--if-version", &version]);
    remove.push("--confirm-unplug");
    crowd.done(&remove);
}

#[test]
fn every_version_can_be_brought_back() {
    let place = Place::new(START);
    let mut texts = vec![place.text()];
    for number in 0..5 {
        place.done(&["cell", "add", &format!("c{number}"), "address=h:1"]);
        texts.push(place.text());
    }
    place.done(&["registry", "undo"]);
    assert_eq!(place.text(), texts[4]);
    for text in texts.iter().rev() {
        place.done(&[
            "registry",
            "undo",
            &Version::of(text.as_bytes()).to_string(),
        ]);
        assert_eq!(place.text(), *text);
    }
    let (code, out, _) = place.said(&[
        "registry",
        "diff",
        &Version::of(texts[1].as_bytes()).to_string(),
    ]);
    assert_eq!(
        (code, out.as_str()),
        (1, "- cells.c0: {\"address\":\"h:1\"}\n")
    );
    let (code, ..) = place.said(&["registry", "diff", &place.version()]);
    assert_eq!(code, 0);
    // An entry that was broken by hand is mended by going back.
    std::fs::write(&place.file, START.replace("\"127.0.0.1:1\"", "1")).unwrap();
    let (code, table, _) = place.said(&["cell", "list"]);
    assert!(code == 0 && table.contains("broken"), "{table}");
    place.done(&["registry", "undo"]);
    assert_eq!(place.text(), START);
    assert!(place.complete_history().contains(&"by hand".to_owned()));
}

#[test]
fn a_draft_is_tried_against_an_access_log() {
    let place = Place::new(&registry(json!({
        "a": { "address": "h:1", "hosts": ["x.org"], "paths": ["/p"] }, "b": { "address": "h:2" },
    })));
    let folder = place.file.parent().unwrap();
    let (draft, log) = (folder.join("draft.json"), folder.join("access.log"));
    let moved = json!({
        "a": { "address": "h:1", "paths": ["/p"] }, "b": { "address": "h:2", "hosts": ["x.org"] },
    });
    std::fs::write(&draft, registry(moved)).unwrap();
    let line = |host: &str, path: &str| json!({ "method": "GET", "host": host, "path": path, "bytes_in": 0 });
    let lines = [
        line("x.org", "/1"),
        line("x.org", "/2"),
        line("example.com", "/p/1"),
        line("b.example.com", "/"),
        json!("no line of the log"),
    ];
    let lines: Vec<String> = lines.iter().map(Value::to_string).collect();
    std::fs::write(&log, lines.join("\n")).unwrap();
    let [draft, log] = [draft, log].map(|path| path.to_str().unwrap().to_owned());
    let (code, out, err) = place.said(&["simulate", &draft, &log, "--json"]);
    assert_eq!(code, 1, "{err}");
    let outcome: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(
        (
            &outcome["requests"],
            &outcome["elsewhere"],
            &outcome["skipped"]
        ),
        (&json!(4), &json!(2), &json!(1))
    );
    assert_eq!(
        outcome["moved"],
        json!([{ "requests": 2, "from": "a, stream to h:1", "to": "b, stream to h:2", "example": "GET http://x.org/1" }])
    );
    let own = place.file.to_str().unwrap();
    assert_eq!(place.said(&["simulate", own, &log]).0, 0);
}

#[test]
fn shells_get_their_completions() {
    let place = Place::new(START);
    for shell in ["bash", "zsh", "fish"] {
        assert!(
            place.done(&["completions", shell]).contains("maintenance"),
            "{shell}"
        );
    }
}

#[test]
fn an_editor_is_held_to_the_same_rules() {
    let place = Place::new(START);
    let edit = |script: &str| {
        let mut command = place.command(&["registry", "edit"]);
        command.env("EDITOR", script).env("PATH", "/usr/bin:/bin");
        command
            .env("TMPDIR", place.file.parent().unwrap())
            .output()
            .unwrap()
    };
    let output = edit("sed -i s/127.0.0.1:1/127.0.0.1:2/");
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert_eq!(place.text(), START.replace(":1\"", ":2\""));
    let output = edit("sed -i s/address/adress/");
    let told = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{told}");
    assert!(
        told.contains("$.cells.first.adress") && told.contains("what you wrote is in"),
        "{told}"
    );
    assert_eq!(place.text(), START.replace(":1\"", ":2\""));
    // Somebody else is faster.
    let other = format!(
        "{} cell add other address=h:1 --registry {} >/dev/null; sed -i s/:2/:3/",
        Binaries::built().cell_router.display(),
        place.file.display()
    );
    assert_eq!(edit(&other).status.code(), Some(3));
    assert!(place.text().contains("\"other\"") && place.text().contains(":2\""));
    place.complete_history();
}

#[test]
fn an_edit_that_was_cut_off_is_on_record_as_such() {
    let place = Place::new(START);
    place.done(&["cell", "pause", "first"]);
    // As a kill between record and rename leaves it.
    std::fs::write(&place.file, START).unwrap();
    place.done(&["cell", "disable", "first"]);
    let through = place.complete_history();
    let cut_off = "cut off, and not made";
    assert_eq!(through, ["by hand", "cell pause", cut_off, "cell disable"]);
}

#[tokio::test]
async fn a_running_router_puts_on_record_what_comes_by_hand() {
    let place = Place::new(START);
    let router = Router::start(place.options()).await;
    router.save(&START.replace(":1\"", ":2\""));
    said(&router, "registry loaded").await;
    router.save("{");
    said(&router, "registry refused: the last good one serves on").await;
    assert_eq!(place.complete_history(), ["by hand"; 3]);
    let history = place.json(&["registry", "history", "--json"]);
    assert_eq!(
        history[1]["what"],
        json!(["~ cells.first.address: \"127.0.0.1:1\" -> \"127.0.0.1:2\""])
    );
    let (code, _, err) = place.said(&["cell", "pause", "first"]);
    assert!(code == 1 && err.contains("mend it, or undo"), "{err}");
    place.done(&["registry", "undo"]);
    assert_eq!(place.text(), START.replace(":1\"", ":2\""));
    said(&router, "registry loaded").await;
}

#[tokio::test]
async fn a_confirmed_command_is_confirmed_for_the_router() {
    let many: serde_json::Map<_, _> = (0..20)
        .map(|number| (format!("c{number}"), at(([127, 0, 0, 1], 1).into())))
        .collect();
    let place = Place::new(&registry(many.into()));
    let router = Router::start(place.options()).await;
    let names: Vec<String> = (1..20).map(|number| format!("c{number}")).collect();
    let mut args = vec!["cell", "remove", "--confirm-unplug"];
    args.extend(names.iter().map(String::as_str));
    place.done(&args);
    // Whichever of the two steps the router sees, the word is there.
    place.done(&["cell", "pause", "c0"]);
    let last = Version::of(place.text().as_bytes()).to_string();
    let loaded = router
        .next_event(|event| event["message"] == "registry loaded" && event["version"] == *last);
    assert_eq!(loaded.await["cells"], 1);
}

#[tokio::test]
async fn small_edits_by_programs_are_agreed_to_also_where_they_are_seen_as_one() {
    let many: serde_json::Map<_, _> = (0..20)
        .map(|number| (format!("c{number}"), at(([127, 0, 0, 1], 1).into())))
        .collect();
    let place = Place::new(&registry(many.into()));
    let router = Router::start(place.options()).await;
    // While it stands still, all that is edited becomes one step to it.
    router.process().signal(Signal::STOP);
    for number in 0..11 {
        place.done(&["cell", "disable", &format!("c{number}")]);
    }
    let last = Version::of(place.text().as_bytes()).to_string();
    router.process().signal(Signal::CONT);
    let loaded = router
        .next_event(|event| event["message"] == "registry loaded" && event["version"] == *last);
    assert_eq!(loaded.await["cells"], 20);
    let answer = client::get(router.addr(), "c10.example.com", "/").await;
    assert_eq!(answer.unwrap().status, StatusCode::FORBIDDEN);

    router.process().signal(Signal::STOP);
    for number in 0..11 {
        place.done(&["cell", "enable", &format!("c{number}")]);
    }
    router.process().signal(Signal::CONT);
    let last = Version::of(place.text().as_bytes()).to_string();
    router
        .next_event(|event| event["message"] == "registry loaded" && event["version"] == *last)
        .await;
    // What comes by hand was judged by nobody.
    router.process().signal(Signal::STOP);
    for number in 0..10 {
        place.done(&["cell", "disable", &format!("c{number}")]);
    }
    router.save(&place.text().replace("127.0.0.1:1", "127.0.0.1:2"));
    router.process().signal(Signal::CONT);
    said(&router, "registry refused: the last good one serves on").await;
    let answer = client::get(router.addr(), "c0.example.com", "/").await;
    assert_eq!(answer.unwrap().status, StatusCode::BAD_GATEWAY);
}

#[tokio::test]
async fn a_router_starts_with_the_last_good_version_of_a_broken_file() {
    let place = Place::new(START);
    drop(Router::start(place.options()).await);
    for (broken, message) in [
        (
            START.replace("\"127.0.0.1:1\"", "1"),
            "$.cells.first.address",
        ),
        (START.replace("\"domain\"", "\"domian\""), "$.domian"),
    ] {
        std::fs::write(&place.file, broken).unwrap();
        let router = Router::start(place.options()).await;
        let told = router.next_event(|event| {
            event["message"]
                .as_str()
                .unwrap_or_default()
                .contains(message)
        });
        told.await;
        let answer = client::get(router.addr(), "first.example.com", "/")
            .await
            .unwrap();
        assert_eq!(answer.status, StatusCode::BAD_GATEWAY);
        drop(router);
    }
    // Without a history there is no last good version.
    std::fs::remove_file(place.file.with_extension("history.jsonl")).unwrap();
    let (status, _) = Router::refused(place.options()).await;
    assert!(!status.success());
}
