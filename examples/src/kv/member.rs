use std::{
    collections::{BTreeMap, VecDeque},
    fmt::Display,
    io::{self, Write},
    sync::Arc,
    time::{Duration, Instant},
};

use crust::{Endpoint, PublicKey};

use super::{Capture, Crew, MAX_LINE, Told};
use crate::{
    complaints::Complaints,
    lines::Line,
    mesh::{Application, Group, micros_since_epoch},
    protocol::{
        kv::{ApiInput, GateInput, Item, NetworkOutput, Reference},
        mesh::{Event, LinkId, Mesh},
    },
};

/// The services between the mesh and the user.
pub(super) struct Member<R: Reference, W> {
    crew: Crew<R>,
    group: Arc<Group>,
    output: W,
    links: BTreeMap<PublicKey, Up>,
    /// Nodes that were dialled to bring them an answer only: they are no neighbours.
    visited: BTreeMap<PublicKey, Visit>,
    /// How often a neighbour's stream has ended before it had proved who it is, in a row.
    failures: BTreeMap<PublicKey, u32>,
    complaints: Complaints,
    capture: Option<Capture>,
    /// Messages and lines that were not taken, as there was too much to do.
    dropped: u64,
    ended: bool,
    result: io::Result<()>,
}

/// A stream that takes messages.
struct Up {
    link: LinkId,
    /// Its other end has proved who it is.
    online: bool,
}

struct Visit {
    /// When it is over.
    until: Instant,
    /// Messages that wait until it has proved who it is.
    held: VecDeque<Vec<u8>>,
}

impl<R: Reference, W: Write> Member<R, W> {
    pub(super) fn new(crew: Crew<R>, group: Arc<Group>, output: W, capture: Option<Capture>) -> Self {
        Self {
            crew,
            group,
            output,
            links: BTreeMap::new(),
            visited: BTreeMap::new(),
            failures: BTreeMap::new(),
            complaints: Complaints::default(),
            capture,
            dropped: 0,
            ended: false,
            result: Ok(()),
        }
    }

    /// Lets go of everything but the output.
    pub(super) fn end(self) -> io::Result<W> {
        self.result.map(|()| self.output)
    }

    /// Dials a neighbour until it is there.
    pub(super) fn connect(&mut self, now: Instant, mesh: &mut Mesh, endpoint: Endpoint) {
        if endpoint.public_key() == mesh.me() {
            return self.say("error: that is this node itself");
        }
        self.group.add(endpoint);
        self.failures.remove(&endpoint.public_key());
        self.visited.remove(&endpoint.public_key());
        mesh.dial_peer(now, endpoint.public_key());
    }

    /// Takes what another thread has to tell.
    pub(super) fn hear(&mut self, now: Instant, mesh: &mut Mesh, told: Told<R>) {
        let micros = micros_since_epoch();
        match told {
            Told::Line(Line::Whole(line)) => {
                let line = String::from_utf8(line).map_err(|_| "a command is text".to_owned());
                self.give_if_room(Item::Api(ApiInput::Line { line, micros }));
            }
            Told::Line(Line::TooLong) => {
                let line = Err(format!("a line has at most {MAX_LINE} bytes"));
                self.give_if_room(Item::Api(ApiInput::Line { line, micros }));
            }
            Told::End => self.crew.give(Item::Api(ApiInput::End)),
            Told::Done(batch) => {
                let taken = self.crew.take(batch);
                self.keep_error(taken);
            }
        }
        self.settle(now, mesh);
    }

    /// Hands on what comes from outside, unless there is more to do than can be done.
    fn give_if_room(&mut self, item: Item<R>) {
        if self.crew.waiting() < MAX_WAITING {
            self.crew.give(item);
        } else {
            self.dropped += 1;
            if matches!(item, Item::Api(_)) {
                self.say("error: there is too much to do: say it again later");
            }
        }
    }

