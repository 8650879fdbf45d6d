//! Both peers dial, and the two calls return the ends of one stream: a meeting whose tag is known beforehand.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Instant,
};

use ring::digest::{Context, SHA256};

use super::{
    connect::Call,
    traces::{Expected, TcpFinds},
};
use crate::{
    Scheme, Stream,
    admission::ProtocolLabel,
    connect_options::ConnectOptions,
    identity::PublicKey,
    io::{clock, crank::Waited, lock::Lock as _, slot::Slot},
    protocol::{doors::doors, preface::RendezvousTag},
    rendezvous::RendezvousError,
    transport::Shared,
};

/// Dials the peer where it listens until it does the same, or the deadline.
pub(crate) fn connect_single(
    shared: &Arc<Shared>,
    peer: PublicKey,
    listeners: &[(Scheme, SocketAddr)],
    options: &ConnectOptions,
    begun: Instant,
    deadline: Instant,
) -> Result<Stream, RendezvousError> {
    if peer == shared.public_key {
        return Err(RendezvousError::Offer);
    }
    let slot = shared.crank.slot();
    let _watch = options.interrupter.as_ref().map(|interrupter| interrupter.watch(&slot));
    let tag = tag(shared.public_key, peer, &options.label);
    rest(shared, &slot, tag, options, deadline)?;
    let expected = Expected::single(shared, tag, peer, options, deadline)?;
    let finds = TcpFinds { slot: slot.clone(), found: Mutex::default() };
    let doors = doors(begun, listeners);
    let mut call = Call::new(shared, &slot, &expected, doors, begun, deadline, options);
    // By its own dial to a listener of ours, if there is one; else ours will do.
    call.dialable = true;
    call.run(&finds)
}

/// Lets what the last call of the two left on the way arrive first, lest it be taken for this one's: the tag is the same.
fn rest(
    shared: &Shared,
    slot: &Arc<Slot>,
    tag: RendezvousTag,
    options: &ConnectOptions,
    deadline: Instant,
) -> Result<(), RendezvousError> {
    loop {
        if options.is_interrupted() {
            return Err(RendezvousError::Interrupted);
        }
        let rests = shared.meetings.hold().rests(clock::now(), tag);
        let Some(until) = rests.filter(|_| clock::now() < deadline) else { return Ok(()) };
        if let Waited::Closed = shared.crank.wait(slot, Some(until.min(deadline))) {
            return Err(RendezvousError::Closed);
        }
    }
}

/// The same for both. It is no secret: a stream with it is taken from that peer only.
fn tag(ours: PublicKey, theirs: PublicKey, label: &ProtocolLabel) -> RendezvousTag {
    let mut context = Context::new(&SHA256);
    context.update(b"crust single 1");
    context.update(ours.min(theirs).as_bytes());
    context.update(ours.max(theirs).as_bytes());
    context.update(label.as_str().as_bytes());
    let mut tag = RendezvousTag([0; 16]);
    tag.0.copy_from_slice(&context.finish().as_ref()[..16]);
    tag
}
