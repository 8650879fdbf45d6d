//! What only somebody who keeps to no rule would send; for the fuzz targets alone.

use super::{
    OnionKey, OnionSecret, Packet,
    packet::{BODY_BYTES, Header, LAYERS_BYTES},
};

/// A packet for whoever has this key that anybody could have made who keeps to no rule: these layers and this body, filled up with zeros and
/// encrypted as they must be. `None` where that is no key.
#[must_use]
pub fn sealed(receiver: &OnionKey, seed: [u8; 32], layers: &[u8], body: &[u8]) -> Option<Packet> {
    let secret = OnionSecret::from_seed(seed);
    let keys = secret.writing(receiver)?;
    let (mut all, mut text) = (Box::new([0; LAYERS_BYTES]), Box::new([0; BODY_BYTES]));
    all.iter_mut().zip(layers).for_each(|(to, from)| *to = *from);
    text.iter_mut().zip(body).for_each(|(to, from)| *to = *from);
    all[33..49].copy_from_slice(&keys.body.seal(&mut text[..])); // where its layer has the tag of the body
    let tag = keys.seal_header(&mut all);
    Some(Packet { header: Header { ephemeral: secret.public(), tag, layers: all }, body: text })
}
