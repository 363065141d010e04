//! Upgraded connections: whoever breaks one off is named.

use integration_tests::client::Raw;
use integration_tests::{Router, ScriptedCell};

use crate::scene::{HOST, scripted};

/// Both ends of a tunnel through which a byte has gone each way.
async fn tunnel(router: &Router, cell: &ScriptedCell) -> (Raw, Raw) {
    let mut client = Raw::connect(router.addr()).await.unwrap();
    let head = format!(
        "GET /live HTTP/1.1\r\nhost: {HOST}\r\nconnection: upgrade\r\nupgrade: chat\r\n\r\n"
    );
    client.write(head).await.unwrap();
    let (mut upstream, _) = cell.request().await;
    let switch =
        "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: chat\r\n\r\n!";
    upstream.write(switch).await.unwrap();
    client.head().await.unwrap();
    client.bytes(1).await.unwrap();
    client.write("?").await.unwrap();
    upstream.bytes(1).await.unwrap();
    (client, upstream)
}

#[tokio::test]
async fn a_tunnel_that_the_cell_resets_is_the_cells_failure() {
    let (router, cell) = scripted().await;
    let (mut client, upstream) = tunnel(&router, &cell).await;
    upstream.reset().unwrap();
    client.ended().await;
    let record = router.next_record(|record| record["status"] == 101).await;
    assert_eq!(record["error_by"], "cell", "{record}");
    assert_eq!(record["response_body"], "cell_cut", "{record}");
}

#[tokio::test]
async fn a_tunnel_that_the_client_resets_is_the_clients() {
    let (router, cell) = scripted().await;
    let (client, mut upstream) = tunnel(&router, &cell).await;
    client.reset().unwrap();
    upstream.ended().await;
    let record = router.next_record(|record| record["status"] == 101).await;
    assert_eq!(record["error_by"], "client", "{record}");
}
