//! What others ask of the thread `crust-io`, and how.

use std::net::IpAddr;

use crossbeam::channel::{Sender, TrySendError};
use transport::{PublicKey, SetWaker, Stream, StreamKey};

use super::improving::Outcome;
use crate::{
    Introducer,
    improving::Detour,
    protocol::introducer::frame::{EndReason, Frame},
};

/// How others reach the thread.
#[derive(Debug, Clone)]
pub(crate) struct Commands {
    pub(super) sender: Sender<Command>,
    pub(super) waker: SetWaker,
}

impl Commands {
    /// Hands a command over. Never blocks: when there are too many of them, it is lost, and what waits for it times out.
    pub(crate) fn give(&self, command: Command) {
        if let Err(TrySendError::Full(_)) = self.sender.try_send(command) {
            tracing::warn!("the thread crust-io is overloaded");
        }
        self.waker.wake();
    }
}

/// What others ask of the thread.
#[derive(Debug)]
pub(crate) enum Command {
    Attach(Introducer),
    /// A dial of an introducer has ended.
    Dialled {
        attachment: usize,
        outcome: Result<Stream, String>,
    },
    /// This host has come into another network, where it has these addresses.
    NetworkChanged(Vec<IpAddr>),
    /// A connection is there whose path may have to change.
    LookAfter(Box<Detour>),
    /// An attempt to find it another one is over.
    Led {
        peer: PublicKey,
        outcome: Outcome,
    },
    /// A meeting says something to the peer that knocked.
    Say {
        through: StreamKey,
        frame: Frame,
    },
    /// A meeting is over.
    Over {
        through: StreamKey,
        call: u32,
        reason: EndReason,
    },
}
