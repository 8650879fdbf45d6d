//! Which roads to a peer are tried when, within one deadline.
//!
//! ```text
//! 0 ms      a connection with it that is there already, alone for two of its round trips: all that follows waits for so long
//! 0 ms      its addresses: the local network's, remembered ones, those of the contact (they race by RFC 8305 among themselves);
//!           without any, a question to the local network
//! 10 ms     the first introducer is dialled, or at once without addresses or if that is how the peer was met from here before; the next
//!           one 250 ms later or when it fails
//! 50 ms     the DHT is asked, if only the key is known and that is switched on; what it tells is tried as it comes, in the same order
//! 300 ms    relays, if nothing has answered
//! ```
//!
//! What fails lets the next one start at once.

use std::time::{Duration, Instant};

/// One thing to try.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Leg {
    /// Over a connection that is there already.
    Known,
    /// All addresses known.
    Straight,
    /// At an address that somebody on the local network tells.
    Sought,
    /// By an introducer; its place in the list.
    Introduced(usize),
    /// By a relay; its place in the list.
    Relayed(usize),
    /// A question to the DHT, which leads to contacts.
    #[cfg(feature = "dht")]
    LookedUp,
    /// At the addresses of a contact that was found meanwhile; its place among those.
    #[cfg(feature = "dht")]
    Found(usize),
    /// By an introducer of such a contact; its place there.
    #[cfg(feature = "dht")]
    FoundIntroduced(usize, usize),
}

/// The order of one call of connect. The caller starts what `poll_start` names and reports what fails; the first success ends
/// it.
#[derive(Debug)]
pub(crate) struct Plan {
    waiting: Vec<(Leg, Instant)>,
    running: Vec<Leg>,
}

impl Plan {
    /// `introduced_before`: from this network the peer was met by an introduction, so that its addresses need no head start.
    pub(crate) fn new(
        now: Instant,
        straight: bool,
        introduced_before: bool,
        introducers: usize,
        relays: usize,
    ) -> Self {
        let head_start = if straight && !introduced_before { HEAD_START } else { Duration::ZERO };
        let mut waiting = Vec::new();
        waiting.push((if straight { Leg::Straight } else { Leg::Sought }, now));
        let mut at = now + head_start;
        for index in 0..introducers.min(MAX_INTRODUCERS) {
            waiting.push((Leg::Introduced(index), at));
            at += BETWEEN_INTRODUCERS;
        }
        let mut at = now + RELAY_AFTER;
        for index in 0..relays.min(MAX_RELAYS) {
            waiting.push((Leg::Relayed(index), at));
            at += BETWEEN_INTRODUCERS;
        }
        Self { waiting, running: Vec::new() }
    }

    /// A connection is there already: it is tried first, and alone for so long.
    pub(crate) fn after_known(mut self, now: Instant, head_start: Duration) -> Self {
        for (_, at) in &mut self.waiting {
            *at += head_start;
        }
        self.waiting.insert(0, (Leg::Known, now));
        self
    }

    /// Looks the peer up as well.
    #[cfg(feature = "dht")]
    pub(crate) fn look_up(&mut self, now: Instant) {
        self.waiting.push((Leg::LookedUp, now + LOOK_UP_AFTER));
    }

    /// A contact was found, with so many introducers that are to be asked.
    #[cfg(feature = "dht")]
    pub(crate) fn handle_found(
        &mut self,
        now: Instant,
        contact: usize,
        has_addresses: bool,
        introducers: usize,
    ) {
        let mut at = now;
        if has_addresses {
            self.waiting.push((Leg::Found(contact), at));
            at += HEAD_START;
        }
        for index in 0..introducers.min(MAX_INTRODUCERS) {
            self.waiting.push((Leg::FoundIntroduced(contact, index), at));
            at += BETWEEN_INTRODUCERS;
        }
    }

    /// What to start now. Ask until `None`.
    pub(crate) fn poll_start(&mut self, now: Instant) -> Option<Leg> {
        let index = self.waiting.iter().position(|&(_, at)| at <= now)?;
        let (leg, _) = self.waiting.remove(index);
        self.running.push(leg);
        Some(leg)
    }

