//! Commands that a running router carries out.

use std::path::Path;
use std::process::Output;
use std::sync::Arc;

use integration_tests::fly::{Fly, MachineSpec, State};
use integration_tests::{Binaries, ScriptedCell};
use rcgen::{CertificateParams, KeyPair};
use rustls::ServerConfig;
use serde_json::json;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use crate::admin_api::Admin;
use crate::scene::options;
use crate::wake::{APP, entry, on_fly};

async fn run(args: &[&str]) -> Output {
    let mut command = tokio::process::Command::new(&Binaries::built().cell_router);
    command.args(args).env_clear().output().await.unwrap()
}

/// Who asks, and where.
async fn ask(admin: &Admin, url: &str, role: &str, args: &[&str]) -> Output {
    let token = admin.token_file(role);
    let which = ["--url", url, "--token-file", token.to_str().unwrap()];
    run(&[&which, args].concat()).await
}

fn shown(output: &Output) -> (Option<i32>, String) {
    let text = String::from_utf8(output.stdout.clone()).unwrap();
    (output.status.code(), text)
}

#[tokio::test]
async fn commands_do_by_url_what_they_do_on_the_file() {
    let cells =
        json!({ "alice": { "address": "127.0.0.1:9" }, "bob": { "address": "127.0.0.1:9" } });
    let admin = Admin::start(options(cells)).await;
    let url = format!("http://{}", admin.address);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("registry.json");
    std::fs::copy(admin.router.registry(), &file).unwrap();
    let draft = folder.path().join("draft.json");
    let draft = draft.to_str().unwrap();
    let text = std::fs::read_to_string(&file).unwrap();
    std::fs::write(draft, text.replace("127.0.0.1:9", "127.0.0.1:10")).unwrap();
    let file = file.to_str().unwrap();
    let version = [
        "registry",
        "apply",
        draft,
        "--if-version",
        "0123456789abcdef",
    ];
    let commands: &[&[&str]] = &[
        &["cell", "list"],
        &["cell", "show", "alice", "--json"],
        // There is nothing before what is there.
        &["registry", "undo"],
        &["registry", "diff"],
        &[
            "cell",
            "add",
            "carol",
            "address=127.0.0.1:9",
            "hosts=carol.org,www.carol.org",
            "secret.env=C",
        ],
        &["cell", "add", "carol", "address=127.0.0.1:9"],
        &[
            "cell",
            "set",
            "carol",
            "max_in_flight=7",
            "hosts+=shop.carol.org",
            "hosts-=carol.org",
        ],
        &["cell", "set", "carol", "--unset", "secret", "--json"],
        &["cell", "set", "carol", "port=70000"],
        &["cell", "pause", "alice", "bob", "--dry-run"],
        &["cell", "pause", "alice", "bob"],
        &["cell", "pause", "alice", "nobody"],
        &["cell", "maintenance", "bob"],
        &["cell", "disable", "bob"],
        &["cell", "enable", "alice", "bob"],
        &["cell", "rename", "carol", "caroline"],
        &["cell", "remove", "caroline"],
        &["registry", "diff"],
        &["registry", "undo", "--dry-run"],
        &["registry", "undo"],
        &["registry", "diff", "--draft", draft],
        &version,
        &["registry", "apply", draft],
        &["registry", "format", "--check"],
        &["registry", "format"],
        &["registry", "undo", "0123456789abcdef"],
        &["explain", "GET", "http://alice.example.com/"],
        &["cell", "list", "--json"],
    ];
    for args in commands {
        let local = run(&[*args, &["--registry", file]].concat()).await;
        let remote = ask(&admin, &url, "edit", args).await;
        assert_eq!(
            shown(&local),
            shown(&remote),
            "{args:?} {local:?} {remote:?}"
        );
    }
    assert_eq!(
        std::fs::read(file).unwrap(),
        std::fs::read(admin.router.registry()).unwrap()
    );
    let history = ["registry", "history", "--json", "-n", "100"];
    let what = |output: Output| -> Vec<_> {
        let lines: Vec<serde_json::Value> = serde_json::from_slice(&output.stdout).unwrap();
        let line = |line: serde_json::Value| {
            (
                line["version"].clone(),
                line["of"].clone(),
                line["what"].clone(),
            )
        };
        lines.into_iter().map(line).collect()
    };
    let local = run(&[&history[..], &["--registry", file]].concat()).await;
    let remote = ask(&admin, &url, "read", &history).await;
    assert_eq!(what(local), what(remote));
}

