use std::{io, sync::Arc, time::Instant};

use super::{Link, QuicIo, link::Touch};
use crate::{
    io::{clock, dial::DialOrder, lock::Lock as _, slot::Wakes},
    protocol::{paths::UdpSource, rounds::Round},
    transport::Shared,
};

/// A dial in progress; dropping it gives it up.
#[derive(Debug)]
pub(crate) struct QuicDial {
    shared: Arc<Shared>,
    ticket: u64,
}

impl QuicDial {
    /// Whether a datagram of the peer has come on its connection; so too if it is over.
    pub(crate) fn is_answered(&self) -> bool {
        let link = self.shared.quic.table.hold().waiting_on(self.ticket);
        link.is_none_or(|link| link.is_answered())
    }
}

impl QuicIo {
    /// Begins a dial, over a connection that is there or a new one; the outcome goes to `order`.
    pub(crate) fn dial(&self, shared: &Arc<Shared>, order: DialOrder) -> io::Result<QuicDial> {
        let ticket = self.table.hold().next_ticket();
        let mut wakes = Wakes::default();
        let begun = self.dial_with(shared, ticket, order, clock::now(), &mut wakes);
        wakes.fire();
        begun.map(|()| QuicDial { shared: shared.clone(), ticket })
    }

    pub(super) fn dial_with(
        &self,
        shared: &Arc<Shared>,
        ticket: u64,
        order: DialOrder,
        now: Instant,
        wakes: &mut Wakes,
    ) -> io::Result<()> {
        if order.over_guest {
            let guest = self.guest(order.expected).ok_or(io::ErrorKind::NotConnected)?;
            self.table.hold().dial_begins(ticket, &guest);
            guest.change(shared, wakes, Touch::Flush, |core, _| core.begin_dial(ticket, order));
            return Ok(());
        }
        let socket = match &order.via {
            Some(socket) => socket.clone(),
            None => self.dialling_socket(shared, order.remote, order.local)?,
        };
        let to = UdpSource { socket: socket.number(), addr: order.remote };
        let alone = order.own_connection;
        let local = order.local.map(|local| local.ip());
        let path_mtu = socket.path_mtu().unwrap_or_else(|| self.mtus.hold().of_path(local, order.remote));
        let (expected, asks) = (order.expected, order.may_move());
        let link = {
            let mut table = self.table.hold();
            let known =
                if alone || order.round == Round::Last { None } else { table.shared(order.expected, to) };
            let link = match known {
                Some(link) => link,
                None => table
                    .dial(now, &socket, order.remote, order.expected, path_mtu, alone)
                    .map_err(io::Error::other)?,
            };
            table.dial_begins(ticket, &link);
            link
        };
        if !alone {
            self.reunion.hold().dialling(expected, link.number());
        }
        link.change(shared, wakes, Touch::Flush, |core, _| {
            core.begin_dial(ticket, order);
            if asks && !alone && core.connection.peer().is_some() {
                self.reunion.hold().asked(expected, link.number());
            }
        });
        // A guest may have come since it was looked for, and found no dial to take.
        if asks && let Some(guest) = self.guest(expected) {
            self.hand_over(shared, &link, &guest, wakes);
        }
        Ok(())
    }

    /// Begins a dial over that connection and no other; the outcome goes to `order`.
    pub(crate) fn dial_on(&self, shared: &Arc<Shared>, link: &Arc<Link>, order: DialOrder) -> QuicDial {
        let ticket = {
            let mut table = self.table.hold();
            let ticket = table.next_ticket();
            table.dial_begins(ticket, link);
            ticket
        };
        let mut wakes = Wakes::default();
        link.change(shared, &mut wakes, Touch::Flush, |core, _| core.begin_dial(ticket, order));
        wakes.fire();
        QuicDial { shared: shared.clone(), ticket }
    }

    fn cancel(&self, shared: &Arc<Shared>, ticket: u64) {
        let Some(link) = self.table.hold().dial_is_over(ticket) else { return };
        let mut wakes = Wakes::default();
        link.change(shared, &mut wakes, Touch::Flush, |core, now| {
            if core.opening.remove(&ticket).is_some() {
                core.connection.cancel_open(now, ticket);
            }
            let judged = core.judging.iter().find(|(_, (judged, _))| *judged == ticket);
            if let Some(stream) = judged.map(|(stream, _)| *stream) {
                core.judging.remove(&stream);
                core.connection.reset(now, stream, 0);
                core.connection.release(now, stream);
            }
            if core.opening.is_empty() && core.judging.is_empty() {
                link.withdraw(shared);
            }
            // Nobody waits for the handshake any more.
            if core.connection.peer().is_none() && core.opening.is_empty() {
                core.connection.close(now);
            }
        });
        wakes.fire();
    }
}

impl Drop for QuicDial {
    fn drop(&mut self) {
        // After success or failure the ticket is not known any more.
        self.shared.quic.cancel(&self.shared, self.ticket);
    }
}
