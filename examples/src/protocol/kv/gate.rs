use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    marker::PhantomData,
    time::{Duration, Instant},
};

use crust::{Endpoint, PublicKey};
use ring::digest::{SHA256, digest};

use super::{
    ApiInput, GateInput, Item, NetworkOutput, OnionInput, Peer, RouterInput,
    auth::{AuthMessage, Challenge, Claim, PURPOSE, Refused, Role, Transcript},
    expiring::Expiring,
    message::Message,
    record::Record,
    reference::Reference,
};
use crate::protocol::mesh::LinkId;

/// Lets peers in who prove who they are, and of what they then send only what can be read and what its author has signed.
pub struct Gate<R: Reference> {
    settings: GateSettings,
    sign: Signer,
    links: BTreeMap<PublicKey, Link>,
    /// Challenges of this node, until they are answered.
    challenges: Expiring<Challenge, Challenged>,
    /// Peers that have not proved who they are.
    unproven: Expiring<PublicKey, LinkId>,
    drawn: u64,
    counters: Counters,
    references: PhantomData<R>,
}

/// Signs for a purpose with the key of this node.
pub type Signer = Box<dyn Fn(&str, &[u8]) -> [u8; 64] + Send>;

/// Who a node is, and whom it lets in.
#[derive(Debug, Clone)]
pub struct GateSettings {
    /// Its key.
    pub me: PublicKey,
    /// How others reach it.
    pub contact: String,
    /// What challenges are made of; a secret.
    pub seed: [u8; 32],
    /// How long a challenge may be answered, and a peer may take to prove who it is.
    pub lifetime: Duration,
    /// If there are any, only these are let in.
    pub allowed: Option<BTreeSet<PublicKey>>,
}

#[derive(Debug)]
struct Link {
    id: LinkId,
    binding: [u8; 32],
    neighbour: bool,
    standing: Standing,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Standing {
    /// Nothing has come of it yet.
    Fresh,
    /// A challenge of this node waits for its answer.
    Challenged,
    /// It is who it says it is.
    Online { listed: bool },
}

/// What a challenge was given out for.
#[derive(Debug)]
struct Challenged {
    peer: PublicKey,
    link: LinkId,
    /// The first challenge and what the other said of itself, if this is the second challenge.
    answers: Option<(Challenge, Claim)>,
}

#[derive(Debug, Default)]
struct Counters {
    proved: u64,
    refused_peers: u64,
    refused_records: u64,
    unreadable: u64,
}

impl<R: Reference> Gate<R> {
    /// A gate that nobody has come to.
    #[must_use]
    pub fn new(settings: GateSettings, sign: Signer) -> Self {
        Self {
            settings,
            sign,
            links: BTreeMap::new(),
            challenges: Expiring::new(MAX_CHALLENGES),
            unproven: Expiring::new(MAX_CHALLENGES),
            drawn: 0,
            counters: Counters::default(),
            references: PhantomData,
        }
    }

    /// Takes what is told to the gate.
    pub fn handle(&mut self, now: Instant, input: GateInput, out: &mut Vec<Item<R>>) {
        match input {
            GateInput::Up { peer, link, binding, neighbour } => {
                self.forget(peer, out);
                let link = Link { id: link, binding, neighbour, standing: Standing::Fresh };
                self.links.insert(peer, link);
                if let Err(why) = self.begin(now, peer, out) {
                    self.refuse(peer, &why, out);
                }
            }
            GateInput::Down { peer, link } => {
                if self.links.get(&peer).is_some_and(|known| known.id == link) {
                    self.forget(peer, out);
                }
            }
            GateInput::Received { peer, link, bytes } => {
                // What a link that was replaced has brought is for nobody.
                if self.links.get(&peer).is_some_and(|known| known.id == link)
                    && let Err(why) = self.receive(now, peer, &bytes, out)
                {
                    self.refuse(peer, &why, out);
                }
            }
            GateInput::Count { request } => {
                let counts = vec![
                    ("online", self.links.values().filter(|link| link.is_online()).count() as u64),
                    ("unproven", self.unproven.len() as u64),
                    ("challenges", self.challenges.len() as u64),
                    ("proved", self.counters.proved),
                    ("refused_peers", self.counters.refused_peers),
                    ("refused_records", self.counters.refused_records),
                    ("unreadable", self.counters.unreadable),
                ];
                out.push(Item::Api(ApiInput::Counted { request, counts }));
            }
        }
    }

