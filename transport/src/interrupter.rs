use std::{
    fmt,
    sync::{Arc, Mutex},
};

use crate::io::{
    lock::Lock as _,
    slot::{Slot, Wakes},
};

/// Ends dials from another thread: those that were given this interrupter and run now, and all later ones.
///
/// Clones are the same interrupter. A dial that is ended so returns
/// [`ConnectError::Interrupted`](crate::ConnectError::Interrupted) within milliseconds; only a name look-up that is under way
/// goes on until it is answered or the dial's deadline.
///
/// ```
/// use transport::{ConnectError, ConnectOptions, Identity, Interrupter, Stream, Transport, TransportConfig};
///
/// let transport = Transport::new(Identity::generate(), TransportConfig::default())?;
/// let nobody = Identity::generate().public_key();
/// let interrupter = Interrupter::default();
/// interrupter.interrupt();
/// let options = ConnectOptions::new().interrupter(&interrupter);
/// let error = Stream::connect_with(&transport, format!("quic://127.0.0.1:1?pubkey={nobody}"), &options);
/// assert!(matches!(error, Err(ConnectError::Interrupted)));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Default)]
pub struct Interrupter {
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    interrupted: bool,
    waiting: Vec<Arc<Slot>>,
}

impl Interrupter {
    /// Ends the dials. Never blocks.
    pub fn interrupt(&self) {
        let mut wakes = Wakes::default();
        let mut state = self.state.hold();
        state.interrupted = true;
        for slot in &state.waiting {
            wakes.push(slot);
        }
        drop(state);
        wakes.fire();
    }

    /// Whether [`interrupt`](Self::interrupt) has been called.
    #[must_use]
    pub fn is_interrupted(&self) -> bool {
        self.state.hold().interrupted
    }

    /// Has `slot` woken by an interruption for as long as the guard lives.
    pub(crate) fn watch(&self, slot: &Arc<Slot>) -> Watch<'_> {
        self.state.hold().waiting.push(slot.clone());
        Watch { interrupter: self, slot: slot.clone() }
    }
}

impl fmt::Debug for Interrupter {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Interrupter").field("interrupted", &self.is_interrupted()).finish()
    }
}

pub(crate) struct Watch<'i> {
    interrupter: &'i Interrupter,
    slot: Arc<Slot>,
}

impl Drop for Watch<'_> {
    fn drop(&mut self) {
        self.interrupter.state.hold().waiting.retain(|slot| !Arc::ptr_eq(slot, &self.slot));
    }
}