#[tokio::test]
async fn a_refusal_has_its_words_and_its_exit_code() {
    let admin = Admin::start(options(json!({ "alice": { "address": "127.0.0.1:9" } }))).await;
    let url = format!("http://{}", admin.address);
    for (role, args, code, words) in [
        ("read", &["cell", "pause", "alice"][..], 1, "role read"),
        ("operate", &["cell", "remove", "alice"], 1, "role operate"),
        ("operate", &["cell", "pause", "alice"], 0, ""),
        (
            "edit",
            &["cell", "set", "nobody", "max_in_flight=1"],
            5,
            "no cell \"nobody\"",
        ),
        (
            "edit",
            &[
                "cell",
                "set",
                "alice",
                "max_in_flight=1",
                "--if-version",
                "0123456789abcdef",
            ],
            3,
            "version",
        ),
        ("edit", &["cell", "wake", "alice"], 1, "Machines API"),
    ] {
        let output = ask(&admin, &url, role, args).await;
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(code), "{args:?} {said}");
        assert!(said.contains(words), "{args:?} {said}");
    }
    let nobody = run(&["--url", &url, "cell", "list"]).await;
    assert_eq!(nobody.status.code(), Some(1));
    let no_router = run(&["cell", "wake", "alice"]).await;
    assert!(
        String::from_utf8(no_router.stderr)
            .unwrap()
            .contains("--url")
    );
}

#[tokio::test]
async fn a_command_wakes_a_cell_and_puts_it_to_sleep() {
    let fly = Fly::start().await.unwrap();
    let machine = fly.machine(MachineSpec::cell(APP, "alice")).unwrap();
    let admin = Admin::start(on_fly(&fly, json!({ "alice": entry(&machine) }))).await;
    let url = format!("http://{}", admin.address);
    let woken = ask(&admin, &url, "operate", &["cell", "wake", "alice"]).await;
    assert_eq!(
        shown(&woken),
        (Some(0), "alice: ready\n".to_owned()),
        "{woken:?}"
    );
    let slept = ask(&admin, &url, "operate", &["cell", "sleep", "alice"]).await;
    assert_eq!(
        shown(&slept),
        (Some(0), "alice: stopping\n".to_owned()),
        "{slept:?}"
    );
    machine.reached(&[State::Stopped]).await;
}

#[tokio::test]
async fn a_wake_that_is_not_over_is_not_done() {
    let router = ScriptedCell::listen().await;
    let url = format!("http://{}", router.addr());
    let folder = tempfile::tempdir().unwrap();
    let token = folder.path().join("token");
    std::fs::write(&token, "0123456789abcdef0123456789abcdef").unwrap();
    let which = ["--url", &url, "--token-file", token.to_str().unwrap()];
    for (status, stage, code) in [("200 OK", "ready", 0), ("202 Accepted", "readying", 1)] {
        let args = [&which[..], &["cell", "wake", "alice"]].concat();
        let told = json!({ "stage": stage }).to_string();
        let answering = async {
            let (mut asked, head) = router.request().await;
            assert!(head.starts_with("POST /v1/cells/alice/wake?"), "{head}");
            let length = told.len();
            let head = format!(
                "HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n"
            );
            asked.write(head + &told).await.unwrap();
            asked
        };
        let (output, _asked) = tokio::join!(run(&args), answering);
        assert_eq!(
            shown(&output),
            (Some(code), format!("alice: {stage}\n")),
            "{output:?}"
        );
    }
}

/// TLS in front of `to`, by a certificate of its own that is written to `pem`.
async fn tls_before(to: std::net::SocketAddr, pem: &Path) -> u16 {
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new(["localhost".to_owned()]).unwrap();
    let certificate = certificate.self_signed(&key).unwrap();
    std::fs::write(pem, certificate.pem()).unwrap();
    let config = ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(
            vec![certificate.der().clone()],
            rustls::pki_types::PrivateKeyDer::Pkcs8(key.serialize_der().into()),
        )
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        loop {
            let (socket, _) = listener.accept().await.unwrap();
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                // A client that does not like the certificate leaves.
                let Ok(mut tls) = acceptor.accept(socket).await else {
                    return;
                };
                let mut plain = TcpStream::connect(to).await.unwrap();
                let _ = tokio::io::copy_bidirectional(&mut tls, &mut plain).await;
            });
        }
    });
    port
}

#[tokio::test]
async fn an_https_url_is_believed_by_its_certificate() {
    let admin = Admin::start(options(json!({ "alice": { "address": "127.0.0.1:9" } }))).await;
    let folder = tempfile::tempdir().unwrap();
    let (pem, other) = (
        folder.path().join("ca.pem"),
        folder.path().join("other.pem"),
    );
    let port = tls_before(admin.address, &pem).await;
    tls_before(admin.address, &other).await;
    let url = format!("https://localhost:{port}");
    for (ca, code) in [(&pem, 0), (&other, 1)] {
        let args = ["--ca", ca.to_str().unwrap(), "cell", "list"];
        let output = ask(&admin, &url, "read", &args).await;
        assert_eq!(output.status.code(), Some(code), "{output:?}");
    }
}
