use std::net::IpAddr;

/// What a punch may do beyond the few packets that each address of the peer gets.
///
/// Against a NAT that draws ports at random, hundreds of packets go to one address of the peer. The peer names its addresses
/// itself, and a liar would name a victim's. So they go only to an IP address of which somebody else says that the peer is there, such
/// as a server that the peer talks to; without options, to none.
///
/// ```
/// use nat_traversal::PunchOptions;
///
/// // Who introduced the two saw the peer come from there.
/// let introduced = PunchOptions::new().vouched("198.51.100.2".parse()?);
/// // The user has got the peer's line from a friend, by a way that nobody else writes to.
/// let by_hand = PunchOptions::new().spray_unvouched(true);
/// # let _ = (introduced, by_hand);
/// # Ok::<(), std::net::AddrParseError>(())
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PunchOptions {
    vouched: Vec<IpAddr>,
    spray_unvouched: bool,
}

impl PunchOptions {
    pub(super) const DEFAULT: Self = Self { vouched: Vec::new(), spray_unvouched: false };

    /// The defaults: no address is vouched for.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds an IP address of which somebody besides the peer says that the peer is there. Eight count; others are ignored.
    #[must_use]
    pub fn vouched(mut self, ip: IpAddr) -> Self {
        self.vouch(ip);
        self
    }

    /// Lets many packets go to any address that the peer names. Only for a peer whose word is enough: one whose addresses came by
    /// a way that the user trusts, such as a line that was exchanged by hand. Default: no.
    #[must_use]
    pub const fn spray_unvouched(mut self, unvouched: bool) -> Self {
        self.spray_unvouched = unvouched;
        self
    }

    /// Tells whether it is news.
    pub(super) fn vouch(&mut self, ip: IpAddr) -> bool {
        let ip = ip.to_canonical();
        let is_new = self.vouched.len() < MAX_VOUCHED && !self.vouched.contains(&ip);
        if is_new {
            self.vouched.push(ip);
        }
        is_new
    }

    /// Whether many packets may go there.
    pub(super) fn allows(&self, ip: IpAddr) -> bool {
        self.spray_unvouched || self.vouched.contains(&ip.to_canonical())
    }
}

/// Two introducers see a peer at two addresses each.
const MAX_VOUCHED: usize = 8;
