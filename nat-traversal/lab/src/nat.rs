use std::time::Duration;

use nat_traversal::testing;
pub use nat_traversal::testing::{PortChoice, Rule, Unsolicited};

/// How a NAT behaves, in the words of [RFC 4787](https://www.rfc-editor.org/rfc/rfc4787): a
/// [`testing::Nat`], so that one description serves in memory and in the kernel, and what only
/// the kernel can do.
///
/// ```
/// use nat_lab::{Nat, Rule};
///
/// let nat = Nat { hairpin: true, ..Nat::easy() };
/// assert_eq!(nat.mapping, Rule::EndpointIndependent);
/// assert_eq!(nat_lab::parse_nats("easy,hairpin+hard")?, [nat, Nat::hard()]);
/// # Ok::<(), nat_lab::ParseNatError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Nat {
    /// Whether it translates addresses at all. If not it is a firewall before public addresses.
    pub translates: bool,
    /// When a host's port keeps its outside port.
    pub mapping: Rule,
    /// Whose packets come in through an outside port.
    pub filtering: Rule,
    /// Which outside port a new mapping gets. The kernel counts by one, whatever the step.
    pub ports: PortChoice,
    /// How long a mapping lives after the last packet.
    pub lifetime: Duration,
    /// Whether inside hosts reach each other by their outside addresses. The kernel filters such packets only where ports
    /// are preserved; with others every mapped port is open to the inside.
    pub hairpin: bool,
    /// What becomes of a packet that nothing inside has asked for.
    pub unsolicited: Unsolicited,
    /// What may not leave.
    pub blocks: Blocks,
    /// Whether hosts on the inside cannot reach each other directly, as on a guest network.
    pub isolates: bool,
}

/// What a NAT does not let out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Blocks {
    /// Everything leaves.
    Nothing,
    /// No UDP leaves.
    Udp,
    /// Only TCP to port 443 leaves.
    AllButTcp443,
}

impl Nat {
    /// A NAT of the network in memory, as the kernel has it.
    #[must_use]
    pub const fn like(nat: testing::Nat) -> Self {
        Self {
            translates: true,
            mapping: nat.mapping,
            filtering: nat.filtering,
            ports: nat.ports,
            lifetime: nat.lifetime,
            hairpin: nat.hairpin,
            unsolicited: nat.unsolicited,
            blocks: if nat.blocks_udp { Blocks::Udp } else { Blocks::Nothing },
            isolates: false,
        }
    }

    /// `easy`: most home routers. Endpoint-independent mapping with preserved ports, address- and port-dependent filtering.
    #[must_use]
    pub const fn easy() -> Self {
        Self::like(testing::Nat::easy())
    }

    /// `fw`: public addresses behind a firewall that remembers who was asked.
    #[must_use]
    pub const fn firewall() -> Self {
        Self { translates: false, ..Self::easy() }
    }

    /// `easyrand`: as [`easy`](Self::easy), but the outside port is another than the inside one.
    #[must_use]
    pub const fn easy_random() -> Self {
        Self::like(testing::Nat::easy_random())
    }

    /// `cone`: full cone. Endpoint-independent mapping and filtering, for UDP and TCP.
    #[must_use]
    pub const fn cone() -> Self {
        Self::like(testing::Nat::cone())
    }

    /// `acone`: restricted cone. Endpoint-independent mapping, address-dependent filtering.
    #[must_use]
    pub const fn address_cone() -> Self {
        Self::like(testing::Nat::address_cone())
    }

    /// `hard`: symmetric. A random port for every destination.
    #[must_use]
    pub const fn hard() -> Self {
        Self::like(testing::Nat::hard())
    }

    /// `hardblock`: symmetric within a block. A random port of 2,048 for every destination.
    #[must_use]
    pub const fn hard_block() -> Self {
        Self::like(testing::Nat::hard_block())
    }

    /// `hardad`: symmetric by address. A random port for every destination address.
    #[must_use]
    pub const fn hard_by_address() -> Self {
        Self::like(testing::Nat::hard_by_address())
    }

    /// `hardseq`: symmetric with consecutive ports.
    #[must_use]
    pub const fn hard_sequential() -> Self {
        Self::like(testing::Nat::hard_sequential())
    }

    fn with_option(mut self, option: &str) -> Option<Self> {
        match option {
            "hairpin" => self.hairpin = true,
            "reject" => self.unsolicited = Unsolicited::Reject,
            "accept" => self.unsolicited = Unsolicited::Accept,
            "blacklist" => self.unsolicited = Unsolicited::Blacklist,
            "udpblock" => self.blocks = Blocks::Udp,
            "tcp443" => self.blocks = Blocks::AllButTcp443,
            "isolate" => self.isolates = true,
            _ => return None,
        }
        Some(self)
    }
}

/// A text that names no NATs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParseNatError(String);

impl std::fmt::Display for ParseNatError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "no NAT or option is called {:?}; NATs are {NAMES}; options are {OPTIONS}", self.0)
    }
}

impl std::error::Error for ParseNatError {}

/// Reads the short names of the NATs before a site, the innermost first: `easy`, `easy,hairpin`, `easy+hard` for a
/// carrier's NAT behind the one at home. `open` is none at all; `cgnat` is `easy+easy`, `cgnathard` `easy+hard`.
///
/// # Errors
///
/// Names the part that is not known, and what is.
pub fn parse_nats(text: &str) -> Result<Vec<Nat>, ParseNatError> {
    let text = match text {
        "open" => return Ok(Vec::new()),
        "cgnat" => "easy+easy",
        "cgnathard" => "easy+hard",
        other => other,
    };
    text.split('+').map(parse_nat).collect()
}

fn parse_nat(text: &str) -> Result<Nat, ParseNatError> {
    let mut words = text.split(',');
    let name = words.next().unwrap_or_default();
    let nat = match name {
        "fw" => Nat::firewall(),
        "easy" => Nat::easy(),
        "easyrand" => Nat::easy_random(),
        "cone" => Nat::cone(),
        "acone" => Nat::address_cone(),
        "hard" => Nat::hard(),
        "hardblock" => Nat::hard_block(),
        "hardad" => Nat::hard_by_address(),
        "hardseq" => Nat::hard_sequential(),
        "udpblock" => Nat { blocks: Blocks::Udp, ..Nat::easy() },
        "tcp443" => Nat { blocks: Blocks::AllButTcp443, ..Nat::easy() },
        _ => return Err(ParseNatError(name.to_owned())),
    };
    words.try_fold(nat, |nat, option| nat.with_option(option).ok_or_else(|| ParseNatError(option.to_owned())))
}

const NAMES: &str = "open, fw, cone, acone, easy, easyrand, cgnat, hardad, hard, hardblock, hardseq, cgnathard, udpblock, tcp443";
const OPTIONS: &str = "hairpin, reject, accept, blacklist, udpblock, tcp443, isolate";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_options_and_carriers_are_read() {
        assert_eq!(parse_nats("open"), Ok(vec![]));
        assert_eq!(parse_nats("cgnat"), Ok(vec![Nat::easy(), Nat::easy()]));
        let home = Nat { unsolicited: Unsolicited::Reject, isolates: true, ..Nat::easy_random() };
        assert_eq!(parse_nats("easyrand,reject,isolate+hardseq"), Ok(vec![home, Nat::hard_sequential()]));
        assert_eq!(parse_nats("easy,loud"), Err(ParseNatError("loud".into())));
        assert_eq!(parse_nats(""), Err(ParseNatError(String::new())));
    }
}
