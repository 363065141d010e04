//! TLS to clients: certificates by name, protocols by ALPN, and a folder that changes.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::FutureExt as _;
use http_body_util::{BodyExt, Empty};
use hyper_util::rt::{TokioExecutor, TokioIo};
use integration_tests::client::{self, Raw};
use integration_tests::{Router, ScriptedCell};
use rcgen::CertifiedKey;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use serde_json::json;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::scene::{at, options, said};

/// Writes a new certificate for these names, and what trusts it.
fn issue(folder: &Path, file: &str, names: &[&str]) -> CertificateDer<'static> {
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let CertifiedKey { cert, signing_key } = rcgen::generate_simple_self_signed(names).unwrap();
    std::fs::write(
        folder.join(format!("{file}.key")),
        signing_key.serialize_pem(),
    )
    .unwrap();
    std::fs::write(folder.join(format!("{file}.pem")), cert.pem()).unwrap();
    cert.der().clone()
}

/// A router before one scripted cell, `alice`, with TLS; where it speaks TLS.
async fn secure(folder: &TempDir) -> (Router, SocketAddr, ScriptedCell) {
    secure_with(folder, &[]).await
}

/// As [`secure`], with more flags.
async fn secure_with(folder: &TempDir, more: &[&str]) -> (Router, SocketAddr, ScriptedCell) {
    let cell = ScriptedCell::listen().await;
    let flags = [
        "--tls-listen",
        "127.0.0.1:0",
        "--tls-certificates",
        folder.path().to_str().unwrap(),
    ];
    let options = options(json!({ "alice": at(cell.addr()) })).args(flags);
    let router = Router::start(options.args(more.iter().copied())).await;
    let address = router.tls_addr().await;
    (router, address, cell)
}

async fn handshake(
    address: SocketAddr,
    name: &str,
    trusted: &CertificateDer<'static>,
    protocol: &[u8],
) -> std::io::Result<TlsStream<TcpStream>> {
    let mut roots = RootCertStore::empty();
    roots.add(trusted.clone()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![protocol.to_vec()];
    let socket = TcpStream::connect(address).await?;
    let name = ServerName::try_from(name.to_owned()).unwrap();
    TlsConnector::from(Arc::new(config))
        .connect(name, socket)
        .await
}

#[tokio::test]
async fn alpn_chooses_the_protocol_and_the_cell_learns_of_tls() {
    let folder = tempfile::tempdir().unwrap();
    let trusted = issue(folder.path(), "a", &["alice.example.com"]);
    let (_router, address, cell) = secure(&folder).await;
    for protocol in ["h2", "http/1.1"] {
        let stream = handshake(address, "alice.example.com", &trusted, protocol.as_bytes())
            .await
            .unwrap();
        assert_eq!(
            stream.get_ref().1.alpn_protocol(),
            Some(protocol.as_bytes())
        );
        let request =
            http::Request::get("https://alice.example.com/x").header("host", "alice.example.com");
        let request = request.body(Empty::<Bytes>::new()).unwrap();
        let answered = tokio::spawn(async move {
            let io = TokioIo::new(stream);
            let response = if protocol == "h2" {
                let (mut sender, connection) =
                    hyper::client::conn::http2::handshake(TokioExecutor::new(), io)
                        .await
                        .unwrap();
                tokio::spawn(connection);
                sender.send_request(request).await.unwrap()
            } else {
                let (mut sender, connection) =
                    hyper::client::conn::http1::handshake(io).await.unwrap();
                tokio::spawn(connection);
                sender.send_request(request).await.unwrap()
            };
            response.into_body().collect().await.unwrap().to_bytes()
        });
        let (mut upstream, head) = cell.request().await;
        assert!(head.contains("x-forwarded-proto: https"), "{head}");
        upstream
            .write("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\nok")
            .await
            .unwrap();
        assert_eq!(answered.await.unwrap(), "ok");
    }
}

#[tokio::test]
async fn each_name_gets_its_own_certificate() {
    let folder = tempfile::tempdir().unwrap();
    let wild = issue(folder.path(), "wild", &["*.example.com"]);
    let own = issue(folder.path(), "own", &["alice.example.com"]);
    let (_router, address, _cell) = secure(&folder).await;
    assert!(
        handshake(address, "alice.example.com", &own, b"h2")
            .await
            .is_ok()
    );
    assert!(
        handshake(address, "bob.example.com", &wild, b"h2")
            .await
            .is_ok()
    );
    // One label, not two, and no name that nobody has a certificate for.
    assert!(
        handshake(address, "a.b.example.com", &wild, b"h2")
            .await
            .is_err()
    );
    assert!(handshake(address, "alice.org", &own, b"h2").await.is_err());
}

#[tokio::test]
async fn a_new_certificate_is_served_and_a_bad_one_is_not() {
    let folder = tempfile::tempdir().unwrap();
    let first = issue(folder.path(), "a", &["alice.example.com"]);
    let (router, address, _cell) = secure(&folder).await;
    assert!(
        handshake(address, "alice.example.com", &first, b"h2")
            .await
            .is_ok()
    );

    std::fs::write(folder.path().join("a.pem"), "no certificate").unwrap();
    let told = router.next_event(|event| {
        event["message"]
            .as_str()
            .is_some_and(|text| text.contains("a.pem"))
    });
    assert!(
        told.await["message"]
            .as_str()
            .unwrap()
            .contains("the last good one serves on")
    );
    assert!(
        handshake(address, "alice.example.com", &first, b"h2")
            .await
            .is_ok()
    );

    let second = issue(folder.path(), "a", &["alice.example.com"]);
    // The folder may be seen between the two files of a pair: what is half new is bad, and passes.
    while handshake(address, "alice.example.com", &second, b"h2")
        .await
        .is_err()
    {
        said(&router, "certificates loaded").await;
    }

    for file in ["a.pem", "a.key"] {
        std::fs::remove_file(folder.path().join(file)).unwrap();
    }
    let none_left = |event: &serde_json::Value| {
        let text = event["message"].as_str();
        text.is_some_and(|text| text.contains("no certificate is left"))
    };
    router.next_event(none_left).await;
    let still = handshake(address, "alice.example.com", &second, b"h2").await;
    assert!(still.is_ok());
}

#[tokio::test]
async fn a_folder_without_a_usable_certificate_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("a.pem"), "no certificate").unwrap();
    let flags = [
        "--tls-listen",
        "127.0.0.1:0",
        "--tls-certificates",
        folder.path().to_str().unwrap(),
    ];
    let (status, said) = Router::refused(options(json!({})).args(flags)).await;
    assert_eq!(status.code(), Some(1));
    assert!(said.contains("a.pem"), "{said}");
}

