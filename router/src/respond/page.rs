//! How a page of the router's own looks: one card, light or dark as the visitor has it, for every answer in HTML.
//!
//! It needs no script and nothing from elsewhere, and says so to the browser. Of the request only its id is in it.

use std::fmt::Write as _;
use std::time::Duration;

use crate::account::record::Blame;
use crate::live::pages::escape;

/// What the router's own pages may do: have their style, and nothing else. Not that they may not be framed: an application
/// that is shown in a frame wakes there, too.
pub(super) const POLICY: &str = "default-src 'none'; \
    style-src 'sha256-ZviYlCw9p7hDy4mGJkWDtZC+EJT+DBBTIReiRm69FLc='; img-src data:; base-uri 'none'; form-action 'none'";

/// What pages of the operator's own may do: be styled, with images and fonts; no scripts, no forms.
pub(super) const OWN_POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; img-src data: https:; \
    font-src data: https:; base-uri 'none'; form-action 'none'";

const STYLE: &str = ":root{color-scheme:light dark;--ink:#1c2530;--soft:#5d6875;--line:#d9dee5;--back:#f4f6f8;\
    --card:#fff;--mark:#3867d6}@media(prefers-color-scheme:dark){:root{--ink:#e8ecf1;--soft:#9aa7b5;--line:#313b47;\
    --back:#12171d;--card:#1b222b;--mark:#7da2ff}}*{box-sizing:border-box}body{margin:0;min-height:100vh;\
    display:grid;place-items:center;padding:1rem;background:var(--back);color:var(--ink);\
    font:1rem/1.5 system-ui,sans-serif}main{width:100%;max-width:27rem;padding:2rem;background:var(--card);\
    border:1px solid var(--line);border-radius:1rem}h1{margin:0 0 .25rem;font-size:1.35rem;line-height:1.3}\
    p{margin:0;color:var(--soft)}p+p{margin-top:.75rem}ol{list-style:none;margin:1.25rem 0;padding:0}\
    li{position:relative;padding:.3rem 0 .3rem 1.75rem;color:var(--soft)}li::before{content:\"\";position:absolute;\
    left:.2rem;top:.75rem;width:.65rem;height:.65rem;border-radius:50%;border:2px solid var(--line)}\
    .done::before{background:var(--mark);border-color:var(--mark)}[aria-current]{color:var(--ink);font-weight:600}\
    [aria-current]::before{border-color:var(--mark);animation:pulse 1.2s ease-in-out infinite alternate}\
    @keyframes pulse{to{box-shadow:0 0 0 .3rem color-mix(in srgb,var(--mark) 25%,transparent)}}footer{\
    margin-top:1.5rem;padding-top:1rem;border-top:1px solid var(--line);font-size:.85rem;color:var(--soft)}\
    code{font:.95em ui-monospace,monospace;overflow-wrap:anywhere;user-select:all}\
    @media(prefers-reduced-motion:reduce){[aria-current]::before{animation:none}}";

/// A whole page. `body` is HTML; it is loaded again by itself after `refresh`.
pub(super) fn whole(
    title: &str,
    body: &str,
    request_id: &str,
    refresh: Option<Duration>,
) -> String {
    let refresh = refresh.map_or_else(String::new, |after| {
        format!(
            "<meta http-equiv=\"refresh\" content=\"{}\">",
            after.as_secs()
        )
    });
    let mut id = String::new();
    escape(&mut id, request_id);
    // A browser that is told that there is no icon does not ask a sleeping cell for one.
    format!(
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" \
         content=\"width=device-width\"><meta name=\"robots\" content=\"noindex\">{refresh}<title>{title}</title>\
         <link rel=\"icon\" href=\"data:,\"><style>{STYLE}</style></head><body><main><h1>{title}</h1>{body}\
         <footer>Request <code>{id}</code></footer></main></body></html>\n"
    )
}

/// What happened, and at whose door it lies.
pub(super) fn what_happened(text: &str, blame: Option<Blame>, status: u16) -> String {
    let whose = match blame {
        Some(Blame::Cell) => {
            "<p>The application at this address has a problem. Your device and your connection are fine.</p>"
        }
        Some(Blame::Router) => {
            "<p>The service in front of this address has a problem. Your device and your connection are fine.</p>"
        }
        Some(Blame::Client) | None => "",
    };
    let mut body = format!("<p>{text}</p>{whose}");
    if whose.is_empty() {
        // Writing to a String does not fail.
        let _ = write!(body, "<p>Status {status}.</p>");
    } else {
        let _ = write!(
            body,
            "<p>If it lasts, tell whoever runs it: status {status}, and the request below.</p>"
        );
    }
    body
}

#[cfg(test)]
mod tests {
    use super::*;
    use ring::digest::{SHA256, digest};

    #[test]
    fn the_policy_lets_the_style_in_by_its_sum() {
        let sum = digest(&SHA256, STYLE.as_bytes());
        let sum = data_encoding::BASE64.encode(sum.as_ref());
        assert!(POLICY.contains(&format!("'sha256-{sum}'")), "{sum}");
    }

    #[test]
    fn a_page_has_nothing_from_elsewhere_and_no_script() {
        let page = whole("T", "<p>x</p>", "<id>", Some(Duration::from_secs(2)));
        for never in [
            "<script", "http://", "https://", "url(", "@import", "style=", "<id>", " on",
        ] {
            let text = page.replace(STYLE, "");
            assert!(!text.contains(never), "{never}");
        }
        assert!(page.contains("<code>&lt;id&gt;</code>"));
    }

    #[test]
    fn nobody_is_blamed_who_only_asked() {
        for blame in [Some(Blame::Client), None] {
            assert!(!what_happened("x", blame, 400).contains("problem"));
        }
        assert!(what_happened("x", Some(Blame::Cell), 502).contains("The application"));
        assert!(what_happened("x", Some(Blame::Router), 503).contains("The service in front"));
    }
}
