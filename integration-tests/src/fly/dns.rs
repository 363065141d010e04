//! Owns the private DNS: a resolver for `.internal` names that knows started machines only (fly-platform 2).

use std::net::SocketAddr;
use std::sync::Arc;

use hickory_proto::op::{Message, OpCode, Query, ResponseCode};
use hickory_proto::rr::{RData, Record, RecordType, rdata};
use tokio::net::UdpSocket;

use super::machine::{Machine, State};
use super::platform::Platform;

/// Time to live of every answer in seconds (fly-platform 2: the only one visible in the documentation).
const TTL_SECS: u32 = 5;

/// Answers queries on `socket` until cancelled.
pub(crate) async fn serve(platform: Arc<Platform>, socket: UdpSocket) {
    let mut packet = [0; 4096];
    loop {
        // An error here is an earlier answer's, refused by its receiver.
        let Ok((length, peer)) = socket.recv_from(&mut packet).await else {
            continue;
        };
        if let Some(answer) = answer(&platform, &packet[..length]) {
            send(&socket, &answer, peer).await;
        }
    }
}

async fn send(socket: &UdpSocket, answer: &Message, peer: SocketAddr) {
    if let Ok(bytes) = answer.to_vec() {
        // The asker may be gone.
        let _ = socket.send_to(&bytes, peer).await;
    }
}

fn answer(platform: &Platform, packet: &[u8]) -> Option<Message> {
    let asked = Message::from_vec(packet).ok()?;
    let query = asked.queries.first()?.clone();
    let mut answer = Message::response(asked.metadata.id, OpCode::Query);
    answer.metadata.recursion_desired = asked.metadata.recursion_desired;
    answer.metadata.recursion_available = true;
    match records(platform, &query) {
        Some(records) => {
            answer.add_answers(records);
        }
        None => answer.metadata.response_code = ResponseCode::NXDomain,
    }
    answer.add_query(query);
    Some(answer)
}

/// The answer to one question; `None` for a name that does not exist.
fn records(platform: &Platform, query: &Query) -> Option<Vec<Record>> {
    let name = query.name().to_ascii().to_ascii_lowercase();
    let name = name.trim_end_matches('.').strip_suffix(".internal")?;
    let found = match name.split('.').collect::<Vec<_>>()[..] {
        ["vms", app] => return txt(platform, query, app),
        [id, "vm", app] => visible(platform, app)
            .into_iter()
            .filter(|m| m.id == id)
            .collect(),
        [app] | ["global", app] => visible(platform, app),
        [region, app] => visible(platform, app)
            .into_iter()
            .filter(|m| m.region == region)
            .collect(),
        _ => Vec::new(),
    };
    if found.is_empty() {
        return None;
    }
    let wanted = query.query_type() == RecordType::AAAA;
    let one = |machine: Arc<Machine>| {
        let address = RData::AAAA(rdata::AAAA(machine.private_ip()));
        Record::from_rdata(query.name().clone(), TTL_SECS, address)
    };
    Some(
        found
            .into_iter()
            .take(if wanted { usize::MAX } else { 0 })
            .map(one)
            .collect(),
    )
}

fn txt(platform: &Platform, query: &Query, app: &str) -> Option<Vec<Record>> {
    let machines = visible(platform, app);
    let list: Vec<String> = machines
        .iter()
        .map(|m| format!("{} {}", m.id, m.region))
        .collect();
    if list.is_empty() {
        return None;
    }
    let text = rdata::TXT::new(vec![list.join(",")]);
    let record = Record::from_rdata(query.name().clone(), TTL_SECS, RData::TXT(text));
    Some(if query.query_type() == RecordType::TXT {
        vec![record]
    } else {
        Vec::new()
    })
}

/// Machines of an app that DNS knows: the started ones, and those whose stale name a test wants answered.
fn visible(platform: &Platform, app: &str) -> Vec<Arc<Machine>> {
    let shown = |machine: &Arc<Machine>| {
        let started = machine.state() == State::Started && !platform.faults.dns_hides(&machine.id);
        started || platform.faults.is_stale(&machine.id)
    };
    platform.machines(app).into_iter().filter(shown).collect()
}
