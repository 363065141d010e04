//! What the router says itself, as clients of each kind get it: its own pages, and the operator's.

use std::path::Path;

use http::{Request, StatusCode};
use integration_tests::client::{self, Answer, Http, Raw};
use integration_tests::{Router, RouterOptions, ScriptedCell};
use serde_json::{Value, json};

use crate::scene::{at, registry, router, said};

const BROWSER: &str = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8";

async fn ask(router: &Router, version: Http, method: &str, host: &str, accept: &str) -> Answer {
    let request = Request::builder()
        .method(method)
        .uri("/x")
        .header("host", host)
        .header("accept", accept);
    let request = request.body(client::full("")).unwrap();
    client::send(router.addr(), version, request).await.unwrap()
}

async fn browse(router: &Router, host: &str) -> Answer {
    ask(router, Http::One, "GET", host, BROWSER).await
}

fn maintained() -> Value {
    json!({ "address": "127.0.0.1:1", "state": "maintenance" })
}

#[tokio::test]
async fn each_client_gets_the_form_it_asks_for_over_each_protocol() {
    let router = router(json!({ "alice": maintained() })).await;
    for version in [Http::One, Http::Two] {
        for (accept, kind, begins) in [
            (BROWSER, "text/html; charset=utf-8", "<!doctype html>"),
            (
                "text/html;q=0.1, application/json",
                "application/problem+json",
                "{",
            ),
            ("*/*", "text/plain; charset=utf-8", "Under maintenance."),
        ] {
            let page = ask(&router, version, "GET", "alice.example.com", accept).await;
            assert_eq!(page.status, StatusCode::SERVICE_UNAVAILABLE);
            assert_eq!(page.header("content-type"), kind);
            assert_eq!(page.header("cache-control"), "no-store");
            assert_eq!(page.header("retry-after"), "30");
            assert!(page.text().starts_with(begins), "{}", page.text());
            let record = router.next_record(|_| true).await;
            assert_eq!(page.header("x-request-id"), record["request_id"]);
            if accept != "*/*" {
                assert!(page.text().contains(record["request_id"].as_str().unwrap()));
            }
            let head = ask(&router, version, "HEAD", "alice.example.com", accept).await;
            assert_eq!(head.status, page.status);
            assert_eq!(head.header("content-length"), page.header("content-length"));
            assert!(head.body.is_empty());
            router.next_record(|_| true).await;
        }
    }
}

#[tokio::test]
async fn an_old_client_gets_a_page_with_a_length_and_an_end() {
    let router = router(json!({ "alice": maintained() })).await;
    let mut client = Raw::connect(router.addr()).await.unwrap();
    let request = format!("GET / HTTP/1.0\r\nhost: alice.example.com\r\naccept: {BROWSER}\r\n\r\n");
    client.write(request).await.unwrap();
    let page = client.answer().await.unwrap();
    assert_eq!(page.header("content-length"), page.body.len().to_string());
    assert!(page.text().ends_with("</html>\n"));
    assert_eq!(client.rest().await.unwrap(), b"");
}

/// A router with a folder of pages for all, and one for bob.
async fn with_pages(folder: &Path) -> Router {
    for (file, text) in [
        ("all/maintenance.html", "<p>All: {{message}} {{request_id}}"),
        ("all/not_found.html", "<p>Nothing at all"),
        (
            "bob/maintenance.html",
            "<p>Bob's: back in {{retry_after}} s",
        ),
    ] {
        let file = folder.join(file);
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(file, text).unwrap();
    }
    let mut bob = maintained();
    bob["pages"] = json!("{cell}");
    Router::start(RouterOptions {
        registry: json!({
            "version": 1, "domain": "example.com", "defaults": { "pages": "all" },
            "cells": { "alice": maintained(), "bob": bob },
        })
        .to_string(),
        registry_file: Some(folder.join("registry.json")),
        ..RouterOptions::default()
    })
    .await
}

#[tokio::test]
async fn an_operators_pages_are_for_all_or_for_one_cell() {
    let folder = tempfile::tempdir().unwrap();
    let router = with_pages(folder.path()).await;
    let alice = browse(&router, "alice.example.com").await;
    let id = alice.header("x-request-id");
    let text = format!("<p>All: Under maintenance. Please try again later. {id}");
    assert_eq!(alice.text(), text);
    let policy = alice.header("content-security-policy");
    assert!(policy.starts_with("default-src 'none'"), "{policy}");
    let bob = browse(&router, "bob.example.com").await;
    assert_eq!(bob.text(), "<p>Bob's: back in 30 s");
    let nobody = browse(&router, "nobody.example.com").await;
    assert_eq!(
        (nobody.status.as_u16(), &*nobody.text()),
        (404, "<p>Nothing at all")
    );
    // What a folder does not hold is said by the router itself.
    let error = ask(
        &router,
        Http::One,
        "GET",
        "alice.example.com:bad:host",
        BROWSER,
    )
    .await;
    assert!(error.text().contains("<h1>That cannot be read</h1>"));

    std::fs::write(folder.path().join("bob/maintenance.html"), "new").unwrap();
    router.hang_up();
    said(&router, "registry loaded").await;
    assert_eq!(browse(&router, "bob.example.com").await.text(), "new");
}

#[tokio::test]
async fn a_page_that_cannot_be_had_is_its_entrys_fault_and_the_old_one_stays() {
    let folder = tempfile::tempdir().unwrap();
    let router = with_pages(folder.path()).await;
    let page = folder.path().join("bob/maintenance.html");
    for (text, told) in [
        (
            Some("{{colour}}"),
            "maintenance.html: line 1: {{ begins no place",
        ),
        (None, "it holds none of maintenance.html"),
    ] {
        match text {
            Some(text) => std::fs::write(&page, text).unwrap(),
            None => std::fs::remove_file(&page).unwrap(),
        }
        router.hang_up();
        router
            .next_event(|event| event.to_string().contains(told))
            .await;
        let bob = browse(&router, "bob.example.com").await;
        assert_eq!(bob.text(), "<p>Bob's: back in 30 s");
    }
    let mut alone = maintained();
    alone["pages"] = json!("nowhere");
    let options = RouterOptions::new(registry(json!({ "alice": alone })));
    let (status, told) = Router::refused(options).await;
    assert_eq!(status.code(), Some(1));
    assert!(
        told.contains("$.cells.alice.pages: the folder nowhere"),
        "{told}"
    );
}

#[tokio::test]
async fn a_page_says_whose_problem_it_is() {
    let cell = ScriptedCell::listen().await;
    let router = router(json!({ "alice": at(cell.addr()) })).await;
    let page = tokio::spawn({
        let address = router.addr();
        async move {
            let request = Request::get("/")
                .header("host", "alice.example.com")
                .header("accept", BROWSER)
                .body(client::full(""))
                .unwrap();
            client::send(address, Http::One, request).await.unwrap()
        }
    });
    let (mut upstream, _) = cell.request().await;
    upstream
        .write("HTTP/1.1 200 OK\r\ncontent-length: x\r\n\r\n")
        .await
        .unwrap();
    let page = page.await.unwrap();
    assert_eq!(page.status, StatusCode::BAD_GATEWAY);
    assert!(
        page.text()
            .contains("The application at this address has a problem.")
    );
}
