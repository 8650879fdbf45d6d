//! Sees what the libraries log, step by step, and says when one of the steps is taken.

use std::{
    fmt,
    sync::{
        Mutex, Once, PoisonError,
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    time::Duration,
};

use tracing::{
    Event, Metadata, Subscriber,
    field::{Field, Visit},
    level_filters::LevelFilter,
    span,
};

/// Something that was logged for the first time since the beginning, named by what it says.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Step(pub(crate) String);

/// What waits for a step.
pub(crate) struct Upon {
    reached: Receiver<()>,
    go_on: SyncSender<()>,
}

impl Upon {
    /// Waits until the step is taken; whoever took it stands still until [`Upon::go_on`]. Tells whether it was.
    pub(crate) fn wait(&self) -> bool {
        self.reached.recv().is_ok()
    }

    pub(crate) fn go_on(&self) {
        let _ = self.go_on.try_send(());
    }
}

/// Whatever is logged before such a step is none, from the next [`begin`] on.
pub(crate) fn count_from(first: &str) {
    seen().first = first.to_owned();
}

/// Forgets what was seen; the one that is returned waits for `step`, until the [`end`].
pub(crate) fn begin(step: Option<&Step>) -> Upon {
    static INSTALLED: Once = Once::new();
    INSTALLED.call_once(|| tracing::subscriber::set_global_default(Recorder).expect("there is no other"));
    let ((reach, reached), (go_on, gone_on)) = (sync_channel(1), sync_channel(1));
    let wanted = step.map(|step| Wanted { step: step.clone(), reach, gone_on });
    let mut seen = seen();
    let first = seen.first.clone();
    *seen = Seen { steps: Vec::new(), wanted, records: true, first };
    drop(seen);
    Upon { reached, go_on }
}

/// The steps since, in their order. Who waits for one that was not taken waits no more.
pub(crate) fn end() -> Vec<Step> {
    let mut seen = seen();
    let first = seen.first.clone();
    std::mem::replace(&mut *seen, Seen { first, ..Seen::default() }).steps
}

struct Recorder;

#[derive(Default)]
struct Seen {
    steps: Vec<Step>,
    wanted: Option<Wanted>,
    records: bool,
    first: String,
}

struct Wanted {
    step: Step,
    reach: SyncSender<()>,
    gone_on: Receiver<()>,
}

fn seen() -> std::sync::MutexGuard<'static, Seen> {
    static SEEN: Mutex<Seen> =
        Mutex::new(Seen { steps: Vec::new(), wanted: None, records: false, first: String::new() });
    SEEN.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Subscriber for Recorder {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        let ours = ["crust", "transport", "nat_traversal", "beacon"];
        metadata.is_event() && ours.iter().any(|name| metadata.target().starts_with(name))
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(LevelFilter::TRACE)
    }

    fn event(&self, event: &Event<'_>) {
        let mut said = Said::default();
        event.record(&mut said);
        let target = event.metadata().target();
        let text = match (said.message, said.event) {
            // Of those that a service tells its user each kind counts.
            (Some(message), Some(kind)) => format!("{target}: {message} {kind}"),
            (Some(message), None) => format!("{target}: {message}"),
            (None, _) => format!("{target}: {}", event.metadata().name()),
        };
        let step = Step(text);
        let mut seen = seen();
        let is_early = seen.steps.is_empty() && !step.0.contains(&seen.first);
        if !seen.records || is_early || seen.steps.contains(&step) {
            return;
        }
        let wanted = seen.wanted.take_if(|wanted| wanted.step == step);
        seen.steps.push(step);
        drop(seen);
        if let Some(Wanted { reach, gone_on, .. }) = wanted {
            let _ = reach.send(());
            // What waits may have to be let go by whoever ends it.
            let _ = gone_on.recv_timeout(STAND_STILL);
        }
    }

    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}
    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}
    fn enter(&self, _: &span::Id) {}
    fn exit(&self, _: &span::Id) {}
}

#[derive(Default)]
struct Said {
    message: Option<String>,
    event: Option<String>,
}

impl Visit for Said {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        match field.name() {
            "message" => self.message = Some(format!("{value:?}")),
            "event" => {
                let text = format!("{value:?}");
                self.event = text.split([' ', '(', '{']).next().map(str::to_owned);
            }
            _ => {}
        }
    }
}

const STAND_STILL: Duration = Duration::from_secs(10);
