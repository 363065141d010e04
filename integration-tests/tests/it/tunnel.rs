//! The end of a tunnel: whoever breaks one off is named, and the router says it in the tunnel's own words where it can.

use integration_tests::client::Raw;
use integration_tests::{Router, ScriptedCell};
use serde_json::json;

use crate::scene::{HOST, at, options, registry, said, scripted};

/// A whole text frame as a server sends it, and as a client does (RFC 6455 section 5.7).
const FROM_CELL: &[u8] = b"\x81\x05Hello";
const FROM_CLIENT: &[u8] = b"\x81\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58";
/// Close, 1001, as a client gets it.
const GOING_AWAY: &[u8] = b"\x88\x02\x03\xe9";

/// A tunnel of this protocol from a client to the cell `alice`.
async fn tunnel(router: &Router, cell: &ScriptedCell, protocol: &str) -> (Raw, Raw) {
    let mut client = Raw::connect(router.addr()).await.unwrap();
    client
        .write(format!(
            "GET /live HTTP/1.1\r\nhost: {HOST}\r\nconnection: upgrade\r\nupgrade: {protocol}\r\n\r\n"
        ))
        .await
        .unwrap();
    let (mut upstream, _) = cell.request().await;
    upstream
        .write(format!(
            "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: {protocol}\r\n\r\n"
        ))
        .await
        .unwrap();
    assert!(client.head().await.unwrap().starts_with("HTTP/1.1 101 "));
    (client, upstream)
}

/// A router before one scripted cell, with these settings for the cell and these flags.
async fn scene(settings: serde_json::Value, flags: [&str; 2]) -> (Router, ScriptedCell) {
    let cell = ScriptedCell::listen().await;
    let mut entry = settings;
    entry["address"] = cell.addr().to_string().into();
    let router = Router::start(options(json!({ "alice": entry })).args(flags)).await;
    (router, cell)
}

/// Reads a Close frame with 1001, masked, as a server gets it; answers as a server does.
async fn cell_says_goodbye(upstream: &mut Raw) {
    let frame = upstream.bytes(8).await.unwrap();
    assert_eq!(frame[..2], [0x88, 0x82]);
    assert_eq!([frame[6] ^ frame[2], frame[7] ^ frame[3]], [0x03, 0xe9]);
    // A frame that comes too late, and the answer.
    upstream
        .write([FROM_CELL, GOING_AWAY].concat())
        .await
        .unwrap();
    assert_eq!(upstream.rest().await.unwrap(), b"");
}

/// Reads a Close frame with 1001; answers as a client does.
async fn client_says_goodbye(client: &mut Raw) {
    assert_eq!(client.bytes(4).await.unwrap(), GOING_AWAY);
    client.write(b"\x88\x82\0\0\0\0\x03\xe9").await.unwrap();
    assert_eq!(client.rest().await.unwrap(), b"");
}

#[tokio::test]
async fn at_the_drains_end_a_websocket_is_closed_between_two_frames() {
    let (router, cell) = scene(json!({}), ["--drain-ms", "50"]).await;
    let (mut client, mut upstream) = tunnel(&router, &cell, "websocket").await;
    client.write(&FROM_CLIENT[..7]).await.unwrap();
    assert_eq!(upstream.bytes(7).await.unwrap(), &FROM_CLIENT[..7]);
    upstream
        .write([FROM_CELL, &FROM_CELL[..1]].concat())
        .await
        .unwrap();
    assert_eq!(
        client.bytes(8).await.unwrap(),
        [FROM_CELL, &FROM_CELL[..1]].concat()
    );
    router.terminate();
    said(&router, "drain time is over").await;
    upstream.write(&FROM_CELL[1..]).await.unwrap();
    client.write(&FROM_CLIENT[7..]).await.unwrap();
    assert_eq!(client.bytes(6).await.unwrap(), &FROM_CELL[1..]);
    assert_eq!(upstream.bytes(4).await.unwrap(), &FROM_CLIENT[7..]);
    tokio::join!(
        client_says_goodbye(&mut client),
        cell_says_goodbye(&mut upstream)
    );
    drop((client, upstream));
    assert_eq!(router.exited().await.code(), Some(0));
    let record = router.next_record(|record| record["status"] == 101).await;
    assert_eq!(record["error"], "tunnel: the router stopped");
}

#[tokio::test]
async fn who_has_said_goodbye_already_says_no_more() {
    let (router, cell) = scene(json!({}), ["--drain-ms", "50"]).await;
    let (mut client, mut upstream) = tunnel(&router, &cell, "WebSocket").await;
    upstream.write(b"\x88\0").await.unwrap();
    assert_eq!(client.bytes(2).await.unwrap(), b"\x88\0");
    router.terminate();
    said(&router, "drain time is over").await;
    assert_eq!(client.rest().await.unwrap(), b"");
    cell_says_goodbye(&mut upstream).await;
    drop((client, upstream));
    assert_eq!(router.exited().await.code(), Some(0));
}

