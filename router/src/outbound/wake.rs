//! Waking a cell: once for all who wait, for as long as anybody waits. And putting one to sleep, when an operator says so.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use tokio::net::TcpStream;
use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use tokio::time::{Instant, sleep, timeout, timeout_at};

use super::StreamError;
use super::machines::{ApiError, Machine, Machines};
use crate::account::tally::Tally;
use crate::config::chance;
use crate::decision::beat::LOST;
use crate::live::cells::{Live, Stage, WakeProgress};
use crate::registry::{Cell, Placement, Protocol};

/// Pause after a call that may succeed when made again; doubled each time up to the API's own rate of one a second.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
/// Pause between two looks at whether a started cell answers; it starts low, for most answer at once.
const FIRST_PROBE_PAUSE: Duration = Duration::from_millis(20);
const LONGEST_PROBE_PAUSE: Duration = Duration::from_millis(500);
/// How long the platform is asked to wait for a start before its state is looked at: a start that failed leaves the
/// machine stopped, and a wait for `started` does not tell.
const WAIT_SLICE: Duration = Duration::from_secs(2);
/// The states of a machine that is started or will be.
const RISING: [&str; 2] = ["started", "starting"];
/// The states of a machine whose start has come to nothing.
const FALLEN_BACK: [&str; 4] = ["created", "stopped", "suspended", "failed"];
/// What refuses the start of a machine in one of those for good. Others pass: another start is under way or holds the lease
/// (409), or the machine is not there yet (412).
const FINAL: [StatusCode; 4] = [
    StatusCode::BAD_REQUEST,
    StatusCode::FORBIDDEN,
    StatusCode::NOT_FOUND,
    StatusCode::UNPROCESSABLE_ENTITY,
];
/// How often a machine is started before the cell counts as one that cannot be woken.
const STARTS: usize = 3;
/// How long one such look may take.
const PROBE_TIMEOUT: Duration = Duration::from_secs(2);
/// How many machines operators look at at once: they wait for each other, and wakes never for many of them.
const MOST_LOOKS: usize = 2;

/// What is asked of the platform.
#[derive(Debug)]
pub enum Order {
    /// To wake a cell.
    Wake(Wake),
    /// To stop a cell's machine.
    Sleep(Arc<Cell>, Arc<Live>, oneshot::Sender<Result<(), NotAsleep>>),
    /// To tell the state of a cell's machine; nothing is changed by it.
    Look(Arc<Cell>, oneshot::Sender<Result<String, NotAsleep>>),
}

/// A cell to be woken. Where this is dropped before it is said how that ended, those who wait hear that it failed.
#[derive(Debug)]
pub struct Wake {
    cell: Arc<Cell>,
    live: Arc<Live>,
    progress: watch::Sender<WakeProgress>,
}

impl Drop for Wake {
    fn drop(&mut self) {
        self.progress.send_if_modified(|progress| {
            let cut = progress.is_under_way();
            if cut {
                *progress = WakeProgress::Failed("it broke off".into());
            }
            cut
        });
    }
}

/// Why a cell is not put to sleep, or the state of its machine is not known.
#[derive(Debug)]
pub enum NotAsleep {
    /// It lives at an address, where nothing can be stopped.
    NoMachine,
    /// So many requests are on their way to it and back, or wait for it.
    InUse(u32),
    /// It is being woken.
    Waking,
    /// The platform does not do it.
    Platform(ApiError),
    /// The router stops.
    Stopping,
}

impl fmt::Display for NotAsleep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoMachine => f.write_str("the cell lives at an address, not on a machine"),
            Self::InUse(1) => f.write_str("a request is in flight to it"),
            Self::InUse(count) => write!(f, "{count} requests are in flight to it"),
            Self::Waking => f.write_str("it is being woken"),
            Self::Platform(error) => error.fmt(f),
            Self::Stopping => f.write_str("the router stops"),
        }
    }
}

impl std::error::Error for NotAsleep {}

