use crate::protocol::Refusals;

/// What a beacon has done since its start. The numbers never go back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Datagrams sent.
    pub datagrams_sent: u64,
    /// Datagrams that the system would not send.
    pub send_failures: u64,
    /// Datagrams received, refused ones included.
    pub datagrams_received: u64,
    /// Datagrams that were not looked at, by reason.
    pub refusals: Refusals,
    /// Messages that the application did not read in time.
    pub messages_dropped: u64,
}
