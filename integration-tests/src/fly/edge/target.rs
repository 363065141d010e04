//! Owns which machine gets a request, and the way to reach it: autostart, waiting, retries (fly-platform 1.2, 1.5,
//! 1.8, 3.3).

use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpStream;

use super::instruction::{Fallback, Instruction, Transform};
use super::{EdgeError, FailureReason, Kind};
use crate::fly::machine::{Machine, State};
use crate::fly::platform::Platform;

/// How long the edge tries to reach a target when the replay names no time; nobody documents it.
const REACH_MAX: Duration = Duration::from_secs(60);
/// fly-platform 7, PR03: up to 90 retries.
const RETRIES_MAX: usize = 90;
/// Pause between two tries to connect to a started machine that does not listen yet.
const RETRY_PAUSE: Duration = Duration::from_millis(50);
/// A machine whose start failed this often is given up.
const STARTS_MAX: usize = 3;

/// Where a request goes next.
#[derive(Clone, Debug)]
pub(super) struct Aim {
    pub(super) kind: Kind,
    pub(super) app: String,
    pub(super) instance: Option<String>,
    pub(super) prefer_instance: Option<String>,
    /// In order of preference; empty for any.
    pub(super) regions: Vec<String>,
    /// True if other regions will do as well.
    pub(super) soft_regions: bool,
    pub(super) exclude: Option<String>,
    pub(super) timeout: Option<Duration>,
    pub(super) fallback: Option<Fallback>,
    pub(super) transform: Option<Transform>,
    pub(super) state: Option<String>,
}

impl Aim {
    /// Any machine of an app.
    pub(super) fn at(app: &str, kind: Kind) -> Self {
        Self {
            kind,
            app: app.to_owned(),
            instance: None,
            prefer_instance: None,
            regions: Vec::new(),
            soft_regions: false,
            exclude: None,
            timeout: None,
            fallback: None,
            transform: None,
            state: None,
        }
    }

    /// What an instruction says; `app` and `machine` are the ones that answered with it.
    pub(super) fn replay(
        instruction: Instruction,
        app: &str,
        machine: Option<&str>,
        kind: Kind,
    ) -> Self {
        let mut regions = instruction.regions;
        let soft_regions = regions.last().is_some_and(|last| last == "any");
        regions.retain(|region| region != "any");
        Self {
            kind,
            app: instruction.app.unwrap_or_else(|| app.to_owned()),
            instance: instruction.instance,
            prefer_instance: instruction.prefer_instance,
            regions,
            soft_regions,
            exclude: machine.filter(|_| instruction.elsewhere).map(str::to_owned),
            timeout: instruction.timeout,
            fallback: instruction.fallback,
            transform: instruction.transform,
            state: instruction.state,
        }
    }

    /// The answering machine again, because its replay failed (fly-platform 1.2: `fallback`).
    pub(super) fn fallback(fallback: Fallback, answering: &Machine) -> Self {
        let mut aim = Self::at(&answering.app, Kind::Fallback);
        let id = Some(answering.id.clone());
        match fallback {
            Fallback::ForceSelf => aim.instance = id,
            Fallback::PreferSelf => aim.prefer_instance = id,
        }
        aim
    }

    /// Machines that will do, best first: the preferred one, the preferred regions, started ones, the least loaded.
    fn candidates(&self, platform: &Platform, public_port: u16) -> Vec<Arc<Machine>> {
        let rank = |region: &str| {
            self.regions
                .iter()
                .position(|wanted| within(region, wanted))
        };
        let fits = |machine: &Arc<Machine>| {
            let (serves, startable) = machine.with_config(|config| {
                // fly-platform 1.8: the target needs a service with the public port that the client hit.
                let serves = config.public_ports.contains(&public_port) && !config.cordoned;
                (serves, config.autostart)
            });
            serves
                && (startable || machine.state() == State::Started)
                && self.instance.as_ref().is_none_or(|id| *id == machine.id)
                && self.exclude.as_ref().is_none_or(|id| *id != machine.id)
                && (self.regions.is_empty() || self.soft_regions || rank(&machine.region).is_some())
        };
        let mut found: Vec<_> = platform
            .machines(&self.app)
            .into_iter()
            .filter(fits)
            .collect();
        found.sort_by_key(|machine| {
            (
                self.prefer_instance.as_ref() != Some(&machine.id),
                rank(&machine.region).unwrap_or(usize::MAX),
                machine.state() != State::Started,
                machine.load(),
            )
        });
        found
    }

