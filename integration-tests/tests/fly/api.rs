//! The Machines API: errors, limits, leases, metadata, volumes.

use http::{Method, Request};
use integration_tests::client::{Answer, Http, full, send};
use integration_tests::fly::{Action, Fly, MachineSpec};
use serde_json::{Value, json};

const ID: &str = "0000000000000c";

async fn call(fly: &Fly, method: Method, path: &str, body: Value) -> Answer {
    call_with(fly, method, path, body, ("x-none", "")).await
}

async fn call_with(
    fly: &Fly,
    method: Method,
    path: &str,
    body: Value,
    header: (&str, &str),
) -> Answer {
    let address = fly
        .api_url()
        .strip_prefix("http://")
        .unwrap()
        .parse()
        .unwrap();
    let request = Request::builder()
        .method(method)
        .uri(format!("/v1/apps/cells{path}"))
        .header("host", "api")
        .header("authorization", format!("Bearer {}", fly.token()))
        .header("content-type", "application/json")
        .header(header.0, header.1)
        .body(full(body.to_string()))
        .unwrap();
    send(address, Http::One, request).await.unwrap()
}

async fn with_machine() -> Fly {
    let fly = Fly::start().await.unwrap();
    let sleeper = MachineSpec {
        program: Some(("/bin/sh".into(), vec!["-c".into(), "sleep 1000".into()])),
        ..MachineSpec::cell("cells", "alice").id(ID)
    };
    fly.machine(sleeper).unwrap();
    fly
}

#[tokio::test]
async fn a_wrong_token_is_refused() {
    let fly = with_machine().await;
    let address = fly
        .api_url()
        .strip_prefix("http://")
        .unwrap()
        .parse()
        .unwrap();
    let request = Request::get("/v1/apps/cells/machines")
        .header("host", "api")
        .header("authorization", "Bearer x");
    let answer = send(address, Http::One, request.body(full("")).unwrap())
        .await
        .unwrap();
    assert_eq!(answer.status, 401);
    assert!(!answer.header("fly-request-id").is_empty());
}

#[tokio::test]
async fn get_and_list_show_state_and_address() {
    let fly = with_machine().await;
    let machine = call(&fly, Method::GET, "/machines/0000000000000c", json!(null))
        .await
        .json();
    assert_eq!(
        (&machine["id"], &machine["state"]),
        (&json!(ID), &json!("stopped"))
    );
    assert_eq!(machine["private_ip"], "::ffff:127.0.0.1");
    let list = call(&fly, Method::GET, "/machines?region=ams", json!(null))
        .await
        .json();
    assert_eq!(list[0]["id"], ID);
    assert_eq!(
        call(&fly, Method::GET, "/machines?region=iad", json!(null))
            .await
            .json(),
        json!([])
    );
}

#[tokio::test]
async fn start_wait_and_a_second_start() {
    let fly = with_machine().await;
    let gate = fly.faults().hold_start(ID);
    let started = call(
        &fly,
        Method::POST,
        "/machines/0000000000000c/start",
        json!({}),
    )
    .await;
    assert_eq!(started.json()["previous_state"], "stopped");
    let waited = call(
        &fly,
        Method::GET,
        "/machines/0000000000000c/wait?state=started&timeout=0",
        json!(null),
    )
    .await;
    assert_eq!(waited.status, 408);
    gate.open();
    let waited = call(
        &fly,
        Method::GET,
        "/machines/0000000000000c/wait?state=started&timeout=60",
        json!(null),
    )
    .await;
    assert_eq!(waited.json()["ok"], true);
    assert_eq!(
        call(
            &fly,
            Method::POST,
            "/machines/0000000000000c/start",
            json!({})
        )
        .await
        .status,
        412
    );
    assert_eq!(fly.calls(Action::Start, ID), 2);
    assert_eq!(fly.find(ID).unwrap().launches(), 1);
}

#[tokio::test]
async fn wait_takes_sixty_seconds_at_most_and_an_instance_for_stopped() {
    let fly = with_machine().await;
    for query in ["timeout=61", "state=stopped", "state=happy"] {
        let path = format!("/machines/{ID}/wait?{query}");
        assert_eq!(
            call(&fly, Method::GET, &path, json!(null)).await.status,
            400,
            "{query}"
        );
    }
}

