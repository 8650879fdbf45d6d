//! The systems under test, each as a server and a load.

mod blocking;
mod crust;
mod crust_set;
mod epoll;
pub(crate) mod keys;
mod plain;
mod quic;
pub(crate) mod service;
mod tls;

use std::any::Any;
use std::time::{Duration, Instant};

use anyhow::Result;

use crate::control::Measured;
use crate::plan::{Plan, System, Workload};

/// Does the measured part once and says how long each operation took.
pub(crate) type Load = Box<dyn FnMut() -> Result<Times>>;

/// Bytes of a request and of its answer.
pub(crate) const MESSAGE_BYTES: usize = 64;

/// Bytes handed over at once by a bulk transfer, and room for as many at its end.
const CHUNK_BYTES: usize = 64 * 1024;

/// Before a measurement, so that windows, caches and branch predictors are as they will be.
const WARM_UP: Duration = Duration::from_millis(200);

/// Starts a server; it lives as long as what is returned beside its address.
pub(crate) fn serve(system: System, workload: Workload) -> Result<(String, Box<dyn Any>)> {
    match system {
        System::Std => blocking::serve::<plain::Plain>(workload),
        System::Rustls => blocking::serve::<tls::Tls>(workload),
        System::CrustTcp => blocking::serve::<crust::Crust<crust::Tcp>>(workload),
        System::CrustQuic => blocking::serve::<crust::Crust<crust::Quic>>(workload),
        System::CrustQuicCapped => blocking::serve::<crust::Crust<crust::QuicCapped>>(workload),
        System::CrustQuicSet => crust_set::serve::<crust::Quic>(),
        System::CrustService | System::CrustServiceCaller => service::serve(system),
        System::CrustTcpSet => crust_set::serve::<crust::Tcp>(),
        System::Mio => epoll::serve(),
        System::Quinn => quic::serve(workload, quic::Flavour::OneThread),
        System::QuinnWide => quic::serve(workload, quic::Flavour::Wide),
        System::QuinnThreads => quic::serve(workload, quic::Flavour::ThreadEachCore),
    }
}

/// Prepares a load: connects and warms up as far as the workload allows.
pub(crate) fn load(system: System, workload: Workload, plan: &Plan, address: &str) -> Result<Load> {
    match system {
        System::Std => blocking::load::<plain::Plain>(workload, *plan, address),
        System::Rustls => blocking::load::<tls::Tls>(workload, *plan, address),
        System::CrustTcp => blocking::load::<crust::Crust<crust::Tcp>>(workload, *plan, address),
        System::CrustQuic => blocking::load::<crust::Crust<crust::Quic>>(workload, *plan, address),
        System::CrustQuicCapped => {
            blocking::load::<crust::Crust<crust::QuicCapped>>(workload, *plan, address)
        }
        System::CrustQuicSet => crust_set::load::<crust::Quic>(workload, *plan, address),
        System::CrustService | System::CrustServiceCaller => service::load(workload, plan),
        System::CrustTcpSet => crust_set::load::<crust::Tcp>(workload, *plan, address),
        System::Mio => epoll::load(workload, *plan, address),
        System::Quinn => quic::load(workload, *plan, address, quic::Flavour::OneThread),
        System::QuinnWide => quic::load(workload, *plan, address, quic::Flavour::Wide),
        System::QuinnThreads => quic::load(workload, *plan, address, quic::Flavour::ThreadEachCore),
    }
}

/// How long each operation of a load took, and the load as a whole.
#[derive(Debug)]
pub(crate) struct Times {
    begin: Instant,
    elapsed: Duration,
    each: Vec<Duration>,
}

impl Times {
    fn begin() -> Self {
        // Room for the echoes of some seconds, so that measuring does not allocate.
        Self { begin: Instant::now(), elapsed: Duration::ZERO, each: Vec::with_capacity(1 << 18) }
    }

    /// Notes that an operation that began at `begin` is done, and when that was.
    fn done(&mut self, begin: Instant) -> Instant {
        let now = Instant::now();
        self.each.push(now - begin);
        now
    }

    fn end(mut self) -> Self {
        self.elapsed = self.begin.elapsed();
        self
    }

    /// Joins what several threads did at the same time.
    fn join(parts: impl IntoIterator<Item = Self>) -> Self {
        parts
            .into_iter()
            .reduce(|mut all, part| {
                all.begin = all.begin.min(part.begin);
                all.elapsed = all.elapsed.max(part.elapsed);
                all.each.extend(part.each);
                all
            })
            .unwrap_or_else(Self::begin)
    }

    pub(crate) fn measured(&mut self) -> Measured {
        self.each.sort_unstable();
        let at = |share: f64| {
            let index = (self.each.len() as f64 * share) as usize;
            self.each.get(index.min(self.each.len().saturating_sub(1))).copied().unwrap_or_default()
        };
        Measured {
            operations: self.each.len() as u64,
            elapsed: self.elapsed,
            median: at(0.5),
            p99: at(0.99),
            cpu: Duration::ZERO,
        }
    }
}