    /// Sends those away who took too long.
    pub fn handle_timeout(&mut self, now: Instant, out: &mut Vec<Item<R>>) {
        self.challenges.expire(now);
        while let Some((_, (peer, _))) = self.unproven.pop_expired(now) {
            self.refuse(peer, &Refused::TimedOut, out);
        }
    }

    /// When [`Gate::handle_timeout`] wants to be called.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        [self.challenges.first(), self.unproven.first()].into_iter().flatten().min()
    }

    /// Whether the stream is open to this peer at all; the one with the smaller key begins.
    fn begin(&mut self, now: Instant, peer: PublicKey, out: &mut Vec<Item<R>>) -> Result<(), Refused> {
        if self.settings.allowed.as_ref().is_some_and(|allowed| !allowed.contains(&peer)) {
            return Err(Refused::NotAllowed);
        }
        let link = &self.links[&peer];
        let (id, neighbour) = (link.id, link.neighbour);
        self.unproven.insert(now + self.settings.lifetime, peer, id).map_err(|_| Refused::Full)?;
        if self.settings.me < peer {
            let challenge = self.challenge(now, peer, None)?;
            let claim = self.claim(neighbour);
            let transcript = Transcript {
                first: &self.settings.me,
                second: &peer,
                challenge: &challenge,
                other: &[0; 32],
                binding: &self.links[&peer].binding,
            };
            let signature = self.sign(&transcript, Role::Ping, &claim);
            Self::send(peer, AuthMessage::Ping { claim, challenge, signature }, out);
        }
        Ok(())
    }

    fn receive(
        &mut self,
        now: Instant,
        peer: PublicKey,
        bytes: &[u8],
        out: &mut Vec<Item<R>>,
    ) -> Result<(), Refused> {
        let is_online = self.links[&peer].is_online();
        match Message::from_bytes(bytes) {
            Ok(Message::Auth(message)) => self.prove(now, peer, message, out),
            _ if !is_online => Err(Refused::Unproven),
            Ok(Message::Onion(packet)) => {
                out.push(Item::Onion(OnionInput::Packet { from: peer, packet }));
                Ok(())
            }
            Ok(Message::Announcement(announcement)) => {
                // Most come several times; whether the node has signed it is looked at once.
                out.push(Item::Onion(OnionInput::Announced { from: peer, announcement }));
                Ok(())
            }
            Ok(message) => {
                if let Some(message) = self.examine(message) {
                    out.push(Item::Router(RouterInput::Message { from: peer, message }));
                }
                Ok(())
            }
            Err(error) => {
                self.counters.unreadable += 1;
                out.push(Item::Network(NetworkOutput::Odd { peer, what: error.to_string() }));
                Ok(())
            }
        }
    }

    /// Leaves out what its author has not signed.
    fn examine(&mut self, message: Message<R>) -> Option<Message<R>> {
        let mut refused = 0;
        let mut is_genuine = |record: &R::To<Record>| {
            let genuine = record.verify().is_ok();
            refused += u64::from(!genuine);
            genuine
        };
        let message = match message {
            Message::Put(record) => is_genuine(&record).then_some(Message::Put(record)),
            Message::Found { id, mut records, share } => {
                records.retain(&mut is_genuine);
                Some(Message::Found { id, records, share })
            }
            other => Some(other),
        };
        self.counters.refused_records += refused;
        message
    }

