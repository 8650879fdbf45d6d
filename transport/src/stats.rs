use std::time::Duration;

/// Counters of one [`Stream`](crate::Stream) since it was opened.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct StreamStats {
    /// Bytes that were written, as the application counts them.
    pub sent_bytes: u64,
    /// Bytes that arrived and were decrypted.
    pub received_bytes: u64,
    /// The smoothed round-trip time, where it is known: on QUIC.
    pub round_trip: Option<Duration>,
    /// Packets that were sent, of the whole connection; only on QUIC, 0 on TCP.
    pub sent_packets: u64,
    /// Packets that were declared lost, of the whole connection; only on QUIC, 0 on TCP, where the kernel knows.
    pub lost_packets: u64,
}
