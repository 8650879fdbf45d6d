//! An introducer: streams of clients, and what the switchboard orders.

use std::{collections::BTreeMap, net::IpAddr, time::Instant};

use transport::{PublicKey, testing::StreamId};

use super::service::Service;
use crate::protocol::introducer::{Bounds, ClientId, Order, Switchboard, frame::Frame};

pub(super) struct Hosting {
    board: Switchboard,
    clients: BTreeMap<StreamId, ClientId>,
    /// What this introducer does to frames that it carries.
    pub(super) lie: Option<Lie>,
}

/// How an introducer may lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lie {
    /// Notes arrive with a bit changed.
    ChangesNotes,
    /// Notes arrive twice.
    RepeatsNotes,
    /// Nobody is told where the other is seen, but elsewhere.
    VouchesForAnother,
    /// Knocks vanish.
    Swallows,
}

impl Default for Hosting {
    fn default() -> Self {
        Self { board: Switchboard::new(Bounds::default(), 0), clients: BTreeMap::new(), lie: None }
    }
}

impl Hosting {
    pub(super) fn connect(
        &mut self,
        now: Instant,
        stream: StreamId,
        peer: PublicKey,
        source: IpAddr,
    ) -> bool {
        let client = self.board.connect(now, peer, source);
        self.clients.extend(client.map(|client| (stream, client)));
        client.is_some()
    }

    /// Whether the frame was of a client.
    pub(super) fn take(&mut self, now: Instant, stream: StreamId, frame: &Frame) -> bool {
        let Some(client) = self.clients.get(&stream) else { return false };
        self.board.handle_frame(now, *client, frame.clone());
        true
    }

    /// Whether it was a client's.
    pub(super) fn disconnect(&mut self, stream: StreamId) -> bool {
        let client = self.clients.remove(&stream);
        if let Some(client) = client {
            self.board.disconnect(client);
        }
        client.is_some()
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.board.poll_timeout()
    }

    pub(super) fn handle_timeout(&mut self, now: Instant) {
        if self.poll_timeout().is_some_and(|due| due <= now) {
            self.board.handle_timeout(now);
        }
    }

    fn lied(&self, frame: Frame) -> Vec<Frame> {
        match (self.lie, frame) {
            (Some(Lie::ChangesNotes), Frame::Note { call, mut note }) => {
                let middle = note.len() / 2;
                note[middle] ^= 1;
                vec![Frame::Note { call, note }]
            }
            (Some(Lie::RepeatsNotes), frame @ Frame::Note { .. }) => vec![frame.clone(), frame],
            (Some(Lie::VouchesForAnother), Frame::Vouch { call, source: Some(_) }) => {
                vec![Frame::Vouch { call, source: Some(IpAddr::from([203, 0, 113, 99])) }]
            }
            (Some(Lie::Swallows), Frame::Knock { .. }) => Vec::new(),
            (_, frame) => vec![frame],
        }
    }
}

impl Service {
    pub(super) fn carry_out_orders(&mut self) -> bool {
        let mut moved = false;
        while let Some((client, order)) = self.hosting.as_mut().and_then(|hosting| hosting.board.poll_order())
        {
            moved = true;
            let Some(hosting) = &self.hosting else { break };
            let stream =
                hosting.clients.iter().find(|(_, known)| **known == client).map(|(stream, _)| *stream);
            let Some(stream) = stream else { continue };
            match order {
                Order::Send(frame) => {
                    for frame in hosting.lied(frame) {
                        self.send(stream, &frame);
                    }
                }
                Order::Close => self.lose(stream),
            }
        }
        moved
    }
}