/// Why no cell without a machine is woken.
const NO_MACHINE: &str = "it lives at an address, where nothing can start it";

/// The way to have cells woken and put to sleep.
#[derive(Debug, Clone)]
pub struct Waker(mpsc::UnboundedSender<Order>);

/// A waker, and the orders that [`run`] carries out. The queue holds one wake for each cell at most, and what operators ask.
pub fn channel() -> (Waker, mpsc::UnboundedReceiver<Order>) {
    let (sender, receiver) = mpsc::unbounded_channel();
    (Waker(sender), receiver)
}

impl Waker {
    /// Waits until the cell answers, or for `patience` where there is one. Joins the wake that is under way, or begins
    /// one; a wake that is still under way when the patience is over goes on without those who waited.
    ///
    /// Cancel safe: when the last of those who wait leaves, the wake is given up.
    ///
    /// # Errors
    /// `Wake`, `WakeTimeout`; `Waking` where the patience is over.
    pub async fn wake(
        &self,
        cell: &Arc<Cell>,
        live: &Arc<Live>,
        patience: Option<Duration>,
    ) -> Result<(), StreamError> {
        if !matches!(cell.placement, Placement::Machine { .. }) {
            return Err(StreamError::Wake(NO_MACHINE.into()));
        }
        let until = patience.map(|patience| Instant::now() + patience);
        loop {
            let (mut progress, began) = live.join_wake(&cell.placement, |progress| {
                // The receiver is gone only with the process.
                let _ = self.0.send(Order::Wake(Wake {
                    cell: Arc::clone(cell),
                    live: Arc::clone(live),
                    progress,
                }));
            });
            match ended(&mut progress, until).await {
                WakeProgress::Ready(_) => return Ok(()),
                WakeProgress::Failed(why) => return Err(StreamError::Wake(why)),
                WakeProgress::TimedOut => {
                    return Err(StreamError::WakeTimeout(cell.policy.limits.wake_timeout));
                }
                WakeProgress::Waking(stage) => {
                    live.keep_wake(&cell.placement);
                    return Err(StreamError::Waking(stage, began.elapsed()));
                }
                WakeProgress::GivenUp => {}
            }
        }
    }
}

impl Waker {
    /// Has a cell's machine stopped, unless this router has a request for the cell, or wakes it. The next request wakes it
    /// again.
    ///
    /// # Errors
    /// `NotAsleep`.
    pub async fn sleep(&self, cell: &Arc<Cell>, live: &Arc<Live>) -> Result<(), NotAsleep> {
        let (told, hears) = oneshot::channel();
        self.ask(
            Order::Sleep(Arc::clone(cell), Arc::clone(live), told),
            hears,
        )
        .await
    }

    /// The state of a cell's machine, such as `started`, as the platform tells it (Fly docs, Machine states). Two looks at
    /// once are under way, so that no wake waits for more.
    ///
    /// Cancel safe: the platform is not asked any more.
    ///
    /// # Errors
    /// `NotAsleep`, without `InUse` and `Waking`.
    pub async fn look(&self, cell: &Arc<Cell>) -> Result<String, NotAsleep> {
        let (told, hears) = oneshot::channel();
        self.ask(Order::Look(Arc::clone(cell), told), hears).await
    }

    async fn ask<T>(
        &self,
        order: Order,
        hears: oneshot::Receiver<Result<T, NotAsleep>>,
    ) -> Result<T, NotAsleep> {
        let _ = self.0.send(order);
        hears.await.unwrap_or(Err(NotAsleep::Stopping))
    }
}

/// How a wake ended, or how far it has come by then. Cancel safe.
async fn ended(
    progress: &mut watch::Receiver<WakeProgress>,
    until: Option<Instant>,
) -> WakeProgress {
    let ended = progress.wait_for(|progress| !progress.is_under_way());
    let ended = match until {
        None => Ok(ended.await.map(|ended| ended.clone())),
        Some(until) => timeout_at(until, ended)
            .await
            .map(|ended| ended.map(|ended| ended.clone())),
    };
    match ended {
        Ok(Ok(ended)) => ended,
        Ok(Err(_)) => WakeProgress::Failed("the router stops".into()),
        Err(_) => progress.borrow().clone(),
    }
}

