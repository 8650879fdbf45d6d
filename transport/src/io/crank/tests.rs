//! The crank over a real poll, with a network that is a list of slots to wake.

use std::sync::{
    atomic::AtomicUsize,
    mpsc::{self, Receiver, Sender},
};

use mio::{Events, Poll, Token, Waker};

use super::{sleep::AWAKE, *};

struct Network {
    poll: Poll,
    events: Events,
    packets: Receiver<Packet>,
}

type Packet = (Arc<Slot>, Arc<AtomicUsize>);

impl Turn for Network {
    fn turn(&mut self, deadline: Option<Instant>, sleep: &Sleep) -> bool {
        sleep.prepare();
        sleep.until(deadline);
        let timeout = deadline.map(|deadline| deadline.saturating_duration_since(clock::now()));
        self.poll.poll(&mut self.events, timeout).unwrap();
        sleep.over();
        self.packets.try_iter().fold(false, |others, (slot, arrived)| {
            arrived.fetch_add(1, SeqCst);
            slot.wake_in_turn() | others
        })
    }
}

/// A crank, and the far end of its network: what is sent there arrives as a packet for a slot.
fn crank() -> (Arc<Crank<Network>>, Far) {
    let poll = Poll::new().unwrap();
    let alarm = alarm(&poll);
    let (packets, inbox) = mpsc::channel();
    let network = Network { poll, events: Events::with_capacity(8), packets: inbox };
    (Arc::new(Crank::new(network, alarm.clone())), Far { packets, alarm })
}

fn alarm(poll: &Poll) -> Arc<Alarm> {
    Arc::new(Alarm::new(Waker::new(poll.registry(), Token(0)).unwrap()))
}

#[derive(Clone)]
struct Far {
    packets: Sender<Packet>,
    alarm: Arc<Alarm>,
}

impl Far {
    fn send(&self, slot: &Arc<Slot>, arrived: &Arc<AtomicUsize>) {
        self.packets.send((slot.clone(), arrived.clone())).unwrap();
        self.alarm.wake();
    }
}

fn soon() -> Option<Instant> {
    Some(clock::now() + Duration::from_secs(30))
}

/// So many threads, each of which waits for its own packets; the next is sent only after the last was seen, so that a lost
/// wake-up is a wait that times out.
fn every_waiter_gets_its_packets(threads: usize, background: bool) {
    let (crank, far) = crank();
    thread::scope(|scope| {
        let standby = background.then(|| scope.spawn(|| crank.run_background()));
        let waiters: Vec<_> = (0..threads).map(|_| scope.spawn(|| receive_all(&crank, &far))).collect();
        let all_received = waiters.into_iter().all(|waiter| waiter.join().unwrap());
        crank.close();
        if let Some(standby) = standby {
            standby.join().unwrap();
        }
        assert!(all_received, "a wake-up was lost");
    });
}

fn receive_all(crank: &Crank<Network>, far: &Far) -> bool {
    let slot = crank.slot();
    let arrived = Arc::new(AtomicUsize::new(0));
    let (ask, asked) = mpsc::channel();
    let (far, to) = (far.clone(), (slot.clone(), arrived.clone()));
    let sender = thread::spawn(move || asked.iter().for_each(|()| far.send(&to.0, &to.1)));
    let received = (1..=ROUNDS).all(|round| {
        ask.send(()).unwrap();
        // A promotion wakes the slot for nothing: look, and wait again.
        while arrived.load(SeqCst) < round {
            if crank.wait(&slot, soon()) != Waited::Ready {
                return false;
            }
        }
        true
    });
    drop(ask);
    sender.join().unwrap();
    received
}

#[test]
fn one_caller_turns_for_itself() {
    every_waiter_gets_its_packets(1, false);
}

#[test]
fn callers_hand_the_crank_to_each_other() {
    every_waiter_gets_its_packets(3, false);
    every_waiter_gets_its_packets(3, true);
}

#[test]
fn a_crowd_is_served_by_the_background_thread() {
    every_waiter_gets_its_packets(8, true);
}

#[test]
fn the_follower_who_came_last_is_promoted() {
    let (crank, _far) = crank();
    let [first, last] = [crank.slot(), crank.slot()];
    let places = (crank.follow(&first), crank.follow(&last));
    crank.promote();
    assert_eq!((first.is_ready(), last.is_ready()), (false, true));
    crank.promote();
    assert!(first.is_ready(), "whoever is woken already needs no promotion");
    drop(places);
}

#[test]
fn a_wake_from_another_thread_interrupts_the_leader() {
    let (crank, _far) = crank();
    let slot = crank.slot();
    thread::scope(|scope| {
        scope.spawn(|| {
            while crank.sleep.until_nanos.load(SeqCst) == AWAKE {
                thread::yield_now();
            }
            slot.wake();
        });
        assert_eq!(crank.wait(&slot, soon()), Waited::Ready);
    });
}

