use std::fmt;

use ring::{
    aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, Tag as RingTag, UnboundKey},
    hkdf::{HKDF_SHA256, KeyType, Prk, Salt},
};
use x25519_dalek::{PublicKey as DalekKey, StaticSecret};
use zeroize::Zeroizing;

use super::packet::{LAYER_BYTES, LAYERS_BYTES};

/// What a node reads the packets with that are for it (X25519, RFC 7748). Wiped when it is dropped.
pub struct OnionSecret {
    secret: StaticSecret,
    public: OnionKey,
}

impl OnionSecret {
    /// Any 32 bytes that nobody else knows.
    #[must_use]
    pub fn from_seed(seed: [u8; 32]) -> Self {
        let secret = StaticSecret::from(seed);
        let public = OnionKey(DalekKey::from(&secret).to_bytes());
        Self { secret, public }
    }

    /// What others write packets for it with.
    #[must_use]
    pub const fn public(&self) -> OnionKey {
        self.public
    }

    /// What this node reads a layer with.
    pub(super) fn reading(&self, ephemeral: &OnionKey) -> Option<LayerKeys> {
        LayerKeys::agree(&self.secret, ephemeral, ephemeral, &self.public)
    }

    /// What a sender, whose secret for this one layer this is, writes it with.
    pub(super) fn writing(&self, receiver: &OnionKey) -> Option<LayerKeys> {
        LayerKeys::agree(&self.secret, receiver, &self.public, receiver)
    }
}

impl fmt::Debug for OnionSecret {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("OnionSecret").field("public", &self.public).finish_non_exhaustive()
    }
}

/// The public half of an [`OnionSecret`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct OnionKey([u8; 32]);

impl OnionKey {
    /// Any 32 bytes; those that are no key let nothing be written for them.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The 32 bytes of the key.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

/// Which packet it was: nobody but its receiver and whoever wrote it can tell.
pub(super) type ReplayTag = [u8; 16];

/// What shows that bytes were not changed.
pub(super) type Tag = [u8; 16];

/// Everything that a sender and one hop share for one packet. Each key here is used for one thing, once.
pub(super) struct LayerKeys {
    header: StreamKey,
    pub(super) body: StreamKey,
    /// What the hop adds at the end of the header in place of the layer that it takes off.
    pub(super) filler: Zeroizing<[u8; LAYER_BYTES]>,
    pub(super) replay: ReplayTag,
}

impl LayerKeys {
    fn agree(
        secret: &StaticSecret,
        other: &OnionKey,
        ephemeral: &OnionKey,
        receiver: &OnionKey,
    ) -> Option<Self> {
        let shared = secret.diffie_hellman(&DalekKey::from(other.0));
        // Keys of small order give the same secret to everybody.
        if !shared.was_contributory() {
            return None;
        }
        let extracted = Salt::new(HKDF_SHA256, PURPOSE).extract(shared.as_bytes());
        let context = [ephemeral.as_bytes(), receiver.as_bytes()];
        Some(Self {
            header: StreamKey(expand(&extracted, b"header", context)),
            body: StreamKey(expand(&extracted, b"body", context)),
            filler: expand(&extracted, b"filler", context),
            replay: *expand(&extracted, b"replay", context),
        })
    }

    /// Encrypts the layers of a header; gives the tag.
    pub(super) fn seal_header(&self, layers: &mut [u8; LAYERS_BYTES]) -> Tag {
        self.header.seal(layers)
    }

    /// Undoes [`LayerKeys::seal_header`]; tells whether the tag is right. If not, what is there is of no use.
    pub(super) fn open_header(&self, tag: &Tag, layers: &mut [u8; LAYERS_BYTES]) -> bool {
        self.header.open(tag, layers)
    }

    /// What a header is mixed with when it is encrypted. It is for its writer, who needs to know how the end of it will look.
    pub(super) fn header_stream(&self) -> Zeroizing<[u8; LAYERS_BYTES]> {
        let mut stream = Zeroizing::new([0; LAYERS_BYTES]);
        self.header.mix(&mut *stream);
        stream
    }
}

/// A key of ChaCha20-Poly1305 (RFC 8439) for one text: so the nonce need not change.
#[derive(Clone)]
pub(super) struct StreamKey(Zeroizing<[u8; 32]>);

impl StreamKey {
    pub(super) fn new(bytes: [u8; 32]) -> Self {
        Self(Zeroizing::new(bytes))
    }

    /// Encrypts; gives the tag.
    pub(super) fn seal(&self, text: &mut [u8]) -> Tag {
        let tag = self.key().seal_in_place_separate_tag(nonce(), Aad::empty(), text);
        tag.expect("a packet is far from the limit of 256 GiB")
            .as_ref()
            .try_into()
            .expect("a tag has 16 bytes")
    }

    /// Decrypts; tells whether the tag is right. If not, what is there is of no use.
    pub(super) fn open(&self, tag: &Tag, text: &mut [u8]) -> bool {
        self.key().open_in_place_separate_tag(nonce(), Aad::empty(), RingTag::from(*tag), text, 0..).is_ok()
    }

    /// Mixes with the key's stream, which undoes itself.
    pub(super) fn mix(&self, text: &mut [u8]) {
        self.seal(text);
    }

    fn key(&self) -> LessSafeKey {
        LessSafeKey::new(UnboundKey::new(&CHACHA20_POLY1305, &*self.0).expect("its keys have 32 bytes"))
    }
}

/// 32 bytes made of a secret, for one purpose.
pub(super) fn derive(secret: &[u8; 32], purpose: &[u8], number: u8) -> Zeroizing<[u8; 32]> {
    expand(&Salt::new(HKDF_SHA256, PURPOSE).extract(secret), purpose, [&[number; 32], &[0; 32]])
}

/// So many bytes made of a secret, which nobody can tell from chance.
pub(super) fn noise<const N: usize>(secret: &[u8; 32]) -> Zeroizing<[u8; N]> {
    expand(&Salt::new(HKDF_SHA256, PURPOSE).extract(secret), b"noise", [&[0; 32], &[0; 32]])
}

/// HKDF (RFC 5869).
fn expand<const N: usize>(secret: &Prk, purpose: &[u8], context: [&[u8; 32]; 2]) -> Zeroizing<[u8; N]> {
    struct Length(usize);
    impl KeyType for Length {
        fn len(&self) -> usize {
            self.0
        }
    }
    let mut bytes = Zeroizing::new([0; N]);
    // The context has a fixed length, so no two pairs of purpose and context look the same.
    let info = [&context[0][..], context[1], purpose];
    let filled = secret.expand(&info, Length(N)).and_then(|output| output.fill(&mut *bytes));
    filled.expect("less than the limit of 8,160 bytes is asked for");
    bytes
}

fn nonce() -> Nonce {
    Nonce::assume_unique_for_key([0; 12])
}

const PURPOSE: &[u8] = b"crust examples: kv onion 1";
