use std::{sync::Arc, time::Instant};

use super::{Link, QuicIo, QuicStream};
use crate::{
    Stream,
    io::{
        accept_queue::Place,
        clock,
        dial::{DialError, DialOrder},
        lock::Lock as _,
        slot::Wakes,
        udp::UdpSocket,
    },
    protocol::{
        paths::CheckTag,
        quic::{ToConnection, ToEndpoint},
        rounds::Round,
    },
    transport::Shared,
};

/// What work on a connection left to do once its lock is free.
#[derive(Default)]
pub(super) struct Left {
    pub(super) endpoint_events: Vec<ToEndpoint>,
    pub(super) connected: Option<Option<CheckTag>>,
    pub(super) window_wanted: u64,
    pub(super) admitted: bool,
    pub(super) ended: bool,
    pub(super) delivered: Vec<(Place, QuicStream)>,
    pub(super) outcomes: Vec<(u64, DialOrder, Result<QuicStream, DialError>)>,
    /// Dials to begin once more, as this connection is of no use to them.
    pub(super) again: Vec<(u64, DialOrder)>,
    /// Dials that the peer sends on to a connection of its own.
    pub(super) elsewhere: Vec<(u64, DialOrder)>,
    /// The connection takes our dials to its peer.
    pub(super) welcome: bool,
    /// The connection is to be looked at then.
    pub(super) timer: Option<Instant>,
    /// Sockets that it has no use for any more.
    pub(super) released: Vec<Arc<UdpSocket>>,
    /// There is more to send.
    pub(super) unfinished: bool,
    /// The connection has taken another path, or is cut off.
    pub(super) path_news: bool,
}

impl Left {
    /// Does it. What comes back is for the connection: inputs, and bytes for its window.
    pub(super) fn deal(
        &mut self,
        link: &Arc<Link>,
        shared: &Arc<Shared>,
        wakes: &mut Wakes,
    ) -> Option<(Vec<ToConnection>, u64)> {
        if let Some(timer) = self.timer.take() {
            shared.crank.poke(timer);
        }
        if self.is_nothing() {
            return None;
        }
        let mut inputs = Vec::new();
        let window = self.tell_table(link, shared, &mut inputs);
        for (place, stream) in self.delivered.drain(..) {
            place.deliver(Stream::from_quic(stream), wakes);
        }
        for (_, order, outcome) in self.outcomes.drain(..) {
            order.finish(outcome.map(Stream::from_quic), wakes);
        }
        for (ticket, order) in self.again.drain(..) {
            match shared.quic.guest(order.expected).filter(|_| order.may_move()) {
                Some(guest) => shared.quic.move_dial(shared, &guest, ticket, order, wakes),
                None => shared.quic.dial_again(shared, ticket, order, wakes),
            }
        }
        for dial in self.elsewhere.drain(..) {
            shared.quic.go_elsewhere(shared, link, dial, wakes);
        }
        if std::mem::take(&mut self.welcome) {
            shared.quic.welcome(shared, link, wakes);
        }
        for socket in self.released.drain(..) {
            QuicIo::release(shared, &socket);
        }
        if std::mem::take(&mut self.path_news) {
            shared.path_news.tell();
        }
        let unfinished = std::mem::take(&mut self.unfinished);
        (unfinished || window > 0 || !inputs.is_empty()).then_some((inputs, window))
    }

    /// As after most datagrams and writes.
    fn is_nothing(&self) -> bool {
        !(self.connected.is_some()
            || self.admitted
            || self.ended
            || self.welcome
            || self.unfinished
            || self.path_news)
            && self.window_wanted == 0
            && self.endpoint_events.is_empty()
            && self.delivered.is_empty()
            && self.outcomes.is_empty()
            && self.again.is_empty()
            && self.elsewhere.is_empty()
            && self.released.is_empty()
    }

    fn tell_table(&mut self, link: &Arc<Link>, shared: &Shared, inputs: &mut Vec<ToConnection>) -> u64 {
        let nothing = self.endpoint_events.is_empty()
            && self.connected.is_none()
            && self.window_wanted == 0
            && self.outcomes.is_empty()
            && !self.admitted
            && !self.ended;
        if nothing {
            return 0;
        }
        if self.ended {
            link.leave_reunion(shared);
        }
        let mut window = 0;
        let mut table = shared.quic.table.hold();
        for event in self.endpoint_events.drain(..) {
            inputs.extend(table.handle_event(link, event));
        }
        if let Some(tag) = self.connected.take() {
            window += table.connected(link, tag);
        }
        if self.window_wanted > 0 {
            window += table.lend_window(link, std::mem::take(&mut self.window_wanted));
        }
        if std::mem::take(&mut self.admitted) {
            table.admitted(link);
        }
        let parked = if std::mem::take(&mut self.ended) {
            table.unshare(link);
            table.unpark_from(link)
        } else {
            Vec::new()
        };
        for (ticket, order) in parked {
            // What was sent on may move, so that it is not in its last round.
            let round = order.round.next().unwrap_or(Round::Last);
            self.again.push((ticket, order.once_more(round)));
        }
        for (ticket, ..) in &self.outcomes {
            table.dial_is_over(*ticket);
        }
        window
    }
}

impl QuicIo {
    /// Begins a dial once more whose connection turned out to be of no use.
    fn dial_again(&self, shared: &Arc<Shared>, ticket: u64, order: DialOrder, wakes: &mut Wakes) {
        tracing::debug!(remote = %order.remote, "the connection was dead; dialling once more");
        let outcomes = order.clone();
        if let Err(error) = self.dial_with(shared, ticket, order, clock::now(), wakes) {
            outcomes.finish(Err(DialError::Socket(error)), wakes);
        }
    }
}
