use std::time::Duration;

use transport::{ProtocolLabel, Scheme};

use crate::{Road, road::Roads};

/// How to open one stream.
///
/// ```
/// use std::time::Duration;
/// use crust::{ConnectOptions, ProtocolLabel, Scheme};
///
/// let options = ConnectOptions::new()
///     .protocol(ProtocolLabel::new("chat/1")?)
///     .deadline(Duration::from_secs(3))
///     .only([Scheme::Tcp]);
/// # let _ = options;
/// # Ok::<(), crust::LabelError>(())
/// ```
#[derive(Debug, Clone, Default)]
pub struct ConnectOptions {
    pub(crate) protocol: ProtocolLabel,
    pub(crate) deadline: Option<Duration>,
    pub(crate) schemes: Option<Vec<Scheme>>,
    pub(crate) roads: Option<Roads>,
    pub(crate) single: bool,
}

impl ConnectOptions {
    /// The empty label, and what the service is configured for.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// What the stream is for; the acceptor refuses labels that it does not speak. Default: the empty one.
    #[must_use]
    pub fn protocol(mut self, label: ProtocolLabel) -> Self {
        self.protocol = label;
        self
    }

    /// How long it may take. Default: [`Config::deadline`](crate::Config::deadline).
    #[must_use]
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = Some(deadline);
        self
    }

    /// The schemes to use, the preferred one first. Default: [`Config::only`](crate::Config::only).
    #[must_use]
    pub fn only(mut self, schemes: impl IntoIterator<Item = Scheme>) -> Self {
        self.schemes = Some(schemes.into_iter().collect());
        self
    }

    /// The roads to try, of those that [`Config::roads`](crate::Config::roads) allows; others are left out. With neither
    /// [`Road::Punched`] nor [`Road::Relayed`] no introducer is asked. Default: all of these.
    ///
    /// An endpoint whose host is a name counts as [`Road::Direct`]. Where the peer was introduced, it may come to us by a road
    /// of its own choice, at addresses that the allowed roads made us tell.
    #[must_use]
    pub fn roads(mut self, roads: impl IntoIterator<Item = Road>) -> Self {
        self.roads = Some(roads.into_iter().collect());
        self
    }

    /// Meets a peer that calls us with the same option and label: both calls return the two ends of one stream, whichever began
    /// first and whichever of the two was reached, and neither `accept` sees it. Default: each call has a stream of its own,
    /// whose other end comes out of the peer's `accept`.
    ///
    /// It waits for the peer's call until its deadline, by all roads: each of the two must know or find an address of the other, of which one
    /// must answer, or know an introducer to which the other is attached, of which one must be. One such call at a time to one peer with one
    /// label, the next one a second after its end. Whom one calls so is admitted, whatever the lists and tokens say.
    #[must_use]
    pub fn single(mut self) -> Self {
        self.single = true;
        self
    }
}