    /// Connects to the best machine that can be reached; starts it if it sleeps. Cancel safe: a machine that is
    /// starting goes on to start.
    pub(super) async fn reach(
        &self,
        platform: &Arc<Platform>,
        public_port: u16,
    ) -> Result<(TcpStream, Arc<Machine>), EdgeError> {
        if !platform.has_app(&self.app) {
            return Err(EdgeError::new(
                "PA04",
                502,
                format!("no app `{}`", self.app),
            ));
        }
        let trying = async {
            let mut last = FailureReason::NoCandidate;
            for machine in self.candidates(platform, public_port) {
                match connect(platform, &machine).await {
                    Ok(stream) => return Ok((stream, machine)),
                    Err(reason) => last = reason,
                }
            }
            Err(last)
        };
        let reached = tokio::time::timeout(self.timeout.unwrap_or(REACH_MAX), trying).await;
        reached
            .unwrap_or(Err(FailureReason::Timeout))
            .map_err(EdgeError::unreached)
    }
}

/// True if `region` is `wanted`, or lies in the area that `wanted` is an alias of (fly-platform 1.2).
fn within(region: &str, wanted: &str) -> bool {
    let area: &[&str] = match wanted {
        "na" | "us" | "usa" => &["dfw", "ewr", "iad", "lax", "ord", "sjc", "yyz"],
        "eu" => &["ams", "arn", "cdg", "fra", "lhr"],
        "apac" => &["bom", "nrt", "sin", "syd"],
        "sa" => &["gru"],
        _ => return region == wanted,
    };
    area.contains(&region) && !(region == "yyz" && wanted != "na")
}

async fn connect(
    platform: &Arc<Platform>,
    machine: &Arc<Machine>,
) -> Result<TcpStream, FailureReason> {
    let mut starts = 0;
    for _ in 0..RETRIES_MAX {
        if let Some(reason) = platform.faults.is_unreachable(&machine.id) {
            return Err(reason);
        }
        match machine.state() {
            State::Started => {
                let address = machine.address();
                if let Ok(stream) = TcpStream::connect(address).await
                    // The edge never takes another machine for this one, whoever has its address now.
                    && machine.address() == address
                {
                    return Ok(stream);
                }
                tokio::time::sleep(RETRY_PAUSE).await;
            }
            State::Created | State::Stopped | State::Suspended => {
                starts += 1;
                if starts > STARTS_MAX || !machine.with_config(|config| config.autostart) {
                    return Err(if starts > 1 {
                        FailureReason::RetriesExhausted
                    } else {
                        FailureReason::NoCandidate
                    });
                }
                // Refused if someone else started it just now: the next round sees that.
                let _ = machine.start(platform);
            }
            State::Destroyed => return Err(FailureReason::NoCandidate),
            State::Starting | State::Stopping | State::Suspending | State::Restarting => {
                let lasting = [
                    State::Created,
                    State::Started,
                    State::Stopped,
                    State::Suspended,
                    State::Destroyed,
                ];
                machine.reached(&lasting).await;
            }
        }
    }
    Err(FailureReason::RetriesExhausted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn region_aliases_stand_for_their_regions() {
        assert!(within("iad", "us") && within("yyz", "na") && within("ams", "ams"));
        assert!(!within("yyz", "us") && !within("ams", "us") && !within("ams", "fra"));
    }

    #[test]
    fn a_region_list_that_ends_in_any_is_soft() {
        let read = |text| {
            Aim::replay(
                Instruction::from_header(text).unwrap(),
                "a",
                None,
                Kind::Replay,
            )
        };
        assert!(read("region=\"iad,any\"").soft_regions);
        assert!(!read("region=\"iad,us\"").soft_regions);
    }
}
