//! The admin listener: what it tells, and to whom.

use std::net::SocketAddr;

use http::{Request, StatusCode};
use integration_tests::client::{self, Answer, Http, Raw};
use integration_tests::{Binaries, Router, RouterOptions, ScriptedCell};
use serde_json::{Value, json};

use crate::scene::{HOST, at, options};

const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok";

/// A router with an admin listener, and where that is.
async fn started(options: RouterOptions) -> (Router, SocketAddr) {
    let router = Router::start(options.args(["--admin-listen", "127.0.0.1:0"])).await;
    let open = router
        .next_event(|event| event["message"] == "admin listener open")
        .await;
    let address = open["address"].as_str().unwrap().parse().unwrap();
    (router, address)
}

async fn ask(admin: SocketAddr, target: &str, token: Option<&str>) -> Answer {
    let mut request = Request::get(target).header("host", admin.to_string());
    if let Some(token) = token {
        request = request.header("authorization", format!("Bearer {token}"));
    }
    let request = request.body(client::full("")).unwrap();
    client::send(admin, Http::One, request).await.unwrap()
}

async fn json_of(admin: SocketAddr, target: &str) -> Value {
    let answer = ask(admin, target, None).await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.text());
    serde_json::from_slice(&answer.body).unwrap()
}

#[tokio::test]
async fn what_requests_came_to_is_counted() {
    let cell = ScriptedCell::listen().await;
    let (router, admin) = started(options(json!({ "alice": at(cell.addr()) }))).await;
    for _ in 0..2 {
        let answered = tokio::spawn(client::post(router.addr(), HOST, "/", "tenant"));
        let (mut upstream, _) = cell.request().await;
        upstream.write(OK).await.unwrap();
        assert_eq!(answered.await.unwrap().unwrap().text(), "ok");
        router.next_record(|line| line["status"] == 200).await;
    }
    client::get(router.addr(), "nobody.example.org", "/")
        .await
        .unwrap();
    router.next_record(|line| line["status"] == 404).await;

    let answer = ask(admin, "/metrics", None).await;
    assert_eq!(
        answer.headers["content-type"],
        "application/openmetrics-text; version=1.0.0; charset=utf-8"
    );
    let text = answer.text();
    for line in [
        r#"cell_router_requests_total{lane="stream",reason="not_on_fly",code="2xx",error_by=""} 2"#,
        r#"cell_router_requests_total{lane="answer",reason="no_such_cell",code="4xx",error_by=""} 1"#,
        r#"cell_router_request_duration_seconds_count{lane="stream"} 2"#,
        r#"cell_router_request_duration_seconds_bucket{le="+Inf",lane="stream"} 2"#,
        r#"cell_router_body_bytes_total{lane="stream",direction="in"} 12"#,
        r#"cell_router_body_bytes_total{lane="stream",direction="out"} 4"#,
        r#"cell_router_requests_in_flight 0.0"#,
        r#"cell_router_registry_cells 1.0"#,
        r#"cell_router_cell_connections_total{outcome="opened"} 2"#,
        "# EOF",
    ] {
        assert!(text.lines().any(|one| one == line), "{line}\n{text}");
    }

    let alice = json_of(admin, "/v1/cells/alice").await;
    assert_eq!(alice["requests"], json!({ "stream": 2 }));
    assert_eq!(alice["errors"], json!({}));
    assert_eq!(
        (&alice["bytes_in"], &alice["bytes_out"]),
        (&json!(12), &json!(4))
    );
    assert_eq!(alice["placement"], cell.addr().to_string());
    assert!(alice["last_request"].is_u64(), "{alice}");
}

#[tokio::test]
async fn a_request_under_way_is_seen() {
    let cell = ScriptedCell::listen().await;
    let (router, admin) = started(options(json!({ "alice": at(cell.addr()) }))).await;
    let answered = tokio::spawn(client::get(router.addr(), HOST, "/"));
    let (mut upstream, _) = cell.request().await;
    assert_eq!(json_of(admin, "/v1/cells/alice").await["in_flight"], 1);
    let text = ask(admin, "/metrics", None).await.text();
    assert!(
        text.contains("cell_router_requests_in_flight 1.0\n"),
        "{text}"
    );
    upstream.write(OK).await.unwrap();
    answered.await.unwrap().unwrap();
}

