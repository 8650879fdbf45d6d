use std::net::SocketAddr;
use std::time::Instant;

use super::{Answers, ENOUGH, MapFailure, Mapper, Mapping};
use crate::protocol::stun::client::{binding_request, read_answer};
use crate::protocol::stun::{Message, StunClient, StunEvent, TransactionId};
use crate::protocol::{Random, Seed};

/// What [`Mapper`] is for a UDP socket, for a TCP port: one connection to each server carries one question.
#[derive(Debug)]
pub(crate) struct StreamMapper {
    questions: Vec<(SocketAddr, TransactionId)>,
    answers: Answers,
    end: Option<Instant>,
}

impl StreamMapper {
    pub(crate) fn new(servers: &[SocketAddr], seed: Seed) -> Self {
        let mut random = Random::new(seed);
        let mut questions: Vec<(SocketAddr, TransactionId)> = Vec::new();
        for server in servers {
            if questions.len() < StunClient::MAX_SERVERS && questions.iter().all(|(known, _)| known != server)
            {
                questions.push((*server, TransactionId::draw(&mut random)));
            }
        }
        let pending = questions.iter().map(|(server, _)| *server).collect();
        Self { questions, answers: Answers::from_servers(pending), end: None }
    }

    /// The servers to connect to. They go by their place in this list.
    pub(crate) fn servers(&self) -> Vec<SocketAddr> {
        self.questions.iter().map(|(server, _)| *server).collect()
    }

    /// What to send over a connection.
    pub(crate) fn request(&self, index: usize) -> Vec<u8> {
        binding_request(self.questions[index].1, None)
    }

    /// Takes in the message that a server sent.
    pub(crate) fn handle_answer(&mut self, now: Instant, index: usize, bytes: &[u8]) {
        let (server, transaction) = self.questions[index];
        let message = Message::decode(bytes).ok().filter(|message| message.transaction() == transaction);
        let Some((message, outcome)) = message.and_then(|message| Some((message, read_answer(&message)?)))
        else {
            return self.handle_end(index);
        };
        self.answers.take(match outcome {
            Ok(address) => StunEvent::Mapped { server, address, other: message.other_address() },
            Err(failure) => StunEvent::Failed { server, failure },
        });
        if self.answers.seen.len() >= ENOUGH {
            let end = now + Mapper::GRACE;
            self.end = Some(self.end.map_or(end, |known| known.min(end)));
        }
    }

    /// A connection failed, or ended without a whole answer.
    pub(crate) fn handle_end(&mut self, index: usize) {
        let (server, _) = self.questions[index];
        if self.answers.pending.contains(&server) {
            self.answers.pending.retain(|pending| *pending != server);
            self.answers.failures.push(MapFailure::Connection { server });
        }
    }

    /// Whether there is nothing more to wait for.
    pub(crate) fn is_done(&self, now: Instant) -> bool {
        self.answers.pending.is_empty() || self.end.is_some_and(|end| now >= end)
    }

    /// When to ask [`is_done`](Self::is_done) again if nothing happens before.
    pub(crate) const fn poll_timeout(&self) -> Option<Instant> {
        self.end
    }

    /// What was learned.
    pub(crate) fn conclude(self) -> Mapping {
        self.answers.conclude()
    }
}
