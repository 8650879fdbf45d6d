//! How two peers are introduced by a third that learns neither's addresses: knock, answer, offer.
//!
//! ```text
//! dialer                      introducer                    receiver
//!   knock: key, ephemeral key, what it wants, signature       ──►   admitted?
//!   ◄──  answer: ephemeral key, signature, sealed{ where the receiver is, or why not }
//!   offer: sealed{ where the dialer is }                      ──►
//! ```
//!
//! Both ephemeral keys are drawn for this one introduction and signed by their owners' identities, so there is no prekey to
//! publish, to run out of, or to replay: an answer serves the one knock that it was made for, and who replays a knock gets an
//! answer that it cannot open. What follows is sealed by ChaCha20-Poly1305 under keys that HKDF-SHA256 derives from the
//! X25519 secret and from both identities and ephemeral keys, one key a direction; a message thrown back at its sender opens
//! nowhere.

mod calling;
mod particulars;
mod saying;

use ring::{
    aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey},
    agreement::{EphemeralPrivateKey, UnparsedPublicKey, X25519, agree_ephemeral},
    digest::{Digest, SHA256, digest},
    hkdf::{HKDF_SHA256, Salt},
    hmac,
};
use transport::{AccessToken, NetworkName, ProtocolLabel, PublicKey};

pub(crate) use calling::{Answer, Answering, CALL, Calling, NoCall, NoteError, Said};
pub(crate) use particulars::{ConnectionMark, Particulars};
pub(crate) use saying::Saying;

/// The dialer's side, until the answer has come.
pub(crate) struct Knocking {
    secret: EphemeralPrivateKey,
    names: Names,
}

/// What a dialer wants, and what admits it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wish<'w> {
    pub(crate) label: &'w ProtocolLabel,
    pub(crate) token: Option<&'w AccessToken>,
    pub(crate) network: &'w NetworkName,
    /// A connection that is there already and is cut off, which admits it for that one's sake alone.
    pub(crate) rescues: Option<&'w ConnectionMark>,
    /// It is to be one stream for a call of the receiver's as well.
    pub(crate) single: bool,
}

impl Knocking {
    /// Makes a knock for `receiver` with an ephemeral key drawn for it alone.
    pub(crate) fn new(
        secret: EphemeralPrivateKey,
        dialer: PublicKey,
        receiver: PublicKey,
        wish: Wish<'_>,
        sign: impl FnOnce(&[u8]) -> [u8; 64],
    ) -> (Self, Vec<u8>) {
        let names = Names { dialer, receiver, first: public_of(&secret) };
        let mut knock = vec![VERSION];
        knock.extend_from_slice(dialer.as_bytes());
        knock.extend_from_slice(&names.first);
        let mut records = Vec::new();
        particulars::push(&mut records, LABEL_MARK, names.label_mark(wish.label).as_ref());
        if let Some(token) = wish.token {
            let proof = hmac::sign(&names.proof_key(token), &names.proof_text());
            particulars::push(&mut records, TOKEN_PROOF, proof.as_ref());
        }
        if let Some(mark) = names.network_mark(wish.network) {
            particulars::push(&mut records, NETWORK_MARK, mark.as_ref());
        }
        if let Some(mark) = wish.rescues {
            let proof = hmac::sign(&connection_key(mark), &names.connection_text());
            particulars::push(&mut records, CONNECTION_PROOF, proof.as_ref());
        }
        if wish.single {
            particulars::push(&mut records, SINGLE, &[]);
        }
        let length = u16::try_from(records.len()).expect("five records are short");
        knock.extend_from_slice(&length.to_be_bytes());
        knock.extend_from_slice(&records);
        let signature = sign(&names.knock_text(&knock));
        knock.extend_from_slice(&signature);
        (Self { secret, names }, knock)
    }

    /// Takes the answer: what the receiver says, and the session for what follows.
    pub(crate) fn handle_answer(self, bytes: &[u8]) -> Result<(Session, Particulars), Flaw> {
        let (&[version], rest) = bytes.split_first_chunk::<1>().ok_or(Flaw::Malformed)?;
        if version != VERSION {
            return Err(Flaw::Version { found: version });
        }
        let (second, rest) = rest.split_first_chunk::<32>().ok_or(Flaw::Malformed)?;
        let (signature, sealed) = rest.split_first_chunk::<SIGNATURE_BYTES>().ok_or(Flaw::Malformed)?;
        if !self.names.receiver.has_signed(&self.names.answer_text(second), signature) {
            return Err(Flaw::Forged);
        }
        let [answers, offers] = self.names.agree(self.secret, second)?;
        let mut session = Session::new(offers, answers);
        let particulars = session.open(sealed)?;
        Ok((session, particulars))
    }
}