    fn settle(&mut self, now: Instant, mesh: &mut Mesh) {
        loop {
            match self.crew.settle(now) {
                Ok(items) if items.is_empty() => return,
                Ok(items) => items.into_iter().for_each(|item| match item {
                    Item::Network(output) => self.act(now, mesh, output),
                    Item::User(line) => self.say(&line),
                    other => self.crew.give(other),
                }),
                Err(error) => return self.keep_error(Err(error)),
            }
        }
    }

    fn act(&mut self, now: Instant, mesh: &mut Mesh, output: NetworkOutput) {
        match output {
            NetworkOutput::Send { to, contact: Some(contact), bytes } if !self.is_online(to) => {
                self.visit(now, mesh, to, &contact, bytes);
            }
            NetworkOutput::Send { to, bytes, .. } => {
                // What is lost here is missed by whoever waits for it, at the end of the query's life.
                self.transmit(now, mesh, to, &bytes);
            }
            NetworkOutput::Online { peer, link } => self.welcome(now, mesh, peer, link),
            NetworkOutput::Refuse { peer, link, why } => {
                if self.links.get(&peer).is_some_and(|up| up.link == link) {
                    self.complain(now, peer, "is sent away", &why);
                    self.forget(now, mesh, peer);
                }
            }
            NetworkOutput::Odd { peer, what } => self.complain(now, peer, "is not understood", &what),
            NetworkOutput::Connect(text) => match text.parse() {
                Ok(endpoint) => {
                    self.say(&format!("dialling {text}"));
                    self.connect(now, mesh, endpoint);
                }
                Err(error) => self.say(&format!("error: {text:?} is no endpoint: {error}")),
            },
            NetworkOutput::Count { request } => {
                let counts = vec![
                    ("links", mesh.links().count() as u64),
                    ("visited", self.visited.len() as u64),
                    ("dropped", self.dropped),
                ];
                self.crew.give(Item::Api(ApiInput::Counted { request, counts }));
            }
            NetworkOutput::Done => self.ended = true,
        }
    }

    fn is_online(&self, peer: PublicKey) -> bool {
        self.links.get(&peer).is_some_and(|up| up.online)
    }

    /// Dials a node to bring it an answer, over a stream that is for nothing else.
    fn visit(&mut self, now: Instant, mesh: &mut Mesh, to: PublicKey, contact: &str, bytes: Vec<u8>) {
        let endpoint = contact.parse::<Endpoint>().ok().filter(|endpoint| endpoint.public_key() == to);
        let room = self.visited.len() < MAX_VISITS
            && self.visited.get(&to).is_none_or(|visit| visit.held.len() < MAX_HELD);
        let (Some(endpoint), true) = (endpoint, room && to != mesh.me()) else {
            self.dropped += 1;
            return;
        };
        let visit = self.visited.entry(to).or_insert(Visit { until: now + VISIT, held: VecDeque::new() });
        visit.until = now + VISIT;
        visit.held.push_back(bytes);
        self.group.add(endpoint);
        mesh.dial_peer(now, to);
    }

    fn welcome(&mut self, now: Instant, mesh: &mut Mesh, peer: PublicKey, link: LinkId) {
        let Some(up) = self.links.get_mut(&peer).filter(|up| up.link == link) else { return };
        up.online = true;
        self.failures.remove(&peer);
        if let Some(visit) = self.visited.get_mut(&peer) {
            visit.until = now + VISIT;
            for bytes in std::mem::take(&mut visit.held) {
                self.transmit(now, mesh, peer, &bytes);
            }
        }
    }

    fn transmit(&mut self, now: Instant, mesh: &mut Mesh, to: PublicKey, bytes: &[u8]) {
        self.note("to", to, bytes);
        self.dropped += u64::from(mesh.send(now, to, bytes).is_err());
    }

    /// Writes down what goes over a stream, if the user wants that.
    fn note(&mut self, direction: &str, peer: PublicKey, bytes: &[u8]) {
        if let Some(capture) = &mut self.capture {
            let noted = capture.note(direction, peer, bytes);
            self.keep_error(noted);
        }
    }