    /// When to ask again, unless something is reported before.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        self.waiting.iter().map(|&(_, at)| at).min()
    }

    /// A road led nowhere: the next of its kind starts at once, and if nothing is under way, whatever is next.
    pub(crate) fn handle_failure(&mut self, now: Instant, failed: Leg) {
        self.running.retain(|leg| *leg != failed);
        if failed == Leg::Known {
            self.begin_at(now);
        }
        let kind = std::mem::discriminant(&failed);
        let next = self.waiting.iter_mut().find(|(leg, _)| std::mem::discriminant(leg) == kind);
        if let Some((_, at)) = next {
            *at = now.min(*at);
        }
        if self.running.is_empty()
            && let Some((_, at)) = self.waiting.iter_mut().min_by_key(|(_, at)| *at)
        {
            *at = now.min(*at);
        }
    }

    /// What has not begun begins as if the call began now, if it had to wait for something else.
    fn begin_at(&mut self, now: Instant) {
        let first = self.waiting.iter().map(|&(_, at)| at).min();
        let sooner = first.map_or(Duration::ZERO, |first| first.saturating_duration_since(now));
        for (_, at) in &mut self.waiting {
            *at -= sooner;
        }
    }

    /// Whether everything was tried in vain.
    pub(crate) const fn is_lost(&self) -> bool {
        self.waiting.is_empty() && self.running.is_empty()
    }
}

/// By which of several introducers a peer is met: by whoever brings its answer first, as meeting it by two would give two streams. What
/// we say then may be lost, if that introducer dies just now; so after a while the next answer counts.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Claim {
    taken: Option<Instant>,
    /// A meeting has come to nothing by itself, which another introducer would not change.
    over: bool,
}

impl Claim {
    /// Whether an answer that is there now is the one to go by; if not, from when on, if ever.
    pub(crate) fn take(&mut self, now: Instant) -> Result<(), Option<Instant>> {
        match self.taken {
            _ if self.over => Err(None),
            Some(at) if now < at + CLAIMED => Err(Some(at + CLAIMED)),
            _ => {
                self.taken = Some(now);
                Ok(())
            }
        }
    }

    /// The meeting of the one who had it has failed.
    pub(crate) const fn handle_failure(&mut self) {
        self.over = true;
    }
}

/// How often a peer that cannot be reached is still punched for: an hour of trying costs its NAT and ours at most
/// [`MAX_PUNCHES_PER_HOUR`] attempts.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct PunchBudget {
    failures: u32,
    not_before: Option<Instant>,
}

impl PunchBudget {
    /// Whether to punch now; if not, from when on.
    pub(crate) fn may_punch(&self, now: Instant) -> Result<(), Instant> {
        match self.not_before {
            Some(at) if now < at => Err(at),
            _ => Ok(()),
        }
    }

    /// Whether the count has begun.
    pub(crate) const fn has_failed(&self) -> bool {
        self.failures > 0
    }

    /// A punch led nowhere.
    pub(crate) fn handle_failure(&mut self, now: Instant) {
        let wait = (FIRST_PAUSE * (1 << self.failures.min(9))).min(LONGEST_PAUSE);
        self.failures = self.failures.saturating_add(1);
        self.not_before = Some(now + wait);
    }

    /// The peer was met. Over a relay that says nothing of holes: whatever was counted still counts.
    pub(crate) fn handle_met(&mut self, over_relay: bool) {
        if !over_relay {
            *self = Self::default();
        }
    }
}

