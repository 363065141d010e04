//! Traces that requests belong to: what the log says of them.

use http::{Request, StatusCode};
use integration_tests::client::{self, Http};
use serde_json::json;

use crate::scene::{HOST, scripted};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const SPAN: &str = "00f067aa0ba902b7";

const EMPTY: &str = "HTTP/1.1 204 No Content\r\n\r\n";

fn traceparent(flags: &str) -> String {
    format!("00-{TRACE}-{SPAN}-{flags}")
}

/// The values of a field in a head.
fn values<'a>(head: &'a str, name: &str) -> Vec<&'a str> {
    head.lines()
        .filter_map(|line| line.split_once(": "))
        .filter(|(field, _)| field.eq_ignore_ascii_case(name))
        .map(|(_, value)| value)
        .collect()
}

#[tokio::test]
async fn the_log_names_the_trace_of_a_request_and_the_cell_gets_it_untouched() {
    for http in [Http::One, Http::Two] {
        let (router, cell) = scripted().await;
        let traced = traceparent("01");
        let future = format!("cc-{TRACE}-{SPAN}-01-more");
        let wrong = format!("00-{TRACE}-{:016}-01", 0);
        for (path, value, known) in [
            ("/traced", Some(&traced), true),
            ("/future", Some(&future), true),
            ("/wrong", Some(&wrong), false),
            ("/none", None, false),
        ] {
            let mut request = Request::get(path).header("host", HOST);
            if let Some(value) = value {
                request = request.header("traceparent", value);
                request = request.header("tracestate", "rojo=1,congo=2");
            }
            let request = request.body(client::full("")).unwrap();
            let answer = tokio::spawn(client::send(router.addr(), http, request));
            let (mut raw, head) = cell.request().await;
            raw.write(EMPTY).await.unwrap();
            assert_eq!(
                answer.await.unwrap().unwrap().status,
                StatusCode::NO_CONTENT
            );
            let states: &[&str] = if value.is_some() {
                &["rojo=1,congo=2"]
            } else {
                &[]
            };
            let sent: Vec<_> = value.iter().map(|value| value.as_str()).collect();
            assert_eq!(values(&head, "traceparent"), sent, "{path}");
            assert_eq!(values(&head, "tracestate"), states, "{path}");
            let record = router.next_record(|record| record["path"] == path).await;
            let (trace, span) = match known {
                true => (json!(TRACE), json!(SPAN)),
                false => (json!(null), json!(null)),
            };
            assert_eq!(record["trace_id"], trace, "{record}");
            assert_eq!(record["parent_span_id"], span, "{record}");
            assert_eq!(
                record["span_id"],
                json!(null),
                "the router has none: {record}"
            );
        }
    }
}
