//! Services on loopback.

use crust::{Config, Scheme, Service};

pub(crate) const SCHEMES: [Scheme; 2] = [Scheme::Tcp, Scheme::Quic];

pub(crate) fn listening(scheme: Scheme) -> Config {
    Config::new().listen([format!("{scheme}://127.0.0.1:0").parse().unwrap()])
}

pub(crate) fn service(scheme: Scheme) -> Service {
    Service::new_from_config(listening(scheme)).unwrap()
}

/// One that only dials.
pub(crate) fn client() -> Service {
    Service::new_from_config(Config::new().listen([])).unwrap()
}