/// Carries out orders, side by side, until all wakers are gone; `tally` counts them.
pub async fn run(
    mut orders: mpsc::UnboundedReceiver<Order>,
    machines: Machines,
    tally: Arc<Tally>,
) {
    let machines = Arc::new(machines);
    let looks = Arc::new(Semaphore::new(MOST_LOOKS));
    while let Some(order) = orders.recv().await {
        let (machines, tally) = (Arc::clone(&machines), Arc::clone(&tally));
        let looks = Arc::clone(&looks);
        tokio::spawn(async move {
            match order {
                Order::Wake(order) => {
                    let began = Instant::now();
                    let outcome = carry_out(order, machines).await;
                    tally.wake(outcome, began.elapsed());
                }
                // Who does not wait for the answer any more needs none.
                Order::Sleep(cell, live, told) => {
                    let _ = told.send(put_to_sleep(&cell, &live, &machines).await);
                }
                Order::Look(cell, mut told) => {
                    let found = tokio::select! {
                        found = in_turn(&looks, state(&cell, &machines)) => found,
                        () = told.closed() => return,
                    };
                    let _ = told.send(found);
                }
            }
        });
    }
}

/// Looks when it is its turn. Cancel safe.
async fn in_turn<T>(looks: &Semaphore, look: impl Future<Output = T>) -> T {
    // The semaphore is never closed.
    let _turn = looks.acquire().await;
    look.await
}

async fn put_to_sleep(cell: &Cell, live: &Live, machines: &Machines) -> Result<(), NotAsleep> {
    let Placement::Machine { app, machine, .. } = &cell.placement else {
        return Err(NotAsleep::NoMachine);
    };
    if live.waking().is_some() {
        return Err(NotAsleep::Waking);
    }
    match live.in_flight().saturating_add(live.queued()) {
        0 => {}
        count => return Err(NotAsleep::InUse(count)),
    }
    tracing::info!(cell = cell.name.as_str(), "putting to sleep");
    machines
        .stop(app.as_str(), machine.as_str())
        .await
        .map_err(NotAsleep::Platform)?;
    live.forget_address(Instant::now());
    Ok(())
}

async fn state(cell: &Cell, machines: &Machines) -> Result<String, NotAsleep> {
    let Placement::Machine { app, machine, .. } = &cell.placement else {
        return Err(NotAsleep::NoMachine);
    };
    let found = machines.machine(app.as_str(), machine.as_str()).await;
    found
        .map(|machine| machine.state)
        .map_err(NotAsleep::Platform)
}

/// Carries out one; how it ended.
async fn carry_out(order: Wake, machines: Arc<Machines>) -> &'static str {
    let Wake {
        cell,
        live,
        progress,
    } = &order;
    let deadline = Instant::now() + cell.policy.limits.wake_timeout;
    let reach = |stage| {
        progress.send_replace(WakeProgress::Waking(stage));
    };
    let outcome = tokio::select! {
        outcome = timeout_at(deadline, wake(&machines, cell, deadline, reach)) => match outcome {
            Ok(Ok(address)) => WakeProgress::Ready(address),
            Ok(Err(why)) => WakeProgress::Failed(why.into()),
            Err(_) => WakeProgress::TimedOut,
        },
        () = progress.closed() => WakeProgress::GivenUp,
    };
    tracing::info!(cell = cell.name.as_str(), outcome = ?outcome, "wake");
    // All of this before those who wait hear of it.
    match &outcome {
        WakeProgress::Ready(address) => {
            live.tell_address(&cell.placement, *address);
            live.breaker.woke(cell);
        }
        WakeProgress::Failed(_) | WakeProgress::TimedOut => live.breaker.failed(cell),
        WakeProgress::GivenUp | WakeProgress::Waking(_) => {}
    }
    let name = match &outcome {
        WakeProgress::Ready(_) => "ready",
        WakeProgress::Failed(_) => "failed",
        WakeProgress::TimedOut => "timed_out",
        WakeProgress::GivenUp | WakeProgress::Waking(_) => "given_up",
    };
    progress.send_replace(outcome);
    name
}

