//! A meeting with a peer: every way at once, the first that works ends the rest.

mod connect;
mod prepare;
mod traces;

use std::sync::Arc;

pub(crate) use self::{
    connect::connect,
    prepare::{PunchSocket, prepare},
};
use super::udp::UdpSocket;
use crate::transport::Shared;

/// A UDP socket on which a rendezvous may come in, kept open for it.
#[derive(Debug)]
pub(crate) struct Hold {
    shared: Arc<Shared>,
    socket: Arc<UdpSocket>,
}

impl Hold {
    fn new(shared: &Arc<Shared>, socket: Arc<UdpSocket>) -> Self {
        socket.rendezvous_begins();
        Self { shared: shared.clone(), socket }
    }

    fn socket(&self) -> &Arc<UdpSocket> {
        &self.socket
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.socket.rendezvous_ends();
        self.shared.quic.release(&self.shared, &self.socket);
    }
}
