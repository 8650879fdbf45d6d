//! Dials that go over another connection than they began on: what [`Reunion`](crate::protocol::reunion::Reunion) decides, done.

use std::{sync::Arc, time::Instant};

use super::{
    Link, QuicIo,
    link::{Core, Touch},
};
use crate::{
    PublicKey,
    io::{dial::DialOrder, lock::Lock as _, slot::Wakes},
    transport::Shared,
};

impl QuicIo {
    /// Whether a dial to that peer may go over a connection that the peer made, and none of ours is there.
    pub(crate) fn has_guest(&self, peer: PublicKey) -> bool {
        let reunion = self.reunion.hold();
        reunion.guest(peer).is_some() && !reunion.has_dialled(peer)
    }

    pub(super) fn guest(&self, peer: PublicKey) -> Option<Arc<Link>> {
        let number = self.reunion.hold().guest(peer)?;
        self.table.hold().numbered(number)
    }

    /// Whether something has come on it since then.
    pub(crate) fn guest_is_heard(&self, peer: PublicKey, since: Instant) -> bool {
        self.guest(peer).is_some_and(|guest| guest.look(|core| core.connection.last_heard() > since))
    }

    /// The peer has sent a dial on to the connection that it made itself.
    pub(super) fn go_elsewhere(
        &self,
        shared: &Arc<Shared>,
        from: &Arc<Link>,
        (ticket, order): (u64, DialOrder),
        wakes: &mut Wakes,
    ) {
        let guest = {
            // Held until the dial waits, so that a guest that comes meanwhile finds it.
            let reunion = self.reunion.hold();
            let mut table = self.table.hold();
            match reunion.guest(order.expected).and_then(|number| table.numbered(number)) {
                Some(guest) => guest,
                None => return table.park(ticket, order),
            }
        };
        self.move_dial(shared, &guest, ticket, order, wakes);
        from.change(shared, wakes, Touch::Flush, Core::close_if_idle);
    }

    /// The peer's own connection takes our dials to it: those that wait for a handshake, and those that it sent on.
    pub(super) fn welcome(&self, shared: &Arc<Shared>, guest: &Arc<Link>, wakes: &mut Wakes) {
        let Some(peer) = guest.look(|core| core.connection.peer()) else { return };
        let (links, parked) = {
            let mut table = self.table.hold();
            (table.dialled_to(peer), table.unpark(peer))
        };
        for link in links {
            self.hand_over(shared, &link, guest, wakes);
        }
        for (ticket, order) in parked {
            self.move_dial(shared, guest, ticket, order, wakes);
        }
    }

    /// Dials that wait for the handshake of the one go over the other.
    pub(super) fn hand_over(
        &self,
        shared: &Arc<Shared>,
        from: &Arc<Link>,
        to: &Arc<Link>,
        wakes: &mut Wakes,
    ) {
        for (ticket, order) in from.change(shared, wakes, Touch::Flush, Core::give_dials) {
            self.move_dial(shared, to, ticket, order, wakes);
        }
    }

    /// Has the dial go on over that connection.
    pub(super) fn move_dial(
        &self,
        shared: &Arc<Shared>,
        to: &Arc<Link>,
        ticket: u64,
        order: DialOrder,
        wakes: &mut Wakes,
    ) {
        // It may have been given up meanwhile.
        if self.table.hold().dial_moves(ticket, to) {
            tracing::debug!(peer = %order.expected, "both have dialled; going over the peer's connection");
            to.change(shared, wakes, Touch::Flush, |core, _| core.begin_dial(ticket, order));
        }
    }
}

impl Core {
    /// Asks for the stream of a dial, now or when the connection is up.
    pub(super) fn begin_dial(&mut self, ticket: u64, order: DialOrder) {
        if !order.is_held() {
            self.connection.open(ticket, &order.preface);
        }
        self.opening.insert(ticket, order);
        // A connection that ended a moment ago tells its dials once more.
        self.connection.repeat_end();
    }

    /// Gives away the dials that wait for the handshake; a connection that is of no more use then ends.
    fn give_dials(&mut self, now: Instant) -> Vec<(u64, DialOrder)> {
        let mut given = Vec::new();
        if self.connection.peer().is_none() {
            given.extend(self.opening.extract_if(.., |_, order| order.may_move()));
            for (ticket, _) in &given {
                self.connection.cancel_open(now, *ticket);
            }
        }
        self.close_if_idle(now);
        given
    }

    fn close_if_idle(&mut self, now: Instant) {
        if self.opening.is_empty() && self.judging.is_empty() && !self.connection.is_used() {
            self.connection.close(now);
        }
    }
}
