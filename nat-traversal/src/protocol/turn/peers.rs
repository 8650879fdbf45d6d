use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use super::channel::{CHANNELS, ChannelNumber};
use super::failure::TurnFailure;

/// Which peers may send to us, and which of them have a channel.
///
/// Each permission and each channel is a [`Lease`]: it is asked for when it is used, renewed before its end as long as it
/// is used, and let go otherwise.
#[derive(Debug, Default)]
pub(super) struct Peers {
    permissions: BTreeMap<IpAddr, Lease>,
    channels: BTreeMap<SocketAddr, Channel>,
    /// The peers by their channels.
    names: BTreeMap<ChannelNumber, SocketAddr>,
    next: u16,
    /// Packets to peers that have no channel.
    unbound: BTreeMap<SocketAddr, u32>,
}

#[derive(Debug)]
struct Channel {
    number: ChannelNumber,
    lease: Lease,
}

/// Something that a server grants for a time.
///
/// ```text
///           asked                granted
///  Wanted ────────► Asking ─────────────────► Granted ──(renewal is due, and it was used)──► Wanted
///    ▲                │ refused                  │ (it was not used)
///    ├──(used again)── Refused                   ▼
///    └──(used again)──────────────────────────  Lapsed ──► gone, once the server has forgotten it as well
/// ```
#[derive(Debug)]
struct Lease {
    state: LeaseState,
    /// Until when the server grants it in any case: a renewal that is under way does not end it.
    valid: Option<Instant>,
    used: Instant,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum LeaseState {
    Wanted,
    Asking,
    Granted {
        renew: Instant,
    },
    /// Not renewed, as it was not used.
    Lapsed,
    Refused {
        failure: TurnFailure,
        until: Instant,
    },
}

/// What to ask the server for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wish {
    Permit(IpAddr),
    Bind(SocketAddr, ChannelNumber),
}

/// Why a peer gets no place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NoPlace {
    Full,
    Refused(TurnFailure),
}

impl Wish {
    /// The address of the peer that it is about.
    pub(super) const fn ip(&self) -> IpAddr {
        match self {
            Self::Permit(ip) => *ip,
            Self::Bind(peer, _) => peer.ip(),
        }
    }
}

impl Peers {
    /// A peer is to be able to send to us, and we to it.
    pub(super) fn permit(&mut self, now: Instant, ip: IpAddr) -> Result<(), NoPlace> {
        if !self.permissions.contains_key(&ip) {
            self.forget_unused(now);
            if self.permissions.len() >= MAX_PERMISSIONS {
                return Err(NoPlace::Full);
            }
            self.permissions.insert(ip, Lease::new(now));
        }
        self.permissions.get_mut(&ip).map_or(Ok(()), |lease| lease.touch(now))
    }

    /// A peer is worth a channel.
    pub(super) fn bind(&mut self, now: Instant, peer: SocketAddr) -> Result<(), NoPlace> {
        if !self.channels.contains_key(&peer) {
            self.forget_unused(now);
            if self.channels.len() >= MAX_CHANNELS {
                return Err(NoPlace::Full);
            }
            let number = self.free_number();
            self.names.insert(number, peer);
            self.channels.insert(peer, Channel { number, lease: Lease::new(now) });
        }
        self.channels.get_mut(&peer).map_or(Ok(()), |channel| channel.lease.touch(now))
    }

    /// The channel by which data can be sent to a peer now. Counts as a use of it and of its permission.
    pub(super) fn bound(&mut self, now: Instant, peer: SocketAddr) -> Option<ChannelNumber> {
        let channel = self.channels.get_mut(&peer).filter(|channel| channel.lease.is_valid(now))?;
        channel.lease.note_use(now);
        if let Some(permission) = self.permissions.get_mut(&peer.ip()) {
            permission.note_use(now);
        }
        Some(channel.number)
    }

