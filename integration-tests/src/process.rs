//! Owns child processes: their output as awaitable lines, their signals, their end.
//!
//! A process never outlives its [`Process`]: dropping it kills the child and reaps it before returning.

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process, waitid};
use tokio::sync::watch;

/// How long anything in the harness waits for an event before it gives up as hung.
pub const HUNG: Duration = Duration::from_secs(90);

/// Locks, also after a panic elsewhere: the harness wants its logs most of all then.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[derive(Clone, Copy, Debug, Default)]
struct Extent {
    lines: usize,
    ended: bool,
}

#[derive(Debug)]
struct Line {
    text: String,
    taken: bool,
}

/// The lines that a process wrote to one of its outputs, as they come.
#[derive(Clone, Debug)]
pub struct Lines {
    lines: Arc<Mutex<Vec<Line>>>,
    extent: watch::Sender<Extent>,
}

impl Lines {
    fn read(name: String, source: impl Read + Send + 'static, echo: Option<Echo>) -> Self {
        let this = Self {
            lines: Arc::default(),
            extent: watch::Sender::new(Extent::default()),
        };
        let reader = this.clone();
        std::thread::spawn(move || {
            for text in BufReader::new(source).lines().map_while(Result::ok) {
                if let Some(echo) = echo {
                    echo(&name, &text);
                }
                lock(&reader.lines).push(Line { text, taken: false });
                reader.extent.send_modify(|extent| extent.lines += 1);
            }
            reader.extent.send_modify(|extent| extent.ended = true);
        });
        this
    }

    /// All lines so far.
    pub fn all(&self) -> Vec<String> {
        lock(&self.lines)
            .iter()
            .map(|line| line.text.clone())
            .collect()
    }

    /// The first line for which `pick` answers, from the start of the output; waits for it. `None` when the output
    /// ended without one, or nothing came for [`HUNG`]. The line stays for others. Cancel safe.
    pub async fn find<T>(&self, mut pick: impl FnMut(&str) -> Option<T>) -> Option<T> {
        let mut next = 0;
        self.scan(|lines| {
            let found = lines[next..].iter().find_map(|line| pick(&line.text));
            next = lines.len();
            found
        })
        .await
    }

    /// As [`Lines::find`], but each line is handed out once; lines that did not match stay for later calls.
    pub async fn take<T>(&self, mut pick: impl FnMut(&str) -> Option<T>) -> Option<T> {
        self.scan(|lines| {
            lines
                .iter_mut()
                .filter(|line| !line.taken)
                .find_map(|line| {
                    let picked = pick(&line.text)?;
                    line.taken = true;
                    Some(picked)
                })
        })
        .await
    }

    async fn scan<T>(&self, mut look: impl FnMut(&mut [Line]) -> Option<T>) -> Option<T> {
        let mut extent = self.extent.subscribe();
        let waiting = async {
            loop {
                let ended = extent.borrow_and_update().ended;
                if let Some(found) = look(&mut lock(&self.lines)) {
                    return Some(found);
                }
                if ended || extent.changed().await.is_err() {
                    return None;
                }
            }
        };
        tokio::time::timeout(HUNG, waiting).await.ok().flatten()
    }
}

/// Shows a line of a child's output, with the child's name, as it comes.
pub type Echo = fn(name: &str, line: &str);

/// A child process, killed and reaped on drop.
#[derive(Debug)]
pub struct Process {
    name: String,
    pid: Pid,
    reaped: Arc<Mutex<bool>>,
    exited: watch::Receiver<Option<ExitStatus>>,
    waiter: Option<JoinHandle<()>>,
    /// Standard output.
    pub stdout: Lines,
    /// Standard error.
    pub stderr: Lines,
}

impl Process {
    /// Starts `command`, with both outputs captured and shown line by line through `echo`.
    ///
    /// # Errors
    /// The command cannot be started.
    pub fn spawn(name: &str, command: &mut Command, echo: Option<Echo>) -> std::io::Result<Self> {
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        let pid = Pid::from_child(&child);
        let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
        let (ended, exited) = watch::channel(None);
        let reaped = Arc::new(Mutex::new(false));
        let waiter = {
            let reaped = Arc::clone(&reaped);
            std::thread::spawn(move || reap(child, pid, &reaped, &ended))
        };
        Ok(Self {
            name: name.to_owned(),
            pid,
            reaped,
            exited,
            waiter: Some(waiter),
            stdout: Lines::read(name.to_owned(), stdout.expect("stdout is piped"), echo),
            stderr: Lines::read(name.to_owned(), stderr.expect("stderr is piped"), echo),
        })
    }

