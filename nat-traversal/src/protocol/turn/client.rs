use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use super::auth::{Auth, TurnCredentials};
use super::channel::{self, HEAD_BYTES};
use super::failure::{TurnFailure, TurnSendError};
use super::peers::Peers;
use super::transaction::{Request, Transaction};
use crate::protocol::stun::{Class, MessageBuilder, Method, TransactionId, attribute};
use crate::protocol::{Datagram, Due, Machine, Random, Seed, SocketIndex, Transmit};

mod answers;

/// Keeps an allocation at a TURN server: an address of the server's at which peers reach us.
///
/// ```text
///               answered                    close()              acknowledged, or asked often enough
/// Allocating ──────────────► Allocated ────────────────► Closing ──────────────────────────────────► Done
///    │  ▲                        │                                                                    ▲
///    ▼  │ handle_reconnected     └──────────── the server is gone, or the allocation ─────────────────┘
/// Redirected (streams only)
/// ```
///
/// Drive it as [`Machine`] says. What a peer sends comes as [`TurnEvent::Data`], or without a copy from
/// [`receive`](Self::receive); what goes to a peer is framed by [`channel_head`](Self::channel_head) or
/// [`frame`](Self::frame), or simply [`send`](Self::send).
///
/// It asks the server for itself: a permission when a peer is first sent to, a channel once that pays, and both again
/// before they end, unless nothing was sent to the peer for ten minutes. A packet to a new peer does not wait for the
/// permission, since servers take requests in order.
///
/// Nothing that a server sends makes it grow or send without bound: each request is repeated seven times at most and
/// challenged four times, referrals are followed three times, and at most 256 peers have a place.
#[derive(Debug)]
pub struct TurnClient {
    server: SocketAddr,
    link: TurnLink,
    family: AddressFamily,
    auth: Auth,
    random: Random,
    state: State,
    transactions: Vec<Transaction>,
    peers: Peers,
    /// Servers that have referred us to others.
    visited: Vec<SocketAddr>,
    /// The system's word that nobody is there, since the last answer.
    unreachable: u32,
    /// When the server last did as it was asked.
    served: Option<Instant>,
    transmits: VecDeque<Transmit>,
    events: VecDeque<TurnEvent>,
    /// How many of the events are data.
    waiting: usize,
    stats: TurnStats,
}

/// What lies between us and the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TurnLink {
    /// UDP: each message is one datagram, and may be lost.
    Datagrams,
    /// TCP or TLS: messages follow each other, [`frame_length`](super::frame_length) finds their ends.
    Stream,
}

/// Of which family the relay's address is to be; peers must be of the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AddressFamily {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

/// What a [`TurnClient`] tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TurnEvent {
    /// Peers reach us from now on.
    Allocated {
        /// Where.
        relayed: SocketAddr,
        /// The address under which the server sees us, as a STUN server would tell.
        mapped: Option<SocketAddr>,
    },
    /// A peer has sent this.
    Data {
        /// The peer.
        peer: SocketAddr,
        /// What it sent.
        bytes: Vec<u8>,
    },
    /// The server does not let us talk to a peer. For a channel alone this is no loss but of 32 bytes a packet.
    PeerRefused {
        /// The peer's address.
        peer: IpAddr,
        /// Why.
        failure: TurnFailure,
    },
    /// The server refers us to this one. Over datagrams the machine goes on there by itself; over a stream someone has to
    /// connect there and say [`TurnClient::handle_reconnected`].
    Redirected(SocketAddr),
    /// It is over.
    Failed(TurnFailure),
    /// It is over as it was asked for.
    Closed,
}

/// What a message of the server was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TurnReceived<'a> {
    /// A peer has sent this.
    Data {
        /// The peer.
        peer: SocketAddr,
        /// What it sent.
        payload: &'a [u8],
    },
    /// An answer of the server, which was taken in.
    Handled,
    /// Nothing for us.
    Ignored,
}

/// What a [`TurnClient`] has counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct TurnStats {
    /// Data of peers that nothing was asked for, or through unknown channels; and messages that are damaged, forged or
    /// answer nothing.
    pub ignored: u64,
    /// Data that came faster than its events were taken.
    pub overflowed: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Allocating,
    Redirected,
    Allocated {
        relayed: SocketAddr,
        /// When to ask for more time.
        refresh: Instant,
        /// When the server forgets it.
        end: Instant,
        /// When to make sure that the server is there.
        probe: Instant,
    },
    Closing,
    Done,
}