    /// Counts a packet without a channel; says whether there were enough that a channel pays.
    pub(super) fn is_worth_a_channel(&mut self, peer: SocketAddr) -> bool {
        if self.channels.contains_key(&peer) {
            return true;
        }
        if self.unbound.len() >= MAX_UNBOUND && !self.unbound.contains_key(&peer) {
            self.unbound.clear();
        }
        let packets = self.unbound.entry(peer).or_default();
        *packets += 1;
        let worth = *packets >= PACKETS_BEFORE_CHANNEL;
        if worth {
            self.unbound.remove(&peer);
        }
        worth
    }

    /// Whose channel this is.
    pub(super) fn named(&self, number: ChannelNumber) -> Option<SocketAddr> {
        self.names.get(&number).copied()
    }

    /// Whether we have asked that this address may send to us.
    pub(super) fn is_permitted(&self, ip: IpAddr) -> bool {
        self.permissions.contains_key(&ip)
    }

    /// What is to be asked for now; each wish is given once.
    pub(super) fn next_wish(&mut self, now: Instant) -> Option<Wish> {
        let channels = self.channels.values_mut().map(|channel| &mut channel.lease);
        self.permissions.values_mut().chain(channels).for_each(|lease| lease.lapse(now));
        let permission = self.permissions.iter_mut().find(|(_, lease)| lease.is_wanted(now));
        if let Some((ip, lease)) = permission {
            lease.state = LeaseState::Asking;
            return Some(Wish::Permit(*ip));
        }
        let (peer, channel) = self.channels.iter_mut().find(|(_, channel)| channel.lease.is_wanted(now))?;
        channel.lease.state = LeaseState::Asking;
        Some(Wish::Bind(*peer, channel.number))
    }

    /// When [`next_wish`](Self::next_wish) has one.
    pub(super) fn timeout(&self) -> Option<Instant> {
        let leases = self.permissions.values().chain(self.channels.values().map(|channel| &channel.lease));
        leases.filter_map(Lease::timeout).min()
    }

    /// The server has granted a wish.
    pub(super) fn grant(&mut self, now: Instant, wish: Wish) {
        match wish {
            Wish::Permit(ip) => {
                if let Some(lease) = self.permissions.get_mut(&ip) {
                    lease.grant(now, PERMISSION_RENEWAL, PERMISSION_LIFETIME);
                }
            }
            Wish::Bind(peer, _) => {
                if let Some(channel) = self.channels.get_mut(&peer) {
                    channel.lease.grant(now, CHANNEL_RENEWAL, CHANNEL_LIFETIME);
                }
            }
        }
    }

    /// The server has not granted a wish.
    pub(super) fn refuse(&mut self, now: Instant, wish: Wish, failure: TurnFailure) {
        let lease = match wish {
            Wish::Permit(ip) => self.permissions.get_mut(&ip),
            Wish::Bind(peer, _) => self.channels.get_mut(&peer).map(|channel| &mut channel.lease),
        };
        if let Some(lease) = lease {
            lease.state = LeaseState::Refused { failure, until: now + REFUSAL };
        }
    }

    /// Makes place: what was not used for long and has ended at the server, too.
    fn forget_unused(&mut self, now: Instant) {
        self.permissions.retain(|_, lease| !lease.is_over(now, Duration::ZERO));
        let names = &mut self.names;
        self.channels.retain(|_, channel| {
            let over = channel.lease.is_over(now, CHANNEL_REST);
            if over {
                names.remove(&channel.number);
            }
            !over
        });
    }

    fn free_number(&mut self) -> ChannelNumber {
        loop {
            let number = ChannelNumber::nth(self.next);
            self.next = (self.next + 1) % CHANNELS;
            if !self.names.contains_key(&number) {
                return number;
            }
        }
    }
}

impl Lease {
    const fn new(now: Instant) -> Self {
        Self { state: LeaseState::Wanted, valid: None, used: now }
    }