    fn prove(
        &mut self,
        now: Instant,
        peer: PublicKey,
        message: AuthMessage,
        out: &mut Vec<Item<R>>,
    ) -> Result<(), Refused> {
        let standing = self.links[&peer].standing;
        match (message, standing) {
            (AuthMessage::Ping { claim, challenge, signature }, Standing::Fresh) => {
                self.handle_ping(now, peer, claim, challenge, &signature, out)
            }
            (AuthMessage::Pong { claim, challenge, other, signature }, Standing::Challenged) => {
                self.handle_pong(peer, &claim, challenge, other, &signature, out)
            }
            (AuthMessage::Done { other, signature }, Standing::Challenged) => {
                self.handle_done(peer, other, &signature, out)
            }
            _ => Err(Refused::OutOfTurn),
        }
    }

    fn handle_ping(
        &mut self,
        now: Instant,
        peer: PublicKey,
        claim: Claim,
        challenge: Challenge,
        signature: &[u8],
        out: &mut Vec<Item<R>>,
    ) -> Result<(), Refused> {
        let (binding, neighbour) = (self.links[&peer].binding, self.links[&peer].neighbour);
        let me = self.settings.me;
        let asked = Transcript {
            first: &claim.key,
            second: &me,
            challenge: &challenge,
            other: &[0; 32],
            binding: &binding,
        };
        check(&asked, Role::Ping, peer, &claim, signature)?;
        if me < peer {
            return Err(Refused::OutOfTurn);
        }
        let other = self.challenge(now, peer, Some((challenge, claim)))?;
        let answered =
            Transcript { first: &peer, second: &me, challenge: &challenge, other: &other, binding: &binding };
        let claim = self.claim(neighbour);
        let signature = self.sign(&answered, Role::Pong, &claim);
        Self::send(peer, AuthMessage::Pong { claim, challenge, other, signature }, out);
        Ok(())
    }

    fn handle_pong(
        &mut self,
        peer: PublicKey,
        claim: &Claim,
        challenge: Challenge,
        other: Challenge,
        signature: &[u8],
        out: &mut Vec<Item<R>>,
    ) -> Result<(), Refused> {
        self.take_challenge(&challenge, peer)?;
        let (binding, neighbour) = (self.links[&peer].binding, self.links[&peer].neighbour);
        let me = self.settings.me;
        let transcript = Transcript {
            first: &me,
            second: &claim.key,
            challenge: &challenge,
            other: &other,
            binding: &binding,
        };
        check(&transcript, Role::Pong, peer, claim, signature)?;
        let signature = self.sign(&transcript, Role::Done, &self.claim(neighbour));
        Self::send(peer, AuthMessage::Done { other, signature }, out);
        self.welcome(peer, claim, out);
        Ok(())
    }

    fn handle_done(
        &mut self,
        peer: PublicKey,
        other: Challenge,
        signature: &[u8],
        out: &mut Vec<Item<R>>,
    ) -> Result<(), Refused> {
        let answers = self.take_challenge(&other, peer)?;
        let (challenge, claim) = answers.ok_or(Refused::OutOfTurn)?;
        let (binding, me) = (self.links[&peer].binding, self.settings.me);
        let transcript =
            Transcript { first: &peer, second: &me, challenge: &challenge, other: &other, binding: &binding };
        check(&transcript, Role::Done, peer, &claim, signature)?;
        self.welcome(peer, &claim, out);
        Ok(())
    }

    fn welcome(&mut self, peer: PublicKey, claim: &Claim, out: &mut Vec<Item<R>>) {
        let Some(link) = self.links.get_mut(&peer) else { return };
        let listed = link.neighbour && claim.neighbour;
        link.standing = Standing::Online { listed };
        self.unproven.remove(&peer);
        self.counters.proved += 1;
        if listed {
            let peer = Peer { key: peer, contact: claim.contact.clone() };
            out.push(Item::Onion(OnionInput::Online(peer.key)));
            out.push(Item::Router(RouterInput::Online(R::new(peer))));
        }
        out.push(Item::Network(NetworkOutput::Online { peer, link: link.id }));
    }

