use std::net::IpAddr;

use transport::PublicKey;

use super::*;
use crate::protocol::introducer::{Bounds, ClientId, Order, Switchboard, frame::Frame};

#[expect(clippy::disallowed_methods, reason = "a test has to count from somewhere")]
fn start() -> Instant {
    Instant::now()
}

const ROUND_TRIP: Duration = Duration::from_millis(80);
/// A packet that is lost on its way is repeated after that.
const REPEATED: Duration = Duration::from_millis(300);

/// A peer and an introducer, with the peer's NAT between them.
struct World {
    now: Instant,
    board: Switchboard,
    client: ClientId,
    pulse: Pulse,
    rhythm: Rhythm,
    /// How long the NAT remembers a binding on which the peer sends nothing.
    lifetime: Duration,
    last_sent: Instant,
    sent: Vec<Instant>,
    /// When the introducer could not reach the peer.
    cut_off: Vec<[Instant; 2]>,
}

impl World {
    fn new(lifetime: Duration) -> Self {
        let now = start();
        let mut board = Switchboard::new(Bounds::default(), 3478);
        let client =
            board.connect(now, PublicKey::from_bytes([1; 32]), IpAddr::from([192, 0, 2, 1])).unwrap();
        let mut pulse = Pulse::new();
        let rhythm = pulse.handle_attached(now);
        let (sent, cut_off) = (Vec::new(), Vec::new());
        let mut world = Self { now, board, client, pulse, rhythm, lifetime, last_sent: now, sent, cut_off };
        world.tell(Frame::Attach);
        world.take_orders();
        world.keep(rhythm);
        world
    }

    /// The peer sends, which opens the NAT.
    fn send(&mut self) {
        let (now, closed) = (self.now, self.last_sent + self.lifetime);
        if closed < now {
            self.cut_off.push([closed, now]);
        }
        self.last_sent = now;
        self.sent.push(now);
    }

    fn tell(&mut self, frame: Frame) {
        self.send();
        self.board.handle_frame(self.now + ROUND_TRIP / 2, self.client, frame);
    }

    fn keep(&mut self, rhythm: Rhythm) {
        self.rhythm = rhythm;
        self.pulse.handle_sent(self.now);
        self.tell(Frame::Rest { seconds: rhythm.seconds });
    }

    /// How many Stills the introducer sends now.
    fn take_orders(&mut self) -> usize {
        let orders = std::iter::from_fn(|| self.board.poll_order());
        orders.filter(|(_, order)| *order == Order::Send(Frame::Still)).count()
    }

    fn run(&mut self, time: Duration) {
        let end = self.now + time;
        loop {
            let speaks = self.last_sent + self.rhythm.keep_alive;
            let spoken_to = self.board.poll_timeout();
            let next = spoken_to.into_iter().chain([speaks]).min().unwrap();
            if next > end {
                self.now = end;
                return;
            }
            self.now = self.now.max(next);
            if Some(next) != spoken_to {
                self.send();
                continue;
            }
            self.board.handle_timeout(self.now);
            if self.take_orders() == 0 {
                continue;
            }
            let arrives = self.now + ROUND_TRIP / 2;
            if self.last_sent + self.lifetime < arrives {
                // It gets through when the peer has spoken.
                self.now = self.now.max(self.last_sent + self.rhythm.keep_alive);
                self.send();
                self.now += REPEATED;
            } else {
                self.now = arrives;
            }
            // The acknowledgement.
            self.send();
            if let Some(rhythm) = self.pulse.handle_still(self.now) {
                self.keep(rhythm);
            }
        }
    }

    fn silence(&self) -> Duration {
        Duration::from_secs(self.rhythm.seconds.into())
    }

    /// Packets that the peer sends in that time.
    fn packets(&mut self, time: Duration) -> usize {
        let before = self.sent.len();
        self.run(time);
        self.sent.len() - before
    }
}

const HOUR: Duration = Duration::from_secs(3_600);

#[test]
fn the_longest_silence_that_the_nat_bears_is_found_and_kept() {
    for (lifetime, found) in
        [(12, 0), (16, 15), (20, 15), (30, 25), (45, 40), (59, 40), (62, 60), (120, 60), (7_200, 60)]
    {
        let mut world = World::new(Duration::from_secs(lifetime));
        world.run(HOUR / 6);
        assert_eq!(world.silence(), Duration::from_secs(found), "{lifetime} s");
        let expected = 3_600 / found.max(15);
        let packets = world.packets(HOUR);
        assert!(
            packets <= usize::try_from(expected).unwrap() + 1,
            "{lifetime} s: {packets} packets in an hour"
        );
        assert_eq!(world.silence(), Duration::from_secs(found), "{lifetime} s");
    }
}