#[tokio::test]
async fn another_protocol_sees_its_end_and_all_that_came_before() {
    let (router, cell) = scene(json!({}), ["--drain-ms", "50"]).await;
    let (mut client, mut upstream) = tunnel(&router, &cell, "chat").await;
    router.terminate();
    said(&router, "draining: running work may finish").await;
    upstream.write("last words").await.unwrap();
    assert_eq!(client.rest().await.unwrap(), b"last words");
    assert_eq!(upstream.rest().await.unwrap(), b"");
    drop((client, upstream));
    assert_eq!(router.exited().await.code(), Some(0));
}

#[tokio::test]
async fn a_websocket_that_idles_is_closed() {
    let (router, cell) = scene(
        json!({ "tunnel_idle_timeout_ms": 1000 }),
        ["--drain-ms", "50"],
    )
    .await;
    let (mut client, mut upstream) = tunnel(&router, &cell, "websocket").await;
    tokio::join!(
        client_says_goodbye(&mut client),
        cell_says_goodbye(&mut upstream)
    );
    let record = router.next_record(|record| record["status"] == 101).await;
    assert_eq!(record["error"], "tunnel: no byte for 1000 ms");
}

#[tokio::test]
async fn tunnels_of_a_cell_that_is_withdrawn_are_closed_and_no_others() {
    let (router, cell) = scene(json!({}), ["--drain-ms", "50"]).await;
    let entry = at(cell.addr());
    let mut disabled = entry.clone();
    disabled["state"] = "disabled".into();
    for after in [
        json!({ "alice": disabled, "bob": entry }),
        json!({ "bob": entry }),
    ] {
        router.save(&registry(json!({ "alice": entry, "bob": entry })));
        said(&router, "registry loaded").await;
        let (mut client, mut upstream) = tunnel(&router, &cell, "websocket").await;
        router.save(&registry(after));
        tokio::join!(
            client_says_goodbye(&mut client),
            cell_says_goodbye(&mut upstream)
        );
        let record = router.next_record(|record| record["status"] == 101).await;
        assert_eq!(record["error"], "tunnel: the cell was withdrawn");
        said(&router, "registry loaded").await;
    }
}

#[tokio::test]
async fn a_tunnel_that_the_cell_resets_is_the_cells_failure() {
    let (router, cell) = scripted().await;
    let (mut client, upstream) = tunnel(&router, &cell, "chat").await;
    upstream.reset().unwrap();
    client.ended().await;
    let record = router.next_record(|record| record["status"] == 101).await;
    assert_eq!(record["error_by"], "cell", "{record}");
    assert_eq!(record["response_body"], "cell_cut", "{record}");
}

#[tokio::test]
async fn a_tunnel_that_the_client_resets_is_the_clients() {
    let (router, cell) = scripted().await;
    let (client, mut upstream) = tunnel(&router, &cell, "chat").await;
    client.reset().unwrap();
    upstream.ended().await;
    let record = router.next_record(|record| record["status"] == 101).await;
    assert_eq!(record["error_by"], "client", "{record}");
}

#[tokio::test]
async fn a_cell_switches_to_nothing_but_what_was_asked_for() {
    let (router, cell) = scripted().await;
    for (asked, taken, passes) in [
        ("foo/2, Bar", "foo/2", true),
        ("foo/2, Bar", "bar", true),
        ("foo/2, Bar", "foo", true),
        ("foo/2, Bar", "BAR/1", true),
        ("foo/2, Bar", "bar, FOO/2", true),
        ("foo/2, Bar", "foo/3", false),
        ("foo/2, Bar", "baz", false),
        ("foo/2, Bar", "bar, baz", false),
        ("websocket", "h2c", false),
    ] {
        let mut client = Raw::connect(router.addr()).await.unwrap();
        client
            .write(format!(
                "GET / HTTP/1.1\r\nhost: {HOST}\r\nconnection: upgrade\r\nupgrade: {asked}\r\n\r\n"
            ))
            .await
            .unwrap();
        let (mut upstream, _) = cell.request().await;
        upstream
            .write(format!(
                "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: {taken}\r\n\r\n"
            ))
            .await
            .unwrap();
        let head = client.head().await.unwrap();
        let status = if passes { "101" } else { "502" };
        assert_eq!(head.split(' ').nth(1), Some(status), "{asked}: {taken}");
    }
}
