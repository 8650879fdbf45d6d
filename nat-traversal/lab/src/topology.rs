use std::time::Duration;

use crate::lab::{Lab, LabError};
use crate::nat::{Nat, ParseNatError, parse_nats};

/// What is to be built: sites with hosts behind NATs, and a public server.
///
/// ```
/// use std::time::Duration;
/// use nat_lab::{Link, Topology};
///
/// let topology = Topology::pair("easy", "easyrand+hard")?.links(Link::delay(Duration::from_millis(20)).loss(0.05));
/// # Ok::<(), nat_lab::ParseNatError>(())
/// ```
#[derive(Debug, Clone, Default)]
pub struct Topology {
    pub(crate) sites: Vec<Site>,
    pub(crate) server_link: Link,
    pub(crate) same_lan: bool,
    pub(crate) ipv6: bool,
}

/// A network with two hosts, and what stands between it and the internet.
#[derive(Debug, Clone, Default)]
pub struct Site {
    pub(crate) nats: Vec<Nat>,
    pub(crate) link: Link,
    pub(crate) shares_carrier: bool,
}

/// What joins a site or the server to the internet. The same holds both ways.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Link {
    /// How long a packet is under way.
    pub delay: Duration,
    /// At most so much is added to the delay, drawn anew for each packet. Packets do not overtake each other.
    pub jitter: Duration,
    /// Which share of packets is lost: 0.05 is 5 %.
    pub loss: f64,
    /// Routers on the way, each of which counts a packet's hops down and says nothing if there are none left. Between two
    /// homes there are some ten.
    pub hops: u8,
}

impl Topology {
    /// A server and nothing else.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Two sites behind NATs by their short names; see [`parse_nats`].
    ///
    /// # Errors
    ///
    /// If a name is not known.
    pub fn pair(a: &str, b: &str) -> Result<Self, ParseNatError> {
        Ok(Self::new().site(Site::new(parse_nats(a)?)).site(Site::new(parse_nats(b)?)))
    }

    /// Adds a site. The first is called `a`, its hosts `a1` and `a2`, its routers `ra` and, if it has two, `ca`; the next
    /// is `b`.
    #[must_use]
    pub fn site(mut self, site: Site) -> Self {
        self.sites.push(site);
        self
    }

    /// Joins all sites that were added by now to the internet by links like this one.
    #[must_use]
    pub fn links(mut self, link: Link) -> Self {
        self.sites.iter_mut().for_each(|site| site.link = link);
        self
    }

    /// Joins the server to the internet by this link; unless set, without delay.
    #[must_use]
    pub fn server_link(mut self, link: Link) -> Self {
        self.server_link = link;
        self
    }

    /// Gives all sites behind NATs the same private addresses.
    #[must_use]
    pub fn same_lan(mut self) -> Self {
        self.same_lan = true;
        self
    }

    /// Gives all hosts public addresses of IPv6 as well. Routers translate none of them, but let in only what was asked for;
    /// those of sites without a NAT let all in. Sites behind two NATs have none.
    #[must_use]
    pub fn ipv6(mut self) -> Self {
        self.ipv6 = true;
        self
    }

    /// Builds it; takes about a second.
    ///
    /// # Errors
    ///
    /// If this is not root on Linux with `ip`, `nft` and `ethtool`, or one of them fails; see [`Lab::check`].
    pub fn build(&self) -> Result<Lab, LabError> {
        Lab::build(self)
    }
}

impl Site {
    /// A site behind these NATs, the innermost first, at most two. Without any its hosts have public addresses.
    #[must_use]
    pub fn new(nats: impl Into<Vec<Nat>>) -> Self {
        Self { nats: nats.into(), ..Self::default() }
    }

    /// A home with its own NAT behind the second NAT of the first site, as two customers of one carrier.
    #[must_use]
    pub fn at_first_carrier(nat: Nat) -> Self {
        Self { nats: vec![nat], shares_carrier: true, ..Self::default() }
    }

    /// This site, joined to the internet by this link.
    #[must_use]
    pub fn link(self, link: Link) -> Self {
        Self { link, ..self }
    }
}

impl Link {
    /// A link that only takes time.
    #[must_use]
    pub fn delay(delay: Duration) -> Self {
        Self { delay, ..Self::default() }
    }

    /// This link with a jitter.
    #[must_use]
    pub const fn jitter(self, jitter: Duration) -> Self {
        Self { jitter, ..self }
    }

    /// This link with a loss.
    #[must_use]
    pub const fn loss(self, loss: f64) -> Self {
        Self { loss, ..self }
    }

    /// This link with so many routers on it.
    #[must_use]
    pub const fn hops(self, hops: u8) -> Self {
        Self { hops, ..self }
    }

    /// Whether the kernel's own wire does as well.
    pub(crate) fn is_plain(&self) -> bool {
        *self == Self::default()
    }
}
