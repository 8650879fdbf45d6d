//! What is measured: systems, workloads, and how much of each.

use std::str::FromStr;
use std::time::Duration;

use anyhow::{Result, bail};

/// What is under test. Each is one module of `systems`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum System {
    /// `std::net`, a thread for each stream, nothing encrypted.
    Std,
    /// mio, one thread for all streams, nothing encrypted.
    Mio,
    /// rustls over `std::net`, a thread for each stream.
    Rustls,
    /// Ours over TCP, a thread for each stream.
    CrustTcp,
    /// Ours over TCP, each end's streams in one set on one thread.
    CrustTcpSet,
    /// Ours over QUIC, a thread for each stream.
    CrustQuic,
    /// The same with datagrams no larger than quinn's.
    CrustQuicCapped,
    /// Ours over QUIC, each end's streams in one set on one thread.
    CrustQuicSet,
    /// A whole service of ours, over both schemes.
    CrustService,
    /// The same, without a thread of the library's.
    CrustServiceCaller,
    /// quinn on a tokio runtime of one thread.
    Quinn,
    /// The same with windows as wide as ours.
    QuinnWide,
    /// quinn on tokio's runtime with a thread for each core.
    QuinnThreads,
}

/// What a pair of processes does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Workload {
    /// 64 bytes there and back on each of [`Plan::streams`] streams, as often as time allows. Each has a connection of
    /// its own.
    Echo,
    /// The same on streams that share one connection.
    Shared,
    /// [`Plan::dials`] echoes on one stream, and nothing else.
    Count,
    /// Bytes in one direction, the end confirmed.
    Bulk,
    /// As many bytes in each direction at a time, a reader and a writer at each end.
    Duplex,
    /// Dials as a stranger, sends 64 bytes, receives them and closes, one after the other.
    Connect,
    /// Dials a peer that was dialled before, and the same.
    Again,
    /// Opens [`Plan::streams`] streams, each used once, and leaves them alone.
    Idle,
}

/// How much of it. Handed to the processes as arguments.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Plan {
    /// How long echoes go on.
    pub(crate) time: Duration,
    /// How much a bulk transfer carries, in MiB.
    pub(crate) bulk_mebibytes: u64,
    pub(crate) streams: usize,
    /// Dials, or echoes where they are counted.
    pub(crate) dials: usize,
}

impl Default for Plan {
    fn default() -> Self {
        Self { time: Duration::from_secs(1), bulk_mebibytes: 1024, streams: 1, dials: 500 }
    }
}

impl Plan {
    /// For the everyday gate: enough to see that everything runs, too little to compare.
    pub(crate) fn shortened(self) -> Self {
        Self { time: Duration::from_millis(200), bulk_mebibytes: 128, dials: 50, ..self }
    }

    pub(crate) fn bulk_bytes(&self) -> u64 {
        self.bulk_mebibytes << 20
    }

    /// What goes over a stream before its bulk transfer is measured, for windows to grow.
    pub(crate) fn warm_up_bytes(&self) -> u64 {
        self.bulk_bytes() / 16
    }

    pub(crate) fn to_words(self) -> [String; 4] {
        [
            self.time.as_millis().to_string(),
            self.bulk_mebibytes.to_string(),
            self.streams.to_string(),
            self.dials.to_string(),
        ]
    }

    pub(crate) fn from_words(words: &[String]) -> Result<Self> {
        let [time, bulk, streams, dials] = words else { bail!("a plan is four numbers, not {words:?}") };
        Ok(Self {
            time: Duration::from_millis(time.parse()?),
            bulk_mebibytes: bulk.parse()?,
            streams: streams.parse()?,
            dials: dials.parse()?,
        })
    }
}

impl System {
    const NAMES: [(Self, &str); 13] = [
        (Self::Std, "std"),
        (Self::Mio, "mio"),
        (Self::Rustls, "rustls"),
        (Self::CrustTcp, "crust-tcp"),
        (Self::CrustTcpSet, "crust-tcp-set"),
        (Self::CrustQuic, "crust-quic"),
        (Self::CrustQuicCapped, "crust-quic-mtu"),
        (Self::CrustQuicSet, "crust-quic-set"),
        (Self::CrustService, "crust-service"),
        (Self::CrustServiceCaller, "crust-service-caller"),
        (Self::Quinn, "quinn"),
        (Self::QuinnWide, "quinn-wide"),
        (Self::QuinnThreads, "quinn-threads"),
    ];

    pub(crate) fn name(self) -> &'static str {
        name_in(&Self::NAMES, self)
    }

    /// What it is to be compared with.
    pub(crate) fn reference(self) -> Self {
        match self {
            Self::Std | Self::Mio | Self::Rustls | Self::CrustTcp | Self::CrustTcpSet => Self::Rustls,
            Self::CrustQuic
            | Self::CrustQuicCapped
            | Self::CrustQuicSet
            | Self::CrustService
            | Self::CrustServiceCaller
            | Self::Quinn
            | Self::QuinnWide
            | Self::QuinnThreads => Self::Quinn,
        }
    }
}

impl FromStr for System {
    type Err = anyhow::Error;

    fn from_str(name: &str) -> Result<Self> {
        value_in(&Self::NAMES, name)
    }
}

impl Workload {
    const NAMES: [(Self, &str); 8] = [
        (Self::Echo, "echo"),
        (Self::Shared, "shared"),
        (Self::Count, "count"),
        (Self::Bulk, "bulk"),
        (Self::Duplex, "duplex"),
        (Self::Connect, "connect"),
        (Self::Again, "again"),
        (Self::Idle, "idle"),
    ];

    pub(crate) fn name(self) -> &'static str {
        name_in(&Self::NAMES, self)
    }
}

impl FromStr for Workload {
    type Err = anyhow::Error;

    fn from_str(name: &str) -> Result<Self> {
        value_in(&Self::NAMES, name)
    }
}

fn name_in<T: PartialEq>(names: &[(T, &'static str)], value: T) -> &'static str {
    names
        .iter()
        .find(|(each, _)| *each == value)
        .map(|(_, name)| *name)
        .expect("every variant is in its list")
}

fn value_in<T: Copy>(names: &[(T, &'static str)], name: &str) -> Result<T> {
    let Some((value, _)) = names.iter().find(|(_, each)| *each == name) else {
        let known: Vec<_> = names.iter().map(|(_, name)| *name).collect();
        bail!("{name:?} is none of {}", known.join(", "));
    };
    Ok(*value)
}
