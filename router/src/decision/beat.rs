//! Whether a cell whose beats are awaited is missing: judged against what is to be expected of it.

use std::time::Duration;

use crate::registry::Admission;

/// How many intervals may pass without a beat.
pub const INTERVALS: u32 = 3;

/// How long the time of a beat may be off the router's clock, either way: in milliseconds.
pub const SKEW_MS: u64 = 60_000;

/// The states of a machine that never comes back, or not without somebody's help (Fly docs, Machine states).
pub const LOST: [&str; 5] = ["destroyed", "destroying", "failed", "replaced", "migrated"];

/// What is known of a cell and its silence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Silence {
    /// How often it is to beat; zero: not at all.
    pub every: Duration,
    /// Whether requests reach it.
    pub admission: Admission,
    /// For how long nothing has been heard: since its last beat, since it was woken, or since it is awaited at all.
    pub lasts: Duration,
    /// What is known of where it lives.
    pub home: Home,
}

/// What is known of where a cell lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Home {
    /// An address: nothing sleeps there.
    Address,
    /// A machine that was not seen awake yet.
    Unseen,
    /// A machine that was awake when it was last heard of.
    Awake,
    /// A machine that runs, though the cell is silent: the platform said so.
    Running,
    /// A machine that sleeps, by the platform's word, or is on its way to.
    Asleep,
    /// A machine that is gone, or has failed, by the platform's word.
    Lost,
}

/// What a silence means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing is expected of it.
    Excused,
    /// It was heard of in time.
    Well,
    /// It may sleep: whether it does is for the platform to say.
    Ask,
    /// It is missing.
    Missing,
}

/// Judges a silence.
pub fn judge(silence: Silence) -> Verdict {
    let awaited = !silence.every.is_zero() && silence.admission == Admission::Active;
    let in_time = silence.lasts < silence.every * INTERVALS;
    match silence.home {
        _ if !awaited => Verdict::Excused,
        Home::Unseen | Home::Asleep => Verdict::Excused,
        _ if in_time => Verdict::Well,
        Home::Awake => Verdict::Ask,
        Home::Address | Home::Running | Home::Lost => Verdict::Missing,
    }
}

/// What the platform's word for a machine's state means (Fly docs, Machine states). One that is on its way up counts as
/// just woken.
pub fn home(state: &str) -> Home {
    match state {
        "started" => Home::Running,
        "starting" | "restarting" | "replacing" | "updating" => Home::Awake,
        lost if LOST.contains(&lost) => Home::Lost,
        _ => Home::Asleep,
    }
}

/// How far the time of a beat is off, in milliseconds, where it is too far.
pub fn skew(beat_ms: u64, now_ms: u64) -> Option<u64> {
    Some(beat_ms.abs_diff(now_ms)).filter(|off| *off > SKEW_MS)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn silence() -> Silence {
        Silence {
            every: SECOND * 10,
            admission: Admission::Active,
            lasts: SECOND * 30,
            home: Home::Address,
        }
    }

    macro_rules! judged {
        ($($name:ident: $silence:expr => $verdict:ident;)*) => {$(
            #[test]
            fn $name() {
                assert_eq!(judge($silence), Verdict::$verdict);
            }
        )*};
    }

    judged! {
        an_address_that_was_silent_for_three_intervals_is_missing: silence() => Missing;
        an_address_that_was_silent_for_less_is_well: Silence { lasts: SECOND * 30 - Duration::from_millis(1), ..silence() } => Well;
        a_cell_that_need_not_beat_is_excused: Silence { every: Duration::ZERO, ..silence() } => Excused;
        a_paused_cell_is_excused: Silence { admission: Admission::Paused, ..silence() } => Excused;
        a_cell_in_maintenance_is_excused: Silence { admission: Admission::Maintenance, ..silence() } => Excused;
        a_disabled_cell_is_excused: Silence { admission: Admission::Disabled, ..silence() } => Excused;
        a_machine_that_was_never_seen_awake_is_excused: Silence { home: Home::Unseen, ..silence() } => Excused;
        of_a_machine_that_was_awake_the_platform_is_asked: Silence { home: Home::Awake, ..silence() } => Ask;
        a_machine_that_was_just_woken_is_well: Silence { home: Home::Awake, lasts: Duration::ZERO, ..silence() } => Well;
        a_machine_that_sleeps_is_excused: Silence { home: Home::Asleep, ..silence() } => Excused;
        a_machine_that_sleeps_is_excused_though_it_beat_just_now: Silence { home: Home::Asleep, lasts: Duration::ZERO, ..silence() } => Excused;
        a_machine_that_runs_and_is_silent_is_missing: Silence { home: Home::Running, ..silence() } => Missing;
        a_machine_that_is_gone_is_missing: Silence { home: Home::Lost, ..silence() } => Missing;
        a_machine_in_maintenance_is_excused_though_it_runs: Silence { home: Home::Running, admission: Admission::Maintenance, ..silence() } => Excused;
    }

    #[test]
    fn what_the_platform_says_is_read() {
        for (state, expected) in [
            ("started", Home::Running),
            ("starting", Home::Awake),
            ("restarting", Home::Awake),
            ("stopping", Home::Asleep),
            ("stopped", Home::Asleep),
            ("suspended", Home::Asleep),
            ("created", Home::Asleep),
            ("failed", Home::Lost),
            ("destroyed", Home::Lost),
            ("a word of tomorrow", Home::Asleep),
        ] {
            assert_eq!(home(state), expected, "{state}");
        }
    }

    #[test]
    fn a_clock_may_be_a_minute_off() {
        let now = 1_790_000_000_000;
        assert_eq!(skew(now - SKEW_MS, now), None);
        assert_eq!(skew(now + SKEW_MS, now), None);
        assert_eq!(skew(now - SKEW_MS - 1, now), Some(SKEW_MS + 1));
        assert_eq!(skew(now + SKEW_MS + 1, now), Some(SKEW_MS + 1));
        assert_eq!(skew(0, u64::MAX), Some(u64::MAX));
    }
}
