use std::time::{Duration, Instant};

use super::peers::Wish;
use crate::protocol::stun::{MessageBuilder, Method, TransactionId, attribute};
use crate::protocol::{Due, Retry};

/// What we ask a server for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Request {
    Allocate {
        v6: bool,
    },
    Refresh,
    /// A refresh for no time at all.
    Release,
    Wish(Wish),
    /// A refresh long before it is needed, which keeps the NAT on the way open and shows that the server lives and remembers us.
    Probe,
}

/// A request that waits for its answer.
#[derive(Debug)]
pub(super) struct Transaction {
    pub(super) id: TransactionId,
    pub(super) request: Request,
    pub(super) bytes: Vec<u8>,
    /// Whether it has an integrity, so that its answer must have one.
    pub(super) signed: bool,
    /// How often it was challenged before.
    pub(super) challenges: u32,
    /// The error of an answer that may be forged.
    pub(super) hint: Option<u16>,
    retry: Retry,
}

impl Request {
    pub(super) const fn method(self) -> Method {
        match self {
            Self::Allocate { .. } => Method::ALLOCATE,
            Self::Refresh | Self::Release => Method::REFRESH,
            Self::Wish(Wish::Permit(_)) => Method::CREATE_PERMISSION,
            Self::Wish(Wish::Bind(..)) => Method::CHANNEL_BIND,
            Self::Probe => Method::REFRESH,
        }
    }

    /// Adds what the request is about.
    pub(super) fn attributes(self, builder: MessageBuilder) -> MessageBuilder {
        match self {
            Self::Allocate { v6 } => {
                let builder = builder.attribute(attribute::REQUESTED_TRANSPORT, &[UDP, 0, 0, 0]);
                if v6 {
                    builder.attribute(attribute::REQUESTED_ADDRESS_FAMILY, &[V6, 0, 0, 0])
                } else {
                    builder
                }
            }
            Self::Release => builder.attribute(attribute::LIFETIME, &[0; 4]),
            Self::Wish(Wish::Permit(ip)) => {
                builder.xor_address(attribute::XOR_PEER_ADDRESS, std::net::SocketAddr::new(ip, 0))
            }
            Self::Wish(Wish::Bind(peer, channel)) => {
                let [high, low] = channel.number().to_be_bytes();
                builder
                    .attribute(attribute::CHANNEL_NUMBER, &[high, low, 0, 0])
                    .xor_address(attribute::XOR_PEER_ADDRESS, peer)
            }
            Self::Refresh | Self::Probe => builder,
        }
    }

    /// How often it is sent over datagrams and how long its answer is waited for.
    pub(super) fn retry(self, now: Instant, stream: bool) -> Retry {
        match self {
            Self::Release => {
                Retry::with(now, RELEASE_WAIT, if stream { 1 } else { RELEASES }, RELEASE_WAIT * 2)
            }
            _ if stream => Retry::with(now, STREAM_WAIT, 1, STREAM_WAIT),
            Self::Probe => Retry::with(now, Retry::FIRST_WAIT, PROBES, Retry::FIRST_WAIT * 8),
            _ => Retry::new(now),
        }
    }
}

impl Transaction {
    pub(super) const fn new(
        id: TransactionId,
        request: Request,
        bytes: Vec<u8>,
        signed: bool,
        challenges: u32,
        retry: Retry,
    ) -> Self {
        Self { id, request, bytes, signed, challenges, hint: None, retry }
    }

    pub(super) fn poll(&mut self, now: Instant) -> Due {
        self.retry.poll(now)
    }

    pub(super) const fn timeout(&self) -> Instant {
        self.retry.timeout()
    }

    pub(super) const fn sent(&self) -> u32 {
        self.retry.sent()
    }
}

/// The protocol number of UDP in IP, for REQUESTED-TRANSPORT.
const UDP: u8 = 17;

/// IPv6 in REQUESTED-ADDRESS-FAMILY.
const V6: u8 = 2;

/// A stream repeats by itself; a server that lives answers in a few round trips.
const STREAM_WAIT: Duration = Duration::from_secs(10);

/// Whoever releases an allocation does not want to wait; the server's own timer is the fallback.
const RELEASES: u32 = 3;
const RELEASE_WAIT: Duration = Duration::from_millis(150);

/// After these a refresh follows, which decides.
const PROBES: u32 = 4;