    /// Draws a challenge that the peer shall answer.
    fn challenge(
        &mut self,
        now: Instant,
        peer: PublicKey,
        answers: Option<(Challenge, Claim)>,
    ) -> Result<Challenge, Refused> {
        self.drawn += 1;
        let drawn = digest(&SHA256, &[&self.settings.seed[..], &self.drawn.to_be_bytes()].concat());
        let challenge: Challenge = drawn.as_ref().try_into().expect("SHA-256 has 32 bytes");
        let link = self.links.get_mut(&peer).ok_or(Refused::OutOfTurn)?;
        link.standing = Standing::Challenged;
        let challenged = Challenged { peer, link: link.id, answers };
        let kept = self.challenges.insert(now + self.settings.lifetime, challenge, challenged);
        kept.map(|()| challenge).map_err(|_| Refused::Full)
    }

    /// A challenge is answered once, rightly or not, and over the stream that it was given out on.
    fn take_challenge(
        &mut self,
        challenge: &Challenge,
        peer: PublicKey,
    ) -> Result<Option<(Challenge, Claim)>, Refused> {
        let link = self.links[&peer].id;
        let known = self.challenges.remove(challenge);
        let known = known.filter(|known| (known.peer, known.link) == (peer, link));
        known.map(|known| known.answers).ok_or(Refused::Challenge)
    }

    fn refuse(&mut self, peer: PublicKey, why: &Refused, out: &mut Vec<Item<R>>) {
        let Some(link) = self.links.get(&peer).map(|link| link.id) else { return };
        self.counters.refused_peers += 1;
        self.forget(peer, out);
        out.push(Item::Network(NetworkOutput::Refuse { peer, link, why: why.to_string() }));
    }

    fn forget(&mut self, peer: PublicKey, out: &mut Vec<Item<R>>) {
        let Some(link) = self.links.remove(&peer) else { return };
        self.unproven.remove(&peer);
        self.challenges.retain(|challenged| challenged.peer != peer);
        if link.standing == (Standing::Online { listed: true }) {
            out.push(Item::Onion(OnionInput::Offline(peer)));
            out.push(Item::Router(RouterInput::Offline(peer)));
        }
    }

    fn claim(&self, neighbour: bool) -> Claim {
        Claim { key: self.settings.me, contact: self.settings.contact.clone(), neighbour }
    }

    fn sign(&self, transcript: &Transcript<'_>, role: Role, claim: &Claim) -> Vec<u8> {
        (self.sign)(PURPOSE, &transcript.bytes(role, claim)).to_vec()
    }

    fn send(to: PublicKey, message: AuthMessage, out: &mut Vec<Item<R>>) {
        let bytes = Message::<R>::Auth(message).to_bytes();
        out.push(Item::Network(NetworkOutput::Send { to, contact: None, bytes }));
    }
}

impl Link {
    const fn is_online(&self) -> bool {
        matches!(self.standing, Standing::Online { .. })
    }
}

impl<R: Reference> fmt::Debug for Gate<R> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Gate").field("links", &self.links).finish_non_exhaustive()
    }
}

/// What the sender says of itself must be signed for this conversation, by the key that the stream has proved.
fn check(
    transcript: &Transcript<'_>,
    role: Role,
    peer: PublicKey,
    claim: &Claim,
    signature: &[u8],
) -> Result<(), Refused> {
    if !transcript.is_signed(role, claim, signature) {
        return Err(Refused::Signature);
    }
    if claim.key != peer {
        return Err(Refused::OtherKey);
    }
    match claim.contact.parse::<Endpoint>() {
        Ok(endpoint) if endpoint.public_key() == peer => Ok(()),
        _ => Err(Refused::Contact),
    }
}

/// Peers that may be about to prove who they are.
const MAX_CHALLENGES: usize = 256;
