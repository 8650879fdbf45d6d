use std::io;
use std::net::IpAddr;

use thiserror::Error;

use crate::protocol::TooLarge;
use crate::warning::Warning;

/// Why a beacon could not be started.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum BeaconError {
    /// The port could not be opened. Usually another program holds it and does not share it: choose another port.
    #[error("port {port} cannot be opened for beacons")]
    Bind {
        /// The port.
        port: u16,
        /// What the system said.
        source: io::Error,
    },
    /// The system gave no random bytes for the identity.
    #[error("the system gave no random bytes")]
    Entropy,
    /// The list of interfaces could not be read.
    #[error("the list of interfaces cannot be read")]
    Interfaces {
        /// What the system said.
        source: io::Error,
    },
    /// There is no usable interface among the wanted ones: none is up, or none of their addresses could be used.
    #[error("no interface can be used for beacons{}", list(warnings))]
    NoInterface {
        /// What was tried and refused.
        warnings: Vec<Warning>,
    },
    /// A configured group is not a multicast address.
    #[error("{group} is not a multicast address")]
    NotMulticast {
        /// The address given as a group.
        group: IpAddr,
    },
    /// The thread, or what it waits with, could not be made: the process is out of threads or descriptors.
    #[error("the beacon's thread cannot be started")]
    Thread {
        /// What the system said.
        source: io::Error,
    },
    /// The data, or the number of identity bytes, does not fit into one datagram.
    #[error("the announcement is too large")]
    TooLarge(#[from] TooLarge),
}

/// Why waiting for a message ended without one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum NextError {
    /// The last controller was dropped, or the beacon's thread has ended; no message will come any more.
    #[error("the beacon is closed")]
    Closed,
    /// The deadline came first; waiting again is fine.
    #[error("no message came before the deadline")]
    TimedOut,
}

/// Why the data of a running beacon could not be changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum SetDataError {
    /// The beacon's thread has ended after an error of the system, which it has logged; start another beacon.
    #[error("the beacon's thread has ended")]
    Stopped,
    /// The data does not fit into one datagram; what was announced before stays.
    #[error("the announcement is too large")]
    TooLarge(#[from] TooLarge),
}

fn list(warnings: &[Warning]) -> String {
    warnings.iter().map(|warning| format!("; {warning}")).collect()
}