#[test]
fn learning_costs_no_packet_and_five_seconds_at_most_for_each_silence_that_fails() {
    for lifetime in 16..130 {
        let mut world = World::new(Duration::from_secs(lifetime));
        let packets = world.packets(HOUR * 5);
        // The one that asks for another silence goes with the acknowledgement.
        let attempts = SILENCES.len();
        assert!(packets <= 5 * 3_600 / 15 + attempts * 2, "{lifetime} s: {packets}");
        assert!(world.cut_off.len() <= 1, "{lifetime} s: {:?}", world.cut_off.len());
        for [from, to] in &world.cut_off {
            let tried = SILENCES.iter().find(|silence| **silence + ROUND_TRIP > world.lifetime).unwrap();
            let reached_late = (*to - *from).saturating_sub(*tried - world.lifetime.min(*tried));
            assert!(reached_late <= GRACE + ROUND_TRIP, "{lifetime} s: {reached_late:?}");
        }
    }
}

#[test]
fn what_failed_is_tried_again_after_six_hours_and_in_another_network() {
    let mut world = World::new(Duration::from_secs(30));
    world.run(HOUR * 5);
    assert_eq!(world.cut_off.len(), 1);
    // Another router by the same addresses.
    world.lifetime = HOUR;
    world.run(HOUR / 2);
    assert_eq!(world.silence(), Duration::from_secs(25));
    world.run(HOUR);
    assert_eq!(world.silence(), Duration::from_secs(60));

    world.lifetime = Duration::from_secs(30);
    world.run(HOUR);
    assert_eq!(world.silence(), Duration::from_secs(25));
    world.lifetime = HOUR;
    world.pulse.handle_network_change();
    let rhythm = world.pulse.handle_attached(world.now);
    world.keep(rhythm);
    world.run(HOUR / 6);
    assert_eq!(world.silence(), Duration::from_secs(60));
}

#[test]
fn a_loss_before_the_first_proof_bars_the_silence_and_one_after_it_does_not() {
    let mut world = World::new(HOUR);
    // Fifteen seconds are proved twice, and the introducer is asked for more.
    world.run(Duration::from_secs(32));
    assert_eq!(world.silence(), SILENCES[1]);
    world.pulse.handle_lost(world.now);
    let rhythm = world.pulse.handle_attached(world.now);
    assert_eq!(rhythm.seconds, 15, "it begins with what every NAT bears");
    world.keep(rhythm);
    world.run(HOUR);
    assert_eq!(world.silence(), SILENCES[0], "what was tried is not tried again at once");

    let mut world = World::new(HOUR);
    world.run(HOUR);
    world.pulse.handle_lost(world.now);
    let rhythm = world.pulse.handle_attached(world.now);
    assert_eq!(rhythm.seconds, 15);
    world.keep(rhythm);
    world.run(HOUR);
    assert_eq!(world.silence(), SILENCES[3]);
}

#[test]
fn a_silence_that_was_broken_proves_nothing() {
    let now = start();
    let mut pulse = Pulse::new();
    pulse.handle_attached(now);
    for step in 1..20 {
        // A knock, which was acknowledged.
        pulse.handle_heard();
        assert_eq!(pulse.handle_still(now + SILENCES[0] * step), None);
    }
    pulse.handle_sent(now);
    assert_eq!(pulse.handle_still(now + SILENCES[0]), None);
    assert!(pulse.handle_still(now + SILENCES[0] * 2).is_some());
}

#[test]
fn a_host_that_slept_has_learnt_nothing_and_an_introducer_that_never_speaks_changes_nothing() {
    let now = start();
    let mut pulse = Pulse::new();
    let rhythm = pulse.handle_attached(now);
    assert_eq!(pulse.handle_still(now + HOUR), None);
    assert_eq!(pulse.rhythm(), rhythm);
    pulse.handle_lost(now + HOUR);
    assert_eq!(pulse.handle_still(now + HOUR), None, "of a stream that is gone");
    assert_eq!(pulse.handle_attached(now + HOUR), rhythm);
}

#[test]
fn an_introducer_that_speaks_all_the_time_is_not_believed() {
    let now = start();
    let mut pulse = Pulse::new();
    pulse.handle_attached(now);
    for second in 0..1_000 {
        assert_eq!(pulse.handle_still(now + Duration::from_secs(second)), None);
    }
}
