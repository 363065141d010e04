//! The harness for tests of the whole system: real processes, a Fly.io in one process, small clients.
//!
//! Everything listens on the loopback interface, on a free port, and ends when its value is dropped.

pub mod behaviours;
pub mod benchmark;
pub mod browser;
pub mod client;
pub mod collector;
pub mod differential;
pub mod edits;
pub mod fly;
pub mod http2;
pub mod instructions;
pub mod numbers;
pub mod process;
mod router;
pub mod s3;
mod scripted;
pub mod soak;
pub mod tls;

use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
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
            let target = folder.parent().expect("a profile lies in a target folder");
            let built = build(target, folder.ends_with("release"));
            assert!(
                built.is_ok_and(|status| status.success()),
                "cannot build the binaries"
            );
            Self::in_folder(folder)
        })
    }

    /// The binaries in a folder, without building.
    pub fn in_folder(folder: &Path) -> Self {
        Self {
            cell_router: folder.join("cell-router"),
            cell_app: folder.join("cell-app"),
        }
    }
}

/// Builds the workspace's binaries, with the features that the whole workspace has, as the running one was.
fn build(target: &Path, release: bool) -> std::io::Result<ExitStatus> {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    // What cargo tells its children about this package would make build scripts run again in the inner build.
    let about_us = [
        "CARGO_PKG_",
        "CARGO_MANIFEST_",
        "CARGO_BIN_",
        "CARGO_CRATE_",
        "CARGO_PRIMARY_",
    ];
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if about_us.iter().any(|prefix| text.starts_with(prefix)) {
            cargo.env_remove(&name);
        }
    }
    cargo
        .args(["build", "--workspace", "--bins"])
        .args(release.then_some("--release"))
        .arg("--target-dir")
        .arg(target)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .status()
}