#[tokio::test]
async fn cells_are_found_and_paged() {
    let cells: serde_json::Map<_, _> = (0..25)
        .map(|number| {
            (
                format!("cell-{number:02}"),
                json!({ "address": "127.0.0.1:9" }),
            )
        })
        .chain([(
            "other".to_owned(),
            json!({ "address": "127.0.0.1:9", "state": "paused" }),
        )])
        .collect();
    let (_router, admin) = started(options(Value::Object(cells))).await;
    let (mut names, mut target) = (Vec::new(), "/v1/cells?search=cell-&limit=10".to_owned());
    loop {
        let page = json_of(admin, &target).await;
        assert_eq!(page["total"], 25);
        let cells = page["cells"].as_array().unwrap();
        names.extend(
            cells
                .iter()
                .map(|cell| cell["name"].as_str().unwrap().to_owned()),
        );
        let Some(next) = page["next"].as_str() else {
            break;
        };
        target = format!("/v1/cells?search=cell-&limit=10&after={next}");
    }
    let expected: Vec<_> = (0..25).map(|number| format!("cell-{number:02}")).collect();
    assert_eq!(names, expected);
    for (search, total) in [
        ("cell-07.example.com", 1),
        ("07.exam", 1),
        ("cell-07.example.com.", 0),
        ("7.example.org", 0),
        (".example.com", 26),
    ] {
        let found = json_of(admin, &format!("/v1/cells?search={search}")).await;
        assert_eq!(found["total"], total, "{search}");
    }
    let other = json_of(admin, "/v1/cells?search=oth").await;
    assert_eq!(other["cells"][0]["state"], "paused");
    for (target, status) in [
        ("/v1/cells?limit=0", 400),
        ("/v1/cells?limit=x", 400),
        ("/v1/cells?colour=red", 400),
        ("/v1/cells/nobody", 404),
        ("/v1/nothing", 404),
    ] {
        let answer = ask(admin, target, None).await;
        assert_eq!(answer.status.as_u16(), status, "{target}");
        assert_eq!(answer.headers["content-type"], "application/problem+json");
        let problem: Value = serde_json::from_slice(&answer.body).unwrap();
        assert_eq!(problem["status"], status, "{target}");
    }
}

#[tokio::test]
async fn only_those_with_a_token_are_told() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("tokens");
    let made = std::process::Command::new(&Binaries::built().cell_router)
        .args(["token", "ops", "--role", "read"])
        .output()
        .unwrap();
    std::fs::write(&file, made.stdout).unwrap();
    let token = String::from_utf8(made.stderr).unwrap();
    let options = options(json!({ "alice": { "address": "127.0.0.1:9" } }));
    let options = options.args(["--admin-tokens", file.to_str().unwrap()]);
    let (_router, admin) = started(options).await;
    for target in [
        "/metrics",
        "/v1/cells",
        "/v1/cells/alice",
        "/v1/openapi.json",
    ] {
        for (token, status) in [(None, 401), (Some("guess"), 401), (Some(token.trim()), 200)] {
            let answer = ask(admin, target, token).await;
            assert_eq!(answer.status.as_u16(), status, "{target} {token:?}");
        }
    }
    assert_eq!(ask(admin, "/up", None).await.status, StatusCode::OK);
}

