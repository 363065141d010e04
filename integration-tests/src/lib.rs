//! The harness for tests of the whole system: real processes, a Fly.io in one process, small clients.
//!
//! Everything listens on the loopback interface, on a free port, and ends when its value is dropped.

pub mod client;
pub mod fly;
pub mod process;
mod router;
mod scripted;

use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;

pub use router::{Router, RouterOptions};
pub use scripted::ScriptedCell;

/// The system's binaries, of the same profile as the running executable.
#[derive(Debug)]
pub struct Binaries {
    /// `cell-router`.
    pub cell_router: PathBuf,
    /// `cell-app`.
    pub cell_app: PathBuf,
}

impl Binaries {
    /// Builds both, once in each process, so that a test run of this package alone works.
    ///
    /// # Panics
    /// The build fails: no test can say anything then.
    pub fn built() -> &'static Self {
        static BUILT: OnceLock<Binaries> = OnceLock::new();
        BUILT.get_or_init(|| {
            let here = std::env::current_exe().expect("a running executable has a path");
            // target/<profile>/deps/<test>, or target/<profile>/fly-local.
            let folder = here
                .ancestors()
                .skip(1)
                .find(|folder| !folder.ends_with("deps"));
            let folder = folder.expect("an executable lies in a folder");
            let mut cargo =
                Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
            cargo.args(["build", "--quiet", "-p", "cell-router", "-p", "cell-app"]);
            // What cargo tells a test about its package changes how build scripts see the world, and they would run
            // again, with all that rests on them.
            for (name, _) in std::env::vars_os() {
                let name = name.to_string_lossy();
                if ["CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_PRIMARY_"]
                    .iter()
                    .any(|start| name.starts_with(start))
                {
                    cargo.env_remove(&*name);
                }
            }
            if folder.ends_with("release") {
                cargo.arg("--release");
            }
            if let Some(target) = folder.parent() {
                cargo.arg("--target-dir").arg(target);
            }
            let built = cargo.current_dir(env!("CARGO_MANIFEST_DIR")).status();
            assert!(
                built.is_ok_and(|status| status.success()),
                "cannot build the binaries"
            );
            Self::in_folder(folder)
        })
    }

    /// The binaries in a folder, without building.
    pub fn in_folder(folder: &std::path::Path) -> Self {
        Self {
            cell_router: folder.join("cell-router"),
            cell_app: folder.join("cell-app"),
        }
    }
}
