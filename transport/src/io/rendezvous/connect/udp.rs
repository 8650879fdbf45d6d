//! The part of a call that punches holes for UDP, which is all of it where the caller brings the socket.

use std::{
    net,
    sync::{Arc, Mutex},
};

use nat_traversal::{
    AddrKind, MappedSocketAddr, PrivRendezvousInfo, PubRendezvousInfo,
    protocol::{PunchKeys, Seed, SocketIndex, UdpPuncher},
};

use super::{Call, FIRST_RELAY, Punch};
use crate::{
    PathKind, Stream,
    connect_options::ConnectOptions,
    identity::PublicKey,
    io::{
        clock, entropy,
        rendezvous::{
            Hold,
            traces::{Expected, TcpFinds},
        },
        udp::SharedMachine,
    },
    path::PathKinds,
    protocol::offer::{Hole, Offer},
    rendezvous::RendezvousError,
    transport::Shared,
};

/// Meets the peer from one socket alone, which then goes with its last connection.
pub(crate) fn connect_from(
    shared: &Arc<Shared>,
    socket: net::UdpSocket,
    ours: PrivRendezvousInfo,
    peer: PublicKey,
    theirs: &PubRendezvousInfo,
    options: &ConnectOptions,
) -> Result<Stream, RendezvousError> {
    if shared.is_closed() {
        return Err(RendezvousError::Closed);
    }
    let begun = clock::now();
    let deadline = options.deadline_of(begun, shared.config.connect_timeout);
    let endpoints = ours.endpoints().to_vec();
    let keys = ours.agree(theirs).map_err(|_| RendezvousError::Offer)?;
    if peer == shared.public_key {
        return Err(RendezvousError::Offer);
    }
    let slot = shared.crank.slot();
    let _watch = options.interrupter.as_ref().map(|interrupter| interrupter.watch(&slot));
    let expected = Expected::begin(shared, &keys, peer, options, deadline)?;
    let hold = Hold::new(shared, shared.quic.adopt(shared, socket)?);
    let hole = if hold.socket().local().is_ipv4() { Hole::UdpV4 } else { Hole::UdpV6 };
    let holes = [const { None }; Hole::ALL.len()];
    let offer = Offer { public_key: peer, meeting: theirs.clone(), holes, listeners: Vec::new() };
    let mut call = Call::new(shared, &slot, &expected, &offer, begun, deadline, options);
    call.punch(hole, &endpoints, keys, &hold, theirs.endpoints());
    call.holds.push(hold);
    call.run(&TcpFinds { slot: slot.clone(), found: Mutex::default() })
}

impl Call<'_> {
    pub(super) fn begin_udp(
        &mut self,
        hole: Hole,
        info: PrivRendezvousInfo,
        hold: Hold,
        theirs: &Offer,
        ways: PathKinds,
    ) -> Result<(), RendezvousError> {
        if let Some(told) = &theirs.holes[hole as usize] {
            let endpoints = info.endpoints().to_vec();
            let keys = info.agree(told).map_err(|_| RendezvousError::Offer)?;
            let mut theirs = told.endpoints().to_vec();
            // From our relay every address is a relayed way.
            theirs.retain(|one| {
                let relayed = one.kind == AddrKind::Relayed;
                let kind = if relayed { PathKind::Relayed } else { PathKind::Punched };
                hold.socket().is_relay() || ways.contains(kind)
            });
            self.punch(hole, &endpoints, keys, &hold, &theirs);
        }
        self.holds.push(hold);
        Ok(())
    }

    fn punch(
        &mut self,
        hole: Hole,
        endpoints: &[MappedSocketAddr],
        keys: PunchKeys,
        hold: &Hold,
        theirs: &[MappedSocketAddr],
    ) {
        let seed = Seed::from_bytes(entropy::bytes());
        let mut puncher = UdpPuncher::new(self.begun, endpoints, theirs, keys, seed);
        let mut relays = if hole == Hole::UdpV4 { std::mem::take(&mut self.relays) } else { Vec::new() };
        relays.retain(|relay| relay.socket().number() != hold.socket().number());
        if hold.socket().is_relay() {
            puncher = puncher.also_from(SocketIndex::MAIN, theirs, self.begun);
        }
        let first = self.begun + self.relays_after;
        for (index, _) in (FIRST_RELAY..).zip(&relays) {
            puncher = puncher.also_from(SocketIndex(index), theirs, first);
        }
        let mut machine = SharedMachine::new(self.shared, self.slot, hold.socket(), puncher);
        for (index, relay) in (FIRST_RELAY..).zip(relays) {
            machine.add_socket(SocketIndex(index), relay.socket());
            self.holds.push(relay);
        }
        let relayed = theirs.iter().filter(|endpoint| endpoint.kind == AddrKind::Relayed);
        let relayed = relayed.map(|endpoint| endpoint.addr).collect();
        self.punches.push(Punch { hole, machine, relayed });
    }
}
