use std::net::{IpAddr, SocketAddr};

use thiserror::Error;

/// Something that does not work while the rest goes on.
///
/// See [`BeaconController::warnings`](crate::BeaconController::warnings). Each is tried again when interfaces or
/// addresses change, and every few seconds.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum Warning {
    /// No socket could be opened on an address, so nothing is sent from it.
    #[error("{address} on {interface} cannot be used: {reason}")]
    AddressUnusable {
        /// The interface's name.
        interface: String,
        /// The address.
        address: IpAddr,
        /// What the system said.
        reason: String,
    },
    /// The system refused the multicast group on an interface; broadcast may work all the same.
    #[error("multicast group {group} cannot be joined on {interface}: {reason}")]
    GroupRefused {
        /// The interface's name.
        interface: String,
        /// The group.
        group: IpAddr,
        /// What the system said.
        reason: String,
    },
    /// The list of interfaces could not be read; what was known before is kept.
    #[error("the list of interfaces cannot be read: {reason}")]
    InterfacesUnreadable {
        /// What the system said.
        reason: String,
    },
    /// The last announcement to a broadcast address or group could not be sent.
    #[error("{destination} cannot be reached on {interface}: {reason}")]
    SendFailed {
        /// The interface's name.
        interface: String,
        /// The broadcast address or group.
        destination: SocketAddr,
        /// What the system said.
        reason: String,
    },
}