/// Starts the cell's machine and waits until the cell answers, starting it again where it went down meanwhile; where
/// the cell answers.
async fn wake(
    machines: &Machines,
    cell: &Cell,
    deadline: Instant,
    reach: impl Fn(Stage),
) -> Result<SocketAddr, String> {
    let Placement::Machine { app, machine, port } = &cell.placement else {
        return Err(NO_MACHINE.to_owned());
    };
    let machine = Subject {
        machines,
        app: app.as_str(),
        machine: machine.as_str(),
    };
    tracing::info!(
        cell = cell.name.as_str(),
        app = machine.app,
        machine = machine.machine,
        "waking"
    );
    for _ in 0..STARTS {
        reach(Stage::Asking);
        machine.start().await?;
        reach(Stage::Starting);
        let Some(ip) = machine.started(deadline).await? else {
            continue;
        };
        reach(Stage::Readying);
        let address = SocketAddr::new(ip.to_canonical(), *port);
        if machine.answers(cell, address).await? {
            return Ok(address);
        }
    }
    Err(format!("its machine did not stay started, {STARTS} times"))
}

/// Whether the cell answers. One that speaks TLS or HTTP/2 is ready once it accepts: the rest is seen when it is asked.
async fn ready(machines: &Machines, cell: &Cell, address: SocketAddr, url: &str) -> bool {
    if cell.policy.tls.is_none() && cell.policy.protocol == Protocol::Http1 {
        return machines.answers(url, PROBE_TIMEOUT).await;
    }
    let accepted = timeout(PROBE_TIMEOUT, TcpStream::connect(address)).await;
    accepted.is_ok_and(|accepted| accepted.is_ok())
}

/// The machine that is woken.
struct Subject<'a> {
    machines: &'a Machines,
    app: &'a str,
    machine: &'a str,
}

impl Subject<'_> {
    /// Asks for the start until it is granted, or the machine is found on its way.
    async fn start(&self) -> Result<(), String> {
        let mut backoff = Backoff::default();
        loop {
            let not_before = match self.machines.start(self.app, self.machine).await {
                Ok(()) => return Ok(()),
                // A machine that is started, or on its way down, is refused too: its state tells which.
                Err(ApiError::Refused(status, said)) if status != StatusCode::UNAUTHORIZED => {
                    match self.look().await {
                        Ok(found) if RISING.contains(&found.state.as_str()) => return Ok(()),
                        Ok(found) if LOST.contains(&found.state.as_str()) => {
                            return Err(format!("its machine is {}: {said}", found.state));
                        }
                        Ok(found)
                            if FINAL.contains(&status)
                                && FALLEN_BACK.contains(&found.state.as_str()) =>
                        {
                            return Err(ApiError::Refused(status, said).to_string());
                        }
                        Ok(_) => None,
                        Err(error) => retryable(error)?,
                    }
                }
                Err(error) => retryable(error)?,
            };
            backoff.pause(not_before).await;
        }
    }

    /// Waits until the machine is started; its private address, or `None` where it went down again.
    async fn started(&self, deadline: Instant) -> Result<Option<IpAddr>, String> {
        let mut backoff = Backoff::default();
        loop {
            let patience = deadline.saturating_duration_since(Instant::now());
            let waited =
                self.machines
                    .wait_started(self.app, self.machine, patience.min(WAIT_SLICE));
            let not_before = match waited.await {
                Ok(_) => match self.look().await {
                    Ok(found) if found.state == "started" => {
                        let none = "the Machines API names no private address for it";
                        return found.private_ip.map(Some).ok_or_else(|| none.to_owned());
                    }
                    Ok(found) if FALLEN_BACK.contains(&found.state.as_str()) => return Ok(None),
                    Ok(found) if LOST.contains(&found.state.as_str()) => {
                        return Err(format!("its machine is {}", found.state));
                    }
                    Ok(_) => None,
                    Err(error) => retryable(error)?,
                },
                Err(error) => retryable(error)?,
            };
            backoff.pause(not_before).await;
        }
    }

    /// Waits until the cell answers; whether it does, or else its machine went down again.
    async fn answers(&self, cell: &Cell, address: SocketAddr) -> Result<bool, String> {
        let url = format!("http://{address}{}", cell.policy.ready_path);
        let mut pause = FIRST_PROBE_PAUSE;
        let mut looked = Instant::now();
        while !ready(self.machines, cell, address, &url).await {
            if looked.elapsed() > WAIT_SLICE {
                looked = Instant::now();
                match self.look().await {
                    Ok(found) if FALLEN_BACK.contains(&found.state.as_str()) => return Ok(false),
                    Ok(_) => {}
                    Err(error) => {
                        retryable(error)?;
                    }
                }
            }
            sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PROBE_PAUSE);
        }
        Ok(true)
    }

    async fn look(&self) -> Result<Machine, ApiError> {
        self.machines.machine(self.app, self.machine).await
    }
}

