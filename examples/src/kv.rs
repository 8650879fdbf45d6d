//! Drives [`Kv`] over a mesh of streams, for a user who types.

mod disk;

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{self, BufRead, Write},
    path::Path,
    sync::Arc,
    thread,
    time::{Instant, SystemTime},
};

use crossbeam::channel::{Sender, bounded};
use crust::{Endpoint, PublicKey};

use disk::Disk;

use crate::{
    lines::{Line, Lines},
    mesh::{Application, Group, run_two_threads_with},
    protocol::{
        kv::{Kv, Message, Mode, Query, Record, Settings, Transmit},
        mesh::{Event, Mesh, SendError, Settings as MeshSettings},
    },
};

/// Runs a node that keeps values in this file, or else in memory, dials these others, prints its own endpoint, and then does what `input` says, a command a line, until it
/// ends and every query has its answer.
///
/// # Errors
///
/// When the system gives no socket or thread, or `output` or the file cannot be written to.
pub fn run(
    input: impl BufRead + Send + 'static,
    mut output: impl Write,
    others: Vec<Endpoint>,
    file: Option<&Path>,
) -> io::Result<()> {
    let disk = file.map(Disk::open).transpose()?;
    let group = Arc::new(Group::new()?);
    let endpoint = group.endpoint()?;
    writeln!(output, "{endpoint}")?;
    output.flush()?;
    let me = endpoint.public_key();
    let mut mesh = Mesh::new(me, "kv", MeshSettings { open: true, ..MeshSettings::default() });
    for other in others {
        group.add(other);
        mesh.dial_peer(Instant::now(), other.public_key());
    }
    let (tell, inputs) = bounded(INPUTS_AHEAD);
    thread::spawn(move || read(input, &tell)); // it may sit in a read that nobody can end
    let seed = u64::from_be_bytes(me.as_bytes()[8..16].try_into().expect("8 bytes"));
    let mut member = Member {
        kv: Kv::new(me, &endpoint.to_string(), seed, Settings::default()),
        disk,
        group: Arc::clone(&group),
        output,
        held: BTreeMap::new(),
        answering: BTreeSet::new(),
        asked: BTreeMap::new(),
        ended: false,
        result: Ok(()),
    };
    member.load()?;
    run_two_threads_with(&mut mesh, &mut member, group, &inputs, Member::handle_line)?;
    member.result
}

struct Member<W> {
    kv: Kv,
    disk: Option<Disk>,
    group: Arc<Group>,
    output: W,
    /// Messages for nodes that are being dialled for them.
    held: BTreeMap<PublicKey, Vec<Vec<u8>>>,
    /// Nodes that were dialled to bring them an answer only: they are no neighbours.
    answering: BTreeSet<PublicKey>,
    asked: BTreeMap<u64, (String, Instant)>,
    ended: bool,
    result: io::Result<()>,
}

impl<W: Write> Member<W> {
    /// Takes over what was kept before.
    fn load(&mut self) -> io::Result<()> {
        let Some(disk) = &self.disk else { return Ok(()) };
        for record in disk.records()? {
            if let Err(error) = self.kv.keep(record) {
                eprintln!("a record of the file is left out: {error}");
            }
        }
        while self.kv.poll_kept().is_some() {} // it is in the file
        Ok(())
    }

    /// Writes down what is new. Nobody is told that it is kept before it is.
    fn write_down(&mut self) {
        let kept: Vec<Record> = std::iter::from_fn(|| self.kv.poll_kept()).collect();
        if let (Some(disk), false) = (&self.disk, kept.is_empty()) {
            let written = disk.write(&kept);
            self.result = std::mem::replace(&mut self.result, Ok(())).and(written);
        }
    }

    fn handle_line(&mut self, now: Instant, mesh: &mut Mesh, line: Option<Line>) {
        let said = match line {
            None => {
                self.ended = true;
                Ok(String::new())
            }
            Some(Line::TooLong) => Err(format!("a line has at most {MAX_LINE} bytes")),
            Some(Line::Whole(line)) => match std::str::from_utf8(&line) {
                Ok(text) => self.command(now, text.trim()),
                Err(_) => Err("a command is text".to_owned()),
            },
        };
        self.write_down();
        if self.result.is_ok() {
            self.say(&said.unwrap_or_else(|error| format!("error: {error}")));
        }
        self.pump(now, mesh);
    }

