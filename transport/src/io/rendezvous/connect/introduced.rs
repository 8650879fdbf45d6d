//! The part of a call that takes in what the two sides have told each other: by one introduction mostly, by several where both call with
//! `single`.

use std::{net::SocketAddr, sync::Arc, thread, time::Instant};

use nat_traversal::{
    LateAddresses, MappedSocketAddr, MappingContext, PrivRendezvousInfo, tcp_punch_hole_with,
};

use super::Call;
use crate::{
    PathKind, Scheme,
    io::{
        clock,
        rendezvous::{
            Hold,
            further::{Found, Further, IntroductionNumber, Way},
            half::{Half, OpenHole, PunchSocket},
            punches::without_addresses,
            traces::{EndPunches, TcpFinds},
        },
    },
    path::PathKinds,
    protocol::{
        doors::doors,
        offer::{Hole, Offer},
        precedence::Told,
        punching::RELAYS_AFTER,
    },
    rendezvous::{RendezvousError, RendezvousRoad},
};

/// Where the punches for TCP of one call run, each on a thread.
#[derive(Clone, Copy)]
pub(in super::super) struct Ground<'scope, 'env> {
    pub(in super::super) scope: &'scope thread::Scope<'scope, 'env>,
    pub(in super::super) context: &'env MappingContext,
    pub(in super::super) finds: &'env TcpFinds,
}

/// What the two tell each other by whoever carries it.
pub(super) struct Introduced {
    pub(super) number: IntroductionNumber,
    pub(super) begun: Instant,
    pub(super) half: Arc<Half>,
    /// What each has told so far.
    pub(super) theirs: Offer,
    pub(super) ours: Vec<(Hole, Vec<MappedSocketAddr>)>,
    /// Ours, in the order of their numbers.
    pub(super) relays: Vec<Hold>,
    /// What the punches for TCP are told, and what ends them.
    pub(super) late: Vec<(Hole, LateAddresses)>,
    _ending: Vec<EndPunches>,
    /// One of the two may learn more.
    pub(super) more: bool,
}

impl Introduced {
    pub(super) fn told(&self, hole: Hole) -> Told<'_> {
        let ours = self.ours.iter().find(|(of, _)| *of == hole).map_or(&[][..], |(_, all)| all);
        Told { ours, theirs: self.theirs.endpoints(hole) }
    }

    /// One of the two knows that a relay is needed.
    pub(super) fn relay_at_once(&self) -> bool {
        self.half.relay_at_once || self.theirs.relay_at_once
    }

    /// When relays are used, if nothing direct has worked.
    pub(super) fn relays_from(&self) -> Instant {
        if self.relay_at_once() { self.begun } else { self.begun + RELAYS_AFTER }
    }

    pub(super) const fn may_learn_more(&self) -> bool {
        self.more
    }
}

impl Call<'_> {
    /// Begins what can be done with an offer and our half of it.
    pub(super) fn introduce(
        &mut self,
        ground: Ground<'_, '_>,
        number: IntroductionNumber,
        half: &Arc<Half>,
        (holes, second): (Vec<(OpenHole, PrivRendezvousInfo)>, bool),
        theirs: &Offer,
    ) -> Result<(), RendezvousError> {
        let (begun, deadline) = (clock::now(), self.deadline);
        let (mut late, mut ending) = (Vec::new(), Vec::new());
        for (open, info) in holes {
            let hole = open.hole;
            let Some(told) = &theirs.holes[hole as usize] else { continue };
            let socket = match open.socket {
                PunchSocket::Udp(hold) => {
                    let how = (open.is_direct, second && !theirs.second);
                    self.begin_udp((number, hole), info, told, hold, how)?;
                    continue;
                }
                PunchSocket::Tcp(socket) => socket,
            };
            let (addresses, told) = (LateAddresses::new(), without_addresses(told));
            late.push((hole, addresses.clone()));
            let (part, finds) = (ground.context.part(), ground.finds);
            ending.push(EndPunches(part.interrupter()));
            let punch = move || {
                finds.report(hole, tcp_punch_hole_with(socket, info, &told, &addresses, &part, deadline));
            };
            let thread = thread::Builder::new().name("transport-punch".into());
            match thread.spawn_scoped(ground.scope, punch) {
                Ok(_) => self.tcp_punches += 1,
                Err(error) => self.fail(RendezvousRoad::TcpPunch { v6: hole == Hole::TcpV6 }, begun, &error),
            }
        }
        self.introductions.push(Introduced {
            number,
            begun,
            half: half.clone(),
            theirs: theirs.clone(),
            ours: Vec::new(),
            relays: Vec::new(),
            late,
            _ending: ending,
            more: true,
        });
        Ok(())
    }

    /// Takes in what others have found meanwhile.
    pub(super) fn take_further(&mut self, now: Instant, ground: Option<Ground<'_, '_>>) {
        let Some((further, ground)) = self.further.zip(ground) else { return };
        let Found { listeners, introductions, ended } = Further::take(further);
        for number in ended {
            self.forget(number);
        }
        self.open_doors(now, &listeners, PathKinds::ALL);
        for Way { number, half, theirs } in introductions {
            let Some(ours) = half.begin(self.slot) else { continue };
            self.open_doors(now, &theirs.listeners, half.ways);
            if let Err(error) = self.introduce(ground, number, &half, (ours.holes, ours.second), &theirs) {
                tracing::debug!(%error, peer = %self.peer, "an introduction is of no use");
                self.forget(number);
            }
        }
    }

    /// Nobody carries news of it any more: what it has led to goes on, and nothing else does.
    fn forget(&mut self, number: IntroductionNumber) {
        self.introductions.retain(|introduced| introduced.number != number);
        self.punches.retain(|punch| punch.introduced != Some(number));
        self.held.retain(|held| held.introduced != number);
    }

    /// Dials there as well, where it is not dialled already.
    fn open_doors(&mut self, now: Instant, listeners: &[(Scheme, SocketAddr)], ways: PathKinds) {
        let is_new = |&&(scheme, remote): &&(Scheme, SocketAddr)| {
            self.doors.iter().all(|door| (door.scheme, door.remote) != (scheme, remote))
                && ways.contains(PathKind::of(remote, false))
        };
        let room = MAX_DOORS.saturating_sub(self.doors.len());
        let new: Vec<_> = listeners.iter().filter(is_new).take(room).copied().collect();
        self.doors.extend(doors(now, &new));
    }
}

/// As many as four offers name; whoever introduces a peer again and again cannot make us scan ports.
const MAX_DOORS: usize = 64;
