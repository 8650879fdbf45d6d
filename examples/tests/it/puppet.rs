use std::{
    io::{Read as _, Write as _},
    time::Instant,
};

use crust::{Endpoint, Identity, PublicKey};
use crust_examples::protocol::mesh::{Event, LinkId, Mesh, Settings};
use transport::{Stream, Transport, TransportConfig};

use crate::support::PATIENCE;

/// Somebody who speaks with a node as he likes: hello and acknowledgement are right, whatever follows is the test's.
pub(crate) struct Puppet {
    pub(crate) transport: Transport,
    pub(crate) peer: PublicKey,
    pub(crate) link: LinkId,
    stream: Stream,
    mesh: Mesh,
}

/// An identity whose key is greater than that of the endpoint, so that the other begins.
pub(crate) fn greater_than(endpoint: &str) -> Identity {
    identity(|key| key > key_of(endpoint))
}

/// An identity whose key is less, so that it begins itself.
pub(crate) fn less_than(endpoints: &[&str]) -> Identity {
    identity(|key| endpoints.iter().all(|endpoint| key < key_of(endpoint)))
}

fn identity(fits: impl Fn(PublicKey) -> bool) -> Identity {
    std::iter::repeat_with(Identity::generate).find(|identity| fits(identity.public_key())).unwrap()
}

fn key_of(endpoint: &str) -> PublicKey {
    endpoint.parse::<Endpoint>().unwrap().public_key()
}

impl Puppet {
    pub(crate) fn connect(identity: Identity, endpoint: &str) -> Self {
        let transport = Transport::new(identity, TransportConfig::default()).unwrap();
        Self::over(transport, endpoint)
    }

    /// Another stream of the same one.
    pub(crate) fn again(&self, endpoint: &str) -> Self {
        Self::over(self.transport.clone(), endpoint)
    }

    fn over(transport: Transport, endpoint: &str) -> Self {
        let endpoint: Endpoint = endpoint.parse().unwrap();
        let peer = endpoint.public_key();
        let stream = Stream::direct_connect(&transport, endpoint).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let settings = Settings { open: true, timeout: 10 * PATIENCE, ..Settings::default() };
        let mut mesh = Mesh::new(transport.public_key(), "puppet", settings);
        let link = mesh.handle_stream(Instant::now(), peer).unwrap();
        let mut puppet = Self { transport, stream, mesh, link, peer };
        puppet.flush();
        while puppet.mesh.up().next().is_none() {
            assert!(puppet.take(), "it is let in so far");
        }
        assert!(matches!(puppet.mesh.poll_event(), Some(Event::Up { .. })));
        puppet
    }

    pub(crate) fn key(&self) -> PublicKey {
        self.transport.public_key()
    }

    pub(crate) fn sign(&self, purpose: &str, bytes: &[u8]) -> [u8; 64] {
        self.transport.sign_for(purpose, bytes)
    }

    pub(crate) fn binding(&self) -> [u8; 32] {
        let mut binding = [0; 32];
        self.stream.export_keying_material(&mut binding, b"EXPORTER-Channel-Binding", b"").unwrap();
        binding
    }

    pub(crate) fn say(&mut self, message: &[u8]) {
        self.mesh.send(Instant::now(), self.peer, message).unwrap();
        self.flush();
    }

    /// The same, unless the other has cut the stream.
    pub(crate) fn say_if_it_goes(&mut self, message: &[u8]) {
        let _ = self.mesh.send(Instant::now(), self.peer, message);
        let output = self.mesh.output(self.link).to_vec();
        self.mesh.wrote(self.link, output.len());
        let _ = self.stream.write_all(&output);
    }

    pub(crate) fn write_raw(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).unwrap();
    }

    /// The next message; `None` when the other has cut the stream.
    pub(crate) fn hear(&mut self) -> Option<Vec<u8>> {
        loop {
            match self.mesh.poll_event() {
                Some(Event::Message { message, .. }) => return Some(message),
                Some(_) => return None,
                None if self.take() => {}
                None => return None,
            }
        }
    }

    fn flush(&mut self) {
        let output = self.mesh.output(self.link).to_vec();
        self.stream.write_all(&output).unwrap();
        self.mesh.wrote(self.link, output.len());
    }

    /// Reads some; tells whether the stream goes on.
    fn take(&mut self) -> bool {
        let mut buffer = [0; 4096];
        match self.stream.read(&mut buffer) {
            Ok(length @ 1..) => {
                self.mesh.handle_input(Instant::now(), self.link, &buffer[..length]);
                // It acknowledges, for one.
                let output = self.mesh.output(self.link).to_vec();
                self.mesh.wrote(self.link, output.len());
                self.stream.write_all(&output).is_ok()
            }
            _ => false,
        }
    }
}
