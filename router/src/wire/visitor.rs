//! Who sends a request, as far as its head tells: a person's browser, a program, or one that only looks around.

use http::header::{self, HeaderName};
use http::{HeaderValue, Method};

use super::accept::Form;
use super::sieve::Fields;

const SEC_FETCH_MODE: HeaderName = HeaderName::from_static("sec-fetch-mode");
/// What says that a browser fetches ahead of its user. `Sec-Purpose` is standard (Fetch standard, section "Sec-Purpose
/// header"); the others are older names of the same.
const PURPOSES: [HeaderName; 3] = [
    HeaderName::from_static("sec-purpose"),
    HeaderName::from_static("purpose"),
    HeaderName::from_static("x-moz"),
];

/// What stands in the `User-Agent` of crawlers, link previews and health checks, in lower case.
pub const NO_VISITORS: [&str; 26] = [
    // Crawlers name themselves so, or leave the address of a page about themselves.
    "bot/",
    "bot;",
    "bot-",
    "bot,",
    "bot)",
    "bot (",
    "crawler",
    "spider",
    "slurp",
    "+http",
    // Previews of links.
    "facebookexternalhit",
    "whatsapp/",
    "skypeuripreview",
    "embedly",
    // Checks whether something is up.
    "kube-probe",
    "elb-healthchecker",
    "googlehc",
    "consul health check",
    "healthcheck",
    "uptime",
    "pingdom",
    "statuscake",
    "site24x7",
    "blackbox exporter",
    "blackbox-exporter",
    "datadog/synthetics",
];

/// Whether a request without a body is a browser's navigation, whose answer a person is going to see: a GET that wants
/// its answer as HTML (`form`), unless its `Sec-Fetch-Mode` says that it is something other (W3C Fetch Metadata Request
/// Headers, section 2.3).
pub fn is_navigation(method: &Method, fields: Fields<'_>, form: Form) -> bool {
    let navigates = |mode: &HeaderValue| mode.as_bytes() == b"navigate";
    method == Method::GET
        && form == Form::Html
        && fields.get(&SEC_FETCH_MODE).is_none_or(navigates)
        && !fields.has(&header::UPGRADE)
}

/// Whether a request may be a visitor's: it says neither that it is fetched ahead, nor that a crawler or a health
/// check sends it.
pub fn is_visitor(fields: Fields<'_>) -> bool {
    let ahead = PURPOSES
        .iter()
        .flat_map(|name| fields.all(name))
        .any(|value| contains(value, "prefetch"));
    let robot = || {
        let mut agents = fields.all(&header::USER_AGENT);
        agents.any(|agent| NO_VISITORS.iter().any(|word| contains(agent, word)))
    };
    !ahead && !robot()
}

/// Whether a field's value contains a word, in whatever case.
fn contains(value: &HeaderValue, word: &str) -> bool {
    value
        .as_bytes()
        .windows(word.len())
        .any(|part| part.eq_ignore_ascii_case(word.as_bytes()))
}

#[cfg(test)]
mod tests {
    use http::HeaderMap;

    use super::*;

    fn headers(lines: &[(&'static str, &'static str)]) -> HeaderMap {
        let lines = lines.iter();
        lines
            .map(|(name, value)| (name.parse().unwrap(), HeaderValue::from_static(value)))
            .collect()
    }

    fn navigates_by(method: &Method, lines: &[(&'static str, &'static str)]) -> bool {
        let headers = headers(lines);
        let fields = Fields::of(&headers);
        is_navigation(method, fields, Form::wanted(fields))
    }

    fn navigates(lines: &[(&'static str, &'static str)]) -> bool {
        navigates_by(&Method::GET, lines)
    }

    fn visits(name: &'static str, value: &'static str) -> bool {
        is_visitor(Fields::of(&headers(&[(name, value)])))
    }

    const CHROMIUM: (&str, &str) = (
        "accept",
        "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,*/*;q=0.8",
    );

