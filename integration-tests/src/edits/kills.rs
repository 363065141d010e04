//! Programs that are killed amid an edit.

use std::fmt;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::json;
use tokio::time::{Instant, sleep};

use super::scene::{Became, Scene, said};
use super::{Options, books};
use crate::client::Error;
use crate::numbers::Numbers;
use crate::process::HUNG;

/// How long after an edit is on record it may take to be made, in milliseconds: half of the kills come in that time.
const AFTER_RECORD_MS: usize = 4;

/// What became of the edits.
#[derive(Debug, Default)]
pub struct Kills {
    /// Commands and routers that were killed.
    pub killed: [usize; 2],
    /// Edits that were acknowledged before the kill, that were made and not acknowledged, and that were not made.
    pub edits: [usize; 3],
    /// Edits that were on record when the kill came, and not made.
    pub cut_off: usize,
    /// Lines of the history in the end.
    pub records: usize,
}

/// Kills commands and routers by turns, at any moment of an edit. After each the file is whole, an edit that was
/// acknowledged is there, the next one is made, and nothing lies about.
pub(super) async fn amid_edits(
    mut scene: Scene,
    options: &Options,
) -> Result<(Scene, Kills), Error> {
    let mut dice = Numbers(options.seed);
    let mut kills = Kills::default();
    let mut value = 500_000;
    // How long an edit takes that nobody kills.
    let mut usual = Duration::ZERO;
    for number in 0..options.kills {
        let began = Instant::now();
        next_edit(&scene, &mut value).await?;
        usual = usual.max(began.elapsed()).mul_f64(0.95);
        let before = scene.text()?;
        value += 1;
        let moment = if dice.below(2) == 0 {
            Moment::OnRecord(Duration::from_millis(dice.below(AFTER_RECORD_MS) as u64))
        } else {
            Moment::Any(usual.mul_f64(dice.below(1200) as f64 / 1000.0))
        };
        let by_router = number % 2 == 1;
        let acknowledged = if by_router {
            kill_router(&scene, value, moment).await?
        } else {
            kill_command(&scene, value, moment).await?
        };
        kills.killed[usize::from(by_router)] += 1;
        let text = scene.text()?;
        let registry = scene.registry()?;
        let now = registry.cell("shared").ok_or("the cell is gone")?;
        let is_made = now.policy.limits.max_in_flight == value;
        if acknowledged && !is_made {
            return Err(format!("edit {value} was acknowledged, and is lost").into());
        }
        if !is_made && text != before {
            return Err(format!("neither the old text nor the new: {text:?}").into());
        }
        let became = match (acknowledged, is_made) {
            (true, _) => 0,
            (false, true) => 1,
            (false, false) => 2,
        };
        kills.edits[became] += 1;
        if by_router {
            scene = scene.again().await?;
        }
        next_edit(&scene, &mut value).await?;
        scene.nothing_is_left_behind()?;
    }
    let history = scene.history()?;
    kills.records = history.len();
    kills.cut_off = history
        .iter()
        .filter(|(record, _)| record.through == books::CUT_OFF)
        .count();
    Ok((scene, kills))
}

/// When a program is killed.
#[derive(Clone, Copy, Debug)]
enum Moment {
    /// So long after it has begun.
    Any(Duration),
    /// So long after its edit is on record.
    OnRecord(Duration),
}

impl Moment {
    async fn comes(self, scene: &Scene) -> Result<(), Error> {
        let after = match self {
            Self::Any(after) => after,
            Self::OnRecord(after) => {
                let history = scene.file.with_extension("history.jsonl");
                let length = || std::fs::metadata(&history).map(|file| file.len());
                let (before, began) = (length()?, Instant::now());
                while length()? == before && began.elapsed() < HUNG {
                    tokio::task::yield_now().await;
                }
                after
            }
        };
        sleep(after).await;
        Ok(())
    }
}

/// An edit that nobody kills is made.
async fn next_edit(scene: &Scene, value: &mut u32) -> Result<(), Error> {
    *value += 1;
    let what = format!("max_in_flight={value}");
    let output = scene.command(&["cell", "set", "shared", &what]).output();
    match said(&output.await?)? {
        Became::Made(_) => Ok(()),
        became => Err(format!("the next edit is not made: {became:?}").into()),
    }
}

/// Whether the edit was acknowledged.
async fn kill_command(scene: &Scene, value: u32, moment: Moment) -> Result<bool, Error> {
    let what = format!("max_in_flight={value}");
    let mut child = scene.command(&["cell", "set", "shared", &what]).spawn()?;
    tokio::select! {
        biased;
        ended = child.wait() => return Ok(ended?.success()),
        came = moment.comes(scene) => came?,
    }
    // One that has ended already is not there to be killed.
    let _ = child.start_kill();
    Ok(child.wait().await?.success())
}

/// Whether the edit was acknowledged.
async fn kill_router(scene: &Scene, value: u32, moment: Moment) -> Result<bool, Error> {
    let patch = json!({ "max_in_flight": value });
    let target = "/v1/cells/shared/entry";
    let asking = scene.ask("PATCH", target, ("accept", "*/*"), &patch);
    let killing = async {
        let came = moment.comes(scene).await;
        scene.router.process().signal(Signal::KILL);
        came
    };
    let (answer, came) = tokio::join!(asking, killing);
    came?;
    scene.router.exited().await;
    Ok(answer.is_ok_and(|answer| answer.status.is_success()))
}

impl fmt::Display for Kills {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [commands, routers] = self.killed;
        let [acknowledged, made, not_made] = self.edits;
        writeln!(
            f,
            "{commands} commands and {routers} routers killed amid an edit: {acknowledged} edits acknowledged, {made} made, {not_made} not made ({} of them on record as cut off)",
            self.cut_off
        )?;
        write!(
            f,
            "after each the file was whole, the next edit was made, and nothing lay about; {} records, each following the one before it",
            self.records
        )
    }
}
