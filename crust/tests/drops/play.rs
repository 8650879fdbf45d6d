//! Two services, perhaps a third, and a call between the two, in which one of them ends.

use std::{
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
    thread,
    time::{Duration, Instant},
};

use crust::{
    ConnectOptions, Destination, Service, ServiceBeaconState, ServiceController, ServiceListener, Stream,
    error_chain,
};

use crate::{
    PATIENCE,
    held::{Held, threads},
    recorder::{self, Step},
};

/// Who ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Who {
    Dialler,
    Acceptor,
    Introducer,
}

/// Who ends, and when.
#[derive(Debug, Clone, Copy)]
pub(crate) struct End<'s> {
    at: &'s Step,
    who: Who,
}

/// What came of a play.
pub(crate) struct Played {
    pub(crate) steps: Vec<Step>,
    /// Whether the step was taken at which somebody was to end.
    pub(crate) reached: bool,
    pub(crate) outcome: Result<(), String>,
}

/// Plays it to the end, and then once more for each step from the first phase on, and each of these who end at it. `phases`: steps that
/// there must be; an empty one is every step. At each `every`th of them one ends, by turns; with `DROPS` in the environment each
/// does at each, one after the other.
pub(crate) fn at_every_step(
    name: &str,
    all: &[Who],
    phases: &[&str],
    every: usize,
    play: &dyn Fn(Option<End<'_>>, Duration) -> Played,
) {
    let (wanted, all_of_them) = (std::env::var("DROP_AT").ok(), std::env::var_os("DROPS").is_some());
    recorder::count_from(phases.first().copied().unwrap_or_default());
    // Pools and tables that are kept are filled first.
    play(None, PATIENCE).outcome.unwrap();
    let nothing = Held { threads: 0, descriptors: 0 };
    let before = Held::settled(nothing, SETTLING);
    let begun = Instant::now();
    let Played { steps, outcome, .. } = play(None, PATIENCE);
    outcome.unwrap();
    // Whose peer has ended waits so long for it.
    let patience = (begun.elapsed() * 4).clamp(SHORT, PATIENCE);
    for phase in phases {
        assert!(steps.iter().any(|step| step.0.contains(phase)), "{phase} is not among {steps:#?}");
    }
    let (mut reached, mut played) = (0, 0);
    let every = if all_of_them || wanted.is_some() { 1 } else { every };
    let is_wanted = |step: &&Step| wanted.as_ref().is_none_or(|wanted| step.0.contains(wanted));
    for (number, step) in steps.iter().filter(is_wanted).step_by(every).enumerate() {
        let turn = [all[number % all.len()]];
        for &who in if all_of_them { all } else { &turn } {
            let begun = Instant::now();
            let one = play(Some(End { at: step, who }), patience);
            (reached, played) = (reached + usize::from(one.reached), played + 1);
            if let (true, Who::Dialler, Err(told)) = (one.reached, who, &one.outcome) {
                let is_clear = ["shut down", "closed on this side"].iter().any(|words| told.contains(words));
                assert!(is_clear, "{told}");
            }
            let text = one.outcome.map_or_else(|error| error, |()| "it had succeeded".to_owned());
            let when = if one.reached { "" } else { " (which was not taken)" };
            println!("{:>6} ms  {who:?} ends at \"{}\"{when}: {text}", begun.elapsed().as_millis(), step.0);
            let after = Held::settled(before, PATIENCE);
            let is_back = after.threads <= before.threads && after.descriptors <= before.descriptors;
            assert!(is_back, "{who:?} at {}: {after:?} of {before:?}, {:?}", step.0, threads());
        }
    }
    println!("{name}: {reached} of {played} plays ended at their step");
    // The order of threads differs from time to time, and with it who says what first; most come every time.
    assert!(reached * 2 > played, "{name}: {reached} of {played} steps were taken");
}

/// Those who take part in a call.
pub(crate) struct Cast {
    dialler: Service,
    /// In parts, so that the one can end while the other waits.
    accepting: ServiceListener,
    acceptor: Mutex<Option<Arc<ServiceController>>>,
    _beacon: ServiceBeaconState,
    introducer: Mutex<Option<Service>>,
    to: Destination,
}

impl Cast {
    pub(crate) fn new(
        dialler: Service,
        acceptor: Service,
        introducer: Option<Service>,
        to: Destination,
    ) -> Self {
        let Service { acceptor: accepting, controller, beacon_state, .. } = acceptor;
        let acceptor = Mutex::new(Some(Arc::new(controller)));
        Self { dialler, accepting, acceptor, _beacon: beacon_state, introducer: Mutex::new(introducer), to }
    }

    /// Calls, and tells what a user is told of a failure.
    pub(crate) fn dial(&self, options: &ConnectOptions) -> Result<Stream, String> {
        self.dialler.controller.connect_with(self.to.clone(), options).map_err(|error| error_chain(&error))
    }

    /// The other end, unless nobody comes any more.
    pub(crate) fn accept(&self) -> Option<Stream> {
        self.accepting.accept_deadline(Instant::now() + PATIENCE * 2).ok()
    }

    fn end(&self, who: Who) {
        match who {
            // As its drop begins; the borrow of the call keeps the rest for later.
            Who::Dialler => self.dialler.controller.close(),
            Who::Acceptor => {
                let acceptor = hold(&self.acceptor).take();
                // It may be calling, too.
                if let Some(acceptor) = acceptor.as_ref().filter(|acceptor| Arc::strong_count(acceptor) > 1) {
                    acceptor.close();
                }
            }
            Who::Introducer => drop(hold(&self.introducer).take()),
        }
    }
}

/// A call from one of the cast to the other, which accepts it.
pub(crate) fn call(cast: Cast, options: &ConnectOptions, end: Option<End<'_>>) -> Played {
    let dial = || cast.dial(options).map(drop);
    let played = play(&cast, &dial, &|| drop(cast.accept()), end);
    drop_in_time(cast);
    played
}

/// The same where the other calls as well, for the same stream.
pub(crate) fn call_each_other(cast: Cast, options: &ConnectOptions, end: Option<End<'_>>) -> Played {
    let options = options.clone().single();
    let key = cast.dialler.controller.public_key();
    let acceptor = hold(&cast.acceptor).clone();
    let calls_too = Mutex::new(acceptor);
    let answer = || {
        let acceptor = hold(&calls_too).take().expect("it is called once");
        drop(acceptor.connect_with(key, &options));
    };
    let played = play(&cast, &|| cast.dial(&options).map(drop), &answer, end);
    drop_in_time(cast);
    played
}

/// What the one does, and the other, while the steps are seen and somebody ends.
pub(crate) fn play(
    cast: &Cast,
    dial: &dyn Fn() -> Result<(), String>,
    answer: &(dyn Fn() + Sync),
    end: Option<End<'_>>,
) -> Played {
    let upon = recorder::begin(end.map(|end| end.at));
    let ended = &OnceLock::new();
    thread::scope(|scope| {
        let ending = scope.spawn(move || {
            if let Some(End { who, .. }) = end
                && upon.wait()
            {
                let _ = ended.set(Instant::now());
                upon.go_on();
                cast.end(who);
            }
        });
        let answering = scope.spawn(|| {
            answer();
            Instant::now()
        });
        let outcome = dial();
        let returned = Instant::now();
        // Nobody comes any more.
        if outcome.is_err() || end.is_some() {
            cast.end(Who::Acceptor);
        }
        let answered = answering.join().unwrap();
        let steps = recorder::end();
        ending.join().unwrap();
        for at in ended.get().into_iter().flat_map(|ended| [returned, answered].map(|at| at - *ended)) {
            assert!(at < PATIENCE, "a call returned {at:?} after the end");
        }
        Played { steps, reached: ended.get().is_some(), outcome }
    })
}

/// A service starts and waits for something, such as to be attached, and ends.
pub(crate) fn start(
    make: &(dyn Fn() -> Service + Sync),
    wait: &(dyn Fn(&ServiceController) -> bool + Sync),
    end: Option<End<'_>>,
) -> Played {
    let upon = recorder::begin(end.map(|end| end.at));
    let (place, ended) = (OnceLock::new(), &OnceLock::new());
    let service = &place;
    let played = thread::scope(|scope| {
        let ending = scope.spawn(move || {
            if upon.wait() {
                let _ = ended.set(Instant::now());
                upon.go_on();
                let service: &Service = service.wait();
                service.controller.close();
            }
        });
        let controller = &service.get_or_init(make).controller;
        let done = wait(controller);
        let returned = Instant::now();
        let steps = recorder::end();
        ending.join().unwrap();
        if let Some(ended) = ended.get() {
            assert!(returned.saturating_duration_since(*ended) < PATIENCE);
        }
        let outcome = if done { Ok(()) } else { Err("it did not come".to_owned()) };
        Played { steps, reached: ended.get().is_some(), outcome }
    });
    drop_in_time(place);
    played
}

pub(crate) fn drop_in_time(all: impl Sized) {
    let begun = Instant::now();
    drop(all);
    assert!(begun.elapsed() < PATIENCE, "the drop took {:?}", begun.elapsed());
}

/// What the process holds and logs is counted, so one plays at a time.
pub(crate) fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    hold(&ALONE)
}

fn hold<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// At least, for a step that takes longer the second time.
const SHORT: Duration = Duration::from_millis(400);
/// For what the first play has left to end.
const SETTLING: Duration = Duration::from_secs(1);
