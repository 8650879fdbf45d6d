//! Three messages by which two nodes prove to each other who they are.
//!
//! ```text
//! A -> B  Ping   who A is, a challenge
//! B -> A  Pong   who B is, the challenge, another one      B has proved itself
//! A -> B  Done   the other challenge                       A has proved itself
//! ```
//!
//! Each message carries a signature over everything that came before: which message it is, both keys, both challenges, what its sender
//! says of itself, and the binding, which only the two ends of this very stream know. So a signature is of no use on another stream:
//! who answers a challenge for somebody else, or repeats what it has heard, has the signature of another conversation. Challenges are
//! answered once, and within a time. Of two nodes the one with the smaller key begins.

use crust::PublicKey;
use serde::{Deserialize, Serialize};

use super::message::key;

/// One of the three.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "each says it")]
pub enum AuthMessage {
    Ping { claim: Claim, challenge: Challenge, signature: Vec<u8> },
    Pong { claim: Claim, challenge: Challenge, other: Challenge, signature: Vec<u8> },
    Done { other: Challenge, signature: Vec<u8> },
}

/// What a node says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claim {
    /// Its key.
    #[serde(with = "key")]
    pub key: PublicKey,
    /// How it is reached.
    pub contact: String,
    /// Whether it wants to be asked by the other and to ask it. If not, it only brings an answer.
    pub neighbour: bool,
}

/// Random bytes that only the other end of the stream has seen.
pub type Challenge = [u8; 32];

/// What two nodes have said so far.
#[derive(Debug, Clone, Copy)]
pub(super) struct Transcript<'a> {
    pub(super) first: &'a PublicKey,
    pub(super) second: &'a PublicKey,
    pub(super) challenge: &'a Challenge,
    /// Zeros in the first message.
    pub(super) other: &'a Challenge,
    pub(super) binding: &'a [u8; 32],
}

/// Which message is signed.
#[derive(Debug, Clone, Copy)]
pub(super) enum Role {
    Ping = 1,
    Pong = 2,
    Done = 3,
}

impl Transcript<'_> {
    /// What the sender of a message signs; the claim is its own.
    pub(super) fn bytes(&self, role: Role, claim: &Claim) -> Vec<u8> {
        let parts: [&[u8]; 8] = [
            &[role as u8, u8::from(claim.neighbour)],
            self.first.as_bytes(),
            self.second.as_bytes(),
            claim.key.as_bytes(),
            self.challenge,
            self.other,
            self.binding,
            claim.contact.as_bytes(), // the only one of variable length
        ];
        parts.concat()
    }

    pub(super) fn is_signed(&self, role: Role, claim: &Claim, signature: &[u8]) -> bool {
        claim.key.has_signed_for(PURPOSE, &self.bytes(role, claim), signature)
    }
}

/// Why a peer is sent away.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "each says it")]
pub enum Refused {
    #[error("the signature is not of who it says it is over this stream")]
    Signature,
    #[error("the challenge is none of those that wait for an answer here")]
    Challenge,
    #[error("the message is out of turn")]
    OutOfTurn,
    #[error("it says it is another than the stream says")]
    OtherKey,
    #[error("its contact is no endpoint of its own")]
    Contact,
    #[error("it said something else before it had proved who it is")]
    Unproven,
    #[error("it did not prove in time who it is")]
    TimedOut,
    #[error("too many prove themselves at this moment")]
    Full,
    #[error("it is none of those that are allowed")]
    NotAllowed,
}

pub(super) const PURPOSE: &str = "crust examples: kv authentication";