#[tokio::test]
async fn the_fourth_call_at_once_is_one_too_many() {
    let fly = with_machine().await;
    let cordon = || {
        call(
            &fly,
            Method::POST,
            "/machines/0000000000000c/cordon",
            json!({}),
        )
    };
    let statuses = [
        cordon().await,
        cordon().await,
        cordon().await,
        cordon().await,
    ]
    .map(|a| a.status.as_u16());
    assert_eq!(statuses, [200, 200, 200, 429]);
    fly.advance_clock(std::time::Duration::from_secs(1));
    assert_eq!(cordon().await.status, 200);
}

#[tokio::test]
async fn a_lease_keeps_others_from_writing() {
    let fly = with_machine().await;
    let lease = call(
        &fly,
        Method::POST,
        "/machines/0000000000000c/lease",
        json!({"ttl": 60}),
    )
    .await;
    assert_eq!(lease.status, 201);
    let nonce = lease.json()["data"]["nonce"].as_str().unwrap().to_owned();
    assert_eq!(
        call(
            &fly,
            Method::POST,
            "/machines/0000000000000c/start",
            json!({})
        )
        .await
        .status,
        409
    );
    let shown = ("fly-machine-lease-nonce", nonce.as_str());
    let start = call_with(
        &fly,
        Method::POST,
        "/machines/0000000000000c/start",
        json!({}),
        shown,
    )
    .await;
    assert_eq!(start.status, 200);
    fly.advance_clock(std::time::Duration::from_secs(60));
    assert_eq!(
        call(
            &fly,
            Method::POST,
            "/machines/0000000000000c/stop",
            json!({})
        )
        .await
        .status,
        200
    );
}

#[tokio::test]
async fn create_follows_the_config_and_delete_removes() {
    let fly = with_machine().await;
    let config = json!({"image": "cell", "metadata": {"cell": "dora"}, "services": [
        {"protocol": "tcp", "internal_port": 8080, "ports": [{"port": 443}], "autostart": true, "autostop": "off"}]});
    let body = json!({"name": "dora", "region": "iad", "skip_launch": true, "config": config});
    let made = call(&fly, Method::POST, "/machines", body).await.json();
    assert_eq!(
        (&made["name"], &made["region"], &made["config"]),
        (&json!("dora"), &json!("iad"), &config)
    );
    let found = call(
        &fly,
        Method::GET,
        "/machines?metadata.cell=dora",
        json!(null),
    )
    .await
    .json();
    assert_eq!(found[0]["id"], made["id"]);
    let path = format!("/machines/{}", made["id"].as_str().unwrap());
    assert_eq!(
        call(&fly, Method::DELETE, &path, json!(null)).await.status,
        200
    );
    assert_eq!(
        call(&fly, Method::GET, &path, json!(null)).await.status,
        404
    );
}

#[tokio::test]
async fn metadata_is_set_without_a_restart() {
    let fly = with_machine().await;
    let set = call(
        &fly,
        Method::POST,
        "/machines/0000000000000c/metadata/ring",
        json!({"value": "1"}),
    )
    .await;
    assert_eq!(set.status, 204);
    let all = call(
        &fly,
        Method::GET,
        "/machines/0000000000000c/metadata",
        json!(null),
    )
    .await;
    assert_eq!(all.json(), json!({"ring": "1"}));
    assert_eq!(
        call(
            &fly,
            Method::DELETE,
            "/machines/0000000000000c/metadata/ring",
            json!(null)
        )
        .await
        .status,
        204
    );
}

#[tokio::test]
async fn volumes_are_created_and_found() {
    let fly = with_machine().await;
    let made = call(
        &fly,
        Method::POST,
        "/volumes",
        json!({"name": "data", "region": "ams"}),
    )
    .await
    .json();
    assert_eq!(made["size_gb"], 3);
    let path = format!("/volumes/{}", made["id"].as_str().unwrap());
    assert_eq!(
        call(&fly, Method::GET, &path, json!(null)).await.json(),
        made
    );
    assert_eq!(
        call(&fly, Method::GET, "/volumes", json!(null))
            .await
            .json(),
        json!([made])
    );
}

#[tokio::test]
async fn faults_answer_instead_of_the_api() {
    let fly = with_machine().await;
    fly.faults().api_error(Action::Start, ID, 503, 1);
    let start = || {
        call(
            &fly,
            Method::POST,
            "/machines/0000000000000c/start",
            json!({}),
        )
    };
    assert_eq!(
        [start().await.status.as_u16(), start().await.status.as_u16()],
        [503, 200]
    );
    fly.lose(&fly.find(ID).unwrap());
    assert_eq!(start().await.status, 404);
}
