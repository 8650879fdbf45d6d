use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

use ring::hmac;

use super::{RelayId, RelayRules, traffic::Bucket};
use crate::protocol::stun::{Message, TransactionId, attribute};

/// One address that is lent out, and to whom.
#[derive(Debug)]
pub(super) struct Allocation {
    pub(super) relay: RelayId,
    pub(super) username: String,
    pub(super) key: hmac::Key,
    pub(super) made_by: TransactionId,
    /// The relayed address, once there is one.
    pub(super) relayed: Option<SocketAddr>,
    pub(super) end: Instant,
    /// When the credentials end.
    pub(super) expires: Instant,
    pub(super) permissions: BTreeMap<IpAddr, Instant>,
    pub(super) channels: BTreeMap<u16, (SocketAddr, Instant)>,
    pub(super) bucket: Bucket,
}

impl Allocation {
    pub(super) fn permit(
        &mut self,
        now: Instant,
        peers: &[SocketAddr],
        rules: &RelayRules,
    ) -> Result<(), u16> {
        self.permissions.retain(|_, end| *end > now);
        for peer in peers {
            if self.permissions.len() >= rules.peers() && !self.permissions.contains_key(&peer.ip()) {
                return Err(508);
            }
            self.permissions.insert(peer.ip(), now + PERMISSION);
        }
        Ok(())
    }

    pub(super) fn bind(
        &mut self,
        now: Instant,
        number: u16,
        peer: SocketAddr,
        rules: &RelayRules,
    ) -> Result<(), u16> {
        self.channels.retain(|_, (_, end)| *end > now);
        let taken = self.channels.iter().any(|(known, (other, _))| (*known == number) != (*other == peer));
        if taken || !CHANNELS.contains(&number) {
            return Err(400);
        }
        if self.channels.len() >= rules.peers() && !self.channels.contains_key(&number) {
            return Err(508);
        }
        self.permit(now, &[peer], rules)?;
        self.channels.insert(number, (peer, now + CHANNEL));
        Ok(())
    }
}

/// The peers that a request names, if all of them may be reached.
pub(super) fn peers(message: &Message<'_>, rules: &RelayRules) -> Result<Vec<SocketAddr>, u16> {
    let peers: Option<Vec<SocketAddr>> = message.xor_addresses(attribute::XOR_PEER_ADDRESS).collect();
    let peers = peers.filter(|peers| !peers.is_empty()).ok_or(400_u16)?;
    for peer in &peers {
        if peer.is_ipv4() != rules.relays_at().is_ipv4() {
            return Err(443);
        }
        if !rules.policy().admits(peer.ip()) {
            return Err(403);
        }
    }
    Ok(peers)
}

/// How long an allocation holds from now on: what was asked for, within bounds, and not beyond the credentials.
pub(super) fn lifetime(now: Instant, message: &Message<'_>, expires: Instant) -> Result<Duration, u16> {
    let asked = match message.find(attribute::LIFETIME) {
        None => USUAL_LIFETIME,
        Some(found) => {
            let seconds: [u8; 4] = found.value.try_into().map_err(|_| 400_u16)?;
            Duration::from_secs(u32::from_be_bytes(seconds).into())
        }
    };
    if asked.is_zero() {
        return Ok(asked);
    }
    Ok(asked.clamp(USUAL_LIFETIME, LONGEST_LIFETIME).min(expires.saturating_duration_since(now)))
}

/// RFC 8656, sections 3.2, 9 and 12.
const USUAL_LIFETIME: Duration = Duration::from_secs(600);
const LONGEST_LIFETIME: Duration = Duration::from_secs(3_600);
const PERMISSION: Duration = Duration::from_secs(300);
const CHANNEL: Duration = Duration::from_secs(600);
const CHANNELS: std::ops::RangeInclusive<u16> = 0x4000..=0x4FFF;
