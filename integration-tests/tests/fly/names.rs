//! The private DNS: started machines only, lag, stale answers.

use std::net::{Ipv6Addr, SocketAddr};

use hickory_proto::op::{Message, Query, ResponseCode};
use hickory_proto::rr::{Name, RData, RecordType};
use integration_tests::client::get;
use integration_tests::fly::{Fly, MachineSpec};
use tokio::net::UdpSocket;

use crate::Stub;

const ID: &str = "0000000000000c";
const NAME: &str = "0000000000000c.vm.cells.internal.";

/// The answers to one question, or the code that stands for none.
async fn ask(dns: SocketAddr, name: &str, kind: RecordType) -> Result<Vec<String>, ResponseCode> {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let mut message = Message::query();
    message.add_query(Query::query(Name::from_ascii(name).unwrap(), kind));
    socket
        .send_to(&message.to_vec().unwrap(), dns)
        .await
        .unwrap();
    let mut packet = [0; 4096];
    let length = socket.recv(&mut packet).await.unwrap();
    let answer = Message::from_vec(&packet[..length]).unwrap();
    assert_eq!(answer.metadata.id, message.metadata.id);
    match answer.metadata.response_code {
        ResponseCode::NoError => Ok(answer
            .answers
            .iter()
            .map(|record| {
                assert_eq!(record.ttl, 5);
                match &record.data {
                    RData::AAAA(address) => address.0.to_string(),
                    RData::TXT(text) => {
                        String::from_utf8_lossy(&text.txt_data.concat()).into_owned()
                    }
                    other => panic!("{other:?}"),
                }
            })
            .collect()),
        code => Err(code),
    }
}

fn loopback() -> Vec<String> {
    vec![Ipv6Addr::new(0, 0, 0, 0, 0, 0xffff, 0x7f00, 1).to_string()]
}

#[tokio::test]
async fn started_machines_have_names_and_stopped_ones_have_none() {
    let fly = Fly::start().await.unwrap();
    let stub = Stub::named("cell").await;
    fly.machine(MachineSpec::cell("cells", "alice").id("0000000000000d"))
        .unwrap();
    fly.attach("cells", ID, stub.address).unwrap();
    let dns = fly.dns_addr();
    assert_eq!(ask(dns, NAME, RecordType::AAAA).await, Ok(loopback()));
    assert_eq!(
        ask(dns, "cells.internal.", RecordType::AAAA).await,
        Ok(loopback())
    );
    assert_eq!(ask(dns, NAME, RecordType::A).await, Ok(vec![]));
    assert_eq!(
        ask(dns, "vms.cells.internal.", RecordType::TXT).await,
        Ok(vec![format!("{ID} ams")])
    );
    let stopped = ask(dns, "0000000000000d.vm.cells.internal.", RecordType::AAAA).await;
    assert_eq!(stopped, Err(ResponseCode::NXDomain));
    let other_app = ask(dns, "0000000000000c.vm.router.internal.", RecordType::AAAA).await;
    assert_eq!(other_app, Err(ResponseCode::NXDomain));
}

#[tokio::test]
async fn dns_can_lag_by_queries_and_until_told() {
    let fly = Fly::start().await.unwrap();
    let stub = Stub::named("cell").await;
    fly.attach("cells", ID, stub.address).unwrap();
    let known = async || ask(fly.dns_addr(), NAME, RecordType::AAAA).await.is_ok();
    fly.faults().dns_lag_queries(ID, 2);
    assert_eq!(
        [known().await, known().await, known().await],
        [false, false, true]
    );
    let gate = fly.faults().dns_lag(ID);
    assert!(!known().await);
    gate.open();
    assert!(known().await);
}

#[tokio::test]
async fn a_reused_address_answers_as_the_other_machine() {
    let fly = Fly::start().await.unwrap();
    let bob = Stub::named("bob").await;
    let bob = fly
        .attach("cells", "0000000000000b", bob.address)
        .map(|machine| (machine, bob))
        .unwrap();
    let alice = fly
        .machine(MachineSpec::cell("cells", "alice").id(ID))
        .unwrap();
    assert!(get(alice.address(), "a.test", "/").await.is_err());
    fly.reuse_address(&alice, &bob.0).await.unwrap();
    assert_eq!(
        ask(fly.dns_addr(), NAME, RecordType::AAAA).await,
        Ok(loopback())
    );
    assert_eq!(
        get(alice.address(), "a.test", "/").await.unwrap().text(),
        "bob"
    );
}
