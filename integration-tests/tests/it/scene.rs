//! What several stories begin with: cells, a router before them, and bodies whose digest is known.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::Stream;
use http::Request;
use integration_tests::client::{self, Answer, Error, Http};
use integration_tests::fly::{Fly, Machine, MachineSpec};
use integration_tests::{Router, RouterOptions, ScriptedCell};
use ring::digest::{Context, SHA256};
use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

/// The host of the cell that most stories are about.
pub(crate) const HOST: &str = "alice.example.com";

/// A registry with these cells.
pub(crate) fn registry(cells: Value) -> String {
    json!({ "version": 1, "domain": "example.com", "cells": cells }).to_string()
}

/// A cell at an address.
pub(crate) fn at(address: std::net::SocketAddr) -> Value {
    json!({ "address": address.to_string() })
}

/// A router of one worker, not on Fly, before these cells.
pub(crate) async fn router(cells: Value) -> Router {
    Router::start(options(cells)).await
}

/// As [`router`], to be changed before it starts.
pub(crate) fn options(cells: Value) -> RouterOptions {
    RouterOptions::new(registry(cells)).args(["--workers", "1"])
}

/// A router before one scripted cell, `alice`.
pub(crate) async fn scripted() -> (Router, ScriptedCell) {
    let cell = ScriptedCell::listen().await;
    (router(json!({ "alice": at(cell.addr()) })).await, cell)
}

/// A machine of app `cells` that runs.
pub(crate) async fn running(fly: &Fly, spec: MachineSpec) -> Arc<Machine> {
    let machine = fly.machine(spec).unwrap();
    fly.wake(&machine).await.unwrap();
    machine
}

/// A router before one running cell, `alice`, both not on Fly as far as the router knows.
pub(crate) async fn real(spec: MachineSpec) -> (Router, Arc<Machine>, Fly) {
    let fly = Fly::start().await.unwrap();
    let machine = running(&fly, spec).await;
    let router = router(json!({ "alice": at(machine.address()) })).await;
    (router, machine, fly)
}

const PIECE: u64 = 64 * 1024;

/// `bytes` bytes in pieces of 64 KiB of which no two are the same.
pub(crate) fn pieces(bytes: u64) -> impl Stream<Item = Bytes> + Send + Unpin {
    futures_util::stream::iter(numbered(bytes))
}

fn numbered(bytes: u64) -> impl Iterator<Item = Bytes> + Send {
    (0..bytes.div_ceil(PIECE)).map(move |number| {
        let length = PIECE.min(bytes - number * PIECE) as usize;
        let mut piece = vec![b'.'; length];
        for (byte, digit) in piece.iter_mut().zip(number.to_be_bytes()) {
            *byte = digit;
        }
        piece.into()
    })
}

/// SHA-256 of [`pieces`], in hexadecimal digits.
pub(crate) fn digest_of_pieces(bytes: u64) -> String {
    let mut digest = Context::new(&SHA256);
    numbered(bytes).for_each(|piece| digest.update(&piece));
    hex(digest)
}

/// SHA-256 in hexadecimal digits.
pub(crate) fn hex(digest: Context) -> String {
    let digest = digest.finish();
    digest.as_ref().iter().map(|b| format!("{b:02x}")).collect()
}

/// A running upload of which the test sends each piece; it ends when the sender is dropped.
pub(crate) fn driven(router: &Router) -> (mpsc::Sender<Bytes>, JoinHandle<Result<Answer, Error>>) {
    let (sender, mut receiver) = mpsc::channel(1);
    let body = futures_util::stream::poll_fn(move |context| receiver.poll_recv(context));
    let request = Request::put("/files/driven").header("host", HOST);
    let request = request.body(client::chunked(body)).unwrap();
    let stored = client::send(router.addr(), Http::One, request);
    (sender, tokio::spawn(stored))
}

/// The next line of the router's own log with this message.
pub(crate) async fn said(router: &Router, message: &str) -> Value {
    router.next_event(|event| event["message"] == message).await
}

/// Leaves a running router without a descriptor for anything new, or gives it as many again as it had.
pub(crate) fn starve(router: &Router, starve: bool) {
    let maximum = getrlimit(Resource::Nofile).maximum;
    let current = if starve { Some(0) } else { maximum };
    let id = i32::try_from(router.process().id()).unwrap();
    let limit = Rlimit { current, maximum };
    prlimit(Pid::from_raw(id), Resource::Nofile, limit).unwrap();
}

/// The names of the lines of a head, in lower case.
pub(crate) fn names(head: &str) -> Vec<String> {
    head.lines()
        .skip(1)
        .filter_map(|line| line.split_once(':'))
        .map(|(name, _)| name.to_ascii_lowercase())
        .collect()
}
