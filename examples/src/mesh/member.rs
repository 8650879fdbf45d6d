//! One node as a program: commands come on its input, a line each, and what happens goes to its output, a line of JSON each.

use std::{
    collections::BTreeMap,
    io::{self, BufRead, Write},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use crossbeam::channel::bounded;
use crust::{Endpoint, Identity, IdentityFile, PublicKey};
use transport::StreamSet;

use super::{
    Application, Group, Traffic,
    load::{Arrivals, HEAD, Load, micros_since_epoch},
    one_thread,
    report::{Line, Loaded, PeerReport, Report},
    two_threads,
};
use crate::{
    lines::{self, read_lines},
    protocol::mesh::{Event, MAX_MESSAGE, Mesh, Settings},
};

/// How a node begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemberSettings {
    /// One thread for all peers, or two a peer.
    pub one_thread: bool,
    /// What it calls itself; the beginning of its key if it does not say.
    pub name: Option<String>,
    /// The file with its key, which is made if it is not there; without one its key is new.
    pub key: Option<String>,
    /// Where it listens.
    pub listen: String,
    /// After this long a silence a peer is dead.
    pub timeout: Duration,
}

impl Default for MemberSettings {
    fn default() -> Self {
        let listen = "tcp://127.0.0.1:0".to_owned();
        Self { one_thread: false, name: None, key: None, listen, timeout: Settings::default().timeout }
    }
}

impl MemberSettings {
    /// Reads them from the words of a command line.
    ///
    /// # Errors
    ///
    /// When a word is unknown, or one is missing.
    pub fn from_words(words: &[&str]) -> io::Result<Self> {
        let mut settings = Self::default();
        let mut words = words.iter().copied();
        while let Some(word) = words.next() {
            let mut value = || words.next().map(str::to_owned).ok_or_else(|| usage(word));
            match word {
                "two-threads" => settings.one_thread = false,
                "one-thread" => settings.one_thread = true,
                "--name" => settings.name = Some(value()?),
                "--key" => settings.key = Some(value()?),
                "--listen" => settings.listen = value()?,
                "--timeout" => {
                    let seconds = value()?.parse().ok().filter(|seconds| *seconds > 0);
                    settings.timeout = seconds.map(Duration::from_secs).ok_or_else(|| usage(word))?;
                }
                other => return Err(usage(other)),
            }
        }
        Ok(settings)
    }
}

fn usage(word: &str) -> io::Error {
    let usage = "mesh node [two-threads | one-thread] [--name NAME] [--key FILE] [--listen ENDPOINT] [--timeout SECONDS]";
    io::Error::other(format!("at {word:?}: usage: {usage}"))
}

/// Runs a node until `input` ends, and tells what it did in a last line. Commands are `peers ENDPOINT...`, who belongs to the group
/// from now on, and `load SECONDS [PER_SECOND [BYTES]]`; what is none is told on stderr, and stops nobody.
///
/// # Errors
///
/// When the system refuses a socket or a thread, the key cannot be used, or `output` cannot be written to.
pub fn member(
    settings: &MemberSettings,
    input: impl BufRead + Send + 'static,
    output: impl Write,
) -> io::Result<()> {
    let identity = match &settings.key {
        Some(file) => IdentityFile::new(file).load_or_create().map_err(io::Error::other)?,
        None => Identity::generate(),
    };
    let group = Arc::new(Group::open(identity, &settings.listen)?);
    let me = group.transport().public_key();
    let name = settings.name.clone().unwrap_or_else(|| me.to_string()[..8].to_owned());
    let mut mesh = Mesh::new(me, &name, Settings { timeout: settings.timeout, ..Settings::default() });
    let mut member = Member::new(name, Arc::clone(&group), output);
    member.tell(&Line::Listening { endpoint: group.endpoint()?.to_string() });
    let (tell, inputs) = bounded(INPUTS_AHEAD);
    let traffic = if settings.one_thread {
        let set = StreamSet::new(group.transport()).map_err(io::Error::other)?;
        let waker = set.waker();
        thread::spawn(move || {
            read_lines(input, MAX_LINE, |line| {
                let told = tell.send(line).is_ok();
                waker.wake();
                told
            });
        });
        one_thread::run_with(&mut mesh, &mut member, group, set, &inputs, Member::handle_line)?
    } else {
        thread::spawn(move || read_lines(input, MAX_LINE, |line| tell.send(line).is_ok()));
        two_threads::run_with(&mut mesh, &mut member, group, &inputs, Member::handle_line)?
    };
    member.report(&mesh, &traffic);
    member.result
}

/// Tells of peers as they come and go, and sends them load.
struct Member<W> {
    name: String,
    group: Arc<Group>,
    output: W,
    /// What peers call themselves; also those that are gone.
    names: BTreeMap<PublicKey, String>,
    load: Option<Load>,
    arrivals: BTreeMap<PublicKey, Arrivals>,
    ended: bool,
    result: io::Result<()>,
}

impl<W: Write> Member<W> {
    const fn new(name: String, group: Arc<Group>, output: W) -> Self {
        Self {
            name,
            group,
            output,
            names: BTreeMap::new(),
            load: None,
            arrivals: BTreeMap::new(),
            ended: false,
            result: Ok(()),
        }
    }

    fn handle_line(&mut self, now: Instant, mesh: &mut Mesh, line: Option<lines::Line>) {
        let done = match line {
            None => {
                self.ended = true;
                Ok(())
            }
            Some(lines::Line::TooLong) => Err(format!("a line has at most {MAX_LINE} bytes")),
            Some(lines::Line::Whole(line)) => match std::str::from_utf8(&line) {
                Ok(text) => self.command(now, mesh, &text.split_whitespace().collect::<Vec<_>>()),
                Err(_) => Err("a command is text".to_owned()),
            },
        };
        if let Err(error) = done {
            eprintln!("error: {error}");
        }
    }

