use std::time::Duration;

use crust::PublicKey;

use super::build::BuildError;

/// Why a message or an answer is not sent, or not answered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum OnionError {
    /// It is to this node.
    #[error("that is this node itself")]
    Itself,
    /// The node has not announced itself here.
    #[error("{node} has told nothing of itself here: wait until it is among the nodes")]
    Unknown {
        /// Who.
        node: PublicKey,
    },
    /// What nodes have announced leads to nowhere.
    #[error(
        "no way over {relays} nodes from {from} to {to} is known: say hops=N with another number, or wait for more nodes"
    )]
    NoWay {
        /// The begin.
        from: PublicKey,
        /// The end.
        to: PublicKey,
        /// How many between.
        relays: usize,
    },
    /// Two that were named one after the other.
    #[error("{one} and {other} do not both say that they are neighbours")]
    NotNeighbours {
        /// One of them.
        one: PublicKey,
        /// The next.
        other: PublicKey,
    },
    /// The packet cannot be made.
    #[error(transparent)]
    Build(#[from] BuildError),
    /// Too many messages of this node wait.
    #[error("too many messages wait for their answers: say it again later")]
    Full,
    /// Nothing came.
    #[error(
        "{of} has not answered in {} ms: it has nothing to say, or a node on the way is gone or has another key by now",
        after.as_millis()
    )]
    NoAnswer {
        /// Who.
        of: PublicKey,
        /// How long it was waited for.
        after: Duration,
    },
    /// Somebody has changed it.
    #[error("the answer of {of} was changed by a node on its way")]
    Damaged {
        /// Who.
        of: PublicKey,
    },
    /// There is no such message any more.
    #[error("there is no message {number} to answer: it was answered, or it is too late")]
    NothingToAnswer {
        /// Which.
        number: u64,
    },
    /// The first one on the way back.
    #[error("the way back begins at {node}, which is no neighbour now")]
    Gone {
        /// Who.
        node: PublicKey,
    },
}