#[test]
fn the_background_thread_serves_who_only_looks_at_the_slot() {
    let (crank, far) = crank();
    let slot = crank.slot();
    thread::scope(|scope| {
        scope.spawn(|| crank.run_background());
        far.send(&slot, &Arc::default());
        assert!(slot.wait_alone(soon()));
        crank.close();
    });
}

#[test]
fn whoever_held_the_crank_for_a_moment_wakes_the_thread_that_found_it_taken() {
    let (crank, _far) = crank();
    *crank.background.thread.hold() = Some(thread::current());
    crank.background.dozing.store(true, SeqCst);
    let leave: fn(&Crank<Network>) = Crank::leave;
    let turn = |crank: &Crank<Network>| assert_ne!(crank.turn_once(clock::now() + TICK), Waited::Closed);
    for let_go in [leave, turn] {
        let_go(&crank);
        let begun = clock::now();
        thread::park_timeout(Duration::from_secs(30));
        assert!(begun.elapsed() < Duration::from_secs(20));
    }
}

#[test]
fn an_errand_is_done_by_the_background_thread_while_a_leader_stays() {
    let (crank, far) = crank();
    let slot = crank.slot();
    let (tell, told) = mpsc::channel();
    thread::scope(|scope| {
        let leader = scope.spawn(|| crank.wait(&slot, soon()));
        let standby = scope.spawn(|| crank.run_background());
        let by = standby.thread().id();
        while !crank.background.dozing.load(SeqCst) {
            thread::yield_now();
        }
        crank.send_on(Box::new(move || tell.send(thread::current().id()).unwrap()));
        assert_eq!(told.recv_timeout(Duration::from_secs(30)), Ok(by));
        far.send(&slot, &Arc::default());
        assert_eq!(leader.join().unwrap(), Waited::Ready);
        crank.close();
    });
}

#[test]
fn without_a_background_thread_the_leader_does_errands_and_goes_on_waiting() {
    let (crank, far) = crank();
    let slot = crank.slot();
    let (tell, told) = mpsc::channel();
    thread::scope(|scope| {
        let leader = scope.spawn(|| crank.wait(&slot, soon()));
        let by = leader.thread().id();
        crank.send_on(Box::new(move || tell.send(thread::current().id()).unwrap()));
        // As the turn would end that sent it.
        crank.alarm().wake();
        assert_eq!(told.recv_timeout(Duration::from_secs(30)), Ok(by));
        far.send(&slot, &Arc::default());
        assert_eq!(leader.join().unwrap(), Waited::Ready);
    });
}

#[test]
fn closing_ends_leader_and_followers() {
    let (crank, _far) = crank();
    thread::scope(|scope| {
        let waits: Vec<_> = (0..3).map(|_| scope.spawn(|| crank.wait(&crank.slot(), soon()))).collect();
        while crank.followers.hold().len() < 2 {
            thread::yield_now();
        }
        crank.close();
        for wait in waits {
            // A follower may first be woken for nothing; its next wait then ends.
            let waited = wait.join().unwrap();
            assert!(matches!(waited, Waited::Closed | Waited::Ready), "{waited:?}");
        }
    });
    assert_eq!(crank.wait(&crank.slot(), soon()), Waited::Closed);
}

#[test]
fn a_deadline_ends_a_wait_and_leaves_nothing_behind() {
    let (crank, _far) = crank();
    let deadline = clock::now() + Duration::from_millis(5);
    assert_eq!(crank.wait(&crank.slot(), Some(deadline)), Waited::TimedOut);
    assert!(clock::now() >= deadline && crank.followers.hold().is_empty());
}

#[test]
fn an_earlier_timer_interrupts_the_sleep_and_a_later_one_does_not() {
    let (crank, _far) = crank();
    crank.sleep.prepare();
    let timer = clock::now() + Duration::from_secs(5);
    crank.sleep.until(Some(timer));
    let nanos = crank.sleep.until_nanos.load(SeqCst);
    assert!(crank.sleep.nanos(timer + Duration::from_secs(1)) > nanos);
    assert!(crank.sleep.nanos(timer - Duration::from_secs(1)) < nanos);
}

#[test]
fn a_panic_in_the_driver_closes_the_crank() {
    struct Broken;
    impl Turn for Broken {
        fn turn(&mut self, _: Option<Instant>, _: &Sleep) -> bool {
            panic!("on purpose")
        }
    }
    let poll = Poll::new().unwrap();
    let crank = Crank::new(Broken, alarm(&poll));
    thread::scope(|scope| {
        let broken = scope.spawn(|| crank.wait(&crank.slot(), soon()));
        assert!(broken.join().is_err());
    });
    assert_eq!(crank.wait(&crank.slot(), soon()), Waited::Closed);
}

const ROUNDS: usize = 1_000;
