//! In which form a client wants to be answered (RFC 9110 section 12.5.1).

use http::header;

use super::sieve::Fields;

/// A form of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// `text/html`.
    Html,
    /// `application/problem+json` (RFC 9457).
    Json,
    /// `text/plain`.
    Text,
}

/// Each form, with the media types that ask for it.
const FORMS: [(Form, &[&str]); 3] = [
    (Form::Text, &["text/plain"]),
    (Form::Html, &["text/html", "application/xhtml+xml"]),
    (
        Form::Json,
        &["application/problem+json", "application/json"],
    ),
];

/// How much a form is wanted; the greatest is the one that is chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Wish {
    /// In thousandths.
    weight: u16,
    /// 3 for the type itself, 2 for `type/*`, 1 for `*/*`.
    exactness: u8,
    /// The first range comes first.
    from_the_end: usize,
}

impl Form {
    /// The form that `Accept` weighs most; of equal ones the one that is named, and of those the first; plain text where
    /// none is wanted, and for whoever takes anything.
    pub fn wanted(request: Fields<'_>) -> Self {
        let lines = || request.all(&header::ACCEPT);
        // So say most programs, if they say anything.
        if lines().all(|line| line == "*/*") {
            return Self::Text;
        }
        let ranges: Vec<_> = lines()
            .filter_map(|line| line.to_str().ok())
            .flat_map(|line| line.split(','))
            .map(range)
            .collect();
        let (mut chosen, mut most) = (Self::Text, None);
        for (form, types) in FORMS {
            let wish = types
                .iter()
                .enumerate()
                .filter_map(|(index, kind)| wish(kind, index == 0, &ranges))
                .max();
            if wish.is_some_and(|wish| wish.weight > 0) && wish > most {
                (chosen, most) = (form, wish);
            }
        }
        chosen
    }
}

/// One range and its weight.
fn range(text: &str) -> (&str, u16) {
    let mut parts = text.split(';').map(str::trim);
    let range = parts.next().unwrap_or_default();
    let weight = parts.find_map(|part| part.strip_prefix("q=").or(part.strip_prefix("Q=")));
    // What is no weight is taken for a full one, as most readers take it.
    let weight = weight
        .and_then(|weight| weight.parse::<f32>().ok())
        .unwrap_or(1.0);
    // Between 0 and 1000 by then; what is not a number is 0.
    (range, (weight.clamp(0.0, 1.0) * 1000.0).round() as u16)
}

/// How much a type is wanted: by the range that fits it best; only what is sent is meant by a wide one.
fn wish(kind: &str, is_sent: bool, ranges: &[(&str, u16)]) -> Option<Wish> {
    let main = kind.split_once('/').map_or(kind, |(main, _)| main);
    let fits = |range: &str| match range.split_once('/') {
        Some(("*", "*")) if is_sent => Some(1),
        Some((of, "*")) if is_sent && of.eq_ignore_ascii_case(main) => Some(2),
        _ if range.eq_ignore_ascii_case(kind) => Some(3),
        _ => None,
    };
    let fitting = ranges
        .iter()
        .enumerate()
        .filter_map(|(index, (range, weight))| {
            Some(Wish {
                weight: *weight,
                exactness: fits(range)?,
                from_the_end: ranges.len() - index,
            })
        });
    fitting.max_by_key(|wish| (wish.exactness, wish.from_the_end))
}

#[cfg(test)]
mod tests {
    use super::*;

    macro_rules! rows {
        ($($name:ident: $lines:expr => $form:ident;)*) => {
            $(#[test] fn $name() {
                let lines: &[&'static str] = &$lines;
                let headers = lines.iter().map(|line| (header::ACCEPT, line.parse().unwrap()));
                assert_eq!(Form::wanted(Fields::of(&headers.collect())), Form::$form);
            })*
        };
    }

    rows! {
        nothing_said_is_text: [] => Text;
        curl_gets_text: ["*/*"] => Text;
        a_browser_gets_html: ["text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,*/*;q=0.8"] => Html;
        an_image_in_a_page_gets_text: ["image/avif,image/webp,image/*,*/*;q=0.8"] => Text;
        axios_gets_json: ["application/json, text/plain, */*"] => Json;
        jquery_gets_json: ["application/json, text/javascript, */*; q=0.01"] => Json;
        the_first_of_equals_wins: ["text/plain, application/json"] => Text;
        the_heavier_wins: ["text/html;q=0.4, application/json;q=0.6"] => Json;
        the_named_one_wins_over_any: ["*/*, application/json"] => Json;
        any_is_heavier_than_less_html: ["text/html;q=0.5, */*"] => Text;
        an_exact_range_goes_before_a_wide_one: ["text/plain;q=0.1, text/*, application/json;q=0.5"] => Html;
        refused_html_is_not_sent: ["text/html;q=0, application/json;q=0.1"] => Json;
        nothing_that_there_is_is_text: ["image/png"] => Text;
        all_refused_is_text: ["text/html;q=0, text/plain;q=0, application/json;q=0.0"] => Text;
        all_of_application_is_json: ["application/*"] => Json;
        problems_are_json: ["application/problem+json"] => Json;
        xhtml_is_html: ["application/xhtml+xml"] => Html;
        case_does_not_count: ["TEXT/HTML; Q=1.0"] => Html;
        two_lines_are_one_list: ["image/png", "text/html"] => Html;
        a_weight_that_is_none_is_full: ["text/html;q=x"] => Html;
        a_parameter_is_passed_over: ["text/html;level=1;q=0.2, application/json;q=0.3"] => Json;
        no_number_weighs_nothing: ["text/html;q=NaN"] => Text;
    }
}