    fn touch(&mut self, now: Instant) -> Result<(), NoPlace> {
        self.note_use(now);
        match self.state {
            LeaseState::Refused { failure, until } if now < until => Err(NoPlace::Refused(failure)),
            LeaseState::Refused { .. } => {
                self.state = LeaseState::Wanted;
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn note_use(&mut self, now: Instant) {
        self.used = now;
        if self.state == LeaseState::Lapsed {
            self.state = LeaseState::Wanted;
        }
    }

    /// What its renewal finds unused waits for no time any more: after a sleep of the machine both may have passed at once.
    fn lapse(&mut self, now: Instant) {
        if matches!(self.state, LeaseState::Granted { renew } if renew <= now && self.used + UNUSED <= now) {
            self.state = LeaseState::Lapsed;
        }
    }

    fn grant(&mut self, now: Instant, renewal: Duration, lifetime: Duration) {
        self.state = LeaseState::Granted { renew: now + renewal };
        self.valid = Some(now + lifetime);
    }

    fn is_valid(&self, now: Instant) -> bool {
        self.valid.is_some_and(|end| now < end)
    }

    fn is_wanted(&self, now: Instant) -> bool {
        match self.state {
            LeaseState::Wanted => true,
            LeaseState::Granted { renew } => renew <= now && now < self.used + UNUSED,
            LeaseState::Asking | LeaseState::Lapsed | LeaseState::Refused { .. } => false,
        }
    }

    fn timeout(&self) -> Option<Instant> {
        match self.state {
            LeaseState::Wanted => Some(self.used),
            LeaseState::Granted { renew } => (renew < self.used + UNUSED).then_some(renew),
            LeaseState::Asking | LeaseState::Lapsed | LeaseState::Refused { .. } => None,
        }
    }

    fn is_over(&self, now: Instant, rest: Duration) -> bool {
        let ended = self.valid.is_none_or(|end| end + rest <= now);
        match self.state {
            LeaseState::Wanted | LeaseState::Asking => false,
            LeaseState::Refused { until, .. } => until <= now && ended,
            LeaseState::Granted { .. } | LeaseState::Lapsed => ended,
        }
    }
}

/// Peers at a time. A server's own bounds are of this order.
pub(super) const MAX_PERMISSIONS: usize = 256;
pub(super) const MAX_CHANNELS: usize = 256;

/// Request and answer for a channel take as many bytes as seven packets save by it. Checks to an address that never
/// answers are fewer.
const PACKETS_BEFORE_CHANNEL: u32 = 6;

/// Peers whose packets are counted; beyond, counting begins anew.
const MAX_UNBOUND: usize = 256;

/// A permission lives for five minutes, a channel for ten (RFC 8656, sections 9 and 12); asked for again a minute before,
/// which leaves time for all repetitions.
const PERMISSION_LIFETIME: Duration = Duration::from_secs(300);
const PERMISSION_RENEWAL: Duration = Duration::from_secs(240);
const CHANNEL_LIFETIME: Duration = Duration::from_secs(600);
const CHANNEL_RENEWAL: Duration = Duration::from_secs(540);

/// How long neither the number nor the peer of an ended channel may be bound otherwise (RFC 8656, section 12).
const CHANNEL_REST: Duration = Duration::from_secs(300);

/// Nothing is renewed for a peer that nothing was sent to for so long.
const UNUSED: Duration = Duration::from_secs(600);

/// How long a refusal is taken for an answer.
const REFUSAL: Duration = Duration::from_secs(30);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_used_when_its_renewal_is_looked_at_is_due_no_more_until_it_is_used() {
        let begun = crate::testing::Net::new(crate::protocol::Seed::from(1)).now();
        let peer: SocketAddr = "192.0.2.2:1".parse().unwrap();
        let mut peers = Peers::default();
        peers.permit(begun, peer.ip()).unwrap();
        peers.bind(begun, peer).unwrap();
        while let Some(wish) = peers.next_wish(begun) {
            peers.grant(begun, wish);
        }
        assert_eq!(peers.timeout(), Some(begun + PERMISSION_RENEWAL));
        // The machine slept through the renewals.
        let woken = begun + UNUSED;
        assert_eq!(peers.next_wish(woken), None);
        assert_eq!(peers.timeout(), None, "nothing that has passed is waited for");
        peers.permit(woken, peer.ip()).unwrap();
        assert_eq!(peers.next_wish(woken), Some(Wish::Permit(peer.ip())));
    }
}