    fn forget(&mut self, now: Instant, mesh: &mut Mesh, peer: PublicKey) {
        self.visited.remove(&peer);
        self.failures.remove(&peer);
        self.group.remove(&peer);
        mesh.remove_peer(now, peer);
    }

    /// A stream that ends again and again before its other end has said who it is, is not worth dialling.
    fn count_failure(&mut self, now: Instant, mesh: &mut Mesh, peer: PublicKey) {
        if !mesh.dials(peer) {
            return;
        }
        let failures = self.failures.entry(peer).or_default();
        *failures += 1;
        if *failures >= MAX_FAILURES {
            self.complain(now, peer, "is given up", &"it does not let this node in");
            self.forget(now, mesh, peer);
        }
    }

    fn say(&mut self, text: &str) {
        let said = writeln!(self.output, "{text}").and_then(|()| self.output.flush());
        self.keep_error(said);
    }

    /// Tells the user on the side, and not too often.
    fn complain(&mut self, now: Instant, peer: PublicKey, what: &'static str, why: &dyn Display) {
        if let Some(line) = self.complaints.line(now, peer, what, why) {
            eprintln!("{line}");
        }
    }

    /// The first error ends the program.
    fn keep_error(&mut self, result: io::Result<()>) {
        if self.result.is_ok() {
            self.result = result;
        }
    }
}

impl<R: Reference, W: Write> Application for Member<R, W> {
    fn handle_event(&mut self, now: Instant, event: Event, mesh: &mut Mesh) {
        match event {
            Event::Up { peer, .. } => {
                // It may have been replaced since, by one that is known already.
                if let Some((link, binding)) = mesh.binding(peer)
                    && self.links.get(&peer).is_none_or(|up| up.link != link)
                {
                    let neighbour = !self.visited.contains_key(&peer);
                    self.links.insert(peer, Up { link, online: false });
                    self.crew.give(Item::Gate(GateInput::Up { peer, link, binding, neighbour }));
                }
            }
            Event::Down { peer, .. } => {
                // If its stream was replaced, the new one goes on.
                let present = mesh.binding(peer).map(|(link, _)| link);
                let gone = self.links.get(&peer).is_some_and(|up| Some(up.link) != present);
                if let Some(up) = gone.then(|| self.links.remove(&peer)).flatten() {
                    self.crew.give(Item::Gate(GateInput::Down { peer, link: up.link }));
                    if !up.online {
                        self.count_failure(now, mesh, peer);
                    }
                }
            }
            // Nodes that others have named are nothing to the user.
            Event::Unreached { peer, .. } if self.visited.contains_key(&peer) => {}
            Event::Unreached { peer, why } => eprintln!("{peer} is not reached: {why}"),
            Event::Message { peer, message: bytes } => {
                self.note("from", peer, &bytes);
                if let Some(link) = self.links.get(&peer).map(|up| up.link) {
                    self.give_if_room(Item::Gate(GateInput::Received { peer, link, bytes }));
                }
            }
        }
        self.settle(now, mesh);
    }

    fn handle_timeout(&mut self, now: Instant, mesh: &mut Mesh) {
        self.crew.handle_timeout(now);
        let over: Vec<PublicKey> =
            self.visited.iter().filter(|(_, visit)| visit.until <= now).map(|(peer, _)| *peer).collect();
        for peer in over {
            self.forget(now, mesh, peer);
        }
        self.settle(now, mesh);
    }

    fn poll_timeout(&self) -> Option<Instant> {
        self.visited.values().map(|visit| visit.until).chain(self.crew.poll_timeout()).min()
    }

    fn is_over(&self) -> bool {
        self.result.is_err() || self.ended
    }
}

/// What may wait for workers before more from outside is left out.
const MAX_WAITING: usize = 4_096;
/// Nodes that are visited at a time, and messages that wait for each.
const MAX_VISITS: usize = 64;
const MAX_HELD: usize = 64;
/// How long a visit lasts, so that further answers find the stream.
const VISIT: Duration = Duration::from_secs(5);
const MAX_FAILURES: u32 = 5;