impl TurnClient {
    /// Asks `server` for an allocation from `now` on.
    #[must_use]
    pub fn new(
        now: Instant,
        server: SocketAddr,
        link: TurnLink,
        family: AddressFamily,
        credentials: TurnCredentials,
        seed: Seed,
    ) -> Self {
        let mut client = Self {
            server,
            link,
            family,
            auth: Auth::new(credentials),
            random: Random::new(seed),
            state: State::Allocating,
            transactions: Vec::new(),
            peers: Peers::default(),
            visited: Vec::new(),
            unreachable: 0,
            served: None,
            transmits: VecDeque::new(),
            events: VecDeque::new(),
            waiting: 0,
            stats: TurnStats::default(),
        };
        client.begin(now, Request::Allocate { v6: family == AddressFamily::V6 }, 0);
        client
    }

    /// The longest payload of a packet.
    pub const MAX_PAYLOAD_BYTES: usize = 65_000;

    /// Peers that can have a place at a time, by their IP addresses.
    pub const MAX_PEERS: usize = super::peers::MAX_PERMISSIONS;

    /// The server, which is another after it has referred us to it.
    #[must_use]
    pub const fn server(&self) -> SocketAddr {
        self.server
    }

    /// The relay's address at which peers reach us, as long as there is one.
    #[must_use]
    pub const fn relayed_address(&self) -> Option<SocketAddr> {
        match self.state {
            State::Allocated { relayed, .. } => Some(relayed),
            _ => None,
        }
    }

    /// When the server last did as it was asked: it lives, and knows us.
    #[must_use]
    pub const fn last_served(&self) -> Option<Instant> {
        self.served
    }

    /// Finds out now whether the server still knows us, rather than within 25 s: one that does raises [`last_served`](Self::last_served), and
    /// one that was started anew ends the allocation with [`TurnFailure::Lost`]. Nothing is sent before there is an allocation, or
    /// while the same is being asked.
    pub fn check(&mut self, now: Instant) {
        let is_asked = |asked: &Transaction| matches!(asked.request, Request::Probe | Request::Refresh);
        if self.relayed_address().is_some() && !self.transactions.iter().any(is_asked) {
            self.postpone_probe(now);
            self.begin(now, Request::Probe, 0);
        }
    }

    /// What was counted so far.
    #[must_use]
    pub const fn stats(&self) -> TurnStats {
        self.stats
    }

    /// Lets a peer send to us, from any port of its address, before we have sent to it. Counts as a use of its place.
    ///
    /// # Errors
    ///
    /// As for [`frame`](Self::frame).
    pub fn permit(&mut self, now: Instant, peer: IpAddr) -> Result<(), TurnSendError> {
        self.check_peer(peer)?;
        self.peers.permit(now, peer)?;
        self.ask(now);
        Ok(())
    }

    /// Asks for a channel to a peer, so that each packet costs 4 bytes more instead of 36. Happens by itself after
    /// some packets.
    ///
    /// # Errors
    ///
    /// As for [`frame`](Self::frame).
    pub fn bind(&mut self, now: Instant, peer: SocketAddr) -> Result<(), TurnSendError> {
        self.check_peer(peer.ip())?;
        self.peers.permit(now, peer.ip())?;
        self.peers.bind(now, peer)?;
        self.ask(now);
        Ok(())
    }

    /// The four bytes to send before a payload of this length, so that the payload itself need not be copied; `None` if
    /// the peer has no channel now, and [`frame`](Self::frame) is to be used. In a stream the payload is then filled up
    /// with zeros to a multiple of four bytes.
    pub fn channel_head(
        &mut self,
        now: Instant,
        peer: SocketAddr,
        payload_bytes: usize,
    ) -> Option<[u8; HEAD_BYTES]> {
        self.relayed_address()?;
        let length =
            u16::try_from(payload_bytes).ok().filter(|_| payload_bytes <= Self::MAX_PAYLOAD_BYTES)?;
        Some(self.peers.bound(now, peer)?.head(length))
    }

