//! The table of behaviours: the router is right in every row.

use integration_tests::Binaries;
use integration_tests::behaviours::proxies::Front;
use integration_tests::behaviours::{Verdict, cases, proxies, report, run};
use integration_tests::process::HUNG;

#[tokio::test]
async fn every_behaviour_of_the_table_is_right() {
    let mut sections = cases::sections();
    for section in &mut sections {
        section.cases.retain(|case| !case.excepted());
    }
    let cells = run::cells(&sections).await.unwrap();
    let addresses: Vec<_> = cells.iter().map(|cell| cell.addr()).collect();
    let router = proxies::router(&addresses, Binaries::built().cell_router.clone()).await;
    let front = Front {
        http1: router.addr(),
        http2: router.addr(),
    };
    let outcomes = run::all(&sections, &cells, front, HUNG).await.unwrap();
    let mut faults = Vec::new();
    for (section, outcomes) in sections.iter().zip(&outcomes) {
        for (case, outcome) in section.cases.iter().zip(outcomes) {
            if outcome.verdict != Verdict::Right {
                let seen = report::cell(outcome);
                faults.push(format!("{}: {}: {seen}", section.title, case.name));
            }
        }
    }
    assert!(
        faults.is_empty(),
        "{} rows:\n{}",
        faults.len(),
        faults.join("\n")
    );
}