    macro_rules! rows {
        ($($name:ident: $row:expr => $is:expr;)*) => {
            $(#[test] fn $name() { assert_eq!($row, $is); })*
        };
    }

    rows! {
        a_browsers_navigation_is_one: navigates(&[CHROMIUM, ("sec-fetch-mode", "navigate")]) => true;
        an_old_browsers_navigation_is_one: navigates(&[CHROMIUM]) => true;
        a_fetch_for_html_is_none: navigates(&[CHROMIUM, ("sec-fetch-mode", "cors")]) => false;
        a_navigation_that_asks_for_less_html_is_none: navigates(&[("accept", "application/json, text/html;q=0.9")]) => false;
        a_full_weight_counts: navigates(&[("accept", "application/json;q=0.1, Text/HTML;q=1.0")]) => true;
        a_navigation_that_asks_for_json_first_is_none: navigates(&[("accept", "application/json, text/html")]) => false;
        a_navigation_to_an_xhtml_page_is_one: navigates(&[("accept", "application/xhtml+xml")]) => true;
        a_second_line_counts: navigates(&[("accept", "image/png"), ("accept", "text/html")]) => true;
        whatever_there_is_is_no_wish_for_html: navigates(&[("accept", "*/*")]) => false;
        no_wish_is_no_wish_for_html: navigates(&[]) => false;
        a_websocket_is_no_navigation: navigates(&[CHROMIUM, ("upgrade", "websocket")]) => false;
        a_form_that_is_sent_is_no_navigation: navigates_by(&Method::POST, &[CHROMIUM]) => false;
        a_question_for_the_head_is_no_navigation: navigates_by(&Method::HEAD, &[CHROMIUM]) => false;

        chrome_visits: visits("user-agent", "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/141.0.0.0 Safari/537.36") => true;
        a_phone_whose_name_ends_in_bot_visits: visits("user-agent", "Mozilla/5.0 (Linux; Android 13; CUBOT X50) AppleWebKit/537.36") => true;
        curl_visits: visits("user-agent", "curl/8.14.1") => true;
        nobody_in_particular_visits: is_visitor(Fields::of(&headers(&[]))) => true;
        google_crawls: visits("user-agent", "Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)") => false;
        bing_crawls: visits("user-agent", "Mozilla/5.0 (compatible; bingbot/2.0; +http://www.bing.com/bingbot.htm)") => false;
        yandex_crawls: visits("user-agent", "Mozilla/5.0 (compatible; YandexBot/3.0)") => false;
        baidu_crawls: visits("user-agent", "Mozilla/5.0 (compatible; Baiduspider/2.0)") => false;
        telegram_previews: visits("user-agent", "TelegramBot (like TwitterBot)") => false;
        slack_previews: visits("user-agent", "Slackbot-LinkExpanding 1.0") => false;
        facebook_previews: visits("user-agent", "facebookexternalhit/1.1") => false;
        kubernetes_probes: visits("user-agent", "kube-probe/1.33") => false;
        amazon_probes: visits("user-agent", "ELB-HealthChecker/2.0") => false;
        uptime_robots_probe: visits("user-agent", "Mozilla/5.0+(compatible; UptimeRobot/2.0; http://www.uptimerobot.com/)") => false;
        pingdom_probes: visits("user-agent", "Pingdom.com_bot_version_1.4_(http://www.pingdom.com/)") => false;
        a_prefetch_is_no_visit: visits("sec-purpose", "prefetch") => false;
        a_prerender_is_no_visit_yet: visits("sec-purpose", "prefetch;prerender") => false;
        an_old_prefetch_is_no_visit: visits("purpose", "prefetch") => false;
        an_old_mozillas_prefetch_is_no_visit: visits("x-moz", "prefetch") => false;
        another_purpose_is_a_visit: visits("purpose", "preview") => true;
    }

    #[test]
    fn words_are_in_lower_case_and_named_once() {
        for (index, word) in NO_VISITORS.iter().enumerate() {
            assert_eq!(*word, word.to_ascii_lowercase());
            assert!(!NO_VISITORS[..index].contains(word), "{word}");
        }
    }
}
