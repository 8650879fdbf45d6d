use ring::agreement::{EphemeralPrivateKey, UnparsedPublicKey, X25519, agree_ephemeral};
use ring::rand::SystemRandom;

use crate::error::PunchError;
use crate::protocol::{MappedSocketAddr, PubRendezvousInfo, PunchKeys};

/// The half of a rendezvous information that stays here. It serves for one attempt and is used up by it.
pub struct PrivRendezvousInfo {
    secret: EphemeralPrivateKey,
    public: PubRendezvousInfo,
}

/// Makes the information for one meeting with one peer: what stays here, and what to give to the peer.
///
/// `endpoints` are those of a [`MappedUdpSocket`](crate::MappedUdpSocket) or
/// [`MappedTcpSocket`](crate::MappedTcpSocket).
///
/// ```
/// use nat_traversal::{PubRendezvousInfo, gen_rendezvous_info};
///
/// let (_ours, public) = gen_rendezvous_info(Vec::new());
/// let line = public.to_string();
/// assert_eq!(line.parse::<PubRendezvousInfo>()?, public);
/// # Ok::<(), nat_traversal::ParseInfoError>(())
/// ```
///
/// # Panics
///
/// If the system has no entropy.
#[must_use]
pub fn gen_rendezvous_info(endpoints: Vec<MappedSocketAddr>) -> (PrivRendezvousInfo, PubRendezvousInfo) {
    let secret = EphemeralPrivateKey::generate(&X25519, &SystemRandom::new())
        .expect("the operating system has entropy");
    let public_key = secret.compute_public_key().expect("every secret has a public key");
    let public_key = public_key.as_ref().try_into().expect("keys of X25519 have 32 bytes");
    let public = PubRendezvousInfo::new(endpoints, public_key);
    (PrivRendezvousInfo { secret, public: public.clone() }, public)
}

impl PrivRendezvousInfo {
    /// Whether it is us who chooses the way to this peer. Exactly one of two peers does, which serves to give them
    /// different roles in what follows, such as client and server.
    #[must_use]
    pub fn leads(&self, theirs: &PubRendezvousInfo) -> bool {
        self.public.to_bytes() > theirs.to_bytes()
    }

    /// The addresses that the peer was told.
    #[must_use]
    pub fn endpoints(&self) -> &[MappedSocketAddr] {
        self.public.endpoints()
    }

    /// Agrees on keys with the peer, which uses this half up. For programs that drive a
    /// [`UdpPuncher`](crate::protocol::UdpPuncher) themselves, such as one that punches from a socket it shares with another
    /// protocol.
    ///
    /// # Errors
    ///
    /// [`PunchError::Info`] if the peer's half is our own or was made to break the agreement.
    pub fn agree(self, theirs: &PubRendezvousInfo) -> Result<PunchKeys, PunchError> {
        let peer = UnparsedPublicKey::new(&X25519, theirs.public_key());
        let (ours, theirs) = (self.public.to_bytes(), theirs.to_bytes());
        agree_ephemeral(self.secret, &peer, |secret| PunchKeys::derive(secret, &ours, &theirs))
            .ok()
            .and_then(Result::ok)
            .ok_or(PunchError::Info)
    }
}

impl std::fmt::Debug for PrivRendezvousInfo {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PrivRendezvousInfo").field("public", &self.public).finish_non_exhaustive()
    }
}
