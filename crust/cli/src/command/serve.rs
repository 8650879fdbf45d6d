use crust::Config;

use super::Running;
use crate::{
    arguments::{Common, RelayArguments},
    events::Output,
    failure::Failure,
    setup::{self, Who},
};

/// Introduces others to each other until it is told to stop.
pub(super) fn run(
    stun_port: u16,
    relay: &RelayArguments,
    common: &Common,
    output: Output,
) -> Result<(), Failure> {
    // No other protocol than that of introductions is spoken here.
    let config = setup::config(common, Who::Known, output)?;
    let config = config.introduce(true).stun_port(stun_port).protocols([]);
    let mut running = Running::start(relaying(config, relay))?;
    running.announce(output)?;
    output.note("on the hosts to be introduced to each other:");
    for endpoint in running.controller.endpoints().map_err(|error| Failure::of("system", &error))? {
        output.print(&format!("--introducer {endpoint}"));
    }
    // Disconnected only when the process ends.
    let _ = running.interrupt.signal().recv();
    Ok(())
}

fn relaying(mut config: Config, relay: &RelayArguments) -> Config {
    if relay.relay {
        config = config.relay(true);
    }
    if !relay.relay_allow.is_empty() {
        config = config.relay_allow(relay.relay_allow.iter().copied());
    }
    if let Some(port) = relay.relay_port {
        config = config.relay_port(port);
    }
    match relay.relay_address {
        Some(address) => config.relay_address(address),
        None => config,
    }
}
