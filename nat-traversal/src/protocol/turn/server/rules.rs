use std::net::IpAddr;

use super::TargetPolicy;

/// How much a [`RelayServer`](super::RelayServer) lends to whom.
#[derive(Debug, Clone)]
pub struct RelayRules {
    relays_at: IpAddr,
    policy: TargetPolicy,
    in_all: usize,
    per_user: usize,
    per_address: usize,
    peers: usize,
    rate: u64,
}

impl RelayRules {
    /// Lends ports of this address, which peers reach, with the default bounds and the strictest policy.
    #[must_use]
    pub const fn new(relays_at: IpAddr) -> Self {
        Self {
            relays_at,
            policy: TargetPolicy::strict(),
            in_all: 256,
            per_user: 4,
            per_address: 16,
            peers: 64,
            rate: 2 << 20,
        }
    }

    /// Whom clients may reach. Default: [`TargetPolicy::strict`].
    #[must_use]
    pub fn targets(mut self, policy: TargetPolicy) -> Self {
        self.policy = policy;
        self
    }

    /// Addresses lent at a time; each costs a socket and some kilobytes. Default: 256.
    #[must_use]
    pub const fn allocations(mut self, most: usize) -> Self {
        self.in_all = most;
        self
    }

    /// Addresses lent to one user at a time: one for each way there, and some whose end was not noticed. Default: 4.
    #[must_use]
    pub const fn allocations_per_user(mut self, most: usize) -> Self {
        self.per_user = most;
        self
    }

    /// Addresses lent to users behind one address at a time. Default: 16.
    #[must_use]
    pub const fn allocations_per_address(mut self, most: usize) -> Self {
        self.per_address = most;
        self
    }

    /// What goes through one address lent, both directions together; twice that may go at once, what is more is dropped. Default:
    /// 2 MiB a second.
    #[must_use]
    pub const fn bytes_per_second(mut self, rate: u64) -> Self {
        self.rate = rate;
        self
    }

    pub(crate) const fn relays_at(&self) -> IpAddr {
        self.relays_at
    }

    pub(crate) const fn policy(&self) -> &TargetPolicy {
        &self.policy
    }

    pub(super) const fn in_all(&self) -> usize {
        self.in_all
    }

    pub(super) const fn per_user(&self) -> usize {
        self.per_user
    }

    pub(super) const fn per_address(&self) -> usize {
        self.per_address
    }

    /// Permissions and channels of one allocation.
    pub(super) const fn peers(&self) -> usize {
        self.peers
    }

    pub(super) const fn rate(&self) -> u64 {
        self.rate
    }
}

/// What a [`RelayServer`](super::RelayServer) has done since its start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct RelayStats {
    /// Addresses lent now.
    pub allocations: usize,
    /// Bytes of payload passed on, both directions together.
    pub bytes: u64,
    /// Requests with wrong or expired credentials.
    pub refused_credentials: u64,
    /// Requests for more than a quota allows.
    pub refused_quota: u64,
    /// Peers that clients may not reach.
    pub refused_targets: u64,
    /// Datagrams dropped since their peer had no permission.
    pub dropped_unpermitted: u64,
    /// Datagrams dropped since too much went through.
    pub dropped_rate: u64,
}

impl RelayStats {
    pub(super) fn count_refusal(&mut self, code: u16) {
        match code {
            403 => self.refused_targets += 1,
            486 | 508 => self.refused_quota += 1,
            _ => {}
        }
    }
}
