//! Both peers dial, and the two calls return the ends of one stream: a meeting whose tag is known beforehand.

use std::{
    io,
    net::SocketAddr,
    sync::{Arc, Mutex},
    thread,
    time::Instant,
};

use nat_traversal::{MappingConfig, MappingContext};

use super::{
    connect::{Call, Ground},
    further::Further,
    traces::{EndPunches, Expected, TcpFinds},
};
use crate::{
    Scheme, Stream,
    connect_options::ConnectOptions,
    identity::PublicKey,
    io::{clock, crank::Waited, lock::Lock as _, slot::Slot},
    protocol::{doors::doors, preface::RendezvousTag},
    rendezvous::RendezvousError,
    transport::Shared,
};

/// Dials the peer where it listens, and tries what is found meanwhile, until it does the same, or the deadline.
pub(crate) fn connect_single(
    shared: &Arc<Shared>,
    (peer, listeners): (PublicKey, &[(Scheme, SocketAddr)]),
    further: &Further,
    options: &ConnectOptions,
    begun: Instant,
    deadline: Instant,
) -> Result<Stream, RendezvousError> {
    if peer == shared.public_key {
        return Err(RendezvousError::Offer);
    }
    let slot = shared.crank.slot();
    let _watch = options.interrupter.as_ref().map(|interrupter| interrupter.watch(&slot));
    let _under_way = further.begin(&slot);
    let tag = RendezvousTag::of_two_calls(shared.public_key, peer, &options.label);
    rest(shared, &slot, tag, options, deadline)?;
    let expected = Expected::single(shared, tag, peer, options, deadline)?;
    let finds = TcpFinds { slot: slot.clone(), found: Mutex::default() };
    let context = MappingContext::new(MappingConfig::new()).map_err(io::Error::other)?;
    thread::scope(|scope| {
        let _ending = EndPunches(context.interrupter());
        let doors = doors(begun, listeners);
        let mut call = Call::new(shared, &slot, &expected, doors, begun, deadline, options);
        // By its own dial to a listener of ours, if there is one; else ours will do.
        call.dialable = true;
        call.further = Some(further);
        call.run(&finds, Some(Ground { scope, context: &context, finds: &finds }))
    })
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