#[tokio::test]
async fn a_website_reads_nothing_where_nobody_needs_a_token() {
    let (_router, admin) = started(options(json!({ "alice": { "address": "127.0.0.1:9" } }))).await;
    let port = admin.port();
    let own = admin.to_string();
    for (host, origin, status) in [
        (&*own, None, 200),
        ("127.0.0.1", None, 200),
        ("[::1]:9090", None, 200),
        ("localhost", None, 200),
        (&format!("LOCALHOST:{port}"), None, 200),
        (&own, Some(format!("http://{own}")), 200),
        (&own, Some("http://evil.example".to_owned()), 403),
        (&own, Some("null".to_owned()), 403),
        (&own, Some(format!("http://127.0.0.1:{}", port ^ 1)), 403),
        // A name of somebody else's that leads here (DNS rebinding).
        ("evil.example", None, 403),
        (&format!("evil.example:{port}"), None, 403),
        ("127.0.0.1.evil.example", None, 403),
        ("localhost.evil.example", None, 403),
        ("user@127.0.0.1", None, 403),
        ("", None, 403),
    ] {
        let request = Request::get("/v1/registry").header("host", host);
        let request = match &origin {
            Some(origin) => request.header("origin", origin),
            None => request,
        };
        let request = request.body(client::full("")).unwrap();
        let answer = client::send(admin, Http::One, request).await.unwrap();
        assert_eq!(answer.status.as_u16(), status, "{host:?} {origin:?}");
    }
    // What a page loads without reading it has no origin.
    for (site, status) in [
        ("none", 200),
        ("same-origin", 200),
        ("same-site", 403),
        ("cross-site", 403),
    ] {
        let request = Request::get("/v1/registry").header("host", &own);
        let request = request.header("sec-fetch-site", site);
        let request = request.body(client::full("")).unwrap();
        let answer = client::send(admin, Http::One, request).await.unwrap();
        assert_eq!(answer.status.as_u16(), status, "{site}");
    }
    // Who follows a link to it sees it.
    let follows = Request::get("/").header("host", &own);
    let follows = follows
        .header("sec-fetch-site", "cross-site")
        .header("sec-fetch-mode", "navigate")
        .header("sec-fetch-dest", "document")
        .body(client::full(""));
    let page = client::send(admin, Http::One, follows.unwrap()).await;
    assert_eq!(page.unwrap().status, StatusCode::OK);
}

#[tokio::test]
async fn an_address_that_others_reach_needs_tokens() {
    let options = options(json!({})).args(["--admin-listen", "0.0.0.0:0"]);
    let (status, text) = Router::refused(options).await;
    assert!(!status.success());
    assert!(
        text.contains("give --admin-tokens, or listen on loopback"),
        "{text}"
    );
}

/// The rules and the dashboard that come with the router ask for what there is.
#[tokio::test]
async fn the_monitoring_asks_for_metrics_that_exist() {
    let (_router, admin) = started(options(json!({}))).await;
    let text = ask(admin, "/metrics", None).await.text();
    let families: Vec<_> = text
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '))
        .collect();
    let there = |name: &str| {
        families.iter().any(|(family, kind)| {
            let suffixes: &[&str] = match *kind {
                "counter" => &["_total"],
                "histogram" => &["_bucket", "_count", "_sum"],
                "info" => &["_info"],
                _ => &[""],
            };
            name.strip_prefix(family)
                .is_some_and(|rest| suffixes.contains(&rest))
        })
    };
    let mut asked = 0;
    for file in ["alerts.yml", "dashboard.json"] {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/monitoring");
        let text = std::fs::read_to_string(path.join(file)).unwrap();
        let words = text.split(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_');
        for name in words.filter(|word| word.starts_with("cell_router_")) {
            assert!(there(name), "{file} asks for {name}");
            asked += 1;
        }
    }
    assert!(asked > 20, "{asked}");
}

#[tokio::test]
async fn a_scrape_stays_small_however_many_cells_are_asked() {
    let cells: serde_json::Map<_, _> = (0..10_000)
        .map(|number| {
            (
                format!("c{number}"),
                json!({ "address": "h:1", "state": "maintenance" }),
            )
        })
        .collect();
    let (router, admin) = started(options(cells.into())).await;
    let mut client = Raw::connect(router.addr()).await.unwrap();
    for number in 0..10_000 {
        let head = format!("GET / HTTP/1.1\r\nhost: c{number}.example.com\r\n\r\n");
        client.write(head).await.unwrap();
        let answer = client.answer().await.unwrap();
        assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
    }
    router.next_record(|line| line["cell"] == "c9999").await;
    let last = json_of(admin, "/v1/cells/c9999").await;
    assert_eq!(last["requests"], json!({ "answer": 1 }));
    let scrape = ask(admin, "/metrics", None).await.text();
    assert!(scrape.contains(r#"reason="maintenance",code="5xx",error_by=""#));
    assert!(scrape.len() < 1_000_000, "{} bytes", scrape.len());
}
