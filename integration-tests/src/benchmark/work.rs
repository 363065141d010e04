//! The works.

use std::io;

use super::load::{self, Ask};
use super::peers::Peer;

/// What is counted.
#[derive(Debug, Clone, Copy)]
pub enum Unit {
    /// Requests, or messages.
    Requests,
    /// Bytes of bodies.
    Bytes,
}

impl Unit {
    pub(super) fn show(self, each: f64, rate: f64) -> String {
        match self {
            Self::Requests => format!("{:.2} µs ({:.0}/s)", each / 1e3, rate * 1e9),
            Self::Bytes => format!("{each:.3} s/GB ({rate:.2} GB/s)"),
        }
    }
}

/// One kind of work.
#[derive(Debug)]
pub struct Work {
    /// What it is called.
    pub name: &'static str,
    /// What is counted.
    pub unit: Unit,
    ask: Ask,
    clients: usize,
    /// Requests of each client.
    each: usize,
}

const GIB: u64 = 1 << 30;
const MIB: u64 = 1 << 20;

/// All of them.
pub const WORKS: [Work; 12] = [
    Work {
        name: "small GET",
        unit: Unit::Requests,
        ask: Ask::Get("/0"),
        clients: 64,
        each: 1500,
    },
    Work {
        name: "10 KiB GET",
        unit: Unit::Requests,
        ask: Ask::Get("/10240"),
        clients: 64,
        each: 1000,
    },
    Work {
        name: "own answer",
        unit: Unit::Requests,
        ask: Ask::Own,
        clients: 64,
        each: 2000,
    },
    Work {
        name: "small GET by TLS",
        unit: Unit::Requests,
        ask: Ask::GetByTls("/0"),
        clients: 64,
        each: 1000,
    },
    Work {
        name: "small GET by HTTP/2",
        unit: Unit::Requests,
        ask: Ask::GetByHttp2("/0"),
        clients: 64,
        each: 1000,
    },
    Work {
        name: "message of a WebSocket and its echo",
        unit: Unit::Requests,
        ask: Ask::Echo,
        clients: 64,
        each: 2000,
    },
    Work {
        name: "upload of 1 GiB",
        unit: Unit::Bytes,
        ask: Ask::Put(GIB),
        clients: 1,
        each: 1,
    },
    Work {
        name: "upload of 1 GiB, chunked",
        unit: Unit::Bytes,
        ask: Ask::PutChunked(GIB),
        clients: 1,
        each: 1,
    },
    Work {
        name: "200 uploads of 8 MiB",
        unit: Unit::Bytes,
        ask: Ask::Put(8 * MIB),
        clients: 200,
        each: 1,
    },
    Work {
        name: "download of 1 GiB",
        unit: Unit::Bytes,
        ask: Ask::Get("/1073741824"),
        clients: 1,
        each: 1,
    },
    Work {
        name: "download of 1 GiB, chunked",
        unit: Unit::Bytes,
        ask: Ask::Get("/chunked/1073741824"),
        clients: 1,
        each: 1,
    },
    Work {
        name: "200 downloads of 8 MiB",
        unit: Unit::Bytes,
        ask: Ask::Get("/8388608"),
        clients: 200,
        each: 1,
    },
];

impl Work {
    /// Does it once; returns what was done.
    ///
    /// # Errors
    /// Those of connections, and answers that are not the ones expected.
    pub async fn run(&self, peer: &Peer) -> io::Result<u64> {
        let bytes = load::run(peer, self.ask, self.clients, self.each).await?;
        Ok(match self.unit {
            Unit::Requests => (self.clients * self.each) as u64,
            Unit::Bytes => bytes,
        })
    }
}
