use std::{
    net::{SocketAddr, ToSocketAddrs as _},
    path::PathBuf,
};

use crust::{Config, Lan, TurnServer};
use etcetera::BaseStrategy as _;

use crate::{
    arguments::{Allow, Common},
    events::Output,
    failure::Failure,
};

/// What a command needs of an identity.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Who {
    /// One that others can know again: the user's own key file.
    Known,
    /// A fresh key unless one is named.
    Fresh,
}

/// The configuration: the defaults, then the file, then the flags.
pub(crate) fn config(common: &Common, who: Who, output: Output) -> Result<Config, Failure> {
    let mut config = match &common.config {
        Some(file) => Config::from_file(file)?,
        None => Config::from_default_file()?,
    };
    if let Some(key) = &common.key {
        config = config.key(key);
    } else if who == Who::Known && config.key_file().is_none() {
        config = config.key(default_key_file()?);
    }
    if !common.only.is_empty() {
        config = config.only(common.only.iter().copied());
    }
    if !common.roads.is_empty() {
        config = config.roads(common.roads.iter().copied());
    }
    if !common.listen.is_empty() {
        config = config.listen(common.listen.iter().copied());
    }
    if !common.introducer.is_empty() {
        config = config.introducers(common.introducer.iter().cloned());
    }
    if !common.stun.is_empty() {
        config = config.stun(stun_servers(&common.stun)?);
    }
    if !common.turn.is_empty() {
        config = config.relays(relays(common)?);
    }
    if common.no_lan {
        config = config.lan(Lan::Off);
    }
    if common.no_port_map {
        config = config.port_map(false);
    }
    #[cfg(feature = "dht")]
    if common.dht {
        config = config.dht(true);
        if !common.dht_bootstrap.is_empty() {
            config = config.dht_bootstrap(common.dht_bootstrap.iter().cloned());
        }
    }
    if let Some(deadline) = common.deadline {
        config = config.deadline(deadline);
    }
    allow(config, common, output)
}

fn allow(config: Config, common: &Common, output: Output) -> Result<Config, Failure> {
    let mut keys = Vec::new();
    for allow in &common.allow {
        match allow {
            Allow::Key(key) => keys.push(*key),
            Allow::Any if common.allow.len() > 1 => {
                return Err(Failure::usage("--allow any admits everybody: give it alone"));
            }
            Allow::Any => {
                output.note("warning: --allow any: everybody who can reach this peer may connect");
                return Ok(config.allow_any());
            }
        }
    }
    Ok(if keys.is_empty() { config } else { config.allow(keys) })
}

/// The relays, with the credentials that were given beside them.
fn relays(common: &Common) -> Result<Vec<TurnServer>, Failure> {
    let (Some(user), Some(file)) = (&common.turn_user, &common.turn_password_file) else {
        return Ok(common.turn.clone());
    };
    let password = std::fs::read_to_string(file)
        .map_err(|error| Failure::usage(format!("--turn-password-file {}: {error}", file.display())))?;
    let password = password.trim_end_matches(['\r', '\n']);
    Ok(common.turn.iter().cloned().map(|server| server.with_credentials(user, password)).collect())
}

/// The addresses of these names.
fn stun_servers(names: &[String]) -> Result<Vec<SocketAddr>, Failure> {
    let mut servers = Vec::new();
    for name in names {
        let found = name
            .to_socket_addrs()
            .map_err(|error| Failure::usage(format!("--stun {name}: {error}; give HOST:PORT")))?;
        servers.extend(found);
    }
    Ok(servers)
}

/// `identity.pem` in the user's data folder.
pub(crate) fn default_key_file() -> Result<PathBuf, Failure> {
    let folders = etcetera::choose_base_strategy()
        .map_err(|_| Failure::new("key", "there is no home folder to keep the key in: give --key FILE"))?;
    Ok(folders.data_dir().join("crust").join("identity.pem"))
}
