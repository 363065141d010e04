//! Files that the router serves for a cell, which may sleep.

use std::path::Path;

use http::{Request, StatusCode};
use integration_tests::client::{self, Answer, Http, Raw};
use integration_tests::fly::{Action, State};
use integration_tests::{Router, RouterOptions};
use serde_json::{Value, json};

use crate::echo::Echo;
use crate::scene::{HOST, at, options, registry};
use crate::wake::sleeping;

/// A folder `site` with some files, and one beside it that is nobody's business.
fn site() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (file, text) in [
        ("site/index.html", "<h1>home"),
        ("site/a.txt", "hello, world"),
        ("site/app.js", "plain"),
        ("site/app.js.br", "as brotli"),
        ("site/app.js.gz", "as gzip"),
        ("site/app.js.zst", "as zstd"),
        ("site/docs/index.html", "<h1>docs"),
        ("site/empty/.keep", ""),
        ("site/nothing.bin", ""),
        ("site/a b.txt", "blank"),
        ("site/.env", "SECRET"),
        ("site/.git/config", "SECRET"),
        ("outside.txt", "SECRET"),
    ] {
        let file = folder.path().join(file);
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(file, text).unwrap();
    }
    let link = |to: &str, name: &str| {
        std::os::unix::fs::symlink(to, folder.path().join("site").join(name)).unwrap();
    };
    link("a.txt", "inside.txt");
    link("../outside.txt", "out.txt");
    link("/etc", "etc");
    link(".env", "env.txt");
    std::fs::write(folder.path().join("site/b.js"), "plain").unwrap();
    link("../outside.txt", "b.js.gz");
    folder
}

/// A router before a cell whose files are those of [`site`].
async fn serving(folder: &Path, more: Value) -> (Router, Echo) {
    let cell = Echo::start("alice").await;
    let mut entry = at(cell.address());
    entry["static"] = json!({ "folder": "site" });
    for (name, value) in more.as_object().unwrap() {
        entry["static"][name] = value.clone();
    }
    let options = RouterOptions {
        registry_file: Some(folder.join("registry.json")),
        ..options(json!({ "alice": entry }))
    };
    (Router::start(options).await, cell)
}

