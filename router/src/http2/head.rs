//! Request heads: what the h2 crate lets through and a front door must not.

use http::header::{self, HeaderValue};
use http::request::Parts;

use crate::wire::strict::{self, Fault};

/// Checks a head of which h2 has checked the pseudo-header fields, the spelling of names and the absence of fields that
/// belong to a connection (RFC 9113 section 8.2); the length that it promises.
///
/// # Errors
/// `HeadTooLarge` for more than `most` lines (the pieces of a cookie are one), `Target`, `HeaderValue`, `ContentLength`.
pub fn check(head: &Parts, most: usize) -> Result<Option<u64>, Fault> {
    // A cookie may come in many pieces, and is one line for the cell (RFC 9113 section 8.2.3).
    let crumbs = head.headers.get_all(header::COOKIE).iter().skip(1).count();
    if head.headers.len() - crumbs > most {
        return Err(Fault::HeadTooLarge);
    }
    if let Some(target) = head.uri.path_and_query() {
        strict::target(target.as_str().as_bytes())?;
    }
    strict::origin(&head.uri)?;
    // HTTP/1.1 would take the blanks off: what the router matched were not what the cell sees.
    if head.headers.values().any(strict::padded) {
        return Err(Fault::HeaderValue);
    }
    strict::content_length(&head.headers)
}

/// Gives a head memory of its own: h2's is a part of what it has read, all of which stays as long as the head does.
pub fn own(head: &mut Parts) {
    for value in head.headers.values_mut() {
        let sensitive = value.is_sensitive();
        if let Ok(own) = HeaderValue::from_bytes(value.as_bytes()) {
            *value = own;
            value.set_sensitive(sensitive);
        }
    }
    if let Ok(own) = head.uri.to_string().parse() {
        head.uri = own;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checked(uri: &str, fields: &[(&str, &str)]) -> Result<Option<u64>, Fault> {
        let mut request = http::Request::builder().uri(uri);
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        check(&request.body(()).unwrap().into_parts().0, 3)
    }

    #[test]
    fn heads_are_checked() {
        for (uri, fields, outcome) in [
            ("http://a/b?c", &[][..], Ok(None)),
            ("http://a/", &[("content-length", "5")], Ok(Some(5))),
            ("http://u@a/", &[], Err(Fault::Target)),
            ("ftp://a/", &[], Err(Fault::Target)),
            ("http://a/ä", &[], Err(Fault::Target)),
            ("http://a/", &[("x", " a")], Err(Fault::HeaderValue)),
            ("http://a/", &[("x", "a\t")], Err(Fault::HeaderValue)),
            (
                "http://a/",
                &[("content-length", "5"), ("content-length", "5")],
                Err(Fault::ContentLength),
            ),
            ("http://a/", &[("x", "1"), ("x", "2"), ("x", "3")], Ok(None)),
            (
                "http://a/",
                &[("x", "1"), ("x", "2"), ("x", "3"), ("y", "4")],
                Err(Fault::HeadTooLarge),
            ),
            (
                "http://a/",
                &[("cookie", "a"), ("x", "1"), ("cookie", "b"), ("x", "2")],
                Ok(None),
            ),
            (
                "http://a/",
                &[("cookie", "a"), ("x", "1"), ("x", "2"), ("x", "3")],
                Err(Fault::HeadTooLarge),
            ),
        ] {
            assert_eq!(checked(uri, fields), outcome, "{uri} {fields:?}");
        }
    }
}
