//! The addresses that QUIC is told instead of the real ones.
//!
//! A connection keeps one made-up address for its life, so that what carries its datagrams can change beneath it. It is
//! a keyed hash of the socket and the peer's address: the same source gives the same one, which Retry (RFC 9000 §8.1.2)
//! and stateless resets (§10.3) need, and nobody without the key can make two sources meet.

use std::{
    fmt,
    net::{IpAddr, Ipv6Addr, SocketAddr},
};

use ring::hmac;

/// Makes up addresses under `fd00::/8` (RFC 4193).
pub(crate) struct MadeUpAddresses {
    key: hmac::Key,
}

impl MadeUpAddresses {
    pub(crate) fn new(key: &[u8; 32]) -> Self {
        Self { key: hmac::Key::new(hmac::HMAC_SHA256, key) }
    }

    /// The address of whoever sends from `source` to the socket of that number.
    pub(crate) fn of(&self, socket: usize, source: SocketAddr) -> SocketAddr {
        let mut context = hmac::Context::with_key(&self.key);
        context.update(&u64::try_from(socket).unwrap_or(u64::MAX).to_be_bytes());
        match source.ip().to_canonical() {
            IpAddr::V4(ip) => context.update(&ip.octets()),
            IpAddr::V6(ip) => context.update(&ip.octets()),
        }
        if let SocketAddr::V6(source) = source {
            // Two links may both have an fe80::1.
            context.update(&source.scope_id().to_be_bytes());
        }
        let mut octets = [0; 16];
        octets.copy_from_slice(&context.sign().as_ref()[..16]);
        octets[0] = 0xfd;
        // Port 0 is not a source of UDP; QUIC refuses it as a destination.
        SocketAddr::new(Ipv6Addr::from(octets).into(), source.port().max(1))
    }
}

impl fmt::Debug for MadeUpAddresses {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("MadeUpAddresses(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_depends_on_key_socket_and_source_alone() {
        let made_up = MadeUpAddresses::new(&[1; 32]);
        let of = |socket, source: &str| made_up.of(socket, source.parse().unwrap());
        assert_eq!(of(1, "192.0.2.1:5"), of(1, "192.0.2.1:5"));
        assert_ne!(of(1, "192.0.2.1:5").ip(), of(2, "192.0.2.1:5").ip());
        assert_ne!(of(1, "192.0.2.1:5").ip(), of(1, "192.0.2.2:5").ip());
        assert_ne!(of(1, "[fe80::1%1]:5").ip(), of(1, "[fe80::1%2]:5").ip());
        let other_key = MadeUpAddresses::new(&[2; 32]);
        assert_ne!(of(1, "192.0.2.1:5"), other_key.of(1, "192.0.2.1:5".parse().unwrap()));
    }

    #[test]
    fn it_is_a_unique_local_address_with_the_port_of_the_source() {
        let addr = MadeUpAddresses::new(&[1; 32]).of(0, "127.0.0.1:77".parse().unwrap());
        assert_eq!(addr.port(), 77);
        assert!(matches!(addr.ip(), IpAddr::V6(ip) if ip.octets()[0] == 0xfd));
    }
}