async fn ask(
    router: &Router,
    version: Http,
    method: &str,
    target: &str,
    headers: &[(&'static str, &str)],
) -> Answer {
    let mut request = Request::builder()
        .method(method)
        .uri(target)
        .header("host", HOST);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let request = request.body(client::full("")).unwrap();
    client::send(router.addr(), version, request).await.unwrap()
}

async fn get(router: &Router, target: &str, headers: &[(&'static str, &str)]) -> Answer {
    ask(router, Http::One, "GET", target, headers).await
}

#[tokio::test]
async fn a_file_is_served_whole_in_part_and_not_again() {
    let folder = site();
    let (router, cell) = serving(folder.path(), json!({})).await;
    for version in [Http::One, Http::Two] {
        let whole = ask(&router, version, "GET", "/a.txt", &[]).await;
        assert_eq!(
            (whole.status.as_u16(), &*whole.text()),
            (200, "hello, world")
        );
        assert_eq!(whole.header("content-type"), "text/plain; charset=utf-8");
        assert_eq!(whole.header("content-length"), "12");
        assert_eq!(whole.header("cache-control"), "no-cache");
        assert_eq!(whole.header("accept-ranges"), "bytes");
        assert_eq!(whole.header("x-content-type-options"), "nosniff");
        let spoken = if version == Http::Two { "2" } else { "1.1" };
        let record = router
            .next_record(|record| record["version"] == spoken && record["status"] == 200)
            .await;
        assert_eq!(
            (
                &record["lane"],
                &record["reason"],
                &record["bytes_out"],
                &record["response_body"]
            ),
            (
                &json!("static"),
                &json!("static_file"),
                &json!(12),
                &json!("complete")
            )
        );
        let (tag, date) = (whole.header("etag"), whole.header("last-modified"));
        let head = ask(&router, version, "HEAD", "/a.txt", &[]).await;
        assert_eq!(
            (
                head.header("content-length"),
                head.header("etag"),
                head.body.len()
            ),
            ("12", tag, 0)
        );
        for condition in [("if-none-match", tag), ("if-modified-since", date)] {
            let same = ask(&router, version, "GET", "/a.txt", &[condition]).await;
            assert_eq!((same.status.as_u16(), same.body.len()), (304, 0));
            assert_eq!(same.header("etag"), tag);
        }
        let part = [("range", "bytes=7-"), ("if-range", tag)];
        let part = ask(&router, version, "GET", "/a.txt", &part).await;
        assert_eq!((part.status.as_u16(), &*part.text()), (206, "world"));
        assert_eq!(part.header("content-range"), "bytes 7-11/12");
        let other = [("range", "bytes=7-"), ("if-range", "\"other\"")];
        let other = ask(&router, version, "GET", "/a.txt", &other).await;
        assert_eq!((other.status.as_u16(), other.body.len()), (200, 12));
        let beyond = ask(&router, version, "GET", "/a.txt", &[("range", "bytes=50-")]).await;
        assert_eq!(beyond.status, StatusCode::RANGE_NOT_SATISFIABLE);
        let changed = [("if-match", "\"other\"")];
        let changed = ask(&router, version, "GET", "/a.txt", &changed).await;
        assert_eq!(changed.status, StatusCode::PRECONDITION_FAILED);
        let nothing = ask(&router, version, "GET", "/nothing.bin", &[]).await;
        assert_eq!(
            (nothing.status.as_u16(), nothing.header("content-length")),
            (200, "0")
        );
    }
    assert_eq!(cell.seen(), 0);
}

#[tokio::test]
async fn a_connection_goes_on_after_each_kind_of_answer() {
    let folder = site();
    let (router, _cell) = serving(folder.path(), json!({})).await;
    let mut client = Raw::connect(router.addr()).await.unwrap();
    for (line, status) in [
        ("if-none-match: *", 304),
        ("x: y", 200),
        ("range: bytes=0-3", 206),
        ("range: bytes=99-", 416),
        ("if-match: \"x\"", 412),
        ("x: y", 200),
    ] {
        let request = format!("GET /a.txt HTTP/1.1\r\nhost: {HOST}\r\n{line}\r\n\r\n");
        client.write(request).await.unwrap();
        let answer = client.answer().await.unwrap();
        assert_eq!(answer.status.as_u16(), status, "{line}");
    }
}

#[tokio::test]
async fn a_file_comes_in_the_coding_that_the_client_likes_and_each_has_its_tag() {
    let folder = site();
    let (router, _cell) = serving(folder.path(), json!({ "max_age_s": 60 })).await;
    let mut tags = Vec::new();
    for (accept, coding, text) in [
        ("br, gzip", "br", "as brotli"),
        ("gzip", "gzip", "as gzip"),
        ("zstd", "zstd", "as zstd"),
        ("identity", "", "plain"),
    ] {
        let file = get(&router, "/app.js", &[("accept-encoding", accept)]).await;
        assert_eq!(
            (file.header("content-encoding"), &*file.text()),
            (coding, text)
        );
        assert_eq!(file.header("vary"), "accept-encoding");
        assert_eq!(file.header("cache-control"), "max-age=60");
        assert!(file.header("content-type").contains("javascript"));
        tags.push(file.header("etag").to_owned());
    }
    tags.sort();
    tags.dedup();
    assert_eq!(tags.len(), 4, "{tags:?}");
}

#[tokio::test]
async fn nothing_outside_the_folder_and_nothing_hidden_is_served() {
    let folder = site();
    let (router, cell) = serving(folder.path(), json!({})).await;
    for target in [
        "/.env",
        "/%2eenv",
        "/.git/config",
        "/out.txt",
        "/etc/hostname",
        "/env.txt",
        "/../outside.txt",
        "/docs/../../outside.txt",
        "/%2e%2e/outside.txt",
        "/..%2foutside.txt",
        "//outside.txt",
        "/docs//index.html",
        "/docs\\..\\..\\outside.txt",
        "/a.txt/",
        "/a.txt%00.png",
        "/empty/",
        "/empty",
        "/site/a.txt",
        "/A.TXT",
    ] {
        let mut client = Raw::connect(router.addr()).await.unwrap();
        let request = format!("GET {target} HTTP/1.1\r\nhost: {HOST}\r\n\r\n");
        client.write(request).await.unwrap();
        let answer = client.answer().await.unwrap();
        assert!(
            [StatusCode::NOT_FOUND, StatusCode::BAD_REQUEST].contains(&answer.status),
            "{target}: {}",
            answer.status
        );
        assert!(!answer.text().contains("SECRET"), "{target}");
    }
    let coded = get(&router, "/b.js", &[("accept-encoding", "gzip")]).await;
    assert_eq!(
        (coded.header("content-encoding"), &*coded.text()),
        ("", "plain")
    );
    for (target, text) in [
        ("/", "<h1>home"),
        ("/docs/", "<h1>docs"),
        ("/inside.txt", "hello, world"),
        ("/a%20b.txt?v=1", "blank"),
    ] {
        assert_eq!(get(&router, target, &[]).await.text(), text, "{target}");
    }
    let folder = get(&router, "/docs?x=y", &[]).await;
    assert_eq!(folder.status, StatusCode::PERMANENT_REDIRECT);
    assert_eq!(folder.header("location"), "/docs/?x=y");
    let written = ask(&router, Http::One, "PUT", "/a.txt", &[]).await;
    assert_eq!(written.status, StatusCode::METHOD_NOT_ALLOWED);
    assert_eq!(written.header("allow"), "GET, HEAD");
    assert_eq!(cell.seen(), 0);
}

#[tokio::test]
async fn what_is_no_file_is_the_cells_where_its_entry_says_so() {
    let folder = site();
    let more = json!({ "missing": "cell", "path": "/assets" });
    let (router, cell) = serving(folder.path(), more).await;
    assert_eq!(
        get(&router, "/assets/a.txt", &[]).await.text(),
        "hello, world"
    );
    let root = get(&router, "/assets?x", &[]).await;
    assert_eq!(root.status, StatusCode::PERMANENT_REDIRECT);
    assert_eq!(root.header("location"), "/assets/?x");
    assert_eq!(get(&router, "/assets/", &[]).await.text(), "<h1>home");
    assert_eq!(cell.seen(), 0);
    for (method, target) in [
        ("GET", "/a.txt"),
        ("GET", "/assets/none"),
        ("GET", "/assets/../a.txt"),
        ("POST", "/assets/a.txt"),
    ] {
        let told = ask(&router, Http::One, method, target, &[]).await.json();
        assert_eq!(told["target"], target);
        assert_eq!(told["method"], method);
    }
}

#[tokio::test]
async fn what_was_no_file_before_a_wait_may_be_one_after_it() {
    let folder = site();
    let cell = Echo::start("alice").await;
    let entry = |state: &str, files: &str| {
        let mut entry = at(cell.address());
        entry["state"] = json!(state);
        entry["static"] = json!({ "folder": files, "missing": "cell" });
        json!({ "alice": entry })
    };
    let paused = RouterOptions {
        registry_file: Some(folder.path().join("registry.json")),
        ..options(entry("paused", "site/empty"))
    };
    // With room for one, the refusal of either proves that the other waits.
    let router = Router::start(paused.args(["--max-held", "1"])).await;
    let asking = || Box::pin(get(&router, "/a.txt", &[]));
    let (refused, held) = futures_util::future::select(asking(), asking())
        .await
        .factor_first();
    assert_eq!(refused.status, StatusCode::SERVICE_UNAVAILABLE);
    router.save(&registry(entry("active", "site")));
    assert_eq!(held.await.text(), "hello, world");
    assert_eq!(cell.seen(), 0);
}

#[tokio::test]
async fn files_of_a_sleeping_cell_leave_it_asleep() {
    let folder = site();
    let files = folder.path().join("site");
    let (fly, machine, router) = sleeping(json!({
        "replay": "strict", "static": { "folder": files.to_str().unwrap(), "path": "/assets" },
    }))
    .await;
    for target in ["/assets/a.txt", "/assets/", "/assets/none", "/assets/.env"] {
        let answer = get(&router, target, &[]).await;
        assert!(answer.header("fly-replay").is_empty(), "{target}");
    }
    assert_eq!(
        get(&router, "/assets/a.txt", &[]).await.text(),
        "hello, world"
    );
    assert_eq!(machine.state(), State::Stopped);
    assert_eq!(fly.calls(Action::Start, &machine.id), 0);
}

#[tokio::test]
async fn files_are_for_those_who_sign_in() {
    let folder = site();
    let hash = "$2b$04$abcdefghijklmnopqrstuu2r9OfJnfCsdneAXAGHnS4UpFFP8WIrW";
    std::fs::write(folder.path().join("people"), format!("alice:{hash}")).unwrap();
    let cell = Echo::start("alice").await;
    let mut entry = at(cell.address());
    entry["static"] = json!({ "folder": "site", "max_age_s": 60 });
    entry["sign_in"] = json!({ "basic": "people", "public": ["/docs"] });
    let options = RouterOptions {
        registry_file: Some(folder.path().join("registry.json")),
        ..options(json!({ "alice": entry }))
    };
    let router = Router::start(options).await;
    for target in ["/a.txt", "/docs/../a.txt", "/none"] {
        assert_eq!(
            get(&router, target, &[]).await.status,
            StatusCode::UNAUTHORIZED
        );
    }
    assert_eq!(get(&router, "/docs/", &[]).await.text(), "<h1>docs");
    let right = [("authorization", "Basic YWxpY2U6c2VjcmV0")];
    let file = get(&router, "/a.txt", &right).await;
    assert_eq!(file.text(), "hello, world");
    assert_eq!(file.header("cache-control"), "private, max-age=60");
}

#[tokio::test]
async fn a_large_file_is_sent_in_constant_memory() {
    const BYTES: usize = 128 * 1024 * 1024;
    let folder = site();
    let file = std::fs::File::create(folder.path().join("site/large.bin")).unwrap();
    file.set_len(BYTES as u64).unwrap();
    let (router, _cell) = serving(folder.path(), json!({})).await;
    let answer = get(&router, "/large.bin", &[]).await;
    assert_eq!(answer.body.len(), BYTES);
    assert!(router.peak_memory_bytes() < 48 * 1024 * 1024);
}
