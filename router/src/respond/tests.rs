//! What every answer of the router's own has, whatever it says.

use super::*;
use crate::decision::Malformed;

const SECOND: Duration = Duration::from_secs(1);

const ANSWERS: [Answer; 14] = [
    Answer::NoSuchFile,
    Answer::FilesOnly,
    Answer::Malformed(Malformed::Host),
    Answer::Malformed(Malformed::Method),
    Answer::AmbiguousPath,
    Answer::NoSuchCell,
    Answer::Reserved,
    Answer::Loop,
    Answer::UseHttps(443),
    Answer::Disabled,
    Answer::Maintenance(SECOND),
    Answer::TooLarge,
    Answer::Full(SECOND),
    Answer::BreakerOpen(SECOND),
];

fn audience(method: &str, accept: &'static str) -> Audience {
    let accept = [(header::ACCEPT, HeaderValue::from_static(accept))];
    let headers = accept.into_iter().collect();
    Audience::of(&method.parse().unwrap(), Fields::of(&headers), true)
}

fn words(what: Answer, audience: Audience, pages: Option<&Pages>) -> Words {
    let request_id = &HeaderValue::from_static("id-<1>");
    answer(
        what,
        Sheet {
            audience,
            request_id,
            pages,
        },
    )
}

fn text(words: &Words) -> &str {
    std::str::from_utf8(words.body()).unwrap()
}

#[test]
fn no_answer_is_stored_steers_the_edge_or_goes_without_its_id() {
    let own = Pages::parse([None, Some("w".into()), None, Some("e".into())]).unwrap();
    for pages in [None, Some(&own)] {
        for accept in ["text/html", "application/json", "*/*"] {
            for what in ANSWERS {
                let words = words(what, audience("GET", accept), pages);
                let headers = words.headers();
                assert_eq!(headers["cache-control"], "no-store", "{what:?}");
                assert_eq!(headers["x-request-id"], "id-<1>");
                assert!(fly::STEERING.iter().all(|name| !headers.contains_key(name)));
                let kind = headers["content-type"].to_str().unwrap();
                assert!(!kind.contains(fly::REPLAY_CONTENT_TYPE));
                assert_eq!(
                    headers.contains_key("content-security-policy"),
                    accept == "text/html"
                );
            }
        }
    }
}

#[test]
fn a_head_has_the_length_of_its_page_and_no_page() {
    for accept in ["text/html", "application/json", "*/*"] {
        let whole = words(Answer::NoSuchCell, audience("GET", accept), None);
        let head = words(Answer::NoSuchCell, audience("HEAD", accept), None);
        assert_eq!(head.headers(), whole.headers());
        assert!(head.body().is_empty() && !whole.body().is_empty());
        let length = whole.body().len().to_string();
        assert_eq!(head.headers()["content-length"], length.as_str());
    }
}

#[test]
fn a_program_gets_the_details_of_a_problem() {
    let words = words(
        Answer::Maintenance(SECOND),
        audience("POST", "application/json"),
        None,
    );
    assert_eq!(words.headers()["content-type"], "application/problem+json");
    let problem: serde_json::Value = serde_json::from_str(text(&words)).unwrap();
    assert_eq!(
        problem,
        serde_json::json!({
            "type": "about:blank", "title": "Service Unavailable", "status": 503, "reason": "maintenance",
            "detail": "Under maintenance. Please try again later.", "request_id": "id-<1>",
        })
    );
}

#[test]
fn whoever_takes_anything_gets_one_line() {
    let words = words(Answer::NoSuchCell, audience("GET", "*/*"), None);
    assert_eq!(text(&words), "There is nothing at this address.\n");
    assert_eq!(words.headers()["content-type"], "text/plain; charset=utf-8");
}

#[test]
fn an_operators_page_stands_for_its_own_answers_only() {
    let own = Pages::parse([
        Some("M {{status}} {{retry_after}} {{request_id}} {{title}} {{message}}".into()),
        Some("W {{message}} {{retry_after}}".into()),
        Some("N".into()),
        None,
    ])
    .unwrap();
    let html = audience("GET", "text/html");
    let page = |what| words(what, html, Some(&own));
    let maintenance = page(Answer::Maintenance(SECOND));
    assert_eq!(
        text(&maintenance),
        "M 503 1 id-&lt;1&gt; Back soon Under maintenance. Please try again later."
    );
    assert_eq!(
        maintenance.headers()["content-security-policy"],
        page::OWN_POLICY
    );
    assert_eq!(text(&page(Answer::NoSuchCell)), "N");
    let failed = page(Answer::BreakerOpen(SECOND));
    assert_eq!(text(&failed), "W The last start failed. Next try in 1 s. 1");
    assert_eq!(failed.headers()["refresh"], "2");
    assert!(text(&page(Answer::Disabled)).contains("Switched off"));
    let json = words(
        Answer::NoSuchCell,
        audience("GET", "application/json"),
        Some(&own),
    );
    assert!(text(&json).starts_with('{'));
}
