use std::{
    collections::BTreeMap,
    time::{Duration, Instant, SystemTime},
};

use crust::PublicKey;
use serde::{Deserialize, Serialize};

use super::{Application, Traffic};
use crate::protocol::mesh::{Counters, Event, Mesh, SendError};

/// Sends each peer numbered messages at a steady rate, and checks what comes.
#[derive(Debug)]
pub struct Load {
    settings: LoadSettings,
    /// When all peers were up for the first time.
    began: Option<Instant>,
    next: Option<Instant>,
    peers: BTreeMap<PublicKey, Seen>,
    message: Vec<u8>,
    report: Report,
    latencies: Vec<u32>,
    over: bool,
}

/// What a [`Load`] does.
#[derive(Debug, Clone, Copy)]
pub struct LoadSettings {
    /// How many peers to wait for.
    pub peers: usize,
    /// For how long to send.
    pub time: Duration,
    /// From message to message, of each peer.
    pub every: Duration,
    /// Bytes of each.
    pub size: usize,
}

/// What one node has seen. Times are in microseconds.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "each says it")]
pub struct Report {
    pub sent: u64,
    pub received: u64,
    pub lost: u64,
    pub reordered: u64,
    /// Messages that a full queue refused.
    pub refused: u64,
    pub p50: u32,
    pub p99: u32,
    /// From the start until all peers were up, in milliseconds.
    pub full_after: u64,
    /// Who was found gone, why, and how long after this node's last message of it, in milliseconds.
    pub downs: Vec<(String, u64)>,
    pub hellos: (u64, u64),
    pub acks: (u64, u64),
    /// Bytes written and read, as counted here and by the stack.
    pub traffic: [u64; 4],
}

#[derive(Debug, Default)]
struct Seen {
    sent: u64,
    received: u64,
    heard_at: Option<Instant>,
}

impl Load {
    /// Waits for all peers, then begins.
    #[must_use]
    pub fn new(now: Instant, settings: LoadSettings) -> Self {
        let size = settings.size.max(HEAD);
        Self {
            settings,
            began: None,
            next: Some(now + PATIENCE),
            peers: BTreeMap::new(),
            message: vec![0x5a; size],
            report: Report { full_after: millis_since_epoch(), ..Report::default() },
            latencies: Vec::new(),
            over: false,
        }
    }

    /// The result, once it is over.
    #[must_use]
    pub fn report(mut self, counters: Counters, traffic: Traffic) -> Report {
        self.latencies.sort_unstable();
        let share = |percent: usize| self.latencies.get(self.latencies.len() * percent / 100).copied();
        Report {
            p50: share(50).unwrap_or(0),
            p99: share(99).unwrap_or(0),
            hellos: (counters.hellos_sent, counters.hellos_received),
            acks: (counters.acks_sent, counters.acks_received),
            traffic: [traffic.written, traffic.read, traffic.stack_sent, traffic.stack_received],
            ..self.report
        }
    }

    fn hear(&mut self, now: Instant, peer: PublicKey, message: &[u8]) {
        let Some((head, _)) = message.split_first_chunk::<HEAD>() else { return };
        let number = |at: usize| head[at..at + 8].iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte));
        let (last, seq, sent_at) = (head[0] != 0, number(1), number(9));
        let seen = self.peers.entry(peer).or_default();
        seen.heard_at = Some(now);
        if last {
            self.report.lost += seq.saturating_sub(seen.received);
            return;
        }
        self.report.received += 1;
        if seq <= seen.received {
            self.report.reordered += 1;
            return;
        }
        self.report.lost += seq - seen.received - 1;
        seen.received = seq;
        let micros = micros_since_epoch().saturating_sub(sent_at);
        self.latencies.push(u32::try_from(micros).unwrap_or(u32::MAX));
    }

    fn send_round(&mut self, now: Instant, mesh: &mut Mesh, last: bool) {
        for peer in mesh.up().collect::<Vec<_>>() {
            let seen = self.peers.entry(peer).or_default();
            let number = if last { seen.sent } else { seen.sent + 1 };
            self.message[0] = u8::from(last);
            self.message[1..9].copy_from_slice(&number.to_be_bytes());
            self.message[9..HEAD].copy_from_slice(&micros_since_epoch().to_be_bytes());
            match mesh.send(now, peer, &self.message) {
                Ok(()) if !last => {
                    seen.sent = number;
                    self.report.sent += 1;
                }
                Ok(()) => {}
                Err(SendError::Full) => self.report.refused += 1,
                Err(_) => {}
            }
        }
    }
}

impl Application for Load {
    fn handle_event(&mut self, now: Instant, event: Event, mesh: &mut Mesh) {
        match event {
            Event::Up { .. } => {
                if self.began.is_none() && mesh.up().count() == self.settings.peers {
                    self.report.full_after = millis_since_epoch() - self.report.full_after;
                    self.began = Some(now);
                    self.next = Some(now + SETTLE);
                }
            }
            Event::Message { peer, message } => self.hear(now, peer, &message),
            Event::Down { peer, reason } => {
                let seen = self.peers.remove(&peer).and_then(|seen| seen.heard_at);
                let silent = seen.map_or(0, |at| (now - at).as_millis() as u64);
                // At the end everyone leaves.
                if self.began.is_some_and(|at| now < at + SETTLE + self.settings.time) {
                    self.report.downs.push((reason.to_string(), silent));
                }
            }
        }
    }

    fn handle_timeout(&mut self, now: Instant, mesh: &mut Mesh) {
        let (Some(began), Some(next)) = (self.began, self.next) else {
            self.over = true; // the group never came together
            return;
        };
        let end = began + SETTLE + self.settings.time;
        if now >= end + DRAIN {
            self.over = true;
        } else if next >= end {
            self.send_round(now, mesh, true);
            self.next = Some(end + DRAIN);
        } else {
            self.send_round(now, mesh, false);
            self.next = Some(next + self.settings.every);
        }
    }

    fn poll_timeout(&self) -> Option<Instant> {
        self.next
    }

    fn is_over(&self) -> bool {
        self.over
    }
}

/// The clock that all processes of a machine share.
fn micros_since_epoch() -> u64 {
    let time = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

fn millis_since_epoch() -> u64 {
    micros_since_epoch() / 1_000
}

/// Whether it is the last, its number, and when it was sent.
const HEAD: usize = 17;
/// How long to wait for the group.
const PATIENCE: Duration = Duration::from_secs(30);
/// From the moment this node sees all to its first message: others may see it a little later.
const SETTLE: Duration = Duration::from_millis(500);
/// From the last message to the end, so that those of others arrive.
const DRAIN: Duration = Duration::from_millis(1_500);
