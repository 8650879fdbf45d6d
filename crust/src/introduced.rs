//! A meeting by way of an introducer, as whoever asks for it sees it.

use std::thread;

use transport::{Rendezvous, RendezvousError, RendezvousOffer};

use crate::{
    AttemptError, Introducer, Road,
    io::{
        introduce::{IntroductionError, Request},
        outlet::{EndCall, Outlet},
    },
    protocol::introduction::{Answer, ConnectionMark},
    road::Roads,
    shared::Learning,
};

/// What a peer is asked for by way of an introducer.
pub(crate) struct Introduction<'c> {
    pub(crate) request: Request<'c>,
    pub(crate) roads: Roads,
    /// What is to take another path, if it is not for a new connection.
    pub(crate) improves: Option<ConnectionMark>,
}

impl Introduction<'_> {
    /// Asks an introducer for the peer, and has `meet` meet it: by punching, or at the places where one of us listens.
    ///
    /// Nothing waits for what takes its time: how we are seen from outside and an address at a relay are learned meanwhile, and the
    /// peer is told of them when they are known.
    pub(crate) fn meet<T>(
        &self,
        introducer: &Introducer,
        rendezvous: Rendezvous,
        meet: impl FnOnce(Rendezvous, &RendezvousOffer) -> Result<T, RendezvousError>,
    ) -> Result<T, AttemptError> {
        let Request { shared, interrupt, deadline, .. } = self.request;
        let channel = rendezvous.channel();
        let ends = Learning { mapping: interrupt.part(), relaying: interrupt.part() };
        let outlet = Outlet::new(&channel).improving(self.improves);
        thread::scope(|scope| {
            let _ending = EndCall { ends: &ends, shared, outlet: &outlet };
            thread::Builder::new()
                .name("crust-learn".into())
                .spawn_scoped(scope, || shared.learn(&channel, self.roads, &ends, &|| outlet.tell()))
                .map_err(RendezvousError::Socket)?;
            let call = self.request.knock(introducer)?;
            let counts = match self.request.single {
                Some(single) => single.is_found(),
                None => interrupt.claim(deadline),
            };
            if !counts {
                let reason = "the peer is met by another introduction".to_owned();
                return Err(AttemptError::Skipped { reason });
            }
            let (speaking, answer, mut hearing) = call.split()?;
            let Answer { offer: theirs, sealing, vouched } = *answer;
            if let Some(ip) = vouched {
                channel.vouch(ip);
            }
            if self.roads.contains(Road::Punched) {
                speaking.be_vouched_for().map_err(|error| IntroductionError::from(&error))?;
            }
            let said = outlet.begin(sealing, None, move |note| speaking.say(note));
            said.map_err(|error| IntroductionError::from(&error))?;
            let channel = &channel;
            let heard = move || {
                while let Ok(more) = hearing.next(deadline) {
                    channel.receive(&more);
                }
                // It has moved meanwhile, say: what we look for is not there any more.
                if self.request.rescues.is_some() && hearing.is_declined() {
                    interrupt.interrupt();
                }
            };
            thread::Builder::new()
                .name("crust-hear".into())
                .spawn_scoped(scope, heard)
                .map_err(RendezvousError::Socket)?;
            let met = meet(rendezvous, &theirs);
            // A call with `single` goes on, and asks again in its own time.
            if met.is_err() && self.request.single.is_none() {
                interrupt.not_met();
            }
            Ok(met?)
        })
    }
}
