//! What connections cost the router in memory: idle ones, and uploads to cells that read slowly.
//!
//! `cargo build --release -p cell-router && cargo run --release -p integration-tests --bin memory`

use std::path::PathBuf;
use std::time::Duration;

use clap::Parser;
use futures_util::future::join_all;
use integration_tests::client::{Error, Raw};
use integration_tests::http2::{DATA, END_STREAM, Frames, Room, frame, head};
use integration_tests::{Router, RouterOptions, ScriptedCell};
use serde_json::json;
use tokio::net::TcpSocket;
use tokio::time::{MissedTickBehavior, interval};

const HOST: &str = "alice.example.com";
/// Room in the kernel for each end of an upload, in bytes.
const KERNEL_BYTES: u32 = 32 * 1024;
const LINES: [(&str, &str); 4] = [
    (":method", "GET"),
    (":scheme", "http"),
    (":path", "/x"),
    (":authority", HOST),
];
const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

/// Measures the router's private memory: resident, without the code of its binary.
#[derive(Debug, Parser)]
struct Args {
    /// The router's binary.
    #[arg(long, default_value = "target/release/cell-router")]
    router: PathBuf,
    /// Idle keep-alive connections.
    #[arg(long, default_value_t = 9000)]
    idle: usize,
    /// Uploads at once.
    #[arg(long, default_value_t = 1000)]
    uploads: usize,
    /// How long the uploads go on, in seconds.
    #[arg(long, default_value_t = 30)]
    seconds: u64,
    /// Sends the uploads in chunks instead of telling their length.
    #[arg(long)]
    chunked: bool,
    /// Speaks HTTP/2, one request on each connection.
    #[arg(long)]
    http2: bool,
}

#[tokio::main]
async fn main() -> Result<(), Error> {
    let args = Args::parse();
    idle(&args).await?;
    uploads(&args).await
}

async fn router(args: &Args, cell: &ScriptedCell) -> Router {
    let entry = json!({ "address": cell.addr().to_string(), "max_in_flight": 100_000 });
    let registry = json!({ "version": 1, "domain": "example.com", "cells": { "alice": entry } });
    let mut options = RouterOptions::new(registry.to_string());
    options.binary = Some(args.router.clone());
    let flags = [
        "--idle-timeout-ms",
        "3600000",
        "--max-connections-per-client",
        "1000000",
    ];
    Router::start(options.args(flags)).await
}

fn private(router: &Router) -> u64 {
    router.process().private_memory_bytes().unwrap_or_default()
}

fn each(now: u64, before: u64, count: usize) -> f64 {
    now.saturating_sub(before) as f64 / 1024.0 / count.max(1) as f64
}

/// Every connection has had one request answered by a cell, and waits for the next.
async fn idle(args: &Args) -> Result<(), Error> {
    let cell = ScriptedCell::listen().await;
    let router = router(args, &cell).await;
    let request = format!("GET / HTTP/1.1\r\nhost: {HOST}\r\n\r\n");
    let serving = async {
        loop {
            let mut upstream = cell.accept().await;
            tokio::spawn(async move {
                while upstream.head().await.is_ok() && upstream.write(OK).await.is_ok() {}
            });
        }
    };
    let asking = async {
        let mut kept = Vec::with_capacity(args.idle);
        let mut before = 0;
        for number in 0..args.idle + 100 {
            if number == 100 {
                // What the first requests take is not what a connection costs.
                before = private(&router);
            }
            kept.push(if args.http2 {
                let mut client = Frames::connect(router.addr(), &[]).await?;
                client.send(head(1, END_STREAM, &LINES)).await?;
                client.stream(1).await;
                client.0
            } else {
                let mut client = Raw::connect(router.addr()).await?;
                client.write(&request).await?;
                client.answer().await?;
                client
            });
        }
        let now = private(&router);
        println!(
            "{} idle connections: {:.2} KiB each ({} KiB before, {} KiB with them)",
            args.idle,
            each(now, before, args.idle),
            before / 1024,
            now / 1024
        );
        Ok::<_, Error>(())
    };
    tokio::select! {
        () = serving => Ok(()),
        asked = asking => asked,
    }
}

/// One upload over HTTP/2 that never ends: as much as the windows allow.
async fn upload(client: Raw) -> Result<(), Error> {
    const PIECE: usize = 16 * 1024;
    let mut lines = LINES;
    lines[0].1 = "PUT";
    let mut client = Frames::open(client, &[]).await?;
    client.send(head(1, 0, &lines)).await?;
    let piece = frame(DATA, 0, 1, [b'x'; PIECE]);
    let mut room = Room::default();
    loop {
        while room.left() >= PIECE as i64 {
            client.send(&piece).await?;
            room.spend(PIECE as i64);
        }
        let next = client.next().await.ok_or("the connection ended")?;
        room.note(&next);
    }
}

/// Uploads that never end, to a cell that reads a little of each every second.
async fn uploads(args: &Args) -> Result<(), Error> {
    // Small, for the kernel's memory for sockets is bounded for all of them together.
    let cell = ScriptedCell::listen_with_room(KERNEL_BYTES);
    let router = router(args, &cell).await;
    let framing = if args.chunked {
        "transfer-encoding: chunked"
    } else {
        "content-length: 1000000000000"
    };
    let before = private(&router);
    let sending = (0..args.uploads).map(|_| async {
        let socket = TcpSocket::new_v4()?;
        socket.set_send_buffer_size(KERNEL_BYTES)?;
        let mut client = Raw::from(socket.connect(router.addr()).await?);
        if args.http2 {
            return upload(client).await;
        }
        client
            .write(format!(
                "PUT /x HTTP/1.1\r\nhost: {HOST}\r\n{framing}\r\n\r\n"
            ))
            .await?;
        let mut piece = vec![b'x'; 16 * 1024];
        if args.chunked {
            piece = [b"4000\r\n", &piece[..], b"\r\n"].concat();
        }
        loop {
            client.write(&piece).await?;
        }
        #[allow(unreachable_code, reason = "it gives the block its type")]
        Ok::<(), Error>(())
    });
    let reading = async {
        let mut upstreams = Vec::new();
        for _ in 0..args.uploads {
            upstreams.push(cell.request().await.0);
        }
        let mut ticks = interval(Duration::from_secs(1));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let framing = if args.http2 { "HTTP/2" } else { framing };
        println!("{} uploads, {framing}:", args.uploads);
        for second in 0..=args.seconds {
            ticks.tick().await;
            for upstream in &mut upstreams {
                upstream.bytes(8 * 1024).await?;
            }
            if second % 5 == 0 {
                let now = private(&router);
                println!(
                    "after {second:3} s {:.1} KiB each ({} KiB in all)",
                    each(now, before, args.uploads),
                    now / 1024
                );
            }
        }
        Ok::<_, Error>(())
    };
    tokio::select! {
        ended = join_all(sending) => match ended.into_iter().find_map(Result::err) {
            Some(error) => Err(error),
            None => Ok(()),
        },
        read = reading => read,
    }
}
