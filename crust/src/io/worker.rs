//! The thread `crust-io`: keeps in touch with introducers, and serves as one if told to. One set holds all its streams.

mod attaching;
mod commands;
mod connection;
mod forwarding;
mod improving;
#[cfg(feature = "turn")]
mod lending;
mod network;
mod on_demand;
mod resting;

use std::{
    collections::BTreeMap,
    io,
    net::IpAddr,
    sync::Arc,
    thread::{self, JoinHandle},
    time::Instant,
};

use crossbeam::channel::{Receiver, Sender, bounded};
use nat_traversal::{HolePunchServer, HolePunchServerAddr};
use transport::{LabelListener, PathWatch, PublicKey, Readiness, StreamError, StreamKey, StreamSet};

pub(crate) use self::forwarding::protocol as forwarded_protocol;
#[cfg(feature = "turn")]
pub(crate) use self::lending::Lending;
pub(crate) use self::{
    commands::{Command, Commands},
    on_demand::OnDemand,
};
use self::{
    connection::{Connection, Role},
    forwarding::Forwarder,
    improving::Improving,
};
use super::{
    clock, entropy,
    meeting::{Heard, Meeting},
};
use crate::{
    Introducer,
    improving::Detour,
    protocol::{
        attachment::Attachment,
        introducer::{
            ClientId, Order, Switchboard,
            frame::{EndReason, Frame},
        },
    },
    reloading::Reloading,
    shared::Shared,
};

/// Being an introducer for others.
#[derive(Debug)]
pub(crate) struct Hosting {
    pub(crate) listener: LabelListener,
    pub(crate) board: Switchboard,
    /// Answers STUN for as long as we introduce.
    pub(crate) stun: Option<HolePunchServer>,
    /// Relays, if it is to.
    #[cfg(feature = "turn")]
    pub(crate) lending: Option<Lending>,
}

impl Hosting {
    /// Where others ask for their addresses.
    pub(crate) fn hole_punching(&self) -> Vec<HolePunchServerAddr> {
        let addresses = self.stun.iter().flat_map(HolePunchServer::addresses);
        addresses.map(|address| HolePunchServerAddr::Stun(address.addr)).collect()
    }
}

/// The running thread.
#[derive(Debug)]
pub(crate) struct Worker {
    commands: Commands,
    thread: JoinHandle<()>,
}

impl Worker {
    /// Starts the thread, which ends with the transport.
    pub(crate) fn start(
        shared: Arc<Shared>,
        hosting: Option<Hosting>,
        reloading: Option<Reloading>,
    ) -> io::Result<Self> {
        let set = StreamSet::new(&shared.transport).map_err(io::Error::other)?;
        let paths = PathWatch::new(&shared.transport, set.waker());
        let (sender, receiver) = bounded(COMMANDS);
        let commands = Commands { sender, waker: set.waker() };
        if let Some(hosting) = &hosting {
            hosting.listener.wake(set.waker());
        }
        let forwarder = shared.forwarded.is_wanted().then(Forwarder::default);
        if forwarder.is_some() {
            shared.forwarded.asked_by(set.waker());
        }
        let mut turning = Turning {
            shared,
            set,
            hosting,
            reloading,
            receiver,
            commands: commands.clone(),
            connections: BTreeMap::new(),
            clients: BTreeMap::new(),
            attachments: Vec::new(),
            ringing: BTreeMap::new(),
            again: Vec::new(),
            helpers: Vec::new(),
            improving: Improving::default(),
            forwarder,
            paths,
        };
        let thread = thread::Builder::new().name("crust-io".into()).spawn(move || turning.run())?;
        Ok(Self { commands, thread })
    }

    /// Keeps in touch with one more introducer from now on.
    pub(crate) fn attach(&self, introducer: Introducer) {
        self.commands.give(Command::Attach(introducer));
    }

    /// This host has come into another network.
    fn network_changed(&self, addresses: Vec<IpAddr>) {
        self.commands.give(Command::NetworkChanged(addresses));
    }

