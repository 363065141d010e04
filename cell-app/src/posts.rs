//! `/posts`: as pages for browsers, as JSON for programs.
//!
//! Owns what a valid post is and who gets which form of answer.

use axum::extract::{Form, FromRequest, Path, Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Redirect, Response};
use axum::{Extension, Json};

use crate::app::{App, Failure};
use crate::entrance::Visit;
use crate::pages;
use crate::store::Text;

/// Longest title, in characters.
const MAX_TITLE: usize = 200;
/// Longest body, in characters.
const MAX_BODY: usize = 100_000;

/// A post as a client writes it.
#[derive(Debug, Default, serde::Deserialize)]
pub(crate) struct Draft {
    #[serde(default)]
    pub(crate) title: String,
    #[serde(default)]
    pub(crate) body: String,
}

impl Draft {
    /// The text, without white space around it.
    ///
    /// # Errors
    /// What is wrong, in words for whoever wrote it.
    fn text(&self) -> Result<Text, &'static str> {
        let (title, body) = (self.title.trim(), self.body.trim());
        if title.is_empty() {
            return Err("a post needs a title");
        }
        if title.chars().count() > MAX_TITLE {
            return Err("a title may have at most 200 characters");
        }
        if title.chars().any(char::is_control) {
            return Err("a title is one line, without control characters");
        }
        if body.chars().count() > MAX_BODY {
            return Err("a body may have at most 100000 characters");
        }
        Ok(Text {
            title: title.to_owned(),
            body: body.to_owned(),
        })
    }
}

impl<S: Send + Sync> FromRequest<S> for Draft {
    type Rejection = Failure;

    /// JSON if the content type says so, a form otherwise.
    async fn from_request(request: Request, state: &S) -> Result<Self, Failure> {
        if mentions(request.headers(), header::CONTENT_TYPE, "application/json") {
            Ok(Json::from_request(request, state).await?.0)
        } else {
            Ok(Form::from_request(request, state).await?.0)
        }
    }
}

/// Whether the client is a browser that wants a page.
fn wants_page(headers: &HeaderMap) -> bool {
    mentions(headers, header::ACCEPT, "text/html")
}

fn mentions(headers: &HeaderMap, name: header::HeaderName, media_type: &str) -> bool {
    headers
        .get_all(name)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .any(|value| value.to_ascii_lowercase().contains(media_type))
}

/// `GET /posts`: the page for a browser, JSON for all others.
pub(crate) async fn list(
    State(app): State<App>,
    Extension(visit): Extension<Visit>,
    headers: HeaderMap,
) -> Result<Response, Failure> {
    if wants_page(&headers) {
        return pages::overview(&app, &visit, None).await;
    }
    Ok(Json(app.store.posts().await?).into_response())
}

/// `POST /posts`: 303 back to the page after a form, 201 with the post for JSON, 422 if the post is not valid.
pub(crate) async fn add(
    State(app): State<App>,
    Extension(visit): Extension<Visit>,
    headers: HeaderMap,
    draft: Draft,
) -> Result<Response, Failure> {
    let json = mentions(&headers, header::CONTENT_TYPE, "application/json")
        || mentions(&headers, header::ACCEPT, "application/json");
    let text = match draft.text() {
        Ok(text) => text,
        Err(rule) if json => return Err(invalid(rule)),
        Err(rule) => return pages::overview(&app, &visit, Some((&draft, rule))).await,
    };
    let post = app.store.add(text).await?;
    app.pushes.added(&post);
    if json {
        let location = visit.link(&format!("/posts/{}", post.id));
        Ok((
            StatusCode::CREATED,
            [(header::LOCATION, location)],
            Json(post),
        )
            .into_response())
    } else {
        Ok(Redirect::to(&visit.link("/")).into_response())
    }
}

/// `GET /posts/{id}`.
pub(crate) async fn show(
    State(app): State<App>,
    Extension(visit): Extension<Visit>,
    Path(id): Path<i64>,
    headers: HeaderMap,
) -> Result<Response, Failure> {
    let post = app.store.post(id).await?.ok_or_else(absent)?;
    if wants_page(&headers) {
        return Ok(pages::post(&app, &visit, &post));
    }
    Ok(Json(post).into_response())
}

/// `PUT /posts/{id}`: 200 with the post as it is now, 404 if there is none.
pub(crate) async fn replace(
    State(app): State<App>,
    Path(id): Path<i64>,
    draft: Draft,
) -> Result<Response, Failure> {
    let text = draft.text().map_err(invalid)?;
    let post = app.store.replace(id, text).await?.ok_or_else(absent)?;
    Ok(Json(post).into_response())
}

/// `DELETE /posts/{id}`: 204, or 404 if there is none.
pub(crate) async fn remove(
    State(app): State<App>,
    Path(id): Path<i64>,
) -> Result<StatusCode, Failure> {
    if app.store.remove(id).await? {
        Ok(StatusCode::NO_CONTENT)
    } else {
        Err(absent())
    }
}

fn absent() -> Failure {
    Failure::not_found("no such post")
}

fn invalid(rule: &'static str) -> Failure {
    Failure::new(StatusCode::UNPROCESSABLE_ENTITY, rule)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn draft(title: &str, body: &str) -> Draft {
        Draft {
            title: title.to_owned(),
            body: body.to_owned(),
        }
    }

    #[test]
    fn titles_and_bodies_at_their_limits_are_valid_and_trimmed() {
        let text = draft(&format!(" {} ", "é".repeat(MAX_TITLE)), "\n")
            .text()
            .unwrap();
        assert_eq!(
            (text.title.chars().count(), text.body.as_str()),
            (MAX_TITLE, "")
        );
        assert!(draft("a", &"é".repeat(MAX_BODY)).text().is_ok());
    }

    #[test]
    fn empty_long_or_broken_posts_are_refused() {
        for draft in [
            draft("", "body"),
            draft(" \t ", "body"),
            draft(&"é".repeat(MAX_TITLE + 1), ""),
            draft("a\nb", ""),
            draft("a", &"é".repeat(MAX_BODY + 1)),
        ] {
            assert!(draft.text().is_err());
        }
    }
}