/// A knock that its dialer has signed, for us.
#[derive(Debug)]
pub(crate) struct Knock {
    names: Names,
    proof: Option<[u8; 32]>,
    mark: Option<[u8; 32]>,
    network: Option<[u8; 32]>,
    connection: Option<[u8; 32]>,
    single: bool,
}

impl Knock {
    /// Reads a knock for `receiver`, which is us.
    pub(crate) fn read(bytes: &[u8], receiver: PublicKey) -> Result<Self, Flaw> {
        if bytes.len() > MAX_KNOCK_BYTES {
            return Err(Flaw::Malformed);
        }
        let (signed, signature) = bytes.split_last_chunk::<SIGNATURE_BYTES>().ok_or(Flaw::Malformed)?;
        let (&[version], rest) = signed.split_first_chunk::<1>().ok_or(Flaw::Malformed)?;
        if version != VERSION {
            return Err(Flaw::Version { found: version });
        }
        let (dialer, rest) = rest.split_first_chunk::<32>().ok_or(Flaw::Malformed)?;
        let (first, rest) = rest.split_first_chunk::<32>().ok_or(Flaw::Malformed)?;
        let (length, records) = rest.split_first_chunk::<2>().ok_or(Flaw::Malformed)?;
        if usize::from(u16::from_be_bytes(*length)) != records.len() {
            return Err(Flaw::Malformed);
        }
        let names = Names { dialer: PublicKey::from_bytes(*dialer), receiver, first: *first };
        if names.dialer == receiver {
            return Err(Flaw::Myself);
        }
        if !names.dialer.has_signed(&names.knock_text(signed), signature) {
            return Err(Flaw::Forged);
        }
        let (mut proof, mut mark, mut network, mut connection) = (None, None, None, None);
        let mut single = false;
        for record in particulars::records(records) {
            let (kind, value) = record?;
            let digest = || value.try_into().map_err(|_| Flaw::Malformed);
            match kind {
                TOKEN_PROOF => proof = Some(digest()?),
                LABEL_MARK => mark = Some(digest()?),
                NETWORK_MARK => network = Some(digest()?),
                CONNECTION_PROOF => connection = Some(digest()?),
                SINGLE => single = true,
                _ => {}
            }
        }
        Ok(Self { names, proof, mark, network, connection, single })
    }

    /// Who knocks.
    pub(crate) const fn dialer(&self) -> PublicKey {
        self.names.dialer
    }

    /// Whether the dialer has proved to know this token.
    pub(crate) fn knows(&self, token: &AccessToken) -> bool {
        let Some(proof) = &self.proof else { return false };
        hmac::verify(&self.names.proof_key(token), &self.names.proof_text(), proof).is_ok()
    }

    /// Whether the dialer knocks for a connection that is there already and cut off, whichever that is.
    pub(crate) const fn is_a_rescue(&self) -> bool {
        self.connection.is_some()
    }

    /// Whether the dialer expects us to call it as well, and to have one stream with it.
    pub(crate) const fn is_single(&self) -> bool {
        self.single
    }

    /// Whether it is this one, as its other end alone can say.
    pub(crate) fn rescues(&self, mark: &ConnectionMark) -> bool {
        let Some(proof) = &self.connection else { return false };
        hmac::verify(&connection_key(mark), &self.names.connection_text(), proof).is_ok()
    }

    /// Whether the dialer belongs to this network.
    pub(crate) fn is_of(&self, network: &NetworkName) -> bool {
        let mark = self.names.network_mark(network);
        self.network.as_ref().map(<[u8; 32]>::as_slice) == mark.as_ref().map(AsRef::as_ref)
    }

