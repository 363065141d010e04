//! The registry file is edited by the page, by commands and by an editor at once, and under kills: nothing is lost.

use integration_tests::Binaries;
use integration_tests::edits::{Options, run};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_edit_at_once_and_are_killed_and_nothing_is_lost() {
    let options = Options {
        router: Binaries::built().cell_router.clone(),
        edits: 24,
        kills: 30,
        seed: 5,
    };
    let report = run(&options)
        .await
        .unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(report.books.edits, [24; 3], "{report}");
    assert_eq!(report.kills.killed, [15; 2], "{report}");
}
