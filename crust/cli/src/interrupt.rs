use std::sync::{Arc, OnceLock};

use crossbeam::channel::{Receiver, bounded};
use crust::ServiceController;

use crate::failure::Failure;

/// Ctrl-C, or a request to terminate: closes the service, so that every wait ends and the command can end in order. A
/// second one ends the process at once.
#[derive(Debug)]
pub(crate) struct Interrupt {
    happened: Arc<OnceLock<()>>,
    signal: Receiver<()>,
}

impl Interrupt {
    /// Once a process.
    pub(crate) fn install(controller: &Arc<ServiceController>) -> Result<Self, Failure> {
        let happened = Arc::new(OnceLock::new());
        let (tell, signal) = bounded(1);
        // Weak, so that the handler does not keep the service alive at the end.
        let controller = Arc::downgrade(controller);
        let seen = Arc::clone(&happened);
        ctrlc::set_handler(move || {
            if seen.set(()).is_err() {
                std::process::exit(INTERRUPTED);
            }
            // One place is enough: there is one message.
            let _ = tell.try_send(());
            if let Some(controller) = controller.upgrade() {
                controller.close();
            }
        })
        .map_err(|error| Failure::of("system", &error))?;
        Ok(Self { happened, signal })
    }

    pub(crate) fn happened(&self) -> bool {
        self.happened.get().is_some()
    }

    /// Gets a message when it happens.
    pub(crate) const fn signal(&self) -> &Receiver<()> {
        &self.signal
    }
}

/// What shells report of a process that Ctrl-C killed.
const INTERRUPTED: i32 = 130;
