use std::net::SocketAddr;
use std::time::Instant;

use ring::hmac;

use super::ConnectionId;
use crate::protocol::{PunchKeys, Random};

/// A connection on which each side is to prove that it is the peer.
///
/// ```text
/// each side:     nonce (16)           ──►
/// each side:     HMAC-SHA256 (32)     ──►   over the attempt's tag, the other's nonce and its own
/// the leader:    1 (1)                ──►   this connection is taken; from here on it is the application's
/// ```
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) id: ConnectionId,
    pub(super) remote: SocketAddr,
    pub(super) end: Instant,
    nonce: [u8; NONCE_BYTES],
    stage: Stage,
    received: Vec<u8>,
}

#[derive(Debug, Clone, Copy)]
enum Stage {
    Nonce,
    Proof {
        theirs: [u8; NONCE_BYTES],
    },
    Proven {
        leads: bool,
    },
    /// What comes now is the application's.
    Taken,
}

/// What bytes of a connection bring about.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Progress {
    None,
    Send(Vec<u8>),
    Proven,
    Chosen,
    NotThePeer,
}

impl Connection {
    pub(super) fn new(id: ConnectionId, remote: SocketAddr, end: Instant, random: &mut Random) -> Self {
        Self { id, remote, end, nonce: random.bytes(), stage: Stage::Nonce, received: Vec::new() }
    }

    /// What each side sends first.
    pub(super) fn hello(&self) -> Vec<u8> {
        self.nonce.to_vec()
    }

    pub(super) fn wanted_bytes(&self) -> usize {
        let whole = match self.stage {
            Stage::Nonce => NONCE_BYTES,
            Stage::Proof { .. } => PROOF_BYTES,
            Stage::Proven { leads } => usize::from(!leads),
            Stage::Taken => 0,
        };
        whole - self.received.len()
    }

    /// Takes in bytes; more than wanted are the driver's mistake and end the connection.
    pub(super) fn handle_bytes(&mut self, keys: &PunchKeys, bytes: &[u8]) -> Progress {
        if bytes.len() > self.wanted_bytes() {
            return Progress::NotThePeer;
        }
        self.received.extend(bytes);
        if self.wanted_bytes() > 0 || bytes.is_empty() {
            return Progress::None;
        }
        let received = std::mem::take(&mut self.received);
        match self.stage {
            Stage::Nonce => {
                let theirs = received.try_into().expect("as many bytes as wanted");
                self.stage = Stage::Proof { theirs };
                Progress::Send(
                    hmac::sign(&keys.ours, &proof_input(keys, theirs, self.nonce)).as_ref().to_vec(),
                )
            }
            Stage::Proof { theirs } => {
                if hmac::verify(&keys.theirs, &proof_input(keys, self.nonce, theirs), &received).is_err() {
                    return Progress::NotThePeer;
                }
                self.stage = Stage::Proven { leads: keys.leads };
                Progress::Proven
            }
            Stage::Proven { .. } if received == [CHOSEN] => {
                self.stage = Stage::Taken;
                Progress::Chosen
            }
            Stage::Proven { .. } | Stage::Taken => Progress::NotThePeer,
        }
    }
}

/// What a side proves itself over: the nonce it was given comes first, so that no proof serves twice.
fn proof_input(keys: &PunchKeys, given: [u8; NONCE_BYTES], own: [u8; NONCE_BYTES]) -> Vec<u8> {
    [b"tcp".as_slice(), &keys.tag, &given, &own].concat()
}

/// The leader's word that a connection is taken.
pub(super) const CHOSEN: u8 = 1;

const NONCE_BYTES: usize = 16;
const PROOF_BYTES: usize = 32;
