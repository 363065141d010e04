//! The signature: a token is good for what it was made for, and for nothing else.

use cell_router::wire::signature::{Bound, Keys, LIFETIME_SECONDS};
use ring::digest::{SHA256, digest};

use super::choices::Choices;

/// What must hold for two secrets, a time and a token, which are lines of the input, and for a change of one byte.
pub fn holds(data: &[u8]) {
    let mut choices = Choices(data);
    let [first, second, time, token, target]: [String; 5] = std::array::from_fn(|_| choices.line());
    let now = time.trim().parse::<u64>().unwrap_or(1_790_000_000) % (1 << 40);
    let secrets: Vec<&str> = [&first[..], &second]
        .into_iter()
        .flat_map(|line| line.split(','))
        .map(str::trim)
        .filter(|secret| !secret.is_empty())
        .collect();
    let keys = Keys::parse(&format!("{first},{second}"));
    assert_eq!(keys.is_ok(), !secrets.is_empty());
    let Ok(keys) = keys else {
        return;
    };
    // A target as a request line can have it.
    let target: String = target.chars().filter(char::is_ascii_graphic).collect();
    let bound = Bound {
        cell: "alice",
        method: "PUT",
        host: "alice.example.com",
        target: &target,
    };
    assert_eq!(
        keys.verify(&token, bound, now),
        good(&token, &secrets, bound, now)
    );

    let made = keys.sign(bound, now);
    assert!(
        made.bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'.')
    );
    assert!(
        good(&made, &secrets[..1], bound, now),
        "it is signed with the first secret"
    );
    for (at, lasts) in [
        (now, true),
        (now + LIFETIME_SECONDS, true),
        (now + LIFETIME_SECONDS + 1, false),
        (now.saturating_sub(180), true),
        (now.saturating_sub(181), now < 181),
    ] {
        assert_eq!(
            keys.verify(&made, bound, at),
            lasts,
            "at {at}, made at {now}"
        );
    }
    beats(&keys, &secrets, &token, &made, now);
    let (place, to) = (usize::from(choices.byte()), choices.byte());
    let mut other = made.clone().into_bytes();
    let place = place % other.len();
    other[place] = to;
    let other = String::from_utf8_lossy(&other).into_owned();
    assert_eq!(
        keys.verify(&other, bound, now),
        other == made,
        "one byte is another"
    );
    assert!(!keys.verify(&format!("{made}0"), bound, now) && !keys.verify(&made[1..], bound, now));
    let longer = format!("{target}x");
    for changed in [
        Bound {
            cell: "alicia",
            ..bound
        },
        Bound {
            method: "POST",
            ..bound
        },
        Bound {
            host: "alice.example.org",
            ..bound
        },
        Bound {
            target: &longer,
            ..bound
        },
    ] {
        assert!(!keys.verify(&made, changed, now), "{changed:?}");
    }
}

/// A beat proves its own time of its own cell, and a request's token none.
fn beats(keys: &Keys, secrets: &[&str], token: &str, request: &str, now: u64) {
    let message = |cell: &str, time: &str| format!("cell-beat-v1\n{cell}\n{time}");
    let mac = |secret: &str, time: &str| hmac(secret.as_bytes(), message("alice", time).as_bytes());
    let proves = |token: &str| {
        let parts: Vec<&str> = token.split('.').collect();
        let ["v1", time, given] = parts[..] else {
            return None;
        };
        let at: u64 = time.parse().ok()?;
        let made = secrets.iter().any(|secret| mac(secret, time) == given);
        (made && at.to_string() == time && at > 0).then_some(at)
    };
    assert_eq!(keys.beat(token, "alice"), proves(token));
    let time = (now + 1).to_string();
    let beat = format!("v1.{time}.{}", mac(secrets[0], &time));
    assert_eq!(keys.beat(&beat, "alice"), Some(now + 1));
    assert_eq!(keys.beat(&beat, "alicia"), None);
    assert_eq!(keys.beat(request, "alice"), None);
}

/// docs/signature.md, byte by byte.
fn good(token: &str, secrets: &[&str], bound: Bound<'_>, now: u64) -> bool {
    let parts: Vec<&str> = token.split('.').collect();
    let [version, expiry, mac] = parts[..] else {
        return false;
    };
    let decimal = !expiry.is_empty() && expiry.bytes().all(|byte| byte.is_ascii_digit());
    let Some(at) = expiry
        .parse::<u64>()
        .ok()
        .filter(|_| decimal && !expiry.starts_with('0'))
    else {
        return false;
    };
    if version != "v1" || at < now || at > now + 300 {
        return false;
    }
    let Bound {
        cell,
        method,
        host,
        target,
    } = bound;
    let message = format!("cell-router-v1\n{cell}\n{expiry}\n{method}\n{host}\n{target}");
    secrets
        .iter()
        .any(|secret| hmac(secret.as_bytes(), message.as_bytes()) == mac)
}

/// HMAC-SHA256 as 64 lower-case hexadecimal digits (RFC 2104 section 2).
fn hmac(key: &[u8], message: &[u8]) -> String {
    let mut block = [0; 64];
    if key.len() > 64 {
        block[..32].copy_from_slice(digest(&SHA256, key).as_ref());
    } else {
        block[..key.len()].copy_from_slice(key);
    }
    let padded = |with: u8| block.map(|byte| byte ^ with).to_vec();
    let inner = digest(&SHA256, &[&padded(0x36)[..], message].concat());
    let outer = digest(&SHA256, &[&padded(0x5C)[..], inner.as_ref()].concat());
    outer
        .as_ref()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}
