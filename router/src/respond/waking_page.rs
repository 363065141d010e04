//! The page that a browser's navigation gets while its cell wakes: where the wake stands, loaded again by itself.

use std::fmt::Write as _;
use std::time::Duration;

use super::page;
use super::whole_seconds;
use crate::live::cells::Stage;

/// Where a wake stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Progress {
    /// It has come so far, in so much time.
    Waking(Stage, Duration),
    /// The last one failed; how long until the cell is tried again.
    Failed(Duration),
}

const STEPS: [(Stage, &str); 3] = [
    (Stage::Asking, "Asking the platform to start its machine"),
    (Stage::Starting, "The machine is starting"),
    (
        Stage::Readying,
        "The machine runs; waiting for the application to answer",
    ),
];

impl Progress {
    /// What happens, in two or three words.
    pub(super) fn title(self) -> &'static str {
        match self {
            Self::Waking(..) => "Waking up",
            Self::Failed(_) => "Not there yet",
        }
    }

    /// Where it stands, in a sentence.
    pub(super) fn message(self) -> String {
        match self {
            Self::Waking(stage, _) => {
                let step = STEPS.iter().find(|(step, _)| *step == stage);
                step.map_or_else(String::new, |(_, words)| format!("{words}."))
            }
            Self::Failed(left) => format!("The last start failed. {}", next_try(left)),
        }
    }

    /// The page, to be loaded again after `refresh`.
    pub(super) fn page(self, request_id: &str, refresh: Duration) -> String {
        let mut body = match self {
            Self::Waking(stage, for_so_long) => waking(stage, for_so_long),
            Self::Failed(left) => failed(left),
        };
        body.push_str("<p>This page loads again by itself.</p>");
        page::whole(self.title(), &body, request_id, Some(refresh))
    }
}

fn waking(stage: Stage, for_so_long: Duration) -> String {
    let mut body = "<p>What you asked for was asleep.</p><ol>".to_owned();
    for (step, words) in STEPS {
        let mark = match (step as u8).cmp(&(stage as u8)) {
            std::cmp::Ordering::Less => " class=\"done\"",
            std::cmp::Ordering::Equal => " aria-current=\"step\"",
            std::cmp::Ordering::Greater => "",
        };
        // Writing to a String does not fail.
        let _ = write!(body, "<li{mark}>{words}</li>");
    }
    let _ = write!(body, "</ol><p>{}</p>", so_far(for_so_long.as_secs()));
    body
}

fn failed(left: Duration) -> String {
    let next = next_try(left);
    format!("<p>The last start failed.</p><ol><li aria-current=\"step\">{next}</li></ol>")
}

fn next_try(left: Duration) -> String {
    if left.is_zero() {
        "It is being tried again right now.".to_owned()
    } else {
        format!("Next try in {} s.", whole_seconds(left))
    }
}

fn so_far(seconds: u64) -> String {
    match seconds {
        0 => "Begun just now.".to_owned(),
        1 => "1 second so far.".to_owned(),
        seconds => format!("{seconds} seconds so far."),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const REFRESH: Duration = Duration::from_secs(2);

    fn page(stage: Stage, seconds: u64) -> String {
        Progress::Waking(stage, Duration::from_secs(seconds)).page("id", REFRESH)
    }

    #[test]
    fn it_names_the_stage_that_the_wake_is_in() {
        for (stage, words) in STEPS {
            let page = page(stage, 3);
            assert!(page.contains(&format!("aria-current=\"step\">{words}")));
            assert_eq!(page.matches("aria-current=\"step\"").count(), 1);
            assert!(page.contains("3 seconds so far"));
            let message = Progress::Waking(stage, REFRESH).message();
            assert_eq!(message, format!("{words}."));
        }
        assert_eq!(
            page(Stage::Readying, 1).matches("class=\"done\"").count(),
            2
        );
    }

    #[test]
    fn it_says_when_the_next_try_is() {
        let page = |milliseconds| {
            Progress::Failed(Duration::from_millis(milliseconds)).page("id", REFRESH)
        };
        assert!(page(7_100).contains("Next try in 8 s."));
        assert!(page(0).contains("tried again right now"));
    }

    #[test]
    fn it_loads_itself_again_without_a_script() {
        let page = page(Stage::Asking, 0);
        assert!(page.contains("<meta http-equiv=\"refresh\" content=\"2\">"));
        assert!(!page.contains("<script") && !page.contains("http://"));
    }
}