    /// A connection has come up whose path may have to change.
    pub(crate) fn look_after(&self, detour: Detour) {
        self.commands.give(Command::LookAfter(Box::new(detour)));
    }

    /// Waits for the thread, whose transport is closed.
    pub(crate) fn join(self) {
        self.commands.waker.wake();
        if self.thread.join().is_err() {
            tracing::error!("the thread crust-io had panicked");
        }
    }
}

/// What the thread works with.
struct Turning {
    shared: Arc<Shared>,
    set: StreamSet,
    hosting: Option<Hosting>,
    reloading: Option<Reloading>,
    receiver: Receiver<Command>,
    commands: Commands,
    connections: BTreeMap<StreamKey, Connection>,
    clients: BTreeMap<ClientId, StreamKey>,
    attachments: Vec<(Introducer, Attachment)>,
    /// Meetings under way, and where the notes for them go.
    ringing: BTreeMap<(StreamKey, u32), Sender<Heard>>,
    /// Streams that have more to read than one turn may take.
    again: Vec<StreamKey>,
    helpers: Vec<JoinHandle<()>>,
    /// Connections whose paths may have to change.
    improving: Improving,
    /// Ports that routers are to forward, if any are.
    forwarder: Option<Forwarder>,
    paths: PathWatch,
}

impl Turning {
    fn run(&mut self) {
        let mut ready = Vec::new();
        loop {
            let until = if self.again.is_empty() { self.next_timer() } else { Some(clock::now()) };
            match self.set.wait(&mut ready, until) {
                Ok(()) | Err(StreamError::TimedOut) => {}
                Err(_) => break,
            }
            self.turn(&ready);
        }
        if let Some(forwarder) = &mut self.forwarder {
            forwarder.end(&self.shared);
        }
        // Meetings and dials end with the transport, and nothing of ours outlives this thread.
        self.ringing.clear();
        for helper in self.helpers.drain(..) {
            let _ = helper.join();
        }
    }

    fn turn(&mut self, ready: &[Readiness]) {
        self.take_clients();
        while let Ok(command) = self.receiver.try_recv() {
            self.handle(command);
        }
        for readiness in ready {
            if readiness.writable {
                self.flush(readiness.key);
            }
            if readiness.readable {
                self.read(readiness.key);
            }
        }
        for key in std::mem::take(&mut self.again) {
            self.read(key);
        }
        if self.paths.take() {
            self.improving.look_again(clock::now());
        }
        self.handle_timers();
        self.carry_out_orders();
        self.helpers.retain(|helper| !helper.is_finished());
    }

    fn next_timer(&self) -> Option<Instant> {
        let board = self.hosting.as_ref().and_then(|hosting| hosting.board.poll_timeout());
        let attachments = self.attachments.iter().filter_map(|(_, attachment)| attachment.poll_timeout());
        let reloading = self.reloading.as_ref().map(Reloading::poll_timeout);
        #[cfg(feature = "turn")]
        let reloading = reloading.into_iter().chain(self.next_renewal());
        attachments
            .chain(board)
            .chain(reloading)
            .chain(self.improving.poll_timeout())
            .chain(self.forwarder.as_ref().and_then(Forwarder::poll_timeout))
            .min()
    }

    fn handle_timers(&mut self) {
        let now = clock::now();
        self.improve(now);
        self.forward_ports(now);
        if let Some(hosting) = &mut self.hosting
            && hosting.board.poll_timeout().is_some_and(|due| due <= now)
        {
            hosting.board.handle_timeout(now);
        }
        #[cfg(feature = "turn")]
        self.renew_tickets(now);
        let new = self.reloading.as_mut().map(|reloading| reloading.handle_timeout(now, &self.shared));
        for introducer in new.into_iter().flatten() {
            self.handle(Command::Attach(introducer));
        }
        for index in 0..self.attachments.len() {
            let (introducer, attachment) = &mut self.attachments[index];
            if attachment.poll_dial(now) {
                let introducer = introducer.clone();
                self.dial(index, introducer);
            } else if attachment.is_late(now) {
                let through = self.connections.iter().find(|(_, one)| one.role == Role::Introducer(index));
                if let Some((&key, _)) = through {
                    self.lose(key, "it does not answer");
                }
            }
        }
    }

