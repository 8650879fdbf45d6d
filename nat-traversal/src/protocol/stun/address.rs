//! Addresses as attributes carry them ([RFC 8489, section 14](https://www.rfc-editor.org/rfc/rfc8489#section-14.1)):
//!
//! ```text
//! | 0 (8) | family (8): 1 IPv4, 2 IPv6 | port (16) | address (32 or 128) |
//! ```
//!
//! The XOR form hides port and address under the magic cookie and the transaction, from routers that rewrite every
//! address they see in a packet.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::message::{COOKIE, TransactionId};

/// The attribute's value for an address, hidden under `transaction` if there is one.
pub(super) fn encode(address: SocketAddr, transaction: Option<TransactionId>) -> Vec<u8> {
    let mask = transaction.map_or([0; 16], mask);
    let port = address.port() ^ u16::from_be_bytes([mask[0], mask[1]]);
    let (family, octets) = match address.ip() {
        IpAddr::V4(ip) => (FAMILY_V4, ip.octets().to_vec()),
        IpAddr::V6(ip) => (FAMILY_V6, ip.octets().to_vec()),
    };
    let mut value = vec![0, family];
    value.extend(port.to_be_bytes());
    value.extend(octets.iter().zip(mask).map(|(octet, mask)| octet ^ mask));
    value
}

/// The address in an attribute's value.
pub(super) fn decode(value: &[u8], transaction: Option<TransactionId>) -> Option<SocketAddr> {
    let mask = transaction.map_or([0; 16], mask);
    let (head, octets) = value.split_first_chunk::<4>()?;
    let port = u16::from_be_bytes([head[2] ^ mask[0], head[3] ^ mask[1]]);
    let ip = match (head[1], octets.len()) {
        (FAMILY_V4, 4) => {
            let octets: [u8; 4] = octets.try_into().ok()?;
            IpAddr::V4(Ipv4Addr::from(unmask(octets, mask)))
        }
        (FAMILY_V6, 16) => {
            let octets: [u8; 16] = octets.try_into().ok()?;
            IpAddr::V6(Ipv6Addr::from(unmask(octets, mask)))
        }
        _ => return None,
    };
    Some(SocketAddr::new(ip, port))
}

fn mask(transaction: TransactionId) -> [u8; 16] {
    let mut mask = [0; 16];
    mask[..4].copy_from_slice(&COOKIE);
    mask[4..].copy_from_slice(&transaction.0);
    mask
}

fn unmask<const LENGTH: usize>(octets: [u8; LENGTH], mask: [u8; 16]) -> [u8; LENGTH] {
    std::array::from_fn(|index| octets[index] ^ mask[index])
}

const FAMILY_V4: u8 = 1;
const FAMILY_V6: u8 = 2;
