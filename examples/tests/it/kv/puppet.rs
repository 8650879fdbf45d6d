use std::time::{Duration, Instant};

use crust_examples::protocol::kv::{
    ArcRef, Ask, Gate, GateInput, GateSettings, Item, Message, NetworkOutput,
};

use crate::puppet::Puppet;

/// What a puppet of this program has to say.
impl Puppet {
    /// What it says of where it is reached; nobody is there.
    pub(super) fn contact(&self) -> String {
        format!("tcp://127.0.0.1:1?pubkey={}", self.key())
    }

    pub(super) fn hear_question(&mut self) -> Option<Ask> {
        loop {
            if let Ok(Message::<ArcRef>::Ask(ask)) = Message::from_bytes(&self.hear()?) {
                return Some(ask);
            }
        }
    }

    /// Proves honestly who it is, as a neighbour; gives the three messages.
    pub(super) fn prove(&mut self) -> Vec<Vec<u8>> {
        let transport = self.transport.clone();
        let settings = GateSettings {
            me: self.key(),
            contact: self.contact(),
            seed: [7; 32],
            lifetime: Duration::from_secs(3_600),
            allowed: None,
        };
        let mut gate =
            Gate::<ArcRef>::new(settings, Box::new(move |purpose, bytes| transport.sign_for(purpose, bytes)));
        let (peer, link, binding) = (self.peer, self.link, self.binding());
        let (mut out, mut spoken, now) = (Vec::new(), Vec::new(), Instant::now());
        gate.handle(now, GateInput::Up { peer, link, binding, neighbour: true }, &mut out);
        loop {
            let mut online = false;
            for item in std::mem::take(&mut out) {
                match item {
                    Item::Network(NetworkOutput::Send { bytes, .. }) => {
                        self.say(&bytes);
                        spoken.push(bytes);
                    }
                    Item::Network(NetworkOutput::Online { .. }) => online = true,
                    Item::Network(NetworkOutput::Refuse { why, .. }) => panic!("{why}"),
                    _ => {}
                }
            }
            if online {
                assert_eq!(spoken.len(), 3);
                return spoken;
            }
            let bytes = self.hear().expect("an honest one is not cut off");
            spoken.push(bytes.clone());
            gate.handle(now, GateInput::Received { peer, link, bytes }, &mut out);
        }
    }
}
