//! The runtime of the control thread.

use std::io;

use tokio::runtime::{Builder, Runtime};

/// By how much what blocks is less urgent than a request. On a core that both want all of, it gets a tenth.
const NICE: i32 = 10;

/// A runtime of the calling thread. What blocks, which is mostly to read a registry, it has done by threads that give way to
/// the workers: else a request may wait for a tick or two of the scheduler, of 4 ms each. They must hold no lock that a
/// worker may want.
///
/// # Errors
/// Those of the system.
pub(crate) fn runtime() -> io::Result<Runtime> {
    let mut builder = Builder::new_current_thread();
    builder.enable_all().on_thread_start(give_way).build()
}

fn give_way() {
    // In Linux this is of the calling thread alone. Who is refused it works as urgently as before.
    let _ = rustix::process::nice(NICE);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nice() -> i32 {
        rustix::process::getpriority_process(None).unwrap()
    }

    #[test]
    fn threads_of_its_own_give_way_and_the_calling_one_does_not() {
        let before = nice();
        let runtime = runtime().unwrap();
        let (called, own) =
            runtime.block_on(async { (nice(), tokio::task::spawn_blocking(nice).await) });
        assert_eq!((called, own.unwrap()), (before, (before + NICE).min(19)));
    }
}