    /// Appends to `frame` what to send to the server so that `payload` goes to a peer. Drain
    /// [`poll_transmit`](Machine::poll_transmit) first: what is asked for on the way must be there earlier.
    ///
    /// # Errors
    ///
    /// If there is no allocation, the peer is of another address family or refused by the server, there are too many
    /// peers, or the payload is too long. Nothing is appended then.
    pub fn frame(
        &mut self,
        now: Instant,
        peer: SocketAddr,
        payload: &[u8],
        frame: &mut Vec<u8>,
    ) -> Result<(), TurnSendError> {
        self.check_peer(peer.ip())?;
        if payload.len() > Self::MAX_PAYLOAD_BYTES {
            return Err(TurnSendError::TooLong);
        }
        if let Some(head) = self.channel_head(now, peer, payload.len()) {
            frame.extend(head);
            frame.extend(payload);
            if self.link == TurnLink::Stream {
                frame.resize(frame.len() + payload.len().next_multiple_of(4) - payload.len(), 0);
            }
            return Ok(());
        }
        self.peers.permit(now, peer.ip())?;
        if self.peers.is_worth_a_channel(peer) {
            self.peers.bind(now, peer).unwrap_or_else(|_| tracing::trace!(%peer, "no channel"));
        }
        self.ask(now);
        let id = TransactionId::draw(&mut self.random);
        let message = MessageBuilder::new(Class::Indication, Method::SEND, id)
            .xor_address(attribute::XOR_PEER_ADDRESS, peer)
            .attribute(attribute::DATA, payload);
        frame.extend(message.finish());
        Ok(())
    }

    /// Queues a packet to a peer for [`poll_transmit`](Machine::poll_transmit).
    ///
    /// # Errors
    ///
    /// As for [`frame`](Self::frame), and [`TurnSendError::Busy`] if 256 packets wait already.
    pub fn send(&mut self, now: Instant, peer: SocketAddr, payload: &[u8]) -> Result<(), TurnSendError> {
        if self.transmits.len() >= MAX_TRANSMITS {
            return Err(TurnSendError::Busy);
        }
        let mut bytes = Vec::new();
        self.frame(now, peer, payload, &mut bytes)?;
        self.transmit(bytes);
        Ok(())
    }

    /// Takes in a message of the server: one datagram, or one frame of a stream. Data of a peer is returned instead of
    /// told as an event.
    pub fn receive<'a>(&mut self, now: Instant, datagram: Datagram<'a>) -> TurnReceived<'a> {
        let ours = datagram.source == self.server && datagram.socket == SocketIndex::MAIN;
        let received = if ours && self.state != State::Done {
            self.read(now, datagram.bytes)
        } else {
            TurnReceived::Ignored
        };
        self.stats.ignored += u64::from(received == TurnReceived::Ignored);
        received
    }

    /// The system says that nobody listens at the server's address (an ICMP message). Forged ones are of no use, since
    /// only a refresh that fails as well ends the allocation.
    pub fn handle_unreachable(&mut self, now: Instant) {
        self.unreachable += 1;
        if self.unreachable >= MAX_UNREACHABLE && self.asks_for_life() {
            self.fail(TurnFailure::Unreachable);
        } else if matches!(self.state, State::Allocated { .. }) && !self.asks_for_life() {
            self.begin(now, Request::Refresh, 0);
        }
    }

    /// The stream to the server failed or ended, and with it the allocation.
    pub fn handle_disconnected(&mut self) {
        self.fail(TurnFailure::Disconnected);
    }

    /// The stream to the server that it referred us to stands.
    pub fn handle_reconnected(&mut self, now: Instant) {
        if self.state == State::Redirected {
            self.state = State::Allocating;
            self.begin(now, Request::Allocate { v6: self.family == AddressFamily::V6 }, 0);
        }
    }

    /// Gives the allocation back. Ends with [`TurnEvent::Closed`], within 750 ms whatever the server does.
    pub fn close(&mut self, now: Instant) {
        let asked = self.transactions.iter().any(|transaction| transaction.signed);
        match self.state {
            State::Allocated { .. } | State::Allocating if asked || self.relayed_address().is_some() => {
                self.transactions.clear();
                self.state = State::Closing;
                self.begin(now, Request::Release, 0);
            }
            State::Allocated { .. } | State::Allocating | State::Redirected => self.end(TurnEvent::Closed),
            State::Closing | State::Done => {}
        }
    }

    fn check_peer(&self, peer: IpAddr) -> Result<(), TurnSendError> {
        self.relayed_address().ok_or(TurnSendError::NotAllocated)?;
        if peer.is_ipv4() != (self.family == AddressFamily::V4) {
            return Err(TurnSendError::Family);
        }
        Ok(())
    }

    /// Asks for the permissions and channels that are wanted.
    fn ask(&mut self, now: Instant) {
        while let Some(wish) = self.peers.next_wish(now) {
            self.begin(now, Request::Wish(wish), 0);
        }
    }

    /// Sends a request and waits for its answer.
    fn begin(&mut self, now: Instant, request: Request, challenges: u32) {
        let id = TransactionId::draw(&mut self.random);
        let builder = request.attributes(MessageBuilder::new(Class::Request, request.method(), id));
        let signed = self.auth.is_challenged();
        let bytes = if signed { self.auth.sign(builder) } else { builder.finish() };
        let retry = request.retry(now, self.link == TurnLink::Stream);
        self.transactions.push(Transaction::new(id, request, bytes, signed, challenges, retry));
        self.repeat(now);
    }

    /// Sends each request that is due, and gives up those that were sent often enough.
    fn repeat(&mut self, now: Instant) {
        let mut index = 0;
        while let Some(transaction) = self.transactions.get_mut(index) {
            match transaction.poll(now) {
                Due::Send => {
                    let bytes = transaction.bytes.clone();
                    self.transmit(bytes);
                    index += 1;
                }
                Due::Nothing => index += 1,
                Due::GiveUp => {
                    let given_up = self.transactions.remove(index);
                    self.give_up(now, &given_up);
                }
            }
        }
    }

    fn transmit(&mut self, bytes: Vec<u8>) {
        self.transmits.push_back(Transmit {
            socket: SocketIndex::MAIN,
            destination: self.server,
            bytes,
            hops: None,
        });
    }

    /// Whether a request is under way without whose answer all is over.
    fn asks_for_life(&self) -> bool {
        let vital =
            |request| matches!(request, Request::Allocate { .. } | Request::Refresh | Request::Release);
        self.transactions.iter().any(|transaction| vital(transaction.request))
    }

    fn fail(&mut self, failure: TurnFailure) {
        tracing::debug!(server = %self.server, %failure, "no relay");
        let closing = self.state == State::Closing;
        self.end(if closing { TurnEvent::Closed } else { TurnEvent::Failed(failure) });
    }

    fn end(&mut self, event: TurnEvent) {
        if self.state != State::Done {
            self.state = State::Done;
            self.transactions.clear();
            self.events.push_back(event);
        }
    }
}

