//! Waking a cell: once for all who wait, for as long as anybody waits.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep, timeout, timeout_at};

use super::StreamError;
use super::machines::{ApiError, Machines};
use crate::live::cells::{Live, WakeProgress};
use crate::registry::{Cell, Placement};

/// Pause after a call that may succeed when made again; doubled each time up to the API's own rate of one a second.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
/// Pause between two looks at whether a started cell answers; it starts low, for most answer at once.
const FIRST_PROBE_PAUSE: Duration = Duration::from_millis(20);
const LONGEST_PROBE_PAUSE: Duration = Duration::from_millis(500);
/// How long the platform is asked to wait for a start before its state is looked at: a start that failed leaves the
/// machine stopped, and a wait for `started` does not tell.
const WAIT_SLICE: Duration = Duration::from_secs(2);
/// The states of a machine whose start has come to nothing.
const FALLEN_BACK: [&str; 4] = ["created", "stopped", "suspended", "failed"];
/// How often a machine is started before the cell counts as one that cannot be woken.
const STARTS: usize = 3;
/// How long one such look may take.
const PROBE_TIMEOUT: Duration = Duration::from_secs(2);

/// A cell to be woken.
#[derive(Debug)]
pub struct Order {
    cell: Arc<Cell>,
    live: Arc<Live>,
    progress: watch::Sender<WakeProgress>,
}

/// A worker's way to have cells woken.
#[derive(Debug, Clone)]
pub struct Waker(mpsc::UnboundedSender<Order>);

/// A waker, and the orders that [`run`] carries out. The queue holds one order for each cell at most.
pub fn channel() -> (Waker, mpsc::UnboundedReceiver<Order>) {
    let (sender, receiver) = mpsc::unbounded_channel();
    (Waker(sender), receiver)
}

impl Waker {
    /// Waits until the cell answers. Joins the wake that is under way, or begins one.
    ///
    /// Cancel safe: when the last of those who wait leaves, the wake is given up.
    ///
    /// # Errors
    /// `Wake`, `WakeTimeout`.
    pub async fn wake(&self, cell: &Arc<Cell>, live: &Arc<Live>) -> Result<(), StreamError> {
        loop {
            let mut progress = live.join_wake(&cell.placement, |progress| {
                // The receiver is gone only with the process.
                let _ = self.0.send(Order {
                    cell: Arc::clone(cell),
                    live: Arc::clone(live),
                    progress,
                });
            });
            let outcome = match progress
                .wait_for(|progress| *progress != WakeProgress::Waking)
                .await
            {
                Ok(outcome) => outcome.clone(),
                Err(_) => WakeProgress::Failed("the router stops".into()),
            };
            match outcome {
                WakeProgress::Ready(_) => return Ok(()),
                WakeProgress::Failed(why) => return Err(StreamError::Wake(why)),
                WakeProgress::TimedOut => {
                    return Err(StreamError::WakeTimeout(cell.limits.wake_timeout));
                }
                WakeProgress::GivenUp | WakeProgress::Waking => {}
            }
        }
    }
}

/// Carries out orders, side by side, until all wakers are gone.
pub async fn run(mut orders: mpsc::UnboundedReceiver<Order>, machines: Machines) {
    let machines = Arc::new(machines);
    while let Some(order) = orders.recv().await {
        tokio::spawn(carry_out(order, Arc::clone(&machines)));
    }
}

async fn carry_out(order: Order, machines: Arc<Machines>) {
    let Order {
        cell,
        live,
        progress,
    } = order;
    let deadline = Instant::now() + cell.limits.wake_timeout;
    let outcome = tokio::select! {
        outcome = timeout_at(deadline, wake(&machines, &cell, deadline)) => match outcome {
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
            live.breaker.woke(&cell);
        }
        WakeProgress::Failed(_) | WakeProgress::TimedOut => live.breaker.failed(&cell),
        WakeProgress::GivenUp | WakeProgress::Waking => {}
    }
    progress.send_replace(outcome);
}

/// Starts the cell's machine and waits until the cell answers; where it does.
async fn wake(machines: &Machines, cell: &Cell, deadline: Instant) -> Result<SocketAddr, String> {
    let Placement::Machine { app, machine, port } = &cell.placement else {
        return Err("it lives at an address, where nothing can start it".to_owned());
    };
    let (app, machine) = (app.as_str(), machine.as_str());
    tracing::info!(cell = cell.name.as_str(), app, machine, "waking");
    let address = started(machines, app, machine, deadline).await?;
    let address = SocketAddr::new(address.to_canonical(), *port);
    let url = format!("http://{address}{}", cell.ready_path);
    let mut pause = FIRST_PROBE_PAUSE;
    while !ready(machines, cell, address, &url).await {
        sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PROBE_PAUSE);
    }
    Ok(address)
}

/// Whether the cell answers. One that speaks TLS is ready once it accepts: the rest is seen when it is asked.
async fn ready(machines: &Machines, cell: &Cell, address: SocketAddr, url: &str) -> bool {
    if cell.tls.is_none() {
        return machines.answers(url, PROBE_TIMEOUT).await;
    }
    let accepted = timeout(PROBE_TIMEOUT, TcpStream::connect(address)).await;
    accepted.is_ok_and(|accepted| accepted.is_ok())
}

/// Starts the machine and waits until it is started, starting it again where that failed; its private address.
async fn started(
    machines: &Machines,
    app: &str,
    machine: &str,
    deadline: Instant,
) -> Result<IpAddr, String> {
    for _ in 0..STARTS {
        start(machines, app, machine).await?;
        loop {
            let patience = deadline.saturating_duration_since(Instant::now());
            match machines
                .wait_started(app, machine, patience.min(WAIT_SLICE))
                .await
            {
                Ok(_) => match machines.machine(app, machine).await {
                    Ok(found) if found.state == "started" => {
                        return found.private_ip.ok_or_else(|| {
                            "the Machines API names no private address for it".to_owned()
                        });
                    }
                    Ok(found) if FALLEN_BACK.contains(&found.state.as_str()) => break,
                    Ok(_) => {}
                    Err(error) => retryable(error)?,
                },
                Err(error) => retryable(error)?,
            }
            sleep(FIRST_PAUSE).await;
        }
    }
    Err(format!("its machine did not stay started, {STARTS} times"))
}

/// Asks for the start until it is granted, or the machine is found on its way.
async fn start(machines: &Machines, app: &str, machine: &str) -> Result<(), String> {
    let mut pause = FIRST_PAUSE;
    loop {
        match machines.start(app, machine).await {
            Ok(()) => return Ok(()),
            // A machine that is started, or on its way down, is refused too: its state tells which.
            Err(ApiError::Refused(status, said)) if status != http::StatusCode::UNAUTHORIZED => {
                match machines.machine(app, machine).await {
                    Ok(found) if matches!(found.state.as_str(), "started" | "starting") => {
                        return Ok(());
                    }
                    Ok(found)
                        if matches!(
                            found.state.as_str(),
                            "destroyed" | "destroying" | "failed" | "replaced" | "migrated"
                        ) =>
                    {
                        return Err(format!("its machine is {}: {said}", found.state));
                    }
                    Ok(_) => {}
                    Err(error) => retryable(error)?,
                }
            }
            Err(error) => retryable(error)?,
        }
        sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// Passes over what may go better next time.
fn retryable(error: ApiError) -> Result<(), String> {
    match error {
        ApiError::RateLimited | ApiError::Unavailable(_) => Ok(()),
        ApiError::Refused(..) => Err(error.to_string()),
    }
}
