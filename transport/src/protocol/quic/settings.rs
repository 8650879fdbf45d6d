use std::{sync::Arc, time::Duration};

use quinn_proto::{
    ClientConfig, EndpointConfig, MtuDiscoveryConfig, ServerConfig, TransportConfig, VarInt,
    congestion::CubicConfig,
    crypto::rustls::{NoInitialCipherSuite, QuicClientConfig, QuicServerConfig},
};
use ring::{hkdf, hmac};

use super::{connection::Rest, endpoint::IdGenerator, receive_budget::FLOOR_BYTES};
use crate::Limits;

/// What an endpoint is made of, apart from the keys of its peers.
#[derive(Debug, Clone)]
pub(crate) struct QuicSettings {
    pub(crate) client_tls: Arc<rustls::ClientConfig>,
    pub(crate) server_tls: Arc<rustls::ServerConfig>,
    /// How long a peer may be silent; `None`: for ever.
    pub(crate) dead_after: Option<Duration>,
    /// From the first packet of an incoming connection to the first stream that was let in.
    pub(crate) handshake_timeout: Duration,
    pub(crate) limits: Limits,
    /// The largest datagram to send or to take.
    pub(crate) max_mtu: u16,
    /// Whether the system might split our datagrams, so that probing for larger ones would lie.
    pub(crate) may_fragment: bool,
    /// Whether answers that are likely to come together may wait for each other: only if somebody always looks at timers.
    pub(crate) may_gather: bool,
    /// Secret, and the same after a restart: a peer that goes on sending to an earlier life of ours is told by a stateless
    /// reset (RFC 9000 §10.3) instead of waiting in vain.
    pub(crate) reset_key: [u8; 32],
    /// Secret: everything else drawn or keyed here comes from it.
    pub(crate) seed: [u8; 32],
}

/// How large the datagrams of a path may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct PathMtu {
    pub(crate) largest: u16,
    /// Nothing on the way can carry less, as within one host; else it is found out, from below.
    pub(crate) is_known: bool,
}

impl QuicSettings {
    /// A key of its own for each use of the seed.
    pub(super) fn derive(&self, purpose: &[u8]) -> [u8; 32] {
        let key = hmac::Key::new(hmac::HMAC_SHA256, &self.seed);
        let tag = hmac::sign(&key, purpose);
        tag.as_ref().try_into().expect("SHA-256 has 32 bytes")
    }

    pub(super) fn endpoint(&self, ids: IdGenerator) -> EndpointConfig {
        let reset_key = hmac::Key::new(hmac::HMAC_SHA256, &self.reset_key);
        let mut config = EndpointConfig::new(Arc::new(reset_key));
        config
            .cid_generator(move || Box::new(ids.clone()))
            .rng_seed(Some(self.derive(b"engine")))
            // Greased packets could not be told from STUN on the same socket (RFC 9443).
            .grease_quic_bit(false);
        if config.max_udp_payload_size(self.max_mtu.max(MIN_MTU)).is_err() {
            tracing::warn!(max_mtu = self.max_mtu, "no such datagram size; the engine's own is used");
        }
        config
    }

    pub(super) fn server(&self, path_mtu: PathMtu) -> Result<ServerConfig, NoInitialCipherSuite> {
        let crypto = QuicServerConfig::try_from(self.server_tls.clone())?;
        let token_key = hkdf::Salt::new(hkdf::HKDF_SHA256, &[]).extract(&self.derive(b"retry token"));
        let mut config = ServerConfig::new(Arc::new(crypto), Arc::new(token_key));
        config
            .migration(false)
            // Each one is judged in the call that reports it.
            .max_incoming(MAX_UNDECIDED)
            .transport_config(Arc::new(self.transport(path_mtu)));
        Ok(config)
    }

    pub(super) fn client(&self, path_mtu: PathMtu) -> Result<ClientConfig, NoInitialCipherSuite> {
        let mut config = ClientConfig::new(Arc::new(QuicClientConfig::try_from(self.client_tls.clone())?));
        // The other side may open streams as well: two that dial each other share a connection.
        config.transport_config(Arc::new(self.transport(path_mtu)));
        Ok(config)
    }

