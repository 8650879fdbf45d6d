//! What goes through: from a client to a peer and back.

use std::{net::SocketAddr, time::Instant};

use super::{RelayClient, RelayId, RelayOrder, RelayServer, channel};
use crate::protocol::stun::{Class, Message, MessageBuilder, Method, TransactionId, attribute};

/// How much may go through: so much a second, and twice that at once.
#[derive(Debug)]
pub(super) struct Bucket {
    left: u64,
    rate: u64,
    filled: Instant,
}

impl Bucket {
    pub(super) const fn new(now: Instant, rate: u64) -> Self {
        Self { left: rate.saturating_mul(2), rate, filled: now }
    }

    fn take(&mut self, now: Instant, bytes: usize) -> bool {
        let since = now.saturating_duration_since(self.filled);
        let gained = u128::from(self.rate) * since.as_millis() / 1_000;
        if gained > 0 {
            let gained = u64::try_from(gained).unwrap_or(u64::MAX);
            self.left = self.left.saturating_add(gained).min(self.rate.saturating_mul(2));
            self.filled = now;
        }
        match self.left.checked_sub(bytes as u64) {
            Some(left) => {
                self.left = left;
                true
            }
            None => false,
        }
    }
}

impl RelayServer {
    /// Takes a datagram that came for an address that is lent out.
    pub fn handle_peer(&mut self, now: Instant, relay: RelayId, peer: SocketAddr, data: &[u8]) {
        let Some(&client) = self.relays.get(&relay) else { return };
        let Some(allocation) = self.allocations.get_mut(&client).filter(|one| one.end > now) else { return };
        let permitted = allocation.permissions.get(&peer.ip()).is_some_and(|end| *end > now);
        let Ok(length) = u16::try_from(data.len()) else { return };
        if !permitted {
            self.stats.dropped_unpermitted += 1;
            return;
        }
        if !allocation.bucket.take(now, data.len()) {
            self.stats.dropped_rate += 1;
            return;
        }
        let bound = allocation.channels.iter().find(|(_, (other, end))| *other == peer && *end > now);
        let bytes = match bound {
            Some((number, _)) => {
                let mut bytes = [&number.to_be_bytes()[..], &length.to_be_bytes(), data].concat();
                if matches!(client, RelayClient::Stream(..)) {
                    bytes.resize(bytes.len().next_multiple_of(4), 0);
                }
                bytes
            }
            // What does not fit into STUN is lost, as on any way with a small MTU.
            None if data.len() > MAX_IN_STUN => return,
            None => MessageBuilder::new(Class::Indication, Method::DATA, self.indication())
                .xor_address(attribute::XOR_PEER_ADDRESS, peer)
                .attribute(attribute::DATA, data)
                .finish(),
        };
        self.stats.bytes += u64::from(length);
        self.orders.push_back(RelayOrder::Answer(client, bytes));
    }

    pub(super) fn pass_channel_data(&mut self, now: Instant, client: RelayClient, bytes: &[u8]) {
        let Some((number, data)) = channel::decode(bytes) else { return };
        let Some(allocation) = self.allocations.get(&client) else { return };
        let bound = allocation.channels.get(&number.number()).filter(|(_, end)| *end > now);
        if let Some(&(peer, _)) = bound {
            self.pass(now, client, peer, data);
        }
    }

    pub(super) fn pass_indication(&mut self, now: Instant, client: RelayClient, message: &Message<'_>) {
        let peer = message.xor_address(attribute::XOR_PEER_ADDRESS);
        if let (Some(peer), Some(data)) = (peer, message.find(attribute::DATA)) {
            self.pass(now, client, peer, data.value);
        }
    }

    fn pass(&mut self, now: Instant, client: RelayClient, peer: SocketAddr, data: &[u8]) {
        let Some(allocation) = self.allocations.get_mut(&client).filter(|one| one.end > now) else { return };
        let permitted = allocation.permissions.get(&peer.ip()).is_some_and(|end| *end > now);
        if !permitted || allocation.relayed.is_none() {
            self.stats.dropped_unpermitted += 1;
            return;
        }
        if !allocation.bucket.take(now, data.len()) {
            self.stats.dropped_rate += 1;
            return;
        }
        let relay = allocation.relay;
        // At an address of this very host only what is lent out is a peer; everything else is a service of the host, which
        // its firewall may have meant to keep from the outside.
        let lent = || self.allocations.values().any(|one| one.relayed == Some(peer));
        if self.rules.policy().is_own(peer.ip()) && !lent() {
            self.stats.refused_targets += 1;
            return;
        }
        self.stats.bytes += data.len() as u64;
        self.orders.push_back(RelayOrder::Send(relay, peer, data.to_vec()));
    }

    /// Nobody answers an indication, so its number only has to be one.
    fn indication(&self) -> TransactionId {
        let mut id = [0; 12];
        id[..8].copy_from_slice(&self.stats.bytes.to_be_bytes());
        TransactionId(id)
    }
}

/// The length of a STUN message has 16 bits, and the peer's address takes some of it.
const MAX_IN_STUN: usize = 65_000;
