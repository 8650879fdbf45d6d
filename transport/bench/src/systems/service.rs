//! A whole `crust::Service` that listens on both schemes and that nobody dials.

use std::any::Any;
use std::net::{Ipv4Addr, SocketAddr};

use anyhow::{Result, bail, ensure};
use crust::{Config, Service};
use transport::{Driver, ListenEndpoint, Scheme};

use super::{Load, Times};
use crate::plan::{Plan, System, Workload};

pub(crate) fn serve(system: System) -> Result<(String, Box<dyn Any>)> {
    let driver = match system {
        System::CrustService => Driver::Background,
        System::CrustServiceCaller => Driver::Caller,
        _ => bail!("{} is no service", system.name()),
    };
    let anywhere = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let places = [Scheme::Quic, Scheme::Tcp].map(|scheme| ListenEndpoint::new(scheme, anywhere));
    let service = Service::new_from_config(Config::new().driver(driver).listen(places))?;
    Ok((anywhere.to_string(), Box::new(service)))
}

/// Nothing: its being there is what is measured.
pub(crate) fn load(workload: Workload, plan: &Plan) -> Result<Load> {
    ensure!(workload == Workload::Idle && plan.streams == 0, "a service is only measured idle");
    Ok(Box::new(|| Ok(Times::begin().end())))
}
