//! A short soak: what must never happen does not, whatever the order in which things go wrong.

use std::time::Duration;

use integration_tests::Binaries;
use integration_tests::soak::{Options, run};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_byte_is_accounted_for() {
    let options = Options {
        router: Binaries::built().cell_router.clone(),
        lasts: Duration::from_secs(8),
        seed: 1,
        cells: 40,
        clients: 16,
        without: Vec::new(),
        talks: false,
    };
    let report = run(&options).await.expect("a soak can be set up");
    assert!(report.requests() > 0 && report.failed() == 0, "{report}");
}