    /// How long a connection at rest may be silent, on each side.
    pub(super) fn rest(&self, dials: bool) -> Rest {
        Rest { keep_alive: keep_alive(self.dead_after, dials), dead_after: self.dead_after }
    }

    fn transport(&self, path_mtu: PathMtu) -> TransportConfig {
        let max_mtu = path_mtu.largest.clamp(MIN_MTU, self.max_mtu.max(MIN_MTU));
        let mut config = TransportConfig::default();
        let mut congestion = CubicConfig::default();
        if max_mtu > LARGEST_COMMON_MTU {
            // A probe counts against the window, and one that exceeds it would hold up all that follows.
            congestion.initial_window(u64::from(max_mtu) * PROBES_IN_WINDOW);
        }
        config
            .congestion_controller_factory(Arc::new(congestion))
            .initial_mtu(if path_mtu.is_known { max_mtu } else { MIN_MTU })
            .max_concurrent_bidi_streams(VarInt::from_u32(
                FIRST_STREAMS.min(self.limits.streams_per_connection),
            ))
            .max_concurrent_uni_streams(VarInt::from_u32(0))
            .datagram_receive_buffer_size(None)
            .datagram_send_buffer_size(0)
            .stream_receive_window(var_int(self.limits.stream_receive_bytes))
            .receive_window(var_int(FLOOR_BYTES))
            .send_window(FIRST_SEND_WINDOW)
            .initial_rtt(FIRST_ROUND_TRIP)
            // A connection counts its peer's silence itself: each side's own limit holds, and no timer of the engine ends it. It speaks by
            // itself as well, since how often depends on its streams.
            .keep_alive_interval(None)
            .max_idle_timeout(None)
            .mtu_discovery_config(if path_mtu.is_known { None } else { mtu_discovery(max_mtu) })
            .allow_spin(false);
        config
    }
}

fn mtu_discovery(max_mtu: u16) -> Option<MtuDiscoveryConfig> {
    (max_mtu > MIN_MTU).then(|| {
        let mut config = MtuDiscoveryConfig::default();
        // A search to the last byte would cost a dozen probes of the largest size.
        config.upper_bound(max_mtu).minimum_change((max_mtu / SEARCH_STEPS).max(20));
        config
    })
}

/// Early enough that a probe and its repetitions, which begin after a few round trips, fit into the silence allowed, and often
/// enough that NATs keep their bindings. Only one of the two need speak, or at rest there would be twice the packets.
fn keep_alive(dead_after: Option<Duration>, dials: bool) -> Duration {
    let silence = dead_after.unwrap_or(Duration::MAX);
    if dials { (silence / 2).min(NAT_BINDING) } else { (silence / 3 * 2).min(NAT_BINDING * 4 / 3) }
}

pub(super) fn var_int(value: u64) -> VarInt {
    VarInt::from_u64(value).unwrap_or(VarInt::MAX)
}

/// RFC 9000 §14: every path carries datagrams of this size, or it does not carry QUIC.
const MIN_MTU: u16 = 1_200;
/// What an Ethernet frame carries; larger datagrams are tried on interfaces that take them, which lead to near peers.
const LARGEST_COMMON_MTU: u16 = 1_472;
/// So that application data goes on beside a probe.
const PROBES_IN_WINDOW: u64 = 3;
/// A search ends when what is left to win is less than this part of the bound.
const SEARCH_STEPS: u16 = 32;
/// Streams a peer may open at first: the engine sets memory aside for each that is allowed, for twice as many with the
/// fourth, and most have one.
pub(super) const FIRST_STREAMS: u32 = 3;
/// Bytes written and not acknowledged; grows with the congestion window.
pub(super) const FIRST_SEND_WINDOW: u64 = 1 << 20;
/// Before the first measurement. RFC 9002 proposes 333 ms, with which one lost packet of a handshake costs a second; a
/// path slower than this repeats a packet for nothing.
const FIRST_ROUND_TRIP: Duration = Duration::from_millis(100);
/// Many NATs forget a UDP binding after 30 s.
pub(super) const NAT_BINDING: Duration = Duration::from_secs(15);
/// They are decided one by one; a second one at a time would be an error of ours.
const MAX_UNDECIDED: usize = 2;