    /// Which of these protocols the dialer wants.
    pub(crate) fn wants<'l>(
        &self,
        spoken: impl IntoIterator<Item = &'l ProtocolLabel>,
    ) -> Option<&'l ProtocolLabel> {
        let mark = self.mark?;
        spoken.into_iter().find(|label| self.names.label_mark(label).as_ref() == mark)
    }

    /// Answers with an ephemeral key drawn for it alone.
    pub(crate) fn answer(
        self,
        secret: EphemeralPrivateKey,
        particulars: &Particulars,
        sign: impl FnOnce(&[u8]) -> [u8; 64],
    ) -> Result<(Session, Vec<u8>), Flaw> {
        let second = public_of(&secret);
        let mut answer = vec![VERSION];
        answer.extend_from_slice(&second);
        answer.extend_from_slice(&sign(&self.names.answer_text(&second)));
        let [answers, offers] = self.names.agree_as_receiver(secret, &second)?;
        let mut session = Session::new(answers, offers);
        answer.extend(session.seal(particulars));
        Ok((session, answer))
    }
}

/// What two introduced peers say to each other from the answer on; each message once, in order.
#[derive(Debug)]
pub(crate) struct Session {
    sending: Sealing,
    receiving: Opening,
}

impl Session {
    fn new(sending: [u8; 32], receiving: [u8; 32]) -> Self {
        Self { sending: Sealing(Direction::new(sending)), receiving: Opening(Direction::new(receiving)) }
    }

    /// The two directions, for two threads.
    pub(crate) fn split(self) -> (Sealing, Opening) {
        (self.sending, self.receiving)
    }

    pub(crate) fn seal(&mut self, particulars: &Particulars) -> Vec<u8> {
        self.sending.seal(particulars)
    }

    pub(crate) fn open(&mut self, sealed: &[u8]) -> Result<Particulars, Flaw> {
        self.receiving.open(sealed)
    }
}

/// What we say.
#[derive(Debug)]
pub(crate) struct Sealing(Direction);

impl Sealing {
    pub(crate) fn seal(&mut self, particulars: &Particulars) -> Vec<u8> {
        let mut bytes = particulars.encode();
        self.0
            .key
            .seal_in_place_append_tag(self.0.count.next(), Aad::empty(), &mut bytes)
            .expect("a few hundred bytes are not too long for the cipher");
        bytes
    }
}

/// What the peer says.
#[derive(Debug)]
pub(crate) struct Opening(Direction);

impl Opening {
    pub(crate) fn open(&mut self, sealed: &[u8]) -> Result<Particulars, Flaw> {
        if sealed.len() > MAX_NOTE_BYTES {
            return Err(Flaw::Malformed);
        }
        let mut bytes = sealed.to_vec();
        let nonce = self.0.count.next();
        let plain = self.0.key.open_in_place(nonce, Aad::empty(), &mut bytes);
        Particulars::decode(plain.map_err(|_| Flaw::Forged)?)
    }
}

/// One key, and how often it was used.
#[derive(Debug)]
struct Direction {
    key: LessSafeKey,
    count: Count,
}

impl Direction {
    fn new(key: [u8; 32]) -> Self {
        let key = UnboundKey::new(&CHACHA20_POLY1305, &key).expect("keys of this cipher have 32 bytes");
        Self { key: LessSafeKey::new(key), count: Count(0) }
    }
}

#[derive(Debug)]
struct Count(u64);

impl Count {
    fn next(&mut self) -> Nonce {
        let mut nonce = [0; 12];
        nonce[4..].copy_from_slice(&self.0.to_be_bytes());
        self.0 += 1;
        Nonce::assume_unique_for_key(nonce)
    }
}

/// Who is introduced to whom, and the dialer's ephemeral key.
#[derive(Debug)]
struct Names {
    dialer: PublicKey,
    receiver: PublicKey,
    first: [u8; 32],
}

impl Names {
    /// What a dialer signs: the whole knock, for this receiver.
    fn knock_text(&self, knock: &[u8]) -> Vec<u8> {
        [b"crust knock 1\0", &self.receiver.as_bytes()[..], knock].concat()
    }

    /// What a receiver signs.
    fn answer_text(&self, second: &[u8; 32]) -> Vec<u8> {
        let (dialer, receiver) = (self.dialer.as_bytes(), self.receiver.as_bytes());
        [b"crust answer 1\0", &dialer[..], receiver, &self.first, second].concat()
    }

    fn proof_key(&self, token: &AccessToken) -> hmac::Key {
        hmac::Key::new(hmac::HMAC_SHA256, token.as_bytes())
    }

    fn proof_text(&self) -> Vec<u8> {
        let (dialer, receiver) = (self.dialer.as_bytes(), self.receiver.as_bytes());
        [b"crust token 1\0", &dialer[..], receiver, &self.first].concat()
    }

