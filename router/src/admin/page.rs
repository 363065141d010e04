//! The admin page: files that are part of the program. They are for everybody, for they tell nothing; what the page shows it
//! asks of the API, with the token of whoever has signed in.

use axum::Router;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;

use super::asking::etag;
use crate::registry::{self, Version};

/// Nothing from elsewhere, nothing inline, no frame around it (W3C, Content Security Policy Level 3).
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

const SCRIPT: &str = "text/javascript; charset=utf-8";

/// Path, media type and text of each file, but the schema.
const FILES: [(&str, &str, &str); 12] = [
    (
        "/",
        "text/html; charset=utf-8",
        include_str!("page/index.html"),
    ),
    (
        "/page/style.css",
        "text/css; charset=utf-8",
        include_str!("page/style.css"),
    ),
    (
        "/page/icon.svg",
        "image/svg+xml",
        include_str!("page/icon.svg"),
    ),
    ("/page/main.js", SCRIPT, include_str!("page/main.js")),
    ("/page/api.js", SCRIPT, include_str!("page/api.js")),
    ("/page/dom.js", SCRIPT, include_str!("page/dom.js")),
    ("/page/cells.js", SCRIPT, include_str!("page/cells.js")),
    ("/page/cell.js", SCRIPT, include_str!("page/cell.js")),
    ("/page/entry.js", SCRIPT, include_str!("page/entry.js")),
    (
        "/page/requests.js",
        SCRIPT,
        include_str!("page/requests.js"),
    ),
    ("/page/history.js", SCRIPT, include_str!("page/history.js")),
    ("/page/explain.js", SCRIPT, include_str!("page/explain.js")),
];

/// Serves the files, and the registry's schema, of which forms are made.
pub(super) fn files() -> Router {
    let router = Router::new().route(
        "/page/schema.json",
        get(|headers: HeaderMap| async move {
            file("application/schema+json", registry::schema(), &headers)
        }),
    );
    FILES.iter().fold(router, |router, &(path, kind, text)| {
        let serve = move |headers: HeaderMap| async move { file(kind, text.to_owned(), &headers) };
        router.route(path, get(serve))
    })
}

fn file(kind: &'static str, text: String, headers: &HeaderMap) -> Response {
    let tag = etag(Version::of(text.as_bytes()));
    let known = headers.get(header::IF_NONE_MATCH);
    let known = known.is_some_and(|known| known.as_bytes() == tag.as_bytes());
    let mut response = if known {
        StatusCode::NOT_MODIFIED.into_response()
    } else {
        text.into_response()
    };
    let says: [(HeaderName, &str); 8] = [
        (header::CONTENT_TYPE, kind),
        (header::ETAG, &tag),
        // A newer router has newer files.
        (header::CACHE_CONTROL, "no-cache"),
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::X_FRAME_OPTIONS, "DENY"),
        (
            HeaderName::from_static("cross-origin-opener-policy"),
            "same-origin",
        ),
    ];
    for (name, value) in says {
        if let Ok(value) = HeaderValue::from_str(value) {
            response.headers_mut().insert(name, value);
        }
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_file_that_a_file_names_is_there_and_none_is_inline() {
        for (path, _, text) in FILES {
            let words = text.split(['"', '\'']);
            for name in words.filter(|word| word.starts_with("./") || word.starts_with("page/")) {
                let name = name.trim_start_matches("./").trim_start_matches("page/");
                let there = FILES
                    .iter()
                    .any(|(path, ..)| *path == format!("/page/{name}"));
                assert!(there || name == "schema.json", "{path} names {name}");
            }
            for inline in [
                " style=",
                "<style",
                "onclick=\"",
                "javascript:",
                "innerHTML",
                "eval(",
            ] {
                assert!(!text.contains(inline), "{path} has {inline}");
            }
            if path.ends_with("html") || path == "/" {
                let scripts = text.matches("<script").count();
                assert_eq!(
                    scripts,
                    text.matches("src=\"page/").count() - 1,
                    "scripts are files"
                );
            }
        }
    }
}
