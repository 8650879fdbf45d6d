//! What a [`TurnClient`] makes of the server's messages.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::super::peers::Wish;
use super::super::transaction::{Request, Transaction};
use super::{
    AddressFamily, PROBE_PERIOD, State, TurnClient, TurnEvent, TurnFailure, TurnLink, TurnReceived, channel,
};
use crate::protocol::stun::{Class, Message, Method, attribute};

impl TurnClient {
    pub(super) fn read<'a>(&mut self, now: Instant, bytes: &'a [u8]) -> TurnReceived<'a> {
        if channel::is_channel_data(bytes) {
            let decoded = channel::decode(bytes);
            let peer = decoded.and_then(|(channel, payload)| Some((self.peers.named(channel)?, payload)));
            return peer
                .map_or(TurnReceived::Ignored, |(peer, payload)| TurnReceived::Data { peer, payload });
        }
        let Ok(message) = Message::decode(bytes) else { return TurnReceived::Ignored };
        match message.class() {
            Class::Success | Class::Error if self.handle_answer(now, &message) => TurnReceived::Handled,
            Class::Indication if message.method() == Method::DATA => {
                let peer = message.xor_address(attribute::XOR_PEER_ADDRESS);
                let peer = peer.filter(|peer| self.peers.is_permitted(peer.ip()));
                match (peer, message.find(attribute::DATA)) {
                    (Some(peer), Some(data)) => TurnReceived::Data { peer, payload: data.value },
                    _ => TurnReceived::Ignored,
                }
            }
            _ => TurnReceived::Ignored,
        }
    }

    /// Takes in an answer; false if it is none to any request, or cannot be believed.
    fn handle_answer(&mut self, now: Instant, message: &Message<'_>) -> bool {
        let asked = |transaction: &Transaction| {
            transaction.id == message.transaction() && transaction.request.method() == message.method()
        };
        let Some(index) = self.transactions.iter().position(asked) else { return false };
        let code = (message.class() == Class::Error).then(|| message.error_code().unwrap_or(0));
        let challenged = matches!(code, Some(401 | 438));
        if self.transactions[index].signed && !challenged && !self.auth.verifies(message) {
            // Over datagrams anyone who saw the request could have sent this, and the true answer may follow (RFC 8489,
            // section 9.2.5). Nobody slips a message into a stream without being able to cut it as well.
            self.transactions[index].hint = Some(code.unwrap_or(0));
            if self.link == TurnLink::Stream {
                let ended = self.transactions.remove(index);
                self.fail_request(now, &ended, unverified(code.unwrap_or(0)));
            }
            return self.link == TurnLink::Stream;
        }
        let transaction = self.transactions.remove(index);
        self.unreachable = 0;
        self.postpone_probe(now);
        match code {
            None => self.handle_success(now, transaction.request, message),
            Some(code @ (401 | 438)) => self.handle_challenge(now, &transaction, code, message),
            Some(300) => self.handle_redirect(now, &transaction, message),
            // The server has forgotten us, by a restart mostly.
            Some(437)
                if matches!(transaction.request, Request::Refresh | Request::Probe | Request::Wish(_)) =>
            {
                self.fail(TurnFailure::Lost);
            }
            Some(code) => self.fail_request(now, &transaction, TurnFailure::Refused(code)),
        }
        true
    }

    fn handle_success(&mut self, now: Instant, request: Request, message: &Message<'_>) {
        let lifetime = lifetime(message);
        self.served = Some(now);
        match request {
            Request::Allocate { .. } => {
                let relayed = message.xor_address(attribute::XOR_RELAYED_ADDRESS);
                let v4 = self.family == AddressFamily::V4;
                let relayed = relayed.filter(|at| at.is_ipv4() == v4 && at.port() != 0);
                let Some(relayed) = relayed.filter(|_| !lifetime.is_zero()) else {
                    return self.fail(TurnFailure::BadAnswer);
                };
                tracing::debug!(server = %self.server, %relayed, ?lifetime, "a relay");
                self.set_allocated(now, relayed, lifetime);
                self.events.push_back(TurnEvent::Allocated { relayed, mapped: message.mapped_address() });
            }
            Request::Refresh | Request::Probe if lifetime.is_zero() => self.fail(TurnFailure::Lost),
            Request::Refresh | Request::Probe => {
                if let Some(relayed) = self.relayed_address() {
                    self.set_allocated(now, relayed, lifetime);
                }
            }
            Request::Release => self.end(TurnEvent::Closed),
            Request::Wish(wish) => {
                self.peers.grant(now, wish);
                if let Wish::Bind(peer, _) = wish {
                    // A channel brings a permission along (RFC 8656, section 12.1).
                    self.peers.grant(now, Wish::Permit(peer.ip()));
                }
            }
        }
    }

    fn set_allocated(&mut self, now: Instant, relayed: SocketAddr, lifetime: Duration) {
        let refresh = now + (lifetime / 2).max(SHORTEST_HALF_LIFE);
        let probe = now + PROBE_PERIOD;
        self.state = State::Allocated { relayed, refresh, end: now + lifetime, probe };
    }

    pub(super) fn postpone_probe(&mut self, now: Instant) {
        if let State::Allocated { probe, .. } = &mut self.state {
            *probe = now + PROBE_PERIOD;
        }
    }

    /// The server wants the request signed, or with a nonce of today.
    fn handle_challenge(
        &mut self,
        now: Instant,
        transaction: &Transaction,
        code: u16,
        message: &Message<'_>,
    ) {
        // A request that was signed after a challenge and is challenged again was signed with a wrong password.
        if code == 401 && transaction.signed && transaction.challenges > 0 {
            return self.fail_request(now, transaction, TurnFailure::WrongCredentials);
        }
        if transaction.challenges >= MAX_CHALLENGES {
            return self.fail_request(now, transaction, TurnFailure::Challenges);
        }
        match self.auth.take_challenge(message) {
            Ok(()) => self.begin(now, transaction.request, transaction.challenges + 1),
            Err(failure) => self.fail_request(now, transaction, failure),
        }
    }

    /// The server refers us to another one (RFC 8489, section 10).
    fn handle_redirect(&mut self, now: Instant, transaction: &Transaction, message: &Message<'_>) {
        let other = message.plain_address(attribute::ALTERNATE_SERVER);
        let usable = |at: &SocketAddr| {
            let nowhere = at.ip().is_unspecified() || at.ip().is_multicast() || at.port() == 0;
            at.is_ipv4() == self.server.is_ipv4() && !nowhere
        };
        let first = matches!(transaction.request, Request::Allocate { .. });
        let Some(other) = other.filter(usable).filter(|_| first) else {
            return self.fail_request(now, transaction, TurnFailure::Refused(300));
        };
        self.visited.push(self.server);
        if self.visited.contains(&other) || self.visited.len() > MAX_REDIRECTS {
            return self.fail(TurnFailure::Redirects);
        }
        tracing::debug!(from = %self.server, to = %other, "referred to another TURN server");
        self.server = other;
        self.auth.forget();
        self.events.push_back(TurnEvent::Redirected(other));
        if self.link == TurnLink::Stream {
            self.state = State::Redirected;
        } else {
            self.begin(now, transaction.request, 0);
        }
    }

    /// Nobody has answered a request.
    pub(super) fn give_up(&mut self, now: Instant, transaction: &Transaction) {
        match transaction.request {
            // Too few sendings to be sure that it is gone.
            Request::Probe => {
                if !self.asks_for_life() {
                    self.begin(now, Request::Refresh, 0);
                }
            }
            _ => {
                let unanswered = TurnFailure::NoAnswer(transaction.sent());
                self.fail_request(now, transaction, transaction.hint.map_or(unanswered, unverified));
            }
        }
    }

    fn fail_request(&mut self, now: Instant, transaction: &Transaction, failure: TurnFailure) {
        match transaction.request {
            Request::Allocate { .. } | Request::Refresh => self.fail(failure),
            Request::Release => self.end(TurnEvent::Closed),
            Request::Wish(wish) => {
                self.peers.refuse(now, wish, failure);
                if self.events.len() < MAX_EVENTS {
                    self.events.push_back(TurnEvent::PeerRefused { peer: wish.ip(), failure });
                }
            }
            Request::Probe => {}
        }
    }
}