    fn connection_text(&self) -> Vec<u8> {
        let (dialer, receiver) = (self.dialer.as_bytes(), self.receiver.as_bytes());
        [b"crust connection 1\0", &dialer[..], receiver, &self.first].concat()
    }

    /// Names a protocol to those who speak it, and to nobody who cannot guess it.
    fn label_mark(&self, label: &ProtocolLabel) -> Digest {
        let (dialer, receiver) = (self.dialer.as_bytes(), self.receiver.as_bytes());
        let text =
            [b"crust label 1\0", &dialer[..], receiver, &self.first, label.as_str().as_bytes()].concat();
        digest(&SHA256, &text)
    }

    /// The same for a network; `None` is the one without a name.
    fn network_mark(&self, network: &NetworkName) -> Option<Digest> {
        let name = network.as_str().as_bytes();
        let (dialer, receiver) = (self.dialer.as_bytes(), self.receiver.as_bytes());
        let text = [b"crust network 1\0", &dialer[..], receiver, &self.first, name].concat();
        (!name.is_empty()).then(|| digest(&SHA256, &text))
    }

    fn agree(&self, secret: EphemeralPrivateKey, second: &[u8; 32]) -> Result<[[u8; 32]; 2], Flaw> {
        self.derive(secret, second, second)
    }

    fn agree_as_receiver(
        &self,
        secret: EphemeralPrivateKey,
        second: &[u8; 32],
    ) -> Result<[[u8; 32]; 2], Flaw> {
        self.derive(secret, &self.first, second)
    }

    /// The keys of answers and of offers.
    fn derive(
        &self,
        secret: EphemeralPrivateKey,
        theirs: &[u8; 32],
        second: &[u8; 32],
    ) -> Result<[[u8; 32]; 2], Flaw> {
        let peer = UnparsedPublicKey::new(&X25519, theirs);
        agree_ephemeral(secret, &peer, |shared| {
            let pseudorandom = Salt::new(HKDF_SHA256, b"crust introduction 1").extract(shared);
            [&b"answer"[..], b"offer"].map(|purpose| {
                let (dialer, receiver) = (self.dialer.as_bytes(), self.receiver.as_bytes());
                let context = [purpose, dialer, receiver, &self.first, second];
                let output = pseudorandom.expand(&context, HKDF_SHA256).expect("32 bytes are few");
                let mut key = [0; 32];
                output.fill(&mut key).expect("as long as asked for");
                key
            })
        })
        .map_err(|_| Flaw::Forged)
    }
}

/// Why a message of an introduction is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Flaw {
    #[error("the message is of version {found}, version {VERSION} is spoken here")]
    Version { found: u8 },
    #[error("the message cannot be read")]
    Malformed,
    #[error("the message was not made by the peer that it names, or not for us")]
    Forged,
    #[error("the message is our own")]
    Myself,
}

fn connection_key(mark: &ConnectionMark) -> hmac::Key {
    hmac::Key::new(hmac::HMAC_SHA256, mark)
}

fn public_of(secret: &EphemeralPrivateKey) -> [u8; 32] {
    let public = secret.compute_public_key().expect("every secret has a public key");
    public.as_ref().try_into().expect("keys of X25519 have 32 bytes")
}

const VERSION: u8 = 1;
const SIGNATURE_BYTES: usize = 64;
const TOKEN_PROOF: u8 = 1;
const LABEL_MARK: u8 = 2;
const NETWORK_MARK: u8 = 3;
const CONNECTION_PROOF: u8 = 4;
const SINGLE: u8 = 5;
/// Half as much again as this version writes: room for records of later ones.
pub(crate) const MAX_KNOCK_BYTES: usize = 384;
/// What `transport` says of a peer, other records, and the seal.
pub(crate) const MAX_NOTE_BYTES: usize = MAX_RENDEZVOUS_BYTES + 1_024;
/// The longest that `transport` reads.
pub(crate) const MAX_RENDEZVOUS_BYTES: usize = 3_072;
/// An answer has an ephemeral key and a signature before what is sealed.
pub(crate) const MAX_ANSWER_BYTES: usize = 1 + 32 + SIGNATURE_BYTES + MAX_NOTE_BYTES;

/// Any bytes as what is sealed.
#[cfg(fuzzing)]
pub(crate) fn fuzz_particulars(bytes: &[u8]) {
    if let Ok(particulars) = Particulars::decode(bytes) {
        assert_eq!(Particulars::decode(&particulars.encode()), Ok(particulars));
    }
}

#[cfg(test)]
mod tests;