/// Passes over what may go better next time; how long not to try, where the API says so.
fn retryable(error: ApiError) -> Result<Option<Duration>, String> {
    match error {
        ApiError::RateLimited(not_before) | ApiError::Unavailable(_, not_before) => Ok(not_before),
        ApiError::Refused(..) => Err(error.to_string()),
    }
}

/// Pauses between calls that may succeed when made again: each twice as long, half of it at random, so that those who
/// failed together do not come back together.
struct Backoff(Duration);

impl Default for Backoff {
    fn default() -> Self {
        Self(FIRST_PAUSE)
    }
}

impl Backoff {
    async fn pause(&mut self, not_before: Option<Duration>) {
        let pause = self.0.mul_f64(0.5 + 0.5 * chance());
        self.0 = (self.0 * 2).min(LONGEST_PAUSE);
        sleep(not_before.unwrap_or_default().saturating_add(pause)).await;
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;
    use crate::registry::Registry;

    #[tokio::test]
    async fn an_api_that_says_to_come_back_never_is_waited_for_without_harm() {
        for not_before in [Duration::from_secs(u64::MAX), Duration::MAX] {
            let mut backoff = Backoff(LONGEST_PAUSE);
            assert!(backoff.pause(Some(not_before)).now_or_never().is_none());
        }
    }

    #[tokio::test]
    async fn what_has_no_machine_is_refused_before_anybody_is_asked() {
        let text = br#"{"version":1,"cells":{"bob":{"address":"127.0.0.1:9"}}}"#;
        let registry = Registry::parse(text).unwrap();
        let cell = registry.cell("bob").unwrap();
        // Nobody carries out what is asked.
        let (waker, _orders) = channel();
        let live = Arc::new(Live::default());
        let woken = waker.wake(cell, &live, Some(Duration::ZERO)).await;
        assert!(matches!(woken, Err(StreamError::Wake(_))), "{woken:?}");
    }

    #[test]
    fn a_wake_that_breaks_off_is_told_and_begun_anew() {
        let text = br#"{"version":1,"cells":{"alice":{"app":"cells","machine":"0000000000001a"}}}"#;
        let registry = Registry::parse(text).unwrap();
        let cell = registry.cell("alice").unwrap();
        let live = Arc::new(Live::default());
        let mut begun = 0;
        for _ in 0..2 {
            let (waits, _) = live.join_wake(&cell.placement, |progress| {
                begun += 1;
                drop(Wake {
                    cell: Arc::clone(cell),
                    live: Arc::clone(&live),
                    progress,
                });
            });
            assert!(matches!(*waits.borrow(), WakeProgress::Failed(_)));
        }
        assert_eq!(begun, 2);
    }
}
