//! What follows for a service when its host comes into another network.

use std::{net::IpAddr, time::Instant};

use super::{Role, Turning};
use crate::{
    io::{clock, meeting::Heard},
    protocol::introducer::frame::Frame,
};

impl Turning {
    /// Asks anew for what the last network gave.
    pub(super) fn handle_network_change(&mut self, addresses: &[IpAddr]) {
        let now = clock::now();
        self.improving.handle_network_change(now);
        for meeting in self.ringing.values() {
            // One that has no room has notes to read first, and then a deadline.
            let _ = meeting.try_send(Heard::Moved);
        }
        self.forward_ports_here(now, addresses);
        for index in 0..self.attachments.len() {
            self.ask_again(index, now);
        }
    }

    /// An introducer that calls us may not reach us any more, and one that was waited for may be reached now.
    fn ask_again(&mut self, index: usize, now: Instant) {
        if !self.attachments[index].1.handle_network_change(now) {
            return;
        }
        let through = self.connections.iter().find(|(_, one)| one.role == Role::Introducer(index));
        if let Some((&key, _)) = through {
            self.send(key, &Frame::Attach);
        }
    }
}