    /// Runs what blocks on a thread of its own, which ends by itself.
    fn help(&mut self, name: &str, work: impl FnOnce() + Send + 'static, otherwise: impl FnOnce(&mut Self)) {
        match thread::Builder::new().name(name.into()).spawn(work) {
            Ok(thread) => self.helpers.push(thread),
            Err(error) => {
                tracing::warn!(%error, name, "cannot start a thread");
                otherwise(self);
            }
        }
    }

    fn handle(&mut self, command: Command) {
        match command {
            Command::Attach(introducer) => {
                let known = self.attachments.iter().any(|(known, _)| known.key() == introducer.key());
                if !known && self.attachments.len() < ATTACHMENTS {
                    self.attachments.push((introducer, Attachment::new(clock::now(), entropy::seed())));
                }
            }
            Command::Dialled { attachment, outcome: Ok(stream) } => self.ask(attachment, stream),
            Command::Dialled { attachment, outcome: Err(reason) } => self.unattached(attachment, reason),
            Command::NetworkChanged(addresses) => self.handle_network_change(&addresses),
            Command::LookAfter(detour) => self.improving.add(clock::now(), *detour),
            Command::Led { peer, outcome } => self.led(peer, outcome),
            Command::Say { through, frame } => self.send(through, &frame),
            Command::Over { through, call, reason } => {
                if self.ringing.remove(&(through, call)).is_some() {
                    self.send(through, &Frame::End { call, reason });
                }
            }
        }
    }

    /// Takes in peers that want to be introduced.
    fn take_clients(&mut self) {
        let Some(hosting) = &mut self.hosting else { return };
        while let Ok(stream) = hosting.listener.receiver().try_recv() {
            let (peer, source) = (stream.public_key(), stream.path().remote.ip());
            let Some(client) = hosting.board.connect(clock::now(), peer, source) else {
                tracing::debug!(%peer, %source, "no room for one more to introduce");
                continue;
            };
            match self.set.add(stream) {
                Ok(key) => {
                    self.connections.insert(key, Connection::new(Role::Client(client)));
                    self.clients.insert(client, key);
                }
                Err(error) => {
                    tracing::debug!(%error, "a stream to an introduced peer failed");
                    hosting.board.disconnect(client);
                }
            }
        }
    }

    /// Reads what is there, as much as one turn may take.
    fn read(&mut self, key: StreamKey) {
        let (Some(stream), Some(connection)) = (self.set.get(key), self.connections.get_mut(&key)) else {
            return;
        };
        let (frames, state) = connection.read(stream);
        for frame in frames {
            self.take(key, frame);
        }
        match state {
            connection::State::More => self.again.push(key),
            connection::State::Waiting => {}
            connection::State::Ended(reason) => self.lose(key, &reason),
        }
    }

    fn take(&mut self, key: StreamKey, frame: Frame) {
        let Some(connection) = self.connections.get(&key) else { return };
        match connection.role {
            Role::Client(client) => {
                self.let_rest(key, &frame);
                if let Some(hosting) = &mut self.hosting {
                    hosting.board.handle_frame(clock::now(), client, frame);
                }
                self.carry_out_orders();
            }
            Role::Introducer(index) => self.take_from_introducer(index, key, frame),
        }
    }