    fn command(&mut self, now: Instant, line: &str) -> Result<String, String> {
        let (verb, rest) = line.split_once(' ').unwrap_or((line, ""));
        match (verb, rest.split_once(' ').unwrap_or((rest, ""))) {
            ("", _) => Ok(String::new()),
            ("keep", (name, value)) if !name.is_empty() => {
                let record = self.sign(name, value)?;
                self.kv.keep(record).map_err(|error| error.to_string())?;
                Ok(format!("{name} is kept here"))
            }
            ("put", (name, value)) if !name.is_empty() => {
                let record = self.sign(name, value)?;
                self.kv.put(&record, COPIES).map_err(|error| error.to_string())?;
                Ok(format!("{name} is put"))
            }
            ("get", (name, mode)) if !name.is_empty() => {
                let mode = match mode {
                    "" | "proxy" => Mode::Proxy,
                    "asynch" => Mode::Asynch,
                    "mix" => Mode::Mix(1),
                    other => return Err(format!("a mode is proxy, asynch or mix, not {other:?}")),
                };
                let query = Query { key: name.to_owned(), mode, hops: HOPS, fan_out: FAN_OUT, wanted: 1 };
                let id = self.kv.find(now, &query);
                self.asked.insert(id, (name.to_owned(), now));
                Ok(String::new())
            }
            ("peers", _) => {
                Ok(self.kv.peers().map(|peer| format!("peer {peer}\n")).collect::<String>() + "end of peers")
            }
            ("counters", _) => Ok(format!("{:?}", self.kv.counters())),
            _ => Err(
                "commands are: put NAME VALUE, keep NAME VALUE, get NAME [proxy|asynch|mix], peers, counters"
                    .to_owned(),
            ),
        }
    }

    fn sign(&self, name: &str, value: &str) -> Result<Record, String> {
        let transport = self.group.transport();
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let version = u64::try_from(since.as_micros()).unwrap_or(u64::MAX);
        let sign = |bytes: &[u8]| transport.sign(bytes);
        Record::new(transport.public_key(), name, value.as_bytes(), version, sign)
            .map_err(|error| error.to_string())
    }

    /// Carries what the node has to say to the mesh and to the user.
    fn pump(&mut self, now: Instant, mesh: &mut Mesh) {
        self.write_down();
        while let Some(Transmit { to, contact, message }) = self.kv.poll_transmit() {
            let bytes = message.to_bytes();
            // Without a contact the message is lost; whoever waits for it learns by the query's lifetime.
            if let (Err(SendError::NotUp), Some(contact)) = (mesh.send(now, to, &bytes), contact) {
                self.hold(now, mesh, to, &contact, bytes);
            }
        }
        while let Some(answer) = self.kv.poll_answer() {
            let Some((name, since)) = self.asked.remove(&answer.query) else { continue };
            let micros = (now - since).as_micros();
            let line = answer.records.first().map_or_else(
                || format!("{name}: not found, in {micros} us"),
                |record| {
                    let value = String::from_utf8_lossy(&record.value);
                    format!("{name} = {value}, by {}, in {micros} us", record.author)
                },
            );
            self.say(&line);
        }
    }

    /// Dials a node to bring it an answer.
    fn hold(&mut self, now: Instant, mesh: &mut Mesh, to: PublicKey, contact: &str, bytes: Vec<u8>) {
        let endpoint = contact.parse::<Endpoint>().ok().filter(|endpoint| endpoint.public_key() == to);
        let room = self.held.len() < MAX_HELD && self.held.get(&to).is_none_or(|held| held.len() < MAX_HELD);
        if let Some(endpoint) = endpoint.filter(|_| room) {
            self.group.add(endpoint);
            self.held.entry(to).or_default().push(bytes);
            self.answering.insert(to);
            mesh.dial_peer(now, to);
        }
    }

    fn say(&mut self, text: &str) {
        if !text.is_empty() {
            let said = writeln!(self.output, "{text}").and_then(|()| self.output.flush());
            self.result = std::mem::replace(&mut self.result, Ok(())).and(said);
        }
    }
}

impl<W: Write> Application for Member<W> {
    fn handle_event(&mut self, now: Instant, event: Event, mesh: &mut Mesh) {
        match event {
            Event::Up { peer, .. } => {
                for bytes in self.held.remove(&peer).unwrap_or_default() {
                    let _ = mesh.send(now, peer, &bytes);
                }
                if !self.answering.contains(&peer) {
                    self.kv.add_peer(peer);
                }
            }
            Event::Down { peer, .. } => {
                self.answering.remove(&peer);
                self.kv.remove_peer(peer);
            }
            Event::Message { peer, message } => match Message::from_bytes(&message) {
                Ok(message) => self.kv.handle_message(now, peer, message),
                Err(error) => eprintln!("{peer}: {error}"),
            },
        }
        self.pump(now, mesh);
    }

    fn handle_timeout(&mut self, now: Instant, mesh: &mut Mesh) {
        self.kv.handle_timeout(now);
        self.pump(now, mesh);
    }

    fn poll_timeout(&self) -> Option<Instant> {
        self.kv.poll_timeout()
    }

    fn is_over(&self) -> bool {
        self.result.is_err() || self.ended && self.asked.is_empty()
    }
}

fn read(input: impl BufRead, tell: &Sender<Option<Line>>) {
    for line in Lines::new(input, MAX_LINE) {
        let Ok(line) = line.inspect_err(|error| eprintln!("cannot read further: {error}")) else { break };
        if tell.send(Some(line)).is_err() {
            return;
        }
    }
    let _ = tell.send(None);
}

/// How many nodes a value is given to.
const COPIES: usize = 3;
/// How far a value is looked for, and how many are asked by each.
const HOPS: u8 = 4;
const FAN_OUT: u8 = 3;
const MAX_LINE: usize = 16 << 10;
const INPUTS_AHEAD: usize = 1_024;
/// Nodes that are dialled for answers at a time, and answers that wait for each.
const MAX_HELD: usize = 64;
