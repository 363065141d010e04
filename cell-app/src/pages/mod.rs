//! The pages, their style and their script: served by the cell itself, nothing from outside.
//!
//! Every text of the tenant passes through maud, which escapes it.

use axum::Extension;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use maud::{DOCTYPE, Markup, html};

use crate::app::{App, Failure};
use crate::entrance::Visit;
use crate::files::{self, Entry};
use crate::posts::Draft;
use crate::store::Post;

/// What a page may load and do: only what this cell serves.
const POLICY: &str = "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; img-src 'self'; \
    form-action 'self'; base-uri 'none'; frame-ancestors 'none'";

/// How long a browser may keep style and script.
const ASSET_CACHE: &str = "private, max-age=300";

/// `GET /`.
pub(crate) async fn home(
    State(app): State<App>,
    Extension(visit): Extension<Visit>,
) -> Result<Response, Failure> {
    overview(&app, &visit, None).await
}

/// The page of all posts and files; with a draft that was refused, 422 and what is wrong with it.
pub(crate) async fn overview(
    app: &App,
    visit: &Visit,
    refused: Option<(&Draft, &str)>,
) -> Result<Response, Failure> {
    let posts = app.store.posts().await?;
    let files = files::entries(app).await?;
    let status = if refused.is_some() {
        StatusCode::UNPROCESSABLE_ENTITY
    } else {
        StatusCode::OK
    };
    let empty = Draft::default();
    let (draft, rule) = refused.map_or((&empty, None), |(draft, rule)| (draft, Some(rule)));
    let content = html! {
        section {
            h2 { "Posts" }
            form method="post" action=(visit.link("/posts")) {
                @if let Some(rule) = rule { p.wrong role="alert" { (rule) } }
                (fields(&draft.title, &draft.body))
                button { "Add post" }
            }
            @if posts.is_empty() { p.quiet { "No posts yet." } }
            @for post in &posts {
                article {
                    h3 { a href=(visit.link(&format!("/posts/{}", post.id))) { (post.title) } }
                    p.text { (post.body) }
                    (written(post))
                }
            }
        }
        section {
            h2 { "Files" }
            (upload(visit))
            (listing(visit, &files))
        }
    };
    Ok((status, page(app, visit, &app.identity.cell, &content)).into_response())
}

/// The page of one post, where it is changed or removed.
pub(crate) fn post(app: &App, visit: &Visit, post: &Post) -> Response {
    let content = html! {
        article {
            h2 { (post.title) }
            p.text { (post.body) }
            (written(post))
        }
        section {
            h3 { "Change" }
            form #change data-url=(visit.link(&format!("/posts/{}", post.id))) data-home=(visit.link("/")) {
                p #outcome role="status" {}
                (fields(&post.title, &post.body))
                button { "Save" }
                button.quiet type="button" #remove { "Remove" }
            }
            noscript { p.quiet { "Changing a post needs JavaScript." } }
        }
        p { a href=(visit.link("/")) { "All posts" } }
    };
    page(app, visit, &post.title, &content)
}

/// `GET /assets/cell.css`.
pub(crate) async fn style() -> impl IntoResponse {
    asset(
        "text/css; charset=utf-8",
        include_str!("../../assets/cell.css"),
    )
}

/// `GET /assets/cell.js`.
pub(crate) async fn script() -> impl IntoResponse {
    asset(
        "text/javascript; charset=utf-8",
        include_str!("../../assets/cell.js"),
    )
}

fn asset(content_type: &'static str, text: &'static str) -> impl IntoResponse {
    (
        [
            (header::CONTENT_TYPE, content_type),
            (header::CACHE_CONTROL, ASSET_CACHE),
        ],
        text,
    )
}

fn page(app: &App, visit: &Visit, title: &str, content: &Markup) -> Response {
    let cell = &app.identity.cell;
    let machine = app.identity.machine.as_deref();
    // A request that names its machine skips the router, and with it the proof that a cell with a secret asks for.
    let pinned = machine.filter(|_| app.front_door.is_open());
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                @if let Some(machine) = machine { meta name="fly-instance-id" content=(machine); }
                title { (title) }
                link rel="stylesheet" href=(visit.link("/assets/cell.css"));
                script defer src=(visit.link("/assets/cell.js")) {}
            }
            body data-pin=[pinned] data-events=(visit.link("/events")) {
                header { h1 { a href=(visit.link("/")) { (cell) } } }
                p #news role="status" hidden { a href=(visit.link("/")) { "There is a new post." } }
                main { (content) }
                footer {
                    "Cell " b { (cell) }
                    @if let Some(machine) = machine { " on machine " code { (machine) } }
                    @if let Some(region) = &app.identity.region { " in " (region) }
                }
            }
        }
    };
    let mut headers = HeaderMap::new();
    headers.insert(
        header::CONTENT_SECURITY_POLICY,
        HeaderValue::from_static(POLICY),
    );
    headers.insert(
        header::CACHE_CONTROL,
        HeaderValue::from_static("private, no-store"),
    );
    headers.insert(
        header::REFERRER_POLICY,
        HeaderValue::from_static("same-origin"),
    );
    headers.insert(header::VARY, HeaderValue::from_static("accept"));
    (headers, page).into_response()
}

fn fields(title: &str, body: &str) -> Markup {
    html! {
        label { "Title" input name="title" required maxlength="200" value=(title); }
        label { "Text" textarea name="body" rows="4" maxlength="100000" { (body) } }
    }
}

fn written(post: &Post) -> Markup {
    html! { p.quiet { time datetime=(post.created_at) { (post.created_at) } } }
}

fn upload(visit: &Visit) -> Markup {
    html! {
        form #upload data-files=(visit.link("/files/")) {
            label { "File, of any size" input type="file" required; }
            button { "Upload" }
            progress hidden max="1" value="0" {}
            p #uploaded role="status" {}
        }
        noscript {
            p.quiet { "Without JavaScript: " code { "curl -T FILE " (visit.link("/files/")) } " at this address." }
        }
    }
}

fn listing(visit: &Visit, files: &[Entry]) -> Markup {
    html! {
        @if files.is_empty() { p.quiet { "No files yet." } } @else {
            table {
                thead { tr { th { "Name" } th.number { "Bytes" } } }
                tbody {
                    @for file in files {
                        tr {
                            td { a href=(visit.link(&format!("/files/{}", encoded(&file.name)))) { (file.name) } }
                            td.number { (file.bytes) }
                        }
                    }
                }
            }
        }
    }
}

/// `name` as one segment of a path (RFC 3986 section 2.3: all but unreserved characters are percent-encoded).
fn encoded(name: &str) -> String {
    let mut segment = String::with_capacity(name.len());
    for byte in name.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            segment.push(char::from(byte));
        } else {
            segment.push_str(&format!("%{byte:02X}"));
        }
    }
    segment
}

#[cfg(test)]
mod tests {
    use super::encoded;

    #[test]
    fn links_to_files_survive_every_name() {
        assert_eq!(encoded("a-b_c.d~e"), "a-b_c.d~e");
        assert_eq!(encoded("a b?#%é\"<"), "a%20b%3F%23%25%C3%A9%22%3C");
    }
}
