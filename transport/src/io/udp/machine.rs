//! Machines of `nat_traversal` on sockets that carry QUIC as well: they see the STUN messages, and nothing else.

use std::{
    collections::VecDeque,
    fmt,
    sync::{Arc, Mutex},
    time::Instant,
};

use bytes::Bytes;
use nat_traversal::protocol::{Datagram, Machine, SocketIndex};

use super::UdpSocket;
use crate::{
    io::{lock::Lock as _, quic::QuicIo, slot::Slot},
    protocol::paths::Way,
    transport::Shared,
};

/// A machine and the sockets that it shares. Its owner turns it, and waits on the slot meanwhile.
pub(crate) struct SharedMachine<M> {
    shared: Arc<Shared>,
    machine: M,
    /// The one it was given, then those it asked for.
    sockets: Vec<Arc<UdpSocket>>,
    /// Those it was given besides, not to be closed.
    further: Vec<(SocketIndex, Arc<UdpSocket>)>,
    inbox: Arc<StunInbox>,
}

impl<M: Machine> SharedMachine<M> {
    /// Has the machine's messages collected from now on; whoever waits on `slot` is to turn it.
    pub(crate) fn new(shared: &Arc<Shared>, slot: &Arc<Slot>, socket: &Arc<UdpSocket>, machine: M) -> Self {
        let inbox = Arc::new(StunInbox { slot: slot.clone(), messages: Mutex::default() });
        socket.add_inbox(&inbox);
        Self { shared: shared.clone(), machine, sockets: vec![socket.clone()], further: Vec::new(), inbox }
    }

    /// Gives the machine another socket, under a number that it does not give itself; nothing if it has it already.
    pub(crate) fn add_socket(&mut self, index: SocketIndex, socket: &Arc<UdpSocket>) {
        if self.further.iter().any(|(known, _)| *known == index) {
            return;
        }
        socket.add_inbox(&self.inbox);
        self.further.push((index, socket.clone()));
    }

    /// Takes in what came, does what is due, and sends what follows. The next event, if there is one: turn again then.
    pub(crate) fn turn(&mut self, now: Instant) -> Option<M::Event> {
        self.send();
        while let Some(message) = self.inbox.pop() {
            let source = message.way.source.addr;
            let Some(socket) = self.index_of(message.way.source.socket) else { continue };
            self.machine.handle_datagram(now, Datagram { socket, source, bytes: &message.bytes });
            self.send();
        }
        if self.machine.poll_timeout().is_some_and(|due| due <= now) {
            self.machine.handle_timeout(now);
            self.send();
        }
        self.machine.poll_event()
    }

    /// When it is to be turned though nothing came.
    pub(crate) fn timeout(&self) -> Option<Instant> {
        self.machine.poll_timeout()
    }

    pub(crate) fn machine(&self) -> &M {
        &self.machine
    }

    /// To tell it something; it is to be turned then.
    pub(crate) fn machine_mut(&mut self) -> &mut M {
        &mut self.machine
    }

    pub(crate) fn socket(&self, index: SocketIndex) -> Option<&Arc<UdpSocket>> {
        let further = self.further.iter().find(|(known, _)| *known == index);
        further.map(|(_, socket)| socket).or_else(|| self.sockets.get(usize::from(index.0)))
    }

    fn index_of(&self, number: usize) -> Option<SocketIndex> {
        if let Some((index, _)) = self.further.iter().find(|(_, socket)| socket.number() == number) {
            return Some(*index);
        }
        let index = self.sockets.iter().position(|socket| socket.number() == number)?;
        u16::try_from(index).ok().map(SocketIndex)
    }

    fn send(&mut self) {
        while let Some(transmit) = self.machine.poll_transmit() {
            let Some(socket) = self.socket_for(transmit.socket) else { continue };
            match socket.send_one(&transmit.bytes, transmit.destination, transmit.hops) {
                Ok(()) => tracing::trace!(to = %transmit.destination, "sent a STUN message"),
                // As good as lost, and machines know how to live with losses.
                Err(error) => {
                    tracing::debug!(%error, to = %transmit.destination, "a STUN message was not sent")
                }
            }
        }
    }

    /// Opens sockets like the first one until there are as many as the machine names.
    fn socket_for(&mut self, index: SocketIndex) -> Option<Arc<UdpSocket>> {
        if let Some((_, socket)) = self.further.iter().find(|(known, _)| *known == index) {
            return Some(socket.clone());
        }
        while self.sockets.len() <= usize::from(index.0) {
            let mut addr = self.sockets[0].local();
            addr.set_port(0);
            match self.shared.quic.bind_further(&self.shared, addr) {
                Ok(socket) => {
                    socket.add_inbox(&self.inbox);
                    self.sockets.push(socket);
                }
                Err(error) => {
                    tracing::debug!(%error, sockets = self.sockets.len(), "no further socket");
                    return None;
                }
            }
        }
        Some(self.sockets[usize::from(index.0)].clone())
    }
}

impl<M> Drop for SharedMachine<M> {
    fn drop(&mut self) {
        for (_, socket) in &self.further {
            socket.remove_inbox(&self.inbox);
        }
        for (index, socket) in self.sockets.iter().enumerate() {
            socket.remove_inbox(&self.inbox);
            if index > 0 {
                QuicIo::release(&self.shared, socket);
            }
        }
    }
}

impl<M> fmt::Debug for SharedMachine<M> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("SharedMachine").field("sockets", &self.sockets.len()).finish_non_exhaustive()
    }
}

/// STUN messages that wait for a machine.
pub(crate) struct StunInbox {
    slot: Arc<Slot>,
    messages: Mutex<VecDeque<StunMessage>>,
}

/// One message and how it came.
#[derive(Debug, Clone)]
pub(crate) struct StunMessage {
    pub(crate) way: Way,
    pub(crate) bytes: Bytes,
}

impl StunInbox {
    /// Takes a message in, if there is room. The slot is to be woken then.
    pub(crate) fn push(&self, message: StunMessage) -> &Arc<Slot> {
        let mut messages = self.messages.hold();
        // Machines repeat what is lost.
        if messages.len() < MAX_MESSAGES {
            messages.push_back(message);
        }
        &self.slot
    }

    fn pop(&self) -> Option<StunMessage> {
        self.messages.hold().pop_front()
    }
}

impl fmt::Debug for StunInbox {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("StunInbox")
            .field("messages", &self.messages.hold().len())
            .finish_non_exhaustive()
    }
}

/// A punch sends some hundred messages in all; a flood must not grow into memory.
const MAX_MESSAGES: usize = 256;
