use super::Running;
use crate::{
    arguments::Common,
    events::Output,
    failure::Failure,
    setup::{self, Who},
};

/// Introduces others to each other until it is told to stop.
pub(super) fn run(stun_port: u16, common: &Common, output: Output) -> Result<(), Failure> {
    // No other protocol than that of introductions is spoken here.
    let config = setup::config(common, Who::Known, output)?;
    let config = config.introduce(true).stun_port(stun_port).protocols([]);
    let mut running = Running::start(config)?;
    running.announce(output)?;
    output.note("on the hosts to be introduced to each other:");
    for endpoint in running.controller.endpoints().map_err(|error| Failure::of("system", &error))? {
        output.print(&format!("--introducer {endpoint}"));
    }
    // Disconnected only when the process ends.
    let _ = running.interrupt.signal().recv();
    Ok(())
}
