//! Made-up and malformed requests, in rows over one connection each: what the cell gets is what was sent.

use integration_tests::differential::run::{Options, run};

#[tokio::test]
async fn a_cell_gets_requests_that_were_sent_and_nothing_else() {
    let options = Options {
        seed: 3,
        time: None,
        lanes: 4,
        rows: 60,
        nginx: false,
        router: None,
    };
    let tally = run(&options).await.unwrap();
    assert!(tally.findings.is_empty(), "{tally}");
    assert!(tally.rows == 240 && tally.reached[0] > 100, "{tally}");
}
