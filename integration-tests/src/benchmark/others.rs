//! Whether anybody else used the processors meanwhile: figures of a machine that is busy otherwise mean little.

use std::fs;
use std::io;

use super::peers::Peer;

/// The share of the processors' time that others may have before it is said, in percent.
const QUIET_PERCENT: f64 = 3.0;

/// A tick of the clock in which the kernel tells times to programs.
const TICK_NANOSECONDS: u64 = 10_000_000;

/// Processor time since something began, in ticks of the kernel's clock.
#[derive(Debug)]
pub struct Others {
    all: u64,
    idle: u64,
    ours: u64,
}

impl Others {
    /// Watches from now on. Peers that are started and ended meanwhile are counted as ours by themselves.
    ///
    /// # Errors
    /// The kernel tells nothing.
    pub fn watch(peers: &[Peer]) -> io::Result<Self> {
        let (all, idle) = machine()?;
        let ours = ours(peers)?;
        Ok(Self { all, idle, ours })
    }

    /// What there is to say; nothing if the machine was quiet.
    ///
    /// # Errors
    /// The kernel tells nothing.
    pub fn told(&self, peers: &[Peer]) -> io::Result<String> {
        let now = Self::watch(peers)?;
        let all = now.all - self.all;
        let used = all.saturating_sub(now.idle - self.idle);
        let others = used.saturating_sub(now.ours.saturating_sub(self.ours)) as f64;
        let percent = others / all.max(1) as f64 * 100.0;
        if percent <= QUIET_PERCENT {
            return Ok(String::new());
        }
        Ok(format!(
            "disturbed: others took {percent:.0} % of the processors' time\n"
        ))
    }
}

/// Time of all processors, and of it what nobody used, the kernel's interrupts and other guests of the host included.
fn machine() -> io::Result<(u64, u64)> {
    let text = fs::read_to_string("/proc/stat")?;
    let line = text.lines().next().unwrap_or_default();
    let times: Vec<u64> = line
        .split_whitespace()
        .filter_map(|time| time.parse().ok())
        .collect();
    // user, nice, system, idle, iowait, irq, softirq, steal; guests are counted within user.
    Ok((
        times.iter().take(8).sum(),
        times.iter().skip(3).take(2).sum(),
    ))
}

/// Time of this process, of those that it started and that have ended, and of these peers.
fn ours(peers: &[Peer]) -> io::Result<u64> {
    let text = fs::read_to_string("/proc/self/stat")?;
    let after = text.rsplit(')').next().unwrap_or_default();
    // utime, stime, cutime, cstime.
    let times = after.split_whitespace().skip(11).take(4);
    let own: u64 = times.filter_map(|time| time.parse::<u64>().ok()).sum();
    let mut live = 0;
    for peer in peers {
        live += peer.busy()?;
    }
    Ok(own + live / TICK_NANOSECONDS)
}
