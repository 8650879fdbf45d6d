//! One thread for all peers: a [`StreamSet`] tells it which streams have something.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{self, ErrorKind, Read as _, Write as _},
    sync::Arc,
    time::Instant,
};

use crossbeam::channel::{Receiver, bounded};
use crust::PublicKey;
use transport::{StreamKey, StreamSet};

use super::{
    Application, Network, READ, Traffic, advance, binding, deadline,
    helpers::{Found, Helpers},
};
use crate::protocol::mesh::{Action, LinkId, Mesh};

/// Runs a mesh until the application is over, with a set for its streams, and hands the application what comes through `others`; whoever
/// sends there wakes the set. Blocks; all threads have ended when it returns. Gives what was carried for each peer.
///
/// # Errors
///
/// When the system gives no thread, or when the transport is closed by someone else.
pub fn run_with<A: Application, T>(
    mesh: &mut Mesh,
    application: &mut A,
    network: Arc<dyn Network>,
    set: StreamSet,
    others: &Receiver<T>,
    mut handle_other: impl FnMut(&mut A, Instant, &mut Mesh, T),
) -> io::Result<BTreeMap<PublicKey, Traffic>> {
    let mut driver = Driver {
        set,
        keys: BTreeMap::new(),
        links: BTreeMap::new(),
        unread: BTreeSet::new(),
        traffic: BTreeMap::new(),
        buffer: vec![0; READ],
    };
    let (found, inbox) = bounded(FOUND_AHEAD);
    let waker = driver.set.waker();
    let tell = move |one| {
        let told = found.send(one).is_ok();
        waker.wake();
        told
    };
    let helpers = Helpers::start(network, tell)?;
    let mut ready = Vec::new();
    while !application.is_over() {
        let until = if driver.unread.is_empty() { deadline(mesh, application) } else { Instant::now() };
        match driver.set.wait(&mut ready, Some(until)) {
            Ok(()) | Err(transport::StreamError::TimedOut) => {}
            Err(error) => return Err(error.into()),
        }
        inbox.try_iter().for_each(|one| driver.find(mesh, one));
        others.try_iter().for_each(|other| handle_other(application, Instant::now(), mesh, other));
        for one in &ready {
            driver.note(mesh, one.key, one.readable, one.writable);
        }
        for key in std::mem::take(&mut driver.unread) {
            driver.read(mesh, key);
        }
        advance(Instant::now(), mesh, application);
        while let Some(action) = mesh.poll_action() {
            match action {
                Action::Dial(peer) => helpers.dial(peer),
                Action::Close(id) => driver.close(id),
            }
        }
        driver.write(mesh);
    }
    drop(inbox);
    drop(helpers);
    for id in driver.keys.keys().copied().collect::<Vec<_>>() {
        driver.close(id);
    }
    Ok(driver.traffic)
}

struct Driver {
    set: StreamSet,
    keys: BTreeMap<LinkId, StreamKey>,
    links: BTreeMap<StreamKey, Member>,
    /// Streams that may have more to read.
    unread: BTreeSet<StreamKey>,
    traffic: BTreeMap<PublicKey, Traffic>,
    buffer: Vec<u8>,
}

struct Member {
    link: LinkId,
    writable: bool,
    read: u64,
    written: u64,
}

impl Driver {
    fn find(&mut self, mesh: &mut Mesh, found: Found) {
        let now = Instant::now();
        match found {
            Found::Nobody(peer, why) => mesh.handle_dial_failed(now, peer, why),
            Found::Stream(stream) => {
                let Some(link) = mesh.handle_stream(now, stream.public_key()) else { return };
                mesh.bind(link, binding(&stream));
                match self.set.add(stream) {
                    Ok(key) => {
                        self.keys.insert(link, key);
                        self.links.insert(key, Member { link, writable: true, read: 0, written: 0 });
                        self.unread.insert(key);
                    }
                    Err(_) => mesh.handle_end(now, link),
                }
            }
        }
    }

    fn note(&mut self, mesh: &mut Mesh, key: StreamKey, readable: bool, writable: bool) {
        let Some(member) = self.links.get_mut(&key) else { return };
        if readable {
            self.unread.insert(key);
        }
        if writable {
            // The rest of a record may wait.
            let flushed = self.set.get(key).map(|mut stream| stream.flush());
            match flushed {
                Some(Err(error)) if error.kind() != ErrorKind::WouldBlock => {
                    mesh.handle_end(Instant::now(), member.link);
                }
                Some(Err(_)) => {}
                _ => member.writable = true,
            }
        }
    }

    /// Reads a share; what is left is read in the next turn, so that no peer takes all the time.
    fn read(&mut self, mesh: &mut Mesh, key: StreamKey) {
        let (Some(mut stream), Some(member)) = (self.set.get(key), self.links.get_mut(&key)) else { return };
        for _ in 0..READS_PER_TURN {
            let now = Instant::now();
            match stream.read(&mut self.buffer) {
                Ok(0) => return mesh.handle_end(now, member.link),
                Ok(length) => {
                    member.read += length as u64;
                    mesh.handle_input(now, member.link, &self.buffer[..length]);
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(_) => return mesh.handle_end(now, member.link),
            }
        }
        self.unread.insert(key);
    }

    fn write(&mut self, mesh: &mut Mesh) {
        for (key, member) in self.links.iter_mut().filter(|(_, member)| member.writable) {
            let Some(mut stream) = self.set.get(*key) else { continue };
            while member.writable && !mesh.output(member.link).is_empty() {
                match stream.write(mesh.output(member.link)) {
                    Ok(length) => {
                        member.written += length as u64;
                        mesh.wrote(member.link, length);
                    }
                    // Also after an error: the reader is told, and then it is closed.
                    Err(_) => member.writable = false,
                }
            }
        }
    }

    fn close(&mut self, link: LinkId) {
        let Some(key) = self.keys.remove(&link) else { return };
        self.unread.remove(&key);
        if let (Some(stream), Some(member)) = (self.set.remove(key), self.links.remove(&key)) {
            let traffic = self.traffic.entry(stream.public_key()).or_default();
            traffic.count(&stream, member.read, member.written);
            stream.reset(0);
        }
    }
}

const FOUND_AHEAD: usize = 64;
/// Up to 256 KiB of a stream before the others have their turn.
const READS_PER_TURN: usize = 4;
