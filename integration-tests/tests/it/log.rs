//! What the router writes of its work, to readers that are slow or gone.

use std::sync::{Condvar, Mutex, PoisonError};

use http::StatusCode;
use integration_tests::client::Raw;
use integration_tests::{Router, RouterOptions};
use serde_json::json;

/// Whether nobody reads what the router writes.
static STALLED: Mutex<bool> = Mutex::new(false);
static CHANGED: Condvar = Condvar::new();

fn stall(stalled: bool) {
    *STALLED.lock().unwrap_or_else(PoisonError::into_inner) = stalled;
    CHANGED.notify_all();
}

fn read_on() {
    let stalled = STALLED.lock().unwrap_or_else(PoisonError::into_inner);
    drop(CHANGED.wait_while(stalled, |stalled| *stalled));
}

async fn router() -> Router {
    let registry = json!({ "version": 1, "domain": "example.com", "cells": {} });
    let mut options = RouterOptions::new(registry.to_string());
    options.echo = Some(|_, _| read_on());
    Router::start(options).await
}

/// Asks for so much that its line takes a kilobyte.
async fn ask(client: &mut Raw, number: usize) {
    let path = format!("{number}-{}", "x".repeat(1024));
    let request = format!("GET /{path} HTTP/1.1\r\nhost: nowhere.example.com\r\n\r\n");
    client.write(request).await.unwrap();
    let answer = client.answer().await.unwrap();
    assert_eq!(answer.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn who_reads_the_log_too_slowly_stops_no_request() {
    let router = router().await;
    let mut client = Raw::connect(router.addr()).await.unwrap();
    stall(true);
    // Ten times what a pipe holds.
    for number in 0..1000 {
        ask(&mut client, number).await;
    }
    stall(false);
    let last = router.next_record(|record| {
        let path = record["path"].as_str().unwrap_or_default();
        path.starts_with("/999-")
    });
    last.await;
    assert_eq!(router.records().len(), 1000);
}
