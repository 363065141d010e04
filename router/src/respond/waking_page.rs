//! The page that a browser's navigation gets while its cell wakes: where the wake stands, loaded again by itself.
//!
//! It needs no script. Nothing of the request is in it.

use std::fmt::Write as _;
use std::time::Duration;

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

const STYLE: &str = ":root{color-scheme:light dark;--ink:#1c2530;--soft:#66717f;--line:#d9dee5;--back:#f4f6f8;\
    --card:#fff;--mark:#3867d6}@media(prefers-color-scheme:dark){:root{--ink:#e8ecf1;--soft:#93a0af;--line:#313b47;\
    --back:#12171d;--card:#1b222b;--mark:#7da2ff}}*{box-sizing:border-box}body{margin:0;min-height:100vh;\
    display:grid;place-items:center;padding:1rem;background:var(--back);color:var(--ink);\
    font:1rem/1.5 system-ui,sans-serif}main{width:100%;max-width:27rem;padding:2rem;background:var(--card);\
    border:1px solid var(--line);border-radius:1rem}h1{margin:0 0 .25rem;font-size:1.35rem;line-height:1.3}\
    p{margin:0;color:var(--soft)}ol{list-style:none;margin:1.25rem 0;padding:0}li{position:relative;\
    padding:.3rem 0 .3rem 1.75rem;color:var(--soft)}li::before{content:\"\";position:absolute;left:.2rem;top:.75rem;\
    width:.65rem;height:.65rem;border-radius:50%;border:2px solid var(--line)}.done::before{background:var(--mark);\
    border-color:var(--mark)}[aria-current]{color:var(--ink);font-weight:600}[aria-current]::before{\
    border-color:var(--mark);animation:pulse 1.2s ease-in-out infinite alternate}@keyframes pulse{to{\
    box-shadow:0 0 0 .3rem color-mix(in srgb,var(--mark) 25%,transparent)}}\
    @media(prefers-reduced-motion:reduce){[aria-current]::before{animation:none}}";

impl Progress {
    /// The page, to be loaded again after `refresh`.
    pub(super) fn page(self, refresh: Duration) -> String {
        let (title, body) = match self {
            Self::Waking(stage, for_so_long) => ("Waking up", waking(stage, for_so_long)),
            Self::Failed(left) => ("Not there yet", failed(left)),
        };
        format!(
            "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" \
             content=\"width=device-width\"><meta name=\"robots\" content=\"noindex\"><meta http-equiv=\"refresh\" \
             content=\"{}\"><title>{title}</title><style>{STYLE}</style></head><body><main><h1>{title}</h1>{body}\
             <p>This page loads again by itself.</p></main></body></html>\n",
            refresh.as_secs()
        )
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
    let next = if left.is_zero() {
        "It is being tried again right now.".to_owned()
    } else {
        format!("Next try in {} s.", whole_seconds(left))
    };
    format!("<p>The last start failed.</p><ol><li aria-current=\"step\">{next}</li></ol>")
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
        Progress::Waking(stage, Duration::from_secs(seconds)).page(REFRESH)
    }

    #[test]
    fn it_names_the_stage_that_the_wake_is_in() {
        for (stage, words) in STEPS {
            let page = page(stage, 3);
            assert!(page.contains(&format!("aria-current=\"step\">{words}")));
            assert_eq!(page.matches("aria-current=\"step\"").count(), 1);
            assert!(page.contains("3 seconds so far"));
        }
        assert_eq!(
            page(Stage::Readying, 1).matches("class=\"done\"").count(),
            2
        );
    }

    #[test]
    fn it_says_when_the_next_try_is() {
        let page =
            |milliseconds| Progress::Failed(Duration::from_millis(milliseconds)).page(REFRESH);
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
