//! The crank and its slots, as they are in `transport`, under a scheduler that tries orders of their steps: a wake-up that can be
//! lost is a deadlock, which it finds. `ITERATIONS` sets how many orders of each scene; a failure prints how to replay it.
#![allow(dead_code, reason = "not everything of the modules is tried here")]

#[path = "../../src/io/alarm.rs"]
mod alarm;
#[path = "../../src/io/clock.rs"]
mod clock;
#[path = "../../src/io/crank.rs"]
mod crank;
#[path = "../../src/io/lock.rs"]
mod lock;
#[path = "../../src/io/ready_list.rs"]
mod ready_list;
#[path = "../../src/io/slot.rs"]
mod slot;
mod sync;
mod wire;

use std::{
    sync::{Arc, atomic::Ordering::SeqCst},
    time::Instant,
};

use shuttle::{sync::atomic::AtomicUsize, thread};

use alarm::Alarm;
use crank::{Crank, Waited};
use ready_list::ReadyList;
use slot::Slot;
use sync::Bell;
use wire::{Network, Packet, Wire};

/// A scene: its name, and what its threads do.
type Scene = (&'static str, fn());

const SCENES: [Scene; 11] = [
    ("one caller and the far end", || callers(1, false)),
    ("two callers hand the crank to each other", || callers(2, false)),
    ("three callers hand the crank to each other", || callers(3, false)),
    ("two callers and the background thread", || callers(2, true)),
    ("a crowd and the background thread", || callers(5, true)),
    ("who does not turn is served by the background thread", who_does_not_turn),
    ("a set beside a caller", a_set_beside_a_caller),
    ("a timer that is set while the leader falls asleep", a_timer_is_set),
    ("an errand, and the background thread for it", || an_errand(true)),
    ("an errand, and nobody but the leader for it", || an_errand(false)),
    ("closing while all wait", closing),
];

fn main() {
    let iterations = std::env::var("ITERATIONS").map_or(2_000, |text| text.parse().expect("a number"));
    let wanted = std::env::args().nth(1).unwrap_or_default();
    for (name, scene) in SCENES.into_iter().filter(|(name, _)| name.contains(&wanted)) {
        let begun = Instant::now();
        shuttle::check_random(scene, iterations);
        shuttle::check_pct(scene, iterations, 3); // so many forced changes of thread, at the least likely moments
        println!("{name:52} {:7} orders, {:5.1} s", 2 * iterations, begun.elapsed().as_secs_f64());
    }
}

/// Callers that each wait for so many packets of their own, which come whenever they come.
fn callers(count: usize, background: bool) {
    let (crank, wire) = crank();
    let standby = background.then(|| {
        let crank = crank.clone();
        thread::spawn(move || crank.run_background())
    });
    let places: Vec<Packet> = (0..count).map(|_| (crank.slot(), Arc::new(AtomicUsize::new(0)))).collect();
    let callers: Vec<_> = places
        .iter()
        .cloned()
        .map(|place| {
            let crank = crank.clone();
            thread::spawn(move || receive_all(&crank, &place))
        })
        .collect();
    for _ in 0..PACKETS {
        places.iter().for_each(|place| wire.send(place.clone()));
    }
    for caller in callers {
        caller.join().expect("it has received all");
    }
    crank.close();
    if let Some(standby) = standby {
        standby.join().expect("it has ended");
    }
}

fn receive_all(crank: &Crank<Network>, (slot, arrived): &Packet) {
    while arrived.load(SeqCst) < PACKETS {
        // A promotion wakes the slot for nothing: look, and wait again.
        assert_eq!(crank.wait(slot, None), Waited::Ready);
    }
    crank.leave();
}

/// One caller comes and goes; another only looks at its slot, so that the background thread must notice that nobody leads.
fn who_does_not_turn() {
    let (crank, wire) = crank();
    let [caller, passive]: [Packet; 2] = std::array::from_fn(|_| (crank.slot(), Arc::default()));
    let standby = {
        let crank = crank.clone();
        thread::spawn(move || crank.run_background())
    };
    let calling = {
        let (crank, place) = (crank.clone(), caller.clone());
        thread::spawn(move || receive_all(&crank, &place))
    };
    let looking = {
        let (slot, arrived) = passive.clone();
        thread::spawn(move || {
            slot.wait_parked();
            while arrived.load(SeqCst) < PACKETS {
                slot.park(None);
            }
        })
    };
    for _ in 0..PACKETS {
        wire.send(caller.clone());
    }
    calling.join().expect("it has received all");
    for _ in 0..PACKETS {
        wire.send(passive.clone());
    }
    looking.join().expect("it has received all");
    crank.close();
    standby.join().expect("it has ended");
}

/// A slot of a set is woken; the set waits by the crank, and so does somebody else.
fn a_set_beside_a_caller() {
    let (crank, wire) = crank();
    let list = Arc::new(ReadyList::new(crank.slot(), wire.waker()));
    let member: Packet = (crank.slot(), Arc::default());
    let alone: Packet = (crank.slot(), Arc::default());
    let set = {
        let (crank, list, member) = (crank.clone(), list.clone(), member.clone());
        thread::spawn(move || {
            member.0.attach(&list, 7);
            let mut keys = Vec::new();
            while member.1.load(SeqCst) < PACKETS {
                list.take(&mut keys);
                if keys.is_empty() {
                    assert_eq!(crank.wait(list.slot(), None), Waited::Ready);
                } else {
                    assert!(keys.iter().all(|key| *key == 7));
                    member.0.take_ready();
                }
            }
            member.0.detach();
            crank.leave();
        })
    };
    let caller = {
        let (crank, alone) = (crank.clone(), alone.clone());
        thread::spawn(move || receive_all(&crank, &alone))
    };
    for _ in 0..PACKETS {
        wire.send(member.clone());
        wire.send(alone.clone());
    }
    set.join().expect("it has received all");
    caller.join().expect("it has received all");
    crank.close();
}

/// Whoever sets a timer tells the leader, which may be about to sleep without end.
fn a_timer_is_set() {
    let (crank, wire) = crank();
    let place: Packet = (crank.slot(), Arc::default());
    let waiting = {
        let (crank, (slot, rung)) = (crank.clone(), place.clone());
        thread::spawn(move || {
            while rung.load(SeqCst) == 0 {
                assert_eq!(crank.wait(&slot, None), Waited::Ready);
            }
        })
    };
    wire.set_timer(place);
    crank.poke(clock::now());
    waiting.join().expect("the timer rang");
}

/// A turn leaves something to be done between two turns, and its leader has nothing else to wait for until it is done.
fn an_errand(background: bool) {
    let (crank, wire) = crank();
    let standby = background.then(|| {
        let crank = crank.clone();
        thread::spawn(move || crank.run_background())
    });
    let place: Packet = (crank.slot(), Arc::default());
    let leading = {
        let (crank, place) = (crank.clone(), place.clone());
        thread::spawn(move || receive_all(&crank, &place))
    };
    let done: Packet = (crank.slot(), Arc::default());
    let errand = {
        let (slot, count) = done.clone();
        Box::new(move || {
            count.fetch_add(1, SeqCst);
            slot.wake();
        })
    };
    let sender = crank.clone();
    wire.do_within(move || sender.send_on(errand));
    crank.alarm().wake();
    done.0.wait_parked();
    while done.1.load(SeqCst) == 0 {
        done.0.park(None);
    }
    for _ in 0..PACKETS {
        wire.send(place.clone());
    }
    leading.join().expect("it has received all");
    crank.close();
    if let Some(standby) = standby {
        standby.join().expect("it has ended");
    }
}

/// Nothing ever comes, and all of them return.
fn closing() {
    let (crank, _wire) = crank();
    let slots: Vec<Arc<Slot>> = (0..3).map(|_| crank.slot()).collect();
    let waiting: Vec<_> = slots
        .into_iter()
        .map(|slot| {
            let crank = crank.clone();
            thread::spawn(move || while crank.wait(&slot, None) != Waited::Closed {})
        })
        .collect();
    let standby = {
        let crank = crank.clone();
        thread::spawn(move || crank.run_background())
    };
    crank.close();
    for waiting in waiting {
        waiting.join().expect("it has returned");
    }
    standby.join().expect("it has ended");
}

fn crank() -> (Arc<Crank<Network>>, Arc<Wire>) {
    let wire = Arc::<Wire>::default();
    let alarm = Arc::new(Alarm::new(wire.waker()));
    alarm.set_bell(Some(Arc::new(Bell(wire.clone()))));
    (Arc::new(Crank::new(Network { wire: wire.clone(), alarm: alarm.clone() }, alarm)), wire)
}

const PACKETS: usize = 2;
