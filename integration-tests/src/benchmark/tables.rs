//! What a request costs more with a larger table, and with a table that changes.

use std::io;
use std::path::Path;
use std::time::Duration;

use super::peers::{Given, Peer};
use super::{Cost, WORKS, Work, alternate, once, ratios, shown, typical};

/// Hosts in the tables that are compared, each with one of ten.
pub const SIZES: [usize; 3] = [1_000, 100_000, 1_000_000];
const FEW: usize = 10;

/// The work that is compared.
const WORK: &Work = &WORKS[0];

/// The cost of a request with so many cells beside that with ten, for each proxy on its own.
///
/// # Errors
/// As [`super::run`].
pub async fn size(
    given: &Given,
    cells: usize,
    router: &Path,
    args: &[String],
    rounds: usize,
) -> io::Result<String> {
    let many = Given {
        cells,
        ..given.clone()
    };
    let few = Given {
        cells: FEW,
        ..given.clone()
    };
    let mut text = format!(
        "| {}, hosts in the table | {FEW} | {cells} | ratio | rounds |\n|---|---|---|---|---|\n",
        WORK.name
    );
    for proxy in ["router", "nginx", "HAProxy"] {
        let mut peers = Vec::new();
        for given in [&few, &many] {
            peers.push(match proxy {
                "router" => Peer::router(given, router, proxy, args).await?,
                "nginx" => Peer::nginx(given, proxy).await?,
                _ => Peer::haproxy(given, proxy).await?,
            });
        }
        let costs = alternate(&peers, WORK, rounds).await?;
        let [few, many] = [&costs[0], &costs[1]];
        text.push_str(&format!(
            "| {proxy} | {} | {} | {} |\n",
            typical(WORK.unit, few),
            typical(WORK.unit, many),
            shown(ratios(many, few)),
        ));
    }
    Ok(text)
}

/// The cost of a request while the table changes every second, beside that while it does not: of the thread that serves, and
/// of the whole router, which reads the file.
///
/// # Errors
/// As [`super::run`].
pub async fn changing(
    given: &Given,
    router: &Path,
    args: &[String],
    rounds: usize,
) -> io::Result<String> {
    let given = &Given {
        changes: true,
        ..given.clone()
    };
    let peers = [
        Peer::router(given, router, "unchanged", args).await?,
        Peer::router(given, router, "changed every second", args).await?,
    ];
    let [mut whole, mut served] = [[Vec::new(), Vec::new()], [Vec::new(), Vec::new()]];
    for round in 0..=rounds {
        for (number, peer) in peers.iter().enumerate() {
            let changing = async {
                let mut seconds = tokio::time::interval(Duration::from_secs(1));
                loop {
                    seconds.tick().await;
                    if number == 1
                        && let Err(error) = peer.change()
                    {
                        break error;
                    }
                }
            };
            let before = peer.busy_of("worker")?;
            let cost = tokio::select! {
                cost = several(peer) => cost?,
                error = changing => return Err(error),
            };
            let busy = peer.busy_of("worker")? - before;
            if round > 0 {
                whole[number].push(cost);
                served[number].push(Cost { busy, ..cost });
            }
        }
    }
    let mut text = format!(
        "| {}, {} cells | unchanged | changed every second | ratio | rounds |\n|---|---|---|---|---|\n",
        WORK.name, given.cells
    );
    for (what, [unchanged, changed]) in [
        ("the thread that serves", &served),
        ("the whole router", &whole),
    ] {
        text.push_str(&format!(
            "| {what} | {} | {} | {} |\n",
            typical(WORK.unit, unchanged),
            typical(WORK.unit, changed),
            shown(ratios(changed, unchanged)),
        ));
    }
    Ok(text)
}

/// The work often enough for several changes to happen meanwhile.
async fn several(peer: &Peer) -> io::Result<Cost> {
    let mut all = Cost {
        busy: 0,
        done: 0,
        took: 0,
    };
    while all.took < 5_000_000_000 {
        let cost = once(peer, WORK).await?;
        all.busy += cost.busy;
        all.done += cost.done;
        all.took += cost.took;
    }
    Ok(all)
}
