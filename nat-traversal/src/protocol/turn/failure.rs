use thiserror::Error;

use super::peers::NoPlace;

/// Why a server does not relay, or no more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum TurnFailure {
    /// It did not answer any of the requests.
    #[error("no answer to {0} requests")]
    NoAnswer(u32),
    /// The system says that nobody is there.
    #[error("nobody listens there")]
    Unreachable,
    /// The connection to it failed or ended.
    #[error("the connection to it failed or ended")]
    Disconnected,
    /// Name and password are not those that it knows.
    #[error("it does not accept the user name and password")]
    WrongCredentials,
    /// It refused.
    #[error("refused with error {0}{hint}", hint = hint(*.0))]
    Refused(u16),
    /// The allocation is gone: the server has restarted, or was not reached for longer than it keeps one.
    #[error("it has forgotten the allocation, as after a restart")]
    Lost,
    /// Its answer makes no sense.
    #[error("its answer makes no sense")]
    BadAnswer,
    /// Its answer does not prove that it knows the password.
    #[error("its answers are not signed with the password")]
    Unsigned,
    /// It challenges every request anew.
    #[error("it challenges every request anew")]
    Challenges,
    /// It makes keys of passwords in ways that are not known here.
    #[error("it wants a password algorithm other than MD5 and SHA-256")]
    NoAlgorithm,
    /// Someone on the way has weakened the challenge.
    #[error("someone on the way has weakened its challenge")]
    BidDown,
    /// It refers to servers that refer to others.
    #[error("servers refer to each other without end")]
    Redirects,
}

/// Why a packet cannot go to a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum TurnSendError {
    /// There is no allocation yet, or no more.
    #[error("there is no allocation")]
    NotAllocated,
    /// The relay's address is of another family than the peer's.
    #[error("the relay's address is of another family than the peer's")]
    Family,
    /// The packet is longer than [`TurnClient::MAX_PAYLOAD_BYTES`](super::TurnClient::MAX_PAYLOAD_BYTES).
    #[error("the packet is too long")]
    TooLong,
    /// There are [`TurnClient::MAX_PEERS`](super::TurnClient::MAX_PEERS) peers already.
    #[error("there are too many peers")]
    TooManyPeers,
    /// The server does not let us send to this peer.
    #[error("the server does not relay to this peer: {0}")]
    Refused(TurnFailure),
    /// So much waits to be sent that this was not taken; nothing else is wrong.
    #[error("too much waits to be sent")]
    Busy,
}

impl From<NoPlace> for TurnSendError {
    fn from(no_place: NoPlace) -> Self {
        match no_place {
            NoPlace::Full => Self::TooManyPeers,
            NoPlace::Refused(failure) => Self::Refused(failure),
        }
    }
}

/// What errors that servers give mean (RFC 8656, section 19), and what helps.
const fn hint(code: u16) -> &'static str {
    match code {
        300 => " (another server, of no use)",
        403 => " (it does not relay to this address)",
        437 => " (our address and port have an allocation already)",
        440 => " (it has no address of that family)",
        441 => " (the allocation is another user's)",
        442 => " (it does not relay UDP)",
        486 => " (the user has as many allocations as it may)",
        508 => " (it has no port left, or no capacity)",
        _ => "",
    }
}