    fn take_from_introducer(&mut self, index: usize, key: StreamKey, frame: Frame) {
        if frame != Frame::Still {
            self.attachments[index].1.pulse().handle_heard();
        }
        match frame {
            Frame::Attached { stun_port } => self.attached(index, key, stun_port),
            Frame::Still => {
                if let Some(rhythm) = self.attachments[index].1.pulse().handle_still(clock::now()) {
                    self.keep_rhythm(key, rhythm);
                }
            }
            Frame::Knock { call, key: dialer, knock } => self.ring(key, call, dialer, knock),
            Frame::Note { call, note } => self.pass_on(key, call, Heard::Note(note)),
            Frame::Vouch { call, source: Some(source) } => self.pass_on(key, call, Heard::Vouched(source)),
            Frame::End { call, .. } => drop(self.ringing.remove(&(key, call))),
            #[cfg(feature = "turn")]
            Frame::Relay(ticket) => self.take_ticket(index, key, &ticket),
            #[cfg(not(feature = "turn"))]
            Frame::Relay(_) => {}
            Frame::Attach | Frame::Rest { .. } | Frame::Vouch { source: None, .. } => {
                self.lose(key, "it does not keep to the protocol")
            }
        }
    }

    /// A peer knocks: it is met on a thread of its own, as that blocks.
    fn ring(&mut self, through: StreamKey, call: u32, dialer: PublicKey, knock: Vec<u8>) {
        if self.ringing.len() >= MEETINGS {
            tracing::debug!(%dialer, "too many peers knock at a time");
            return self.send(through, &Frame::End { call, reason: EndReason::Busy });
        }
        let (give, notes) = bounded(NOTES);
        self.ringing.insert((through, call), give);
        let meeting =
            Meeting { shared: self.shared.clone(), commands: self.commands.clone(), through, call, notes };
        self.help(
            "crust-meet",
            move || meeting.run(&knock),
            |turning| {
                turning.ringing.remove(&(through, call));
            },
        );
    }

    fn pass_on(&self, through: StreamKey, call: u32, heard: Heard) {
        if let Some(meeting) = self.ringing.get(&(through, call)) {
            // More notes than a call has mean nothing good.
            let _ = meeting.try_send(heard);
        }
    }

    fn send(&mut self, key: StreamKey, frame: &Frame) {
        let Some(connection) = self.connections.get_mut(&key) else { return };
        if let Role::Introducer(index) = connection.role {
            self.attachments[index].1.pulse().handle_sent(clock::now());
        }
        if connection.push(&frame.encode()) {
            self.flush(key);
        } else {
            self.lose(key, "it does not read");
        }
    }

    fn flush(&mut self, key: StreamKey) {
        let (Some(stream), Some(connection)) = (self.set.get(key), self.connections.get_mut(&key)) else {
            return;
        };
        if let Err(reason) = connection.flush(stream) {
            self.lose(key, &reason);
        }
    }

    fn carry_out_orders(&mut self) {
        while let Some((client, order)) = self.hosting.as_mut().and_then(|hosting| hosting.board.poll_order())
        {
            let Some(&key) = self.clients.get(&client) else { continue };
            match order {
                Order::Send(frame) => {
                    self.send(key, &frame);
                    #[cfg(feature = "turn")]
                    if let Frame::Attached { .. } = frame {
                        self.give_ticket(key);
                    }
                }
                Order::Close => self.lose(key, "put out"),
            }
        }
    }

    /// A stream is of no more use.
    fn lose(&mut self, key: StreamKey, reason: &str) {
        let Some(connection) = self.connections.remove(&key) else { return };
        drop(self.set.remove(key));
        self.ringing.retain(|(through, _), _| *through != key);
        match connection.role {
            Role::Client(client) => {
                self.clients.remove(&client);
                if let Some(hosting) = &mut self.hosting {
                    hosting.board.disconnect(client);
                }
            }
            Role::Introducer(index) => self.unattached(index, reason.to_owned()),
        }
    }
}

/// Introducers kept in touch with at a time: two that go down leave two.
pub(crate) const ATTACHMENTS: usize = 4;
/// Peers met at a time, each on a thread of its own for some seconds.
const MEETINGS: usize = 32;
/// What a call carries to one side, and where the other is.
const NOTES: usize = 9;
/// Each meeting gives a handful.
const COMMANDS: usize = 256;