    fn command(&mut self, now: Instant, mesh: &mut Mesh, words: &[&str]) -> Result<(), String> {
        match words {
            [] => Ok(()),
            ["peers", endpoints @ ..] => {
                let endpoints: Result<Vec<Endpoint>, _> =
                    endpoints.iter().map(|endpoint| endpoint.parse()).collect();
                for endpoint in endpoints.map_err(|error| error.to_string())? {
                    self.group.add(endpoint);
                    mesh.add_peer(now, endpoint.public_key());
                }
                self.tell(&Line::Peers { known: mesh.ledger().count() });
                Ok(())
            }
            ["load", numbers @ ..] => {
                let numbers: Vec<Option<u32>> = numbers.iter().map(|number| number.parse().ok()).collect();
                let (seconds, per_second, bytes) = match numbers[..] {
                    [Some(seconds)] => (seconds, 200, 1 << 10),
                    [Some(seconds), Some(per_second)] => (seconds, per_second, 1 << 10),
                    [Some(seconds), Some(per_second), Some(bytes)] => (seconds, per_second, bytes as usize),
                    _ => return Err(COMMANDS.to_owned()),
                };
                let sizes = HEAD..=MAX_MESSAGE;
                if !(1..=MAX_SECONDS).contains(&seconds)
                    || !(1..=MAX_PER_SECOND).contains(&per_second)
                    || !sizes.contains(&bytes)
                {
                    return Err(format!(
                        "a load is 1 to {MAX_SECONDS} seconds of 1 to {MAX_PER_SECOND} messages of {sizes:?} bytes"
                    ));
                }
                self.arrivals.values_mut().for_each(|arrivals| arrivals.over = false);
                self.load = Some(Load::new(now, Duration::from_secs(seconds.into()), per_second, bytes));
                Ok(())
            }
            _ => Err(COMMANDS.to_owned()),
        }
    }

    /// Tells once when a load is over.
    fn look_at_load(&mut self, mesh: &Mesh) {
        let done = |peer| self.arrivals.get(&peer).is_some_and(|arrivals| arrivals.over);
        if let Some(load) = self.load.take_if(|load| load.is_over() && mesh.up().all(done)) {
            let slowest_send = u64::try_from(load.slowest_send().as_micros()).unwrap_or(u64::MAX);
            let ledger = mesh.ledger().map(|(peer, counters)| (self.name_of(peer), counters)).collect();
            self.tell(&Line::Loaded(Loaded { slowest_send, ledger }));
        }
    }

    fn name_of(&self, peer: PublicKey) -> String {
        self.names.get(&peer).cloned().unwrap_or_else(|| peer.to_string())
    }

    fn report(&mut self, mesh: &Mesh, traffic: &BTreeMap<PublicKey, Traffic>) {
        let peers = mesh.ledger().map(|(peer, counters)| {
            let Arrivals { lost, misplaced, latencies, .. } = self.arrivals.remove(&peer).unwrap_or_default();
            let traffic = traffic.get(&peer).copied().unwrap_or_default();
            (self.name_of(peer), PeerReport { counters, traffic, lost, misplaced, latencies })
        });
        let peers = peers.collect();
        self.tell(&Line::Report(Report { name: self.name.clone(), peers }));
    }

    fn tell(&mut self, line: &Line) {
        let written = serde_json::to_string(line).map_err(io::Error::other);
        let written = written.and_then(|line| writeln!(self.output, "{line}"));
        let written = written.and_then(|()| self.output.flush());
        self.result = std::mem::replace(&mut self.result, Ok(())).and(written);
    }
}

impl<W: Write> Application for Member<W> {
    fn handle_event(&mut self, _: Instant, event: Event, mesh: &mut Mesh) {
        match event {
            Event::Up { peer, name } => {
                self.names.insert(peer, name.clone());
                self.tell(&Line::Up { peer: name, up: mesh.up().count(), at: micros_since_epoch() });
            }
            Event::Down { peer, reason } => {
                if let Some(load) = &mut self.load {
                    load.forget(peer);
                }
                self.arrivals.entry(peer).or_default().forget();
                let (peer, reason) = (self.name_of(peer), reason.to_string());
                self.tell(&Line::Down { peer, reason, at: micros_since_epoch() });
            }
            Event::Unreached { peer, why } => {
                self.tell(&Line::Unreached { peer: peer.to_string(), reason: why });
            }
            Event::Message { peer, message } => self.arrivals.entry(peer).or_default().take(&message),
        }
        self.look_at_load(mesh);
    }

    fn handle_timeout(&mut self, now: Instant, mesh: &mut Mesh) {
        if let Some(load) = &mut self.load {
            load.handle_timeout(now, mesh);
        }
        self.look_at_load(mesh);
    }

    fn poll_timeout(&self) -> Option<Instant> {
        self.load.as_ref().and_then(Load::poll_timeout)
    }

    fn is_over(&self) -> bool {
        self.ended || self.result.is_err()
    }
}

const COMMANDS: &str = "commands are: peers ENDPOINT..., load SECONDS [PER_SECOND [BYTES]]";
/// The endpoints of 256 peers are some 24 KiB.
const MAX_LINE: usize = 64 << 10;
const INPUTS_AHEAD: usize = 16;
/// What a load may ask for.
const MAX_SECONDS: u32 = 3_600;
const MAX_PER_SECOND: u32 = 10_000;
