//! TLS to a cell: a certificate by its authority or by its key, and not a byte to whoever has another.

use std::path::Path;
use std::sync::Arc;

use http::StatusCode;
use integration_tests::client::{self, Raw};
use integration_tests::{Router, ScriptedCell};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use ring::digest::{SHA256, digest};
use rustls::ServerConfig;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::scene::{HOST, at, options, said};

const FOUND: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

/// An authority that signs certificates for cells.
pub(crate) struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap());
        Self(issuer.unwrap())
    }

    pub(crate) fn write(&self, file: &Path) {
        std::fs::write(file, self.0.pem()).unwrap();
    }

    /// What a cell with a certificate for this name accepts with, and the pin of its key.
    pub(crate) fn certify(&self, name: &str) -> (TlsAcceptor, String) {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &self.0).unwrap();
        let sum = digest(
            &SHA256,
            &rcgen::PublicKeyData::subject_public_key_info(&key),
        );
        let hex: String = sum.as_ref().iter().map(|b| format!("{b:02x}")).collect();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let private = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], private)
            .unwrap();
        (TlsAcceptor::from(Arc::new(config)), format!("sha256:{hex}"))
    }
}

/// A router before a cell at `localhost`, whose entry says this of TLS.
async fn before(listener: &TcpListener, tls: Value) -> Router {
    let port = listener.local_addr().unwrap().port();
    let entry = json!({ "address": format!("localhost:{port}"), "tls": tls });
    Router::start(options(json!({ "alice": entry }))).await
}

async fn listening() -> TcpListener {
    TcpListener::bind(("127.0.0.1", 0)).await.unwrap()
}

/// Reads the head of a request.
pub(crate) async fn head(stream: &mut TlsStream<TcpStream>) -> String {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        head.push(char::from(stream.read_u8().await.unwrap()));
    }
    head
}

#[tokio::test]
async fn a_cell_whose_certificate_is_right_is_asked_by_its_name() {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::new();
    let file = folder.path().join("ca.pem");
    authority.write(&file);
    for (name, by_name) in [
        ("localhost", json!({ "ca": file })),
        (
            "alice.cells.internal",
            json!({ "ca": file, "name": "{cell}.cells.internal" }),
        ),
    ] {
        let (acceptor, pin) = authority.certify(name);
        let listener = listening().await;
        for tls in [by_name, json!({ "pin": pin })] {
            let router = before(&listener, tls).await;
            let address = router.addr();
            let posted = tokio::spawn(client::post(address, HOST, "/", vec![b'x'; 100_000]));
            let (socket, _) = listener.accept().await.unwrap();
            let mut stream = acceptor.accept(socket).await.unwrap();
            assert!(head(&mut stream).await.starts_with("POST / "));
            stream.read_exact(&mut vec![0; 100_000]).await.unwrap();
            stream.write_all(FOUND).await.unwrap();
            stream.flush().await.unwrap();
            assert_eq!(posted.await.unwrap().unwrap().text(), "ok");
            let again = tokio::spawn(client::get(address, HOST, "/kept"));
            assert!(head(&mut stream).await.starts_with("GET /kept "));
            stream.write_all(FOUND).await.unwrap();
            stream.flush().await.unwrap();
            assert_eq!(again.await.unwrap().unwrap().text(), "ok");
        }
    }
}

#[tokio::test]
async fn whoever_has_another_certificate_gets_not_a_byte() {
    let folder = tempfile::tempdir().unwrap();
    let (authority, other) = (Authority::new(), Authority::new());
    let file = folder.path().join("ca.pem");
    authority.write(&file);
    let (right, pin) = authority.certify("localhost");
    let rows = [
        (
            "of another authority",
            other.certify("localhost").0,
            json!({ "ca": file }),
        ),
        (
            "for another name",
            authority.certify("other").0,
            json!({ "ca": file }),
        ),
        (
            "asked by another name",
            right,
            json!({ "ca": file, "name": "other" }),
        ),
        (
            "for another key",
            authority.certify("localhost").0,
            json!({ "pin": pin }),
        ),
    ];
    for (row, acceptor, tls) in rows {
        let listener = listening().await;
        let router = before(&listener, tls).await;
        let answered = tokio::spawn(client::post(router.addr(), HOST, "/", "tenant"));
        let (socket, _) = listener.accept().await.unwrap();
        if let Ok(mut stream) = acceptor.accept(socket).await {
            // In TLS 1.3 a server is done before its client has judged it.
            let mut heard = Vec::new();
            let _ = stream.read_to_end(&mut heard).await;
            assert!(heard.is_empty(), "{row}");
        }
        assert_eq!(
            answered.await.unwrap().unwrap().status,
            StatusCode::BAD_GATEWAY,
            "{row}"
        );
        let record = router.next_record(|record| record["status"] == 502).await;
        assert_eq!(
            (&record["reason"], &record["error_by"], &record["bytes_in"]),
            (&json!("cell_untrusted"), &json!("cell"), &json!(0)),
            "{row}"
        );
    }
}

