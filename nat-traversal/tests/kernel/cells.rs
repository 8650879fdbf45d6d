//! Which pairs of NATs are tried, and what is asked of them.

use std::time::Duration;

use nat_lab::{Link, Nat, Site, Topology, parse_nats};

/// Two sites, how they are joined, and what is to come of it.
#[derive(Clone)]
pub(crate) struct Cell {
    /// What is said of it and others together.
    pub(crate) row: Row,
    pub(crate) a: &'static str,
    pub(crate) b: &'static str,
    pub(crate) scheme: Scheme,
    pub(crate) places: Places,
    pub(crate) loss: f64,
    /// On the way between a site and the internet, each way.
    pub(crate) delay: Duration,
    /// Routers there, beside those that the laboratory has.
    pub(crate) hops: u8,
    /// How much later than the first peer the second begins.
    pub(crate) skew: Duration,
    pub(crate) wanted: Wanted,
    /// How many times as many runs as other cells it gets.
    pub(crate) weight: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scheme {
    Udp,
    Tcp,
}

impl Scheme {
    const fn name(self) -> &'static str {
        match self {
            Self::Udp => "UDP",
            Self::Tcp => "TCP",
        }
    }
}

/// Cells of one kind, of which a few runs each say something together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Row {
    Independent(&'static str),
    Accepting(&'static str),
    Random,
    RandomInBlock,
    RandomByAddress,
    RandomThroughStrict,
    RandomToOpen,
    Counting,
    BothCounting,
    Hopeless,
    Places(&'static str),
    Apart,
    Loss,
    Blocked,
    Times(&'static str),
}

impl Row {
    pub(crate) fn name(self) -> String {
        match self {
            Self::Independent(scheme) => format!("{scheme}, endpoint-independent pairs"),
            Self::Accepting(scheme) => format!("{scheme}, accept or blacklist at one side or both"),
            Self::Random => "port-restricted x random, both directions".into(),
            Self::RandomInBlock => "port-restricted x random within 2,048 ports".into(),
            Self::RandomByAddress => "port-restricted x random by address, both".into(),
            Self::RandomThroughStrict => "accept or blacklist x random, both directions".into(),
            Self::RandomToOpen => "open, cone, acone x symmetric, both directions".into(),
            Self::Counting => "port-restricted x sequential, both directions".into(),
            Self::BothCounting => "sequential x sequential".into(),
            Self::Hopeless => "random x random or sequential".into(),
            Self::Places(scheme) => format!("{scheme}, one NAT, one carrier, equal subnets"),
            Self::Apart => "the same without hairpin".into(),
            Self::Loss => "5 % loss each way".into(),
            Self::Blocked => "TCP where no UDP leaves".into(),
            Self::Times(scheme) => format!("{scheme}, later begin, longer way"),
        }
    }
}

/// Where the two peers are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Places {
    /// Each at a site of its own.
    Apart,
    /// Each at a site of its own, with the same private addresses.
    SameAddresses,
    /// Both at the first site, unable to see each other.
    OneSite,
    /// Two customers of the first site's carrier.
    OneCarrier,
}

/// What is asked of a cell.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Wanted {
    /// Direct in at least this share of the runs, with these times.
    Direct { share: f64, p50: Option<Duration>, p95: Option<Duration>, worst: Option<Duration> },
    /// Given up at once, with a reason.
    Hopeless,
    /// Not at all: at the deadline both tell this.
    Never(&'static str),
}

impl Wanted {
    /// How many of the runs are to be direct, if any.
    pub(crate) const fn share(self) -> Option<f64> {
        match self {
            Self::Direct { share, .. } => Some(share),
            Self::Hopeless | Self::Never(_) => None,
        }
    }
}

impl Cell {
    pub(crate) fn name(&self) -> String {
        let scheme = self.scheme.name().to_lowercase();
        let places = match self.places {
            Places::Apart => "",
            Places::SameAddresses => " same-addresses",
            Places::OneSite => " one-site",
            Places::OneCarrier => " one-carrier",
        };
        let loss = if self.loss > 0.0 { format!(" loss-{:.0}%", self.loss * 100.0) } else { String::new() };
        let delay = match self.delay {
            ACCESS_DELAY => String::new(),
            other => format!(" delay-{}ms", other.as_millis()),
        };
        let skew = match self.skew {
            Duration::ZERO => String::new(),
            other => format!(" skew-{}ms", other.as_millis()),
        };
        let hops = if self.hops > 0 { format!(" hops-{}", self.hops) } else { String::new() };
        format!("{scheme} {}:{}{places}{loss}{delay}{hops}{skew}", self.a, self.b)
    }

    /// Whether it is one of the few that every `cargo test` runs.
    pub(crate) fn is_quick(&self) -> bool {
        let plain = self.loss == 0.0
            && self.places == Places::Apart
            && self.skew.is_zero()
            && self.delay == ACCESS_DELAY;
        plain && QUICK.contains(&(self.scheme, self.a, self.b))
    }

    pub(crate) fn topology(&self) -> Topology {
        let (a, b) = (parse_nats(self.a).unwrap(), parse_nats(self.b).unwrap());
        let link = Link::delay(self.delay).loss(self.loss).hops(self.hops);
        let topology = match self.places {
            Places::Apart => Topology::new().site(Site::new(a)).site(Site::new(b)),
            Places::SameAddresses => Topology::new().site(Site::new(a)).site(Site::new(b)).same_lan(),
            Places::OneSite => {
                let isolated: Vec<Nat> = a.into_iter().map(|nat| Nat { isolates: true, ..nat }).collect();
                Topology::new().site(Site::new(isolated))
            }
            Places::OneCarrier => Topology::new().site(Site::new(a)).site(Site::at_first_carrier(b[0])),
        };
        topology.links(link)
    }

    pub(crate) const fn hosts(&self) -> [&'static str; 2] {
        match self.places {
            Places::OneSite => ["a1", "a2"],
            _ => ["a1", "b1"],
        }
    }

    /// How long a peer tries.
    pub(crate) const fn patience(&self) -> Duration {
        match self.wanted {
            Wanted::Direct { .. } => Duration::from_secs(28),
            Wanted::Hopeless | Wanted::Never(_) => Duration::from_secs(4),
        }
    }

    const fn new(row: Row, scheme: Scheme, a: &'static str, b: &'static str, wanted: Wanted) -> Self {
        Self {
            row,
            a,
            b,
            scheme,
            places: Places::Apart,
            loss: 0.0,
            delay: ACCESS_DELAY,
            hops: 0,
            skew: Duration::ZERO,
            wanted,
            weight: 1,
        }
    }

    const fn places(self, places: Places) -> Self {
        Self { places, ..self }
    }

    const fn weight(self, weight: usize) -> Self {
        Self { weight, ..self }
    }

    /// This one and the same with the sides exchanged, which makes the other peer the first.
    fn both_ways(self) -> [Self; 2] {
        let other = Self { a: self.b, b: self.a, ..self.clone() };
        [self, other]
    }
}

/// Every cell, over UDP first.
pub(crate) fn all() -> Vec<Cell> {
    let mut cells = independent(Scheme::Udp);
    cells.extend(dependent());
    cells.extend(special_places(Scheme::Udp));
    cells.extend(strict_to_random());
    let quick = direct(0.98).p50(300).worst(1_500).wanted();
    cells.push(Cell { loss: 0.05, ..Cell::new(Row::Loss, Scheme::Udp, "easy", "easyrand", quick).weight(3) });
    cells.extend(blocked());
    cells.extend(independent(Scheme::Tcp));
    for open in ["open", "cone", "acone"] {
        // The one with random ports gets in.
        for changing in ["hard", "hardseq"] {
            let wanted = direct(1.0).p95(800).wanted();
            cells.extend(Cell::new(Row::RandomToOpen, Scheme::Tcp, open, changing, wanted).both_ways());
        }
    }
    cells.extend(special_places(Scheme::Tcp));
    cells.extend([Scheme::Udp, Scheme::Tcp].into_iter().flat_map(other_times));
    cells
}

/// Pairs whose mappings do not depend on the endpoint.
fn independent(scheme: Scheme) -> Vec<Cell> {
    let limit = if scheme == Scheme::Udp { 300 } else { 800 };
    let mut cells = Vec::new();
    for (index, a) in INDEPENDENT.into_iter().enumerate() {
        for b in INDEPENDENT.into_iter().skip(index) {
            let strict = STRICT.contains(&a) || STRICT.contains(&b);
            let (row, wanted) = if strict {
                (Row::Accepting(scheme.name()), direct(1.0).wanted())
            } else {
                (Row::Independent(scheme.name()), direct(1.0).p95(limit).wanted())
            };
            cells.push(Cell::new(row, scheme, a, b, wanted));
        }
    }
    cells
}

/// Routers that take a stranger's packet amiss, and NATs that draw ports: what opens those must not arrive, so that the
/// way has to have some routers, as ways between two providers do.
fn strict_to_random() -> Vec<Cell> {
    let chance = direct(0.98).p50(3_000).p95(12_000).worst(25_000).wanted();
    let cell = |a, b| {
        let cell = Cell::new(Row::RandomThroughStrict, Scheme::Udp, a, b, chance);
        Cell { hops: 4, ..cell }.both_ways()
    };
    [
        cell("easy,accept", "hard"),
        cell("easy,accept", "hardad"),
        cell("easy,accept", "cgnathard"),
        cell("easyrand,accept", "hard,accept"),
        cell("easy,blacklist", "hard"),
        cell("easyrand,blacklist", "hard,blacklist"),
    ]
    .concat()
}

/// Pairs of which one's mapping depends on the endpoint, or both's.
fn dependent() -> Vec<Cell> {
    let udp = |row, a, b, wanted| Cell::new(row, Scheme::Udp, a, b, wanted);
    let chance = direct(0.98).p50(3_000).p95(12_000).worst(25_000).wanted();
    let mut cells = Vec::new();
    for restricted in ["easy", "easyrand"] {
        cells.extend(udp(Row::RandomInBlock, restricted, "hardblock", chance).both_ways());
    }
    for hard in ["hard", "hardad", "cgnathard"] {
        for open in ["open", "cone", "acone"] {
            cells.extend(udp(Row::RandomToOpen, open, hard, direct(1.0).wanted()).both_ways());
        }
        let row = if hard == "hardad" { Row::RandomByAddress } else { Row::Random };
        for restricted in ["easy", "easyrand", "cgnat"] {
            // Ten times as many both ways, where the figure is of 200 runs.
            let weight = if hard == "hard" && restricted != "cgnat" { 5 } else { 2 };
            cells.extend(udp(row, restricted, hard, chance).weight(weight).both_ways());
        }
    }
    for other in ["fw", "easy", "easyrand"] {
        cells.push(udp(Row::Independent("UDP"), "fw", other, direct(1.0).p95(300).wanted()));
    }
    cells.extend(udp(Row::Random, "fw", "hard", chance).both_ways());
    for open in ["open", "cone", "acone"] {
        cells.extend(udp(Row::RandomToOpen, open, "hardseq", direct(1.0).wanted()).both_ways());
    }
    for restricted in ["easy", "easyrand", "cgnat"] {
        cells.extend(udp(Row::Counting, restricted, "hardseq", direct(0.95).wanted()).both_ways());
    }
    cells.push(udp(Row::BothCounting, "hardseq", "hardseq", direct(0.90).wanted()).weight(2));
    cells.push(udp(Row::Hopeless, "hard", "hard", Wanted::Hopeless));
    cells.extend(udp(Row::Hopeless, "hard", "hardseq", Wanted::Hopeless).both_ways());
    cells
}

/// One NAT, one carrier, or the same private addresses.
fn special_places(scheme: Scheme) -> Vec<Cell> {
    let limit = if scheme == Scheme::Udp { 300 } else { 800 };
    let soon = direct(1.0).p95(limit).wanted();
    let cell = |a, b, wanted| {
        let apart = matches!(wanted, Wanted::Never(_));
        let row = if apart { Row::Apart } else { Row::Places(scheme.name()) };
        Cell::new(row, scheme, a, b, wanted)
    };
    vec![
        cell("easy", "easy", soon).places(Places::SameAddresses),
        cell("cgnat", "easyrand", soon).places(Places::SameAddresses),
        cell("easy,hairpin", "easy", soon).places(Places::OneSite),
        cell("easyrand,hairpin", "easyrand", soon).places(Places::OneSite),
        cell("easy", "easy", Wanted::Never(NO_HAIRPIN)).places(Places::OneSite),
        cell("easy+easy,hairpin", "easy", soon).places(Places::OneCarrier),
        cell("easy+easyrand,hairpin", "easyrand", soon).places(Places::OneCarrier),
        cell("easy+easy", "easy", Wanted::Never(NO_HAIRPIN)).places(Places::OneCarrier),
    ]
}

/// Peers that do not begin at the same moment, and long ways.
fn other_times(scheme: Scheme) -> Vec<Cell> {
    let row = Row::Times(scheme.name());
    let cell = |a, b| Cell::new(row, scheme, a, b, direct(1.0).p95(1_500).wanted());
    let mut cells: Vec<Cell> = [30, 60, 90, 200, 500, 2_000, 5_000]
        .into_iter()
        .map(|skew| Cell { skew: Duration::from_millis(skew), ..cell("easy", "easyrand") })
        .collect();
    // What is refused has to cross on its way, sooner or later.
    let later = direct(1.0).p95(3_000).wanted();
    for (a, b) in [("easy,accept", "easy,accept"), ("easy,reject", "easy,reject"), ("open", "easy")] {
        cells.push(Cell { skew: Duration::from_millis(60), wanted: later, ..cell(a, b) });
    }
    // Three round trips.
    for delay in [100, 200] {
        let wanted = direct(1.0).p95(12 * delay + 100).wanted();
        cells.push(Cell { delay: Duration::from_millis(delay), wanted, ..cell("easy", "easyrand") });
    }
    cells
}

/// TCP between sites that let no UDP out.
fn blocked() -> Vec<Cell> {
    let wanted = direct(0.98).p95(800).wanted();
    let mut cells = Vec::new();
    for (index, a) in BLOCKED.into_iter().enumerate() {
        for b in BLOCKED.into_iter().skip(index) {
            cells.push(Cell::new(Row::Blocked, Scheme::Tcp, a, b, wanted));
        }
    }
    cells
}

/// A `Wanted::Direct` under construction.
struct Direct {
    share: f64,
    p50: Option<Duration>,
    p95: Option<Duration>,
    worst: Option<Duration>,
}

const fn direct(share: f64) -> Direct {
    Direct { share, p50: None, p95: None, worst: None }
}

impl Direct {
    const fn p50(self, ms: u64) -> Self {
        Self { p50: Some(Duration::from_millis(ms)), ..self }
    }

    const fn p95(self, ms: u64) -> Self {
        Self { p95: Some(Duration::from_millis(ms)), ..self }
    }

    const fn worst(self, ms: u64) -> Self {
        Self { worst: Some(Duration::from_millis(ms)), ..self }
    }

    const fn wanted(self) -> Wanted {
        Wanted::Direct { share: self.share, p50: self.p50, p95: self.p95, worst: self.worst }
    }
}

const INDEPENDENT: [&str; 9] =
    ["open", "cone", "acone", "easy", "easyrand", "cgnat", "easy,reject", "easy,accept", "easy,blacklist"];

/// Those of them that do more to strangers than to turn them away.
const STRICT: [&str; 2] = ["easy,accept", "easy,blacklist"];

const BLOCKED: [&str; 4] = ["cone,udpblock", "easy,udpblock", "easyrand,udpblock", "easy,udpblock+easy"];

const QUICK: [(Scheme, &str, &str); 5] = [
    (Scheme::Udp, "easy", "easyrand"),
    (Scheme::Udp, "easy", "hard"),
    (Scheme::Udp, "hard", "hard"),
    (Scheme::Tcp, "easy", "easyrand"),
    (Scheme::Tcp, "easy,udpblock", "easyrand,udpblock"),
];

/// What the text of the obstacle has in it.
const NO_HAIRPIN: &str = "same outside address";

const ACCESS_DELAY: Duration = Duration::from_millis(20);
