//! What follows for connections when this host comes into another network.

use std::{net::IpAddr, sync::Arc};

use crate::transport::Shared;

impl Shared {
    /// This host has these addresses now, loopback apart.
    pub(crate) fn network_changed(self: &Arc<Self>, addresses: &[IpAddr]) {
        self.quic.network_changed(self, addresses);
        // Without any address there is nowhere to go, and the old one may come back.
        if addresses.is_empty() {
            return;
        }
        for connection in self.tcp_connections() {
            let local = connection.path().local.ip().to_canonical();
            if !local.is_loopback() && !addresses.contains(&local) {
                tracing::debug!(peer = %connection.public_key(), %local, "a stream's address is gone");
                connection.lose_address();
            }
        }
    }
}