    /// The process id.
    pub fn id(&self) -> u32 {
        self.pid.as_raw_nonzero().get().unsigned_abs()
    }

    /// Sends a signal; nothing happens if the process has ended.
    pub fn signal(&self, signal: Signal) {
        let reaped = lock(&self.reaped);
        if !*reaped {
            // The process may be a zombie that is about to be reaped: nothing is lost then.
            let _ = kill_process(self.pid, signal);
        }
    }

    /// Waits for the end of the process. Cancel safe.
    pub async fn exited(&self) -> ExitStatus {
        let mut exited = self.exited.clone();
        let status = exited
            .wait_for(Option::is_some)
            .await
            .expect("the waiter thread reports the end before it ends");
        status.expect("waited for it")
    }

    /// A receiver of the exit status, to wait for the end without borrowing the process.
    pub fn watch_exit(&self) -> watch::Receiver<Option<ExitStatus>> {
        self.exited.clone()
    }

    /// Peak resident memory in bytes so far (`VmHWM`), `None` once the process has ended.
    pub fn peak_memory_bytes(&self) -> Option<u64> {
        self.memory("VmHWM:")
    }

    /// Resident memory in bytes now (`VmRSS`), `None` once the process has ended.
    pub fn memory_bytes(&self) -> Option<u64> {
        self.memory("VmRSS:")
    }

    /// Of that what no file is behind: not the program's code, which is read as it is first run.
    pub fn private_memory_bytes(&self) -> Option<u64> {
        self.memory("RssAnon:")
    }

    fn memory(&self, field: &str) -> Option<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.id())).ok()?;
        let line = status.lines().find_map(|l| l.strip_prefix(field))?;
        let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
        Some(kib * 1024)
    }
}

/// Waits without reaping, so that a signal is never sent to a process id that is free again.
fn reap(
    mut child: Child,
    pid: Pid,
    reaped: &Mutex<bool>,
    ended: &watch::Sender<Option<ExitStatus>>,
) {
    while waitid(
        WaitId::Pid(pid),
        WaitIdOptions::EXITED | WaitIdOptions::NOWAIT,
    )
    .is_err_and(|error| error == rustix::io::Errno::INTR)
    {}
    let mut reaped = lock(reaped);
    let status = child.wait().expect("the child has ended and is ours");
    *reaped = true;
    ended.send_replace(Some(status));
}

impl Drop for Process {
    fn drop(&mut self) {
        self.signal(Signal::KILL);
        if let Some(waiter) = self.waiter.take() {
            let _ = waiter.join();
        }
        if std::thread::panicking() {
            for line in self.stdout.all() {
                eprintln!("[{} stdout] {line}", self.name);
            }
            for line in self.stderr.all() {
                eprintln!("[{} stderr] {line}", self.name);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Process {
        Process::spawn("sh", Command::new("sh").args(["-c", script]), None).unwrap()
    }

    #[tokio::test]
    async fn a_line_is_taken_once_and_others_stay() {
        let process = shell("echo one; echo two; echo three");
        let is = |wanted: &'static str| move |line: &str| (line == wanted).then_some(());
        assert!(process.stdout.take(is("two")).await.is_some());
        assert!(process.stdout.take(is("one")).await.is_some());
        assert!(process.stdout.take(is("two")).await.is_none());
        assert!(process.stdout.find(is("two")).await.is_some());
    }

    #[tokio::test]
    async fn drop_kills_and_reaps() {
        let process = shell("echo up; exec sleep 1000");
        process
            .stdout
            .find(|line| (line == "up").then_some(()))
            .await;
        let id = process.id();
        drop(process);
        assert!(!std::path::Path::new(&format!("/proc/{id}")).exists());
    }

    #[tokio::test]
    async fn exit_status_is_reported() {
        assert_eq!(shell("exit 3").exited().await.code(), Some(3));
    }
}