impl Machine for TurnClient {
    type Event = TurnEvent;

    fn handle_datagram(&mut self, now: Instant, datagram: Datagram<'_>) {
        if let TurnReceived::Data { peer, payload } = self.receive(now, datagram) {
            if self.waiting >= MAX_DATA {
                self.stats.overflowed += 1;
            } else {
                self.waiting += 1;
                self.events.push_back(TurnEvent::Data { peer, bytes: payload.to_vec() });
            }
        }
    }

    fn handle_timeout(&mut self, now: Instant) {
        self.repeat(now);
        let State::Allocated { refresh, end, probe, .. } = self.state else { return };
        if end <= now {
            return self.fail(TurnFailure::Lost);
        }
        if refresh <= now && !self.asks_for_life() {
            self.begin(now, Request::Refresh, 0);
        }
        if probe <= now {
            self.postpone_probe(now);
            if self.transactions.iter().all(|transaction| transaction.request != Request::Probe) {
                self.begin(now, Request::Probe, 0);
            }
        }
        self.ask(now);
    }

    fn poll_transmit(&mut self) -> Option<Transmit> {
        self.transmits.pop_front()
    }

    fn poll_timeout(&self) -> Option<Instant> {
        let repeat = self.transactions.iter().map(Transaction::timeout).min();
        let State::Allocated { refresh, end, probe, .. } = self.state else { return repeat };
        let refresh = if self.asks_for_life() { end } else { refresh };
        [repeat, Some(refresh), Some(probe), self.peers.timeout()].into_iter().flatten().min()
    }

    fn poll_event(&mut self) -> Option<TurnEvent> {
        let event = self.events.pop_front();
        self.waiting -= usize::from(matches!(event, Some(TurnEvent::Data { .. })));
        event
    }
}

/// Packets and requests that wait to be sent.
const MAX_TRANSMITS: usize = 256;

/// Packets of peers that wait to be taken.
const MAX_DATA: usize = 256;

/// How often nobody may be there before that is believed of a request on which all depends.
const MAX_UNREACHABLE: u32 = 3;

/// NATs forget a flow of datagrams after half a minute without a packet.
const PROBE_PERIOD: Duration = Duration::from_secs(25);

#[cfg(test)]
mod tests;
