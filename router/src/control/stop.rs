//! The end of a router: by signals, or because another has taken its place.

use std::future::Future;
use std::io;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::Instant;

use crate::live::drain::{Drain, GOODBYE, Stop};

/// The signals that the router acts on.
#[derive(Debug)]
pub struct Signals {
    /// The word to stop.
    pub stop: Told,
    /// The word to read the registry again.
    pub hangup: Signal,
}

/// SIGTERM and SIGINT, which mean the same.
#[derive(Debug)]
pub struct Told {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    /// Listens for signals from now on; one that is not listened for ends the process. Needs a runtime around it.
    ///
    /// # Errors
    /// Those of the system.
    pub fn listen() -> io::Result<Self> {
        let [terminate, interrupt, hangup] = [
            SignalKind::terminate(),
            SignalKind::interrupt(),
            SignalKind::hangup(),
        ]
        .map(signal);
        let stop = Told {
            terminate: terminate?,
            interrupt: interrupt?,
        };
        Ok(Self {
            stop,
            hangup: hangup?,
        })
    }
}

impl Told {
    /// Waits for the next word to stop. Cancel safe.
    pub async fn told(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// Waits for the word to stop or until another router has `taken` over, then for running work: until it is done, its time
/// is over, or a second signal comes. What is left of its time is returned.
pub async fn when_told(
    told: &mut Told,
    taken: impl Future<Output = Option<i32>>,
    drain: &Drain,
    patience: Duration,
) -> Duration {
    let told_before = tokio::select! {
        () = told.told() => true,
        by = taken => {
            tracing::info!(process = by, "taken over");
            false
        }
    };
    let (running, began) = (drain.running(), Instant::now());
    drain.advance(Stop::Draining);
    tracing::info!(running, "draining: running work may finish");
    let at_once = async {
        if !told_before {
            // It says what is being done already.
            told.told().await;
        }
        told.told().await;
    };
    let finish = async {
        tokio::select! {
            () = drain.finished() => return,
            () = tokio::time::sleep(patience) => {}
        }
        tracing::warn!(cut = drain.running(), "drain time is over");
        drain.advance(Stop::Closing);
        tokio::select! {
            () = drain.finished() => {}
            () = tokio::time::sleep(GOODBYE) => {}
        }
    };
    let left = tokio::select! {
        () = finish => patience.saturating_sub(began.elapsed()),
        () = at_once => {
            tracing::warn!(cut = drain.running(), "told to stop at once");
            Duration::ZERO
        }
    };
    drain.advance(Stop::Now);
    left
}
