use std::{
    collections::BTreeSet,
    path::PathBuf,
    time::{Duration, Instant},
};

use nat_traversal::HolePunchServerAddr;
use ring::digest::{SHA256, digest};

use crate::{Config, ConfigError, Introducer, ServiceEvent, io::clock, shared::Shared};

/// Looks whether the file of a configuration has changed, and applies what can be applied while the service runs.
///
/// What a file says counts once it has been read twice in a row, so that half a file, while somebody writes it, is not taken for
/// a whole one that lacks settings.
#[derive(Debug)]
pub(crate) struct Reloading {
    path: PathBuf,
    /// What the file said when it was last taken.
    current: Config,
    /// Settings that the program set itself: the file has no say in them.
    overridden: BTreeSet<&'static str>,
    /// What was dealt with last, and what was read last.
    taken: [u8; 32],
    read: [u8; 32],
    due: Instant,
}

impl Reloading {
    /// For a service with the configuration `config`; `None` if that is not of a file, or is to stay.
    pub(crate) fn new(config: &mut Config) -> Option<Self> {
        let (path, current) = config.take_source()?;
        let overridden = Config::differences(config, &current).into_iter().collect();
        let taken = fingerprint(&Config::read_text(&path));
        Some(Self { path, current: *current, overridden, taken, read: taken, due: clock::now() + PERIOD })
    }

    pub(crate) const fn poll_timeout(&self) -> Instant {
        self.due
    }

    /// Looks, if it is time; gives introducers that are new, to be attached to.
    pub(crate) fn handle_timeout(&mut self, now: Instant, shared: &Shared) -> Vec<Introducer> {
        if now < self.due {
            return Vec::new();
        }
        let text = Config::read_text(&self.path);
        let found = fingerprint(&text);
        let settled = found == self.read;
        self.read = found;
        self.due = now + if settled { PERIOD } else { SETTLING };
        if !settled || found == self.taken {
            return Vec::new();
        }
        self.taken = found;
        match text.and_then(|text| Config::from_text(&text, &self.path)) {
            Ok(new) => self.apply(new, shared),
            Err(error) => {
                let reason = crate::error_chain(&error);
                shared.events.tell(ServiceEvent::ConfigUnusable { reason });
                Vec::new()
            }
        }
    }

    fn apply(&mut self, new: Config, shared: &Shared) -> Vec<Introducer> {
        let changed = Config::differences(&self.current, &new);
        let (mut applied, mut waiting) = (Vec::new(), Vec::new());
        for &name in changed.iter().filter(|name| !self.overridden.contains(*name)) {
            let list = if take_over(&new, name, shared) { &mut applied } else { &mut waiting };
            list.push(name);
        }
        let known = shared.introducers();
        let introducers: Vec<Introducer> = Introducer::grouped(new.introducer_endpoints().iter().cloned())
            .into_iter()
            .filter(|_| applied.contains(&"introducers"))
            .filter(|new| new.key() != shared.transport.public_key())
            .filter(|new| known.iter().all(|known| known.key() != new.key()))
            .collect();
        for introducer in &introducers {
            shared.add_introducer(introducer.clone());
        }
        self.current = new;
        if !applied.is_empty() || !waiting.is_empty() {
            shared.events.tell(ServiceEvent::ConfigReloaded { applied, waiting });
        }
        if shared.dialling().attach { introducers } else { Vec::new() }
    }
}

/// Applies one setting while the service runs; false if it takes a restart. What is gone from a list of servers is still used
/// until then.
fn take_over(new: &Config, name: &str, shared: &Shared) -> bool {
    match name {
        "allow" => shared.change_gate(|gate| gate.allowed = new.gate().allowed),
        "block" => shared.change_gate(|gate| gate.blocked = new.gate().blocked),
        "network_name" => {
            shared.change_gate(|gate| gate.network = new.network().clone());
            shared.change_dialling(|dialling| dialling.network = new.network().clone());
        }
        "roads" => shared.change_dialling(|dialling| dialling.roads = new.allowed_roads()),
        "deadline" => shared.change_dialling(|dialling| dialling.deadline = new.dial_deadline()),
        "stun" => shared.add_servers(new.stun_servers().iter().map(|&at| HolePunchServerAddr::Stun(at))),
        #[cfg(feature = "turn")]
        "turn" => shared.set_relays(new.turn_servers().to_vec()),
        "introducers" => {}
        _ => return false,
    }
    true
}

/// Tells one content of a file, or one reason not to read it, from another.
fn fingerprint(text: &Result<String, ConfigError>) -> [u8; 32] {
    let digested = match text {
        Ok(text) => digest(&SHA256, text.as_bytes()),
        Err(error) => digest(&SHA256, format!("\0{}", crate::error_chain(error)).as_bytes()),
    };
    digested.as_ref().try_into().expect("SHA-256 has 32 bytes")
}

/// Soon enough for a person who waits for it; reading a small file costs some ten microseconds.
const PERIOD: Duration = Duration::from_secs(2);
/// Editors write a file in one go, or by renaming another one.
const SETTLING: Duration = Duration::from_millis(500);
