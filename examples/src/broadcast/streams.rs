//! The same node, whose messages to other nodes travel over streams; its clients are still on its two pipes.

use std::{
    collections::BTreeMap,
    io::{self, BufRead, Write},
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::{Duration, Instant},
};

use crossbeam::channel::{Receiver, Sender, bounded};
use crust::{
    Config, ConnectOptions, Contact, Lan, PublicKey, Scheme, Service, ServiceController, ServiceListener,
    SetWaker, Stream, error_chain,
};

use super::{MAX_LINE, run_number, take_line};
use crate::{
    complaints::Complaints,
    lines::{Line, read_lines},
    mesh::{Application, Network, run_one_thread_with},
    protocol::{
        Node,
        maelstrom::{Message, Payload},
        mesh::{Event, MAX_MESSAGE, Mesh, Settings},
    },
};

/// How the nodes of a group find each other.
#[derive(Debug, Clone)]
pub enum Meeting {
    /// By beacons on this machine, at this UDP port.
    Beacons(u16),
    /// By the contacts of nodes that were started before.
    Contacts(Vec<Contact>),
}

/// Runs a node whose neighbours are reached over streams. Its contact is told on stderr, then its clients are served until
/// `input` ends; the first line must be `init`.
///
/// Whoever is at the meeting place belongs to the group: nodes of other groups must meet elsewhere.
///
/// # Errors
///
/// When the service cannot start, or `output` cannot be written to.
pub fn over_streams(
    input: impl BufRead + Send + 'static,
    output: impl Write,
    meeting: &Meeting,
) -> io::Result<()> {
    let config = Config::new().only([Scheme::Tcp]).listen([LOOPBACK.parse().map_err(io::Error::other)?]);
    let config = match meeting {
        Meeting::Beacons(port) => config.lan(Lan::Loopback).lan_port(*port),
        Meeting::Contacts(_) => config.lan(Lan::Off),
    };
    let service = Service::new_from_config(config).map_err(io::Error::other)?;
    let me = service.controller.public_key();
    eprintln!("{}", service.controller.contact()?);
    let set = service.controller.stream_set().map_err(io::Error::other)?;
    let (sender, inputs) = bounded(INPUTS_AHEAD);
    let tell = Tell { sender, waker: set.waker() };
    let lines = tell.clone();
    thread::spawn(move || {
        read_lines(input, MAX_LINE, |line| lines.tell(line.map_or(Input::End, Input::Line)));
    });
    let mut member = Member {
        node: Node::new(run_number()),
        output,
        names: BTreeMap::new(),
        complaints: Complaints::default(),
        result: Ok(false),
    };
    member.start(&inputs);
    let mut mesh = Mesh::new(me, member.node.name(), Settings { open: true, ..Settings::default() });
    let road = match meeting {
        Meeting::Beacons(_) => {
            let _announced =
                service.beacon_state.enable().map_err(|failed| io::Error::other(failed.to_string()))?;
            let found = service.beacon_receiver.receiver().map_err(io::Error::other)?.clone();
            thread::spawn(move || {
                found.iter().all(|endpoint| tell.tell(Input::Found(endpoint.public_key())))
            });
            BTreeMap::new()
        }
        Meeting::Contacts(contacts) => {
            contacts.iter().map(|contact| (contact.public_key(), contact.clone())).collect()
        }
    };
    for peer in road.keys() {
        mesh.dial_peer(Instant::now(), *peer);
    }
    let road = Roads {
        acceptor: service.acceptor,
        controller: Mutex::new(Some(Arc::new(service.controller))),
        contacts: road,
    };
    let traffic =
        run_one_thread_with(&mut mesh, &mut member, Arc::new(road), set, &inputs, Member::handle_input)?;
    eprintln!("{:?}", mesh.counters());
    for (peer, traffic) in traffic {
        eprintln!("traffic {peer} {traffic}");
    }
    member.result.map(drop)
}

/// What comes from elsewhere than from peers.
enum Input {
    Line(Line),
    End,
    Found(PublicKey),
}

/// Brings it to the thread that has the node, and wakes that one.
#[derive(Clone)]
struct Tell {
    sender: Sender<Input>,
    waker: SetWaker,
}

impl Tell {
    /// Waits while there is no room; tells whether anybody is there.
    fn tell(&self, input: Input) -> bool {
        let told = self.sender.send(input).is_ok();
        self.waker.wake();
        told
    }
}

/// The node with its two kinds of neighbours: clients on pipes, nodes in the mesh.
struct Member<W> {
    node: Node,
    output: W,
    /// Nodes that are up.
    names: BTreeMap<String, PublicKey>,
    complaints: Complaints,
    /// Whether it is over, or why.
    result: io::Result<bool>,
}