/// What an answer that may be forged says.
const fn unverified(code: u16) -> TurnFailure {
    if code == 0 { TurnFailure::Unsigned } else { TurnFailure::Refused(code) }
}

/// For how long the server keeps the allocation.
fn lifetime(message: &Message<'_>) -> Duration {
    let value = message.find(attribute::LIFETIME).and_then(|found| <[u8; 4]>::try_from(found.value).ok());
    let seconds = value.map_or(DEFAULT_LIFETIME_SECONDS, u32::from_be_bytes);
    Duration::from_secs(u64::from(seconds.min(MAX_LIFETIME_SECONDS)))
}

/// RFC 8656, section 7.2.
const DEFAULT_LIFETIME_SECONDS: u32 = 600;

/// Whatever a server promises, it is asked again within half an hour.
const MAX_LIFETIME_SECONDS: u32 = 3_600;

/// A server that grants a second does not make us ask twice a second.
const SHORTEST_HALF_LIFE: Duration = Duration::from_secs(5);

/// A nonce that has become stale is replaced once, by a server whose clock jumps twice.
const MAX_CHALLENGES: u32 = 4;

/// A server refers to one that has room, which may refer once more.
const MAX_REDIRECTS: usize = 3;

/// Refusals beyond are not told: there is one for each peer and channel.
const MAX_EVENTS: usize = 1_024;
