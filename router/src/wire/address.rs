//! Addresses as text, piece by piece: written once or more for each request, so without the standard formatting.

use std::net::{IpAddr, SocketAddr};

/// Tells an address to `push`.
pub fn ip(address: IpAddr, mut push: impl FnMut(&str)) {
    let IpAddr::V4(address) = address else {
        return push(&address.to_string());
    };
    for (place, octet) in address.octets().into_iter().enumerate() {
        if place > 0 {
            push(".");
        }
        push(itoa::Buffer::new().format(octet));
    }
}

/// Tells an address and its port to `push`.
pub fn socket(socket: SocketAddr, mut push: impl FnMut(&str)) {
    if let SocketAddr::V6(socket) = socket {
        return push(&socket.to_string());
    }
    ip(socket.ip(), &mut push);
    push(":");
    push(itoa::Buffer::new().format(socket.port()));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_written_as_the_standard_writes_it() {
        for text in ["10.2.0.255:80", "0.0.0.0:0", "[fd00::1]:443"] {
            let address: SocketAddr = text.parse().unwrap();
            let mut written = String::new();
            socket(address, |piece| written.push_str(piece));
            assert_eq!(written, text);
            written.clear();
            ip(address.ip(), |piece| written.push_str(piece));
            assert_eq!(written, address.ip().to_string());
        }
    }
}