impl<W: Write> Member<W> {
    /// Serves clients until the node has a name, under which others will know it.
    fn start(&mut self, inputs: &Receiver<Input>) {
        while self.node.name().is_empty() && !self.is_over() {
            match inputs.recv() {
                Ok(Input::Line(line)) => take_line(&mut self.node, Instant::now(), &line),
                Ok(Input::Found(_)) => {}
                Ok(Input::End) | Err(_) => self.result = Ok(true),
            }
            self.send(Instant::now(), None);
        }
    }

    fn handle_input(&mut self, now: Instant, mesh: &mut Mesh, input: Input) {
        match input {
            Input::Line(line) => take_line(&mut self.node, now, &line),
            Input::End => self.result = Ok(true),
            Input::Found(peer) => mesh.add_peer(now, peer),
        }
        self.send(now, Some(mesh));
    }

    /// Sends what the node has to say. What a node that is not up would get is lost: gossip makes up for it.
    fn send(&mut self, now: Instant, mut mesh: Option<&mut Mesh>) {
        while let Some(message) = self.node.poll_transmit() {
            let line = message.to_line();
            if let Payload::Gossip(_) = message.body.payload {
                if let (Some(peer), Some(mesh)) = (self.names.get(&message.dest), mesh.as_deref_mut()) {
                    let _ = mesh.send(now, *peer, &line);
                }
            } else if let Err(error) = self.output.write_all(&line).and_then(|()| self.output.flush()) {
                self.result = Err(error);
            }
        }
    }

    /// Takes a message that a peer sent under its own name; others it has no right to.
    fn hear(&mut self, now: Instant, peer: PublicKey, message: &[u8]) {
        let complaint = match Message::from_line(message) {
            Ok(message) if self.names.get(&message.src) == Some(&peer) => {
                if let Payload::Gossip(_) = message.body.payload {
                    self.node.handle_message(now, message);
                }
                None
            }
            Ok(message) => self.complaints.line(now, peer, "speaks as who it is not", &message.src),
            Err(error) => self.complaints.line(now, peer, "is not understood", &error),
        };
        if let Some(line) = complaint {
            eprintln!("{line}");
        }
    }
}

impl<W: Write> Application for Member<W> {
    fn handle_event(&mut self, now: Instant, event: Event, mesh: &mut Mesh) {
        match event {
            // The first to take a name has it until it is gone.
            Event::Up { peer, name } => drop(self.names.entry(name).or_insert(peer)),
            Event::Down { peer, .. } => self.names.retain(|_, other| *other != peer),
            Event::Message { peer, message } => self.hear(now, peer, &message),
            Event::Unreached { peer, why } => eprintln!("{peer} is not reached: {why}"),
        }
        self.send(now, Some(mesh));
    }

    fn handle_timeout(&mut self, now: Instant, mesh: &mut Mesh) {
        self.node.handle_timeout(now);
        self.send(now, Some(mesh));
    }

    fn poll_timeout(&self) -> Option<Instant> {
        self.node.poll_timeout()
    }

    fn is_over(&self) -> bool {
        !matches!(self.result, Ok(false))
    }
}

/// How peers are reached: by their contacts, else by what beacons have told.
struct Roads {
    acceptor: ServiceListener,
    /// Until it is closed.
    controller: Mutex<Option<Arc<ServiceController>>>,
    contacts: BTreeMap<PublicKey, Contact>,
}

impl Network for Roads {
    fn accept(&self) -> Option<Stream> {
        self.acceptor.accept().ok()
    }

    fn dial(&self, peer: PublicKey) -> Result<Stream, String> {
        let controller = self.controller.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let controller = controller.ok_or("this node is leaving")?;
        let contact = self.contacts.get(&peer).cloned().unwrap_or_else(|| Contact::new(peer));
        let options = ConnectOptions::new().deadline(DIAL);
        controller.connect_with(contact, &options).map_err(|error| error_chain(&error))
    }

    fn close(&self) {
        if let Some(controller) = self.controller.lock().unwrap_or_else(PoisonError::into_inner).take() {
            controller.close();
        }
    }
}

const LOOPBACK: &str = "tcp://127.0.0.1:0";
/// A peer that does not answer delays dials of others by no more.
const DIAL: Duration = Duration::from_secs(1);
const INPUTS_AHEAD: usize = 1_024;
/// A message of gossip must fit a frame.
const _: () = assert!(MAX_MESSAGE >= 128 << 10);