#[tokio::test]
async fn who_stalls_in_a_handshake_is_closed_and_lets_the_next_in() {
    let folder = tempfile::tempdir().unwrap();
    let trusted = issue(folder.path(), "a", &["alice.example.com"]);
    let flags = [
        "--max-tls-handshakes",
        "1",
        "--tls-handshake-timeout-ms",
        "2000",
    ];
    let (_router, address, _cell) = secure_with(&folder, &flags).await;
    let mut stalls = Raw::connect(address).await.unwrap();
    // The first record of a handshake, of which no more comes.
    stalls.write(b"\x16\x03\x01").await.unwrap();
    let later = handshake(address, "alice.example.com", &trusted, b"http/1.1");
    let ((), later) = tokio::join!(stalls.ended(), later);
    later.unwrap();
}

#[tokio::test]
async fn who_has_said_nothing_yet_takes_nobodys_turn() {
    let folder = tempfile::tempdir().unwrap();
    let trusted = issue(folder.path(), "a", &["alice.example.com"]);
    let flags = [
        "--max-tls-handshakes",
        "1",
        "--tls-handshake-timeout-ms",
        "10000",
    ];
    let (_router, address, _cell) = secure_with(&folder, &flags).await;
    let mut waiting = Vec::new();
    for said in [&b""[..], b"\x16\x03\x01"] {
        let mut idle = Raw::connect(address).await.unwrap();
        idle.write(said).await.unwrap();
        waiting.push(idle);
    }
    handshake(address, "alice.example.com", &trusted, b"http/1.1")
        .await
        .unwrap();
    for idle in &mut waiting {
        assert!(
            idle.some().now_or_never().is_none(),
            "it has not been given up"
        );
    }
}

#[tokio::test]
async fn a_client_with_too_many_connections_is_closed() {
    let folder = tempfile::tempdir().unwrap();
    let trusted = issue(folder.path(), "a", &["alice.example.com"]);
    let flags = ["--max-connections-per-client", "1"];
    let (_router, address, _cell) = secure_with(&folder, &flags).await;
    let name = "alice.example.com";
    let _stays = handshake(address, name, &trusted, b"http/1.1")
        .await
        .unwrap();
    assert!(
        handshake(address, name, &trusted, b"http/1.1")
            .await
            .is_err()
    );
}

#[tokio::test]
async fn https_is_not_redirected_and_plain_http_is() {
    let folder = tempfile::tempdir().unwrap();
    let trusted = issue(folder.path(), "a", &["alice.example.com"]);
    let (router, address, cell) = secure_with(&folder, &["--https-redirect"]).await;
    let plain = client::get(router.addr(), "alice.example.com:80", "/x")
        .await
        .unwrap();
    assert_eq!(plain.status, http::StatusCode::PERMANENT_REDIRECT);
    assert_eq!(plain.header("location"), "https://alice.example.com/x");
    let stream = handshake(address, "alice.example.com", &trusted, b"http/1.1")
        .await
        .unwrap();
    let (mut reading, mut writing) = tokio::io::split(stream);
    writing
        .write_all(b"GET /x HTTP/1.1\r\nhost: alice.example.com\r\n\r\n")
        .await
        .unwrap();
    let (mut upstream, _) = cell.request().await;
    upstream
        .write("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
        .await
        .unwrap();
    let mut status = [0; 12];
    reading.read_exact(&mut status).await.unwrap();
    assert_eq!(&status, b"HTTP/1.1 200");
}