#[tokio::test]
async fn a_cell_that_speaks_no_tls_gets_not_a_byte_of_the_request() {
    let cell = ScriptedCell::listen().await;
    let mut entry = at(cell.addr());
    entry["tls"] = json!({ "pin": format!("sha256:{}", "0".repeat(64)) });
    let router = Router::start(options(json!({ "alice": entry }))).await;
    let answered = tokio::spawn(client::post(router.addr(), HOST, "/", "tenant"));
    let mut connection = cell.accept().await;
    connection
        .write("HTTP/1.1 400 Bad Request\r\n\r\n")
        .await
        .unwrap();
    let heard = connection.rest().await.unwrap();
    assert!(!heard.windows(6).any(|part| part == b"tenant"));
    assert_eq!(
        answered.await.unwrap().unwrap().status,
        StatusCode::BAD_GATEWAY
    );
}

#[tokio::test]
async fn a_tunnel_leads_through_tls() {
    let (acceptor, pin) = Authority::new().certify("anything");
    let listener = listening().await;
    let router = before(&listener, json!({ "pin": pin })).await;
    let mut client = Raw::connect(router.addr()).await.unwrap();
    let ask = format!(
        "GET /live HTTP/1.1\r\nhost: {HOST}\r\nconnection: upgrade\r\nupgrade: echo\r\n\r\n"
    );
    client.write(ask).await.unwrap();
    let (socket, _) = listener.accept().await.unwrap();
    let mut stream = acceptor.accept(socket).await.unwrap();
    assert!(head(&mut stream).await.contains("upgrade: echo"));
    let switched =
        "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: echo\r\n\r\n";
    stream.write_all(switched.as_bytes()).await.unwrap();
    stream.flush().await.unwrap();
    assert!(client.head().await.unwrap().starts_with("HTTP/1.1 101 "));
    client.write("ping").await.unwrap();
    let mut heard = [0; 4];
    stream.read_exact(&mut heard).await.unwrap();
    assert_eq!(&heard, b"ping");
    stream.write_all(b"pong").await.unwrap();
    stream.flush().await.unwrap();
    assert_eq!(client.bytes(4).await.unwrap(), b"pong");
}

#[tokio::test]
async fn http2_is_chosen_by_alpn_or_not_spoken() {
    let (plain, pin) = Authority::new().certify("anything");
    let mut config = ServerConfig::clone(plain.config());
    config.alpn_protocols = vec![b"h2".to_vec()];
    let choosing = TlsAcceptor::from(Arc::new(config));
    for (acceptor, speaks) in [(choosing, true), (plain, false)] {
        let listener = listening().await;
        let port = listener.local_addr().unwrap().port();
        let entry = json!({
            "address": format!("localhost:{port}"), "protocol": "http2", "tls": { "pin": pin },
        });
        let router = Router::start(options(json!({ "alice": entry }))).await;
        let answered = tokio::spawn(client::get(router.addr(), HOST, "/x"));
        let (socket, _) = listener.accept().await.unwrap();
        let stream = acceptor.accept(socket).await.unwrap();
        if !speaks {
            assert_eq!(
                answered.await.unwrap().unwrap().status,
                StatusCode::BAD_GATEWAY
            );
            let record = router.next_record(|record| record["status"] == 502).await;
            assert_eq!(record["reason"], "cell_untrusted");
            continue;
        }
        let mut connection = h2::server::handshake(stream).await.unwrap();
        let (request, mut respond) = connection.accept().await.unwrap().unwrap();
        assert_eq!(request.uri(), &*format!("https://{HOST}/x"));
        let mut body = respond
            .send_response(http::Response::new(()), false)
            .unwrap();
        body.send_data(bytes::Bytes::from_static(b"ok"), true)
            .unwrap();
        tokio::spawn(async move { connection.accept().await.is_none() });
        assert_eq!(answered.await.unwrap().unwrap().text(), "ok");
    }
}

#[tokio::test]
async fn an_authority_beside_the_registry_is_read_with_it() {
    let (old, new) = (Authority::new(), Authority::new());
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("ca.pem");
    old.write(&file);
    let listener = listening().await;
    let port = listener.local_addr().unwrap().port();
    let entry = json!({ "address": format!("localhost:{port}"), "tls": { "ca": "ca.pem" } });
    let mut options = options(json!({ "alice": entry }));
    options.registry_file = Some(folder.path().join("registry.json"));
    let router = Router::start(options).await;

    std::fs::write(&file, "no certificate").unwrap();
    router.hang_up();
    let problem = router.next_event(|event| {
        event["message"]
            .as_str()
            .unwrap()
            .contains("$.cells.alice.tls: the file ca.pem: it holds no certificate")
    });
    problem.await;
    // The cell stays as it was.
    assert_eq!(said(&router, "registry loaded").await["flagged"], 1);

    new.write(&file);
    router.hang_up();
    assert_eq!(said(&router, "registry loaded").await["flagged"], 0);
    let answered = tokio::spawn(client::get(router.addr(), HOST, "/"));
    let (socket, _) = listener.accept().await.unwrap();
    let mut stream = new.certify("localhost").0.accept(socket).await.unwrap();
    head(&mut stream).await;
    stream.write_all(FOUND).await.unwrap();
    stream.flush().await.unwrap();
    assert_eq!(answered.await.unwrap().unwrap().status, StatusCode::OK);
}
