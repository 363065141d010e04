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

/// An address as text, where it is.
#[derive(Debug)]
pub struct Text {
    bytes: [u8; 45],
    length: usize,
}

impl Text {
    /// That of `address`.
    pub fn of(address: IpAddr) -> Self {
        let mut text = Self {
            bytes: [0; 45],
            length: 0,
        };
        ip(address, |piece| {
            let end = text.length + piece.len();
            text.bytes[text.length..end].copy_from_slice(piece.as_bytes());
            text.length = end;
        });
        text
    }

    /// It.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.bytes[..self.length]).unwrap_or_default()
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
        for text in [
            "10.2.0.255:80",
            "0.0.0.0:0",
            "[fd00::1]:443",
            "[1111:2222:3333:4444:5555:6666:7777:8888]:1",
            "[::ffff:255.255.255.255]:1",
        ] {
            let address: SocketAddr = text.parse().unwrap();
            let mut written = String::new();
            socket(address, |piece| written.push_str(piece));
            assert_eq!(written, text);
            written.clear();
            ip(address.ip(), |piece| written.push_str(piece));
            assert_eq!(written, address.ip().to_string());
            assert_eq!(Text::of(address.ip()).as_str(), written);
        }
    }
}