/// On this host, and mostly on a local network, a peer answers before that. The introducer is told whom we look for later still.
const HEAD_START: Duration = Duration::from_millis(10);
/// Who is on the local network, or where it was before, has answered by then, and the DHT need not learn that somebody looks for a peer.
#[cfg(feature = "dht")]
const LOOK_UP_AFTER: Duration = Duration::from_millis(50);
/// The delay of RFC 8305 between attempts of one kind.
const BETWEEN_INTRODUCERS: Duration = Duration::from_millis(250);
/// Two round trips around the world: a direct road that is there has answered by then.
const RELAY_AFTER: Duration = Duration::from_millis(300);
/// Nine of ten meetings are over by then, and whoever was called waits twice as long for what we say.
const CLAIMED: Duration = Duration::from_secs(5);
/// As many as a contact names.
const MAX_INTRODUCERS: usize = 4;
const MAX_RELAYS: usize = 4;
/// Who calls connect again at once is not told to wait.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// Ten attempts within the first nine minutes, then one every five.
const LONGEST_PAUSE: Duration = Duration::from_secs(300);
/// What the pauses above come to.
#[cfg(test)]
const MAX_PUNCHES_PER_HOUR: usize = 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[expect(clippy::disallowed_methods, reason = "a test has to count from somewhere")]
    fn start() -> Instant {
        Instant::now()
    }

    fn run(plan: &mut Plan, start: Instant, fail: impl Fn(Leg) -> Option<u64>) -> Vec<(Leg, u64)> {
        let mut log = Vec::new();
        let mut failures: Vec<(u64, Leg)> = Vec::new();
        for at in 0..1_000 {
            let now = start + Duration::from_millis(at);
            failures.retain(|&(when, leg)| {
                if when == at {
                    plan.handle_failure(now, leg);
                }
                when != at
            });
            while let Some(leg) = plan.poll_start(now) {
                log.push((leg, at));
                failures.extend(fail(leg).map(|after| (at + after, leg)));
            }
        }
        log
    }

    #[test]
    fn each_road_has_its_time() {
        let start = start();
        let mut plan = Plan::new(start, true, false, 2, 1);
        let log = run(&mut plan, start, |_| None);
        let expected =
            [(Leg::Straight, 0), (Leg::Introduced(0), 10), (Leg::Introduced(1), 260), (Leg::Relayed(0), 300)];
        assert_eq!(log, expected);
        assert!(!plan.is_lost() && plan.poll_timeout().is_none());
    }

    #[test]
    fn what_fails_makes_way() {
        let start = start();
        let mut plan = Plan::new(start, true, false, 2, 1);
        // Everything fails ten milliseconds after it began.
        let log = run(&mut plan, start, |_| Some(10));
        let expected =
            [(Leg::Straight, 0), (Leg::Introduced(0), 10), (Leg::Introduced(1), 20), (Leg::Relayed(0), 30)];
        assert_eq!(log, expected);
        assert!(plan.is_lost());
    }

    #[test]
    fn a_connection_that_is_there_is_tried_first_and_whatever_follows_waits_for_it_only() {
        let (start, alone) = (start(), Duration::from_millis(160));
        let mut plan = Plan::new(start, true, false, 2, 0).after_known(start, alone);
        let log = run(&mut plan, start, |_| None);
        let expected =
            [(Leg::Known, 0), (Leg::Straight, 160), (Leg::Introduced(0), 170), (Leg::Introduced(1), 420)];
        assert_eq!(log, expected);
        let mut plan = Plan::new(start, true, false, 2, 0).after_known(start, alone);
        let log = run(&mut plan, start, |leg| (leg == Leg::Known).then_some(30));
        let expected =
            [(Leg::Known, 0), (Leg::Straight, 30), (Leg::Introduced(0), 40), (Leg::Introduced(1), 290)];
        assert_eq!(log, expected, "it is over, and nobody waits for it any more");
    }

    #[test]
    fn without_addresses_the_network_and_the_introducer_are_asked_at_once() {
        let start = start();
        let mut plan = Plan::new(start, false, false, 1, 0);
        assert_eq!(
            [(); 3].map(|()| plan.poll_start(start)),
            [Some(Leg::Sought), Some(Leg::Introduced(0)), None]
        );
    }

    #[cfg(feature = "dht")]
    #[test]
    fn what_is_found_is_tried_as_it_comes() {
        let start = start();
        let after = |at| start + Duration::from_millis(at);
        let mut plan = Plan::new(start, false, false, 0, 0);
        plan.look_up(start);
        assert_eq!([(); 2].map(|()| plan.poll_start(start)), [Some(Leg::Sought), None]);
        assert_eq!(plan.poll_timeout(), Some(after(50)));
        assert_eq!(plan.poll_start(after(50)), Some(Leg::LookedUp));
        plan.handle_found(after(400), 0, true, 1);
        let tried = [400, 409, 410].map(|at| plan.poll_start(after(at)));
        assert_eq!(tried, [Some(Leg::Found(0)), None, Some(Leg::FoundIntroduced(0, 0))]);
        plan.handle_found(after(500), 1, false, 1);
        assert_eq!(plan.poll_start(after(500)), Some(Leg::FoundIntroduced(1, 0)));
        let legs = [Leg::Sought, Leg::Found(0), Leg::FoundIntroduced(0, 0), Leg::FoundIntroduced(1, 0)];
        for leg in legs {
            plan.handle_failure(after(600), leg);
        }
        assert!(!plan.is_lost(), "the DHT may tell of more");
        plan.handle_failure(after(700), Leg::LookedUp);
        assert!(plan.is_lost());
    }

    #[cfg(feature = "dht")]
    #[test]
    fn the_dht_is_asked_at_once_when_nothing_else_is_left() {
        let start = start();
        let mut plan = Plan::new(start, true, false, 0, 0);
        plan.look_up(start);
        assert_eq!(plan.poll_start(start), Some(Leg::Straight));
        plan.handle_failure(start + Duration::from_millis(1), Leg::Straight);
        assert_eq!(plan.poll_start(start + Duration::from_millis(1)), Some(Leg::LookedUp));
    }

    #[test]
    fn who_was_introduced_before_is_introduced_at_once() {
        let start = start();
        let mut plan = Plan::new(start, true, true, 1, 0);
        assert_eq!(
            [(); 3].map(|()| plan.poll_start(start)),
            [Some(Leg::Straight), Some(Leg::Introduced(0)), None]
        );
    }

    #[test]
    fn the_second_answer_counts_once_the_first_has_come_to_nothing() {
        let start = start();
        let mut claim = Claim::default();
        assert_eq!(claim.take(start), Ok(()));
        assert_eq!(claim.take(start + Duration::from_millis(1)), Err(Some(start + CLAIMED)));
        assert_eq!(claim.take(start + CLAIMED), Ok(()));
        assert_eq!(claim.take(start + CLAIMED), Err(Some(start + CLAIMED * 2)));
        claim.handle_failure();
        assert_eq!(claim.take(start + CLAIMED * 3), Err(None), "who was met in vain is not met by another");
    }

    #[test]
    fn a_peer_out_of_reach_is_punched_for_at_most_twenty_times_an_hour() {
        let start = start();
        let mut budget = PunchBudget::default();
        // A program that calls connect every second for an hour.
        let mut now = start;
        let mut punches = 0;
        for second in 0..3_600 {
            now = start + Duration::from_secs(second);
            if budget.may_punch(now).is_ok() {
                punches += 1;
                budget.handle_failure(now);
            }
        }
        assert!((10..=MAX_PUNCHES_PER_HOUR).contains(&punches), "{punches}");
        assert!(budget.may_punch(now).is_err());
        budget.handle_met(false);
        assert!(budget.may_punch(now).is_ok() && !budget.has_failed(), "a hole was punched");
    }

    #[test]
    fn a_peer_that_is_met_over_a_relay_is_punched_for_no_more_often() {
        let start = start();
        let mut budget = PunchBudget::default();
        let mut punches = 0;
        for second in 0..3_600 {
            let now = start + Duration::from_secs(second);
            if budget.may_punch(now).is_ok() {
                punches += 1;
                budget.handle_failure(now);
            } else {
                // No holes are punched; the relay serves.
                budget.handle_met(true);
            }
        }
        assert!((10..=MAX_PUNCHES_PER_HOUR).contains(&punches), "{punches}");
    }
}
