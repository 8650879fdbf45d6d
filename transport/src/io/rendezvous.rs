//! A meeting with a peer: every way at once, the first that works ends the rest.

mod connect;
mod further;
mod gather;
mod half;
mod improve;
mod open;
mod punches;
mod single;
mod traces;

use std::sync::Arc;

pub(crate) use self::{
    connect::{connect, connect_from},
    further::Further,
    gather::gather,
    half::Half,
    improve::{improve, rescue},
    open::open,
    single::connect_single,
};
use super::{quic::QuicIo, udp::UdpSocket};
use crate::{protocol::offer::Hole, rendezvous::RendezvousRoad, transport::Shared};

/// A UDP socket on which a rendezvous may come in, kept open for it.
#[derive(Debug)]
pub(crate) struct Hold {
    shared: Arc<Shared>,
    socket: Arc<UdpSocket>,
}

impl Hold {
    pub(crate) fn new(shared: &Arc<Shared>, socket: Arc<UdpSocket>) -> Self {
        socket.rendezvous_begins();
        Self { shared: shared.clone(), socket }
    }

    pub(crate) fn socket(&self) -> &Arc<UdpSocket> {
        &self.socket
    }

    #[cfg(feature = "turn")]
    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.socket.rendezvous_ends();
        QuicIo::release(&self.shared, &self.socket);
    }
}

fn road_of(hole: Hole) -> RendezvousRoad {
    let v6 = matches!(hole, Hole::UdpV6 | Hole::TcpV6);
    if hole.is_udp() { RendezvousRoad::UdpPunch { v6 } } else { RendezvousRoad::TcpPunch { v6 } }
}
