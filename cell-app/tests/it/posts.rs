//! Posts: pages, JSON, and that they stay.

use crate::cell::Cell;

const FORM: &str = "content-type: application/x-www-form-urlencoded";
const JSON: &str = "content-type: application/json";

#[test]
fn a_form_leads_back_to_the_page_and_json_gets_the_post() {
    let data = tempfile::tempdir().unwrap();
    let cell = Cell::start(data.path(), &[]);
    let form = cell.ask(
        &format!("POST /posts HTTP/1.1\r\n{FORM}"),
        "title=A+%3Cb%3E&body=one",
    );
    assert_eq!((form.status, form.header("location")), (303, "/"));
    let page = cell.get("/");
    assert!(page.text().contains("A &lt;b&gt;"), "{}", page.text());
    let json = cell.ask(
        &format!("POST /posts HTTP/1.1\r\n{JSON}"),
        r#"{"title":"B","body":"two"}"#,
    );
    assert_eq!((json.status, json.header("location")), (201, "/posts/2"));
    assert_eq!(cell.get("/posts/2").json(), json.json());
    let listed = cell.get("/posts").json();
    let titles: Vec<_> = listed
        .as_array()
        .unwrap()
        .iter()
        .map(|post| &post["title"])
        .collect();
    assert_eq!(titles, ["B", "A <b>"]);
}

#[test]
fn a_post_is_changed_and_removed() {
    let data = tempfile::tempdir().unwrap();
    let cell = Cell::start(data.path(), &[]);
    cell.ask(
        &format!("POST /posts HTTP/1.1\r\n{JSON}"),
        r#"{"title":"old"}"#,
    );
    let changed = cell.ask(
        &format!("PUT /posts/1 HTTP/1.1\r\n{JSON}"),
        r#"{"title":"new","body":"b"}"#,
    );
    assert_eq!(
        (changed.status, &changed.json()["title"]),
        (200, &"new".into())
    );
    let page = cell.ask("GET /posts/1 HTTP/1.1\r\naccept: text/html", "");
    assert!(page.header("content-type").starts_with("text/html"));
    assert_eq!(cell.ask("DELETE /posts/1 HTTP/1.1", "").status, 204);
    assert_eq!(cell.ask("DELETE /posts/1 HTTP/1.1", "").status, 404);
    assert_eq!(cell.get("/posts/1").status, 404);
}

#[test]
fn a_post_without_title_is_refused_with_what_was_written() {
    let data = tempfile::tempdir().unwrap();
    let cell = Cell::start(data.path(), &[]);
    let form = cell.ask(
        &format!("POST /posts HTTP/1.1\r\n{FORM}"),
        "title=+&body=kept",
    );
    assert_eq!(form.status, 422);
    assert!(form.text().contains("a post needs a title") && form.text().contains("kept"));
    let json = cell.ask(
        &format!("POST /posts HTTP/1.1\r\n{JSON}"),
        r#"{"body":"b"}"#,
    );
    assert_eq!(
        (json.status, json.json()["error"].as_str()),
        (422, Some("a post needs a title"))
    );
}

#[test]
fn a_restart_keeps_posts() {
    let data = tempfile::tempdir().unwrap();
    let mut first = Cell::start(data.path(), &[]);
    let added = first
        .ask(
            &format!("POST /posts HTTP/1.1\r\n{JSON}"),
            r#"{"title":"kept"}"#,
        )
        .json();
    first.signal("KILL");
    first.exit();
    let second = Cell::start(data.path(), &[]);
    assert_eq!(second.get("/posts/1").json(), added);
}
