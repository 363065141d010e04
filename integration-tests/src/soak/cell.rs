//! A light cell: a listener with an address and an identity, and whatever can go wrong with one.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::future::BoxFuture;
use socket2::{Domain, SockRef, Socket, Type};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::sleep;

use super::ledger::Ledger;
use super::rules::Rule;
use super::serve;
use crate::fly::Guest;
use crate::process::lock;

/// How long a cell that stops goes on with what it is doing.
const GRACE: Duration = Duration::from_millis(700);

/// Name of the cell of this number.
pub(crate) fn name(number: usize) -> String {
    format!("c{number:03}")
}

/// What is wrong with a cell now.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Weather {
    /// It does not go on with anything, and does not say so.
    pub(crate) silent: bool,
    pub(crate) slow: bool,
    pub(crate) cuts_uploads: bool,
    pub(crate) cuts_answers: bool,
}

/// How far a cell has come. Each start has a number of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Life {
    Running(u64),
    /// It ends what it is doing and takes nothing new.
    Stopping(u64),
    Dead(u64),
}

impl Life {
    fn number(self) -> u64 {
        match self {
            Self::Running(number) | Self::Stopping(number) | Self::Dead(number) => number,
        }
    }
}

/// One cell.
pub(crate) struct Cell {
    pub(crate) number: usize,
    pub(crate) ledger: Ledger,
    pub(crate) secret: String,
    address: Mutex<SocketAddr>,
    life: watch::Sender<Life>,
    weather: watch::Sender<Weather>,
    /// Whether its port is taken.
    listening: watch::Sender<bool>,
    connections: AtomicUsize,
    /// Held by whoever starts it or moves it.
    pub(crate) gate: tokio::sync::Mutex<()>,
    own: std::sync::Weak<Self>,
}

impl Cell {
    pub(crate) fn new(number: usize, address: SocketAddr, ledger: Ledger) -> Arc<Self> {
        Arc::new_cyclic(|own| Self {
            number,
            secret: format!("secret-of-{}-{:x}", name(number), ledger.world.seed),
            ledger,
            address: Mutex::new(address),
            life: watch::Sender::new(Life::Dead(0)),
            weather: watch::Sender::default(),
            listening: watch::Sender::new(false),
            connections: AtomicUsize::new(0),
            gate: tokio::sync::Mutex::default(),
            own: own.clone(),
        })
    }

    pub(crate) fn place(&self) -> SocketAddr {
        *lock(&self.address)
    }

    /// It listens there from its next start on. The caller holds the gate.
    pub(crate) fn place_at(&self, address: SocketAddr) {
        *lock(&self.address) = address;
    }

    pub(crate) fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }

    pub(crate) fn weather(&self) -> Weather {
        *self.weather.borrow()
    }

    pub(crate) fn change(&self, change: impl FnOnce(&mut Weather)) {
        self.weather.send_modify(change);
    }

    /// Waits while it is silent, and a little while it is slow. Cancel safe.
    pub(crate) async fn step(&self) {
        let mut weather = self.weather.subscribe();
        // The sender lives in self.
        let now = weather.wait_for(|weather| !weather.silent).await;
        let slow = now.is_ok_and(|weather| weather.slow);
        if slow {
            sleep(Duration::from_millis(15)).await;
        }
    }

    /// Waits while it is silent. Cancel safe.
    pub(crate) async fn speaks(&self) {
        let mut weather = self.weather.subscribe();
        // The sender lives in self.
        let _ = weather.wait_for(|weather| !weather.silent).await;
    }

    /// Whether it takes no new requests.
    pub(crate) fn stopping(&self) -> bool {
        !matches!(*self.life.borrow(), Life::Running(_))
    }

    /// Waits until it is told to stop. Cancel safe.
    pub(crate) async fn told_to_stop(&self) {
        let mut life = self.life.subscribe();
        let _ = life
            .wait_for(|life| !matches!(life, Life::Running(_)))
            .await;
    }

    /// Listens. The caller holds the gate.
    pub(crate) async fn rise(&self) -> std::io::Result<()> {
        if !self.stopping() {
            return Ok(());
        }
        self.gone().await;
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
        socket.set_reuse_address(true)?;
        socket.set_nonblocking(true)?;
        socket.bind(&self.place().into())?;
        socket.listen(512)?;
        let listener = TcpListener::from_std(socket.into())?;
        let number = self.life.borrow().number() + 1;
        self.life.send_replace(Life::Running(number));
        self.listening.send_replace(true);
        if let Some(cell) = self.own.upgrade() {
            tokio::spawn(cell.accept(listener, number));
        }
        Ok(())
    }

    async fn accept(self: Arc<Self>, listener: TcpListener, number: u64) {
        loop {
            let accepted = tokio::select! {
                () = self.told_to_stop() => break,
                accepted = listener.accept() => accepted,
            };
            if let Ok((stream, _)) = accepted {
                self.connections.fetch_add(1, Ordering::SeqCst);
                tokio::spawn(Arc::clone(&self).connection(stream, number));
            }
        }
        drop(listener);
        self.listening.send_replace(false);
    }

    async fn connection(self: Arc<Self>, mut stream: TcpStream, number: u64) {
        // A hint to the kernel; without it the socket works all the same.
        let _ = stream.set_nodelay(true);
        let mut life = self.life.subscribe();
        let killed = life.wait_for(|life| *life == Life::Dead(number) || life.number() > number);
        let resets = tokio::select! {
            biased;
            _ = killed => true,
            resets = serve::connection(&self, &mut stream) => resets,
        };
        if resets {
            // Closing then resets the connection; without it, it ends all the same.
            let _ = SockRef::from(&stream).set_linger(Some(Duration::ZERO));
        }
        drop(stream);
        self.connections.fetch_sub(1, Ordering::SeqCst);
    }

    /// Resets all connections and listens no more.
    pub(crate) fn die(&self) {
        self.life
            .send_modify(|life| *life = Life::Dead(life.number()));
    }

    /// Waits until its address is free for another. Cancel safe.
    pub(crate) async fn gone(&self) {
        let mut listening = self.listening.subscribe();
        // The sender lives in self.
        let _ = listening.wait_for(|listening| !listening).await;
    }

    /// Says that something came that must not.
    pub(crate) fn breach(&self, rule: Rule, what: &str) {
        let name = name(self.number);
        self.ledger.breach(rule, format!("cell {name}: {what}"));
    }
}

impl Guest for Cell {
    fn address(&self) -> SocketAddr {
        self.place()
    }

    fn boot(&self) -> BoxFuture<'_, std::io::Result<()>> {
        Box::pin(async {
            let _gate = self.gate.lock().await;
            // What starts anew is not frozen.
            self.change(|weather| weather.silent = false);
            self.rise().await
        })
    }

    fn halt(&self) {
        let number = self.life.borrow().number();
        self.life.send_if_modified(|life| {
            let runs = matches!(life, Life::Running(_));
            if runs {
                *life = Life::Stopping(number);
            }
            runs
        });
        if let (Some(cell), Ok(runtime)) =
            (self.own.upgrade(), tokio::runtime::Handle::try_current())
        {
            runtime.spawn(async move {
                sleep(GRACE).await;
                cell.life.send_if_modified(|life| {
                    let stops = *life == Life::Stopping(number);
                    if stops {
                        *life = Life::Dead(number);
                    }
                    stops
                });
            });
        }
    }

    fn freeze(&self, frozen: bool) {
        self.change(|weather| weather.silent = frozen);
    }
}
