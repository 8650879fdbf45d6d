//! The nftables rules of one router with the interfaces `wan` and `lan`.
//!
//! The kernel's own NAT is endpoint-independent with preserved ports as long as nobody else uses the port, and filters by
//! address and port, since only packets of a known flow are let in. Everything else is made of two memories that note what
//! really left: `outside`, which inside address and port an outside port stands for, and `spoken`, with whom an outside port
//! has spoken. What the filter is to let in is sent to the inside address by the first, if the second agrees.

use std::fmt::Write as _;
use std::net::Ipv4Addr;

use crate::nat::{Blocks, Nat, PortChoice, Rule, Unsolicited};

/// What the rules need to know besides the NAT.
pub(crate) struct Router<'a> {
    pub(crate) nat: &'a Nat,
    pub(crate) wan: Ipv4Addr,
    /// The inside network, as `192.168.1.0/24`.
    pub(crate) lan: &'a str,
    /// Makes the random ports of this router others than those of the next.
    pub(crate) seed: u32,
}

/// The chains that miniupnpd fills, and the table they are in.
pub(crate) const TABLE: &str = "natlab";
pub(crate) const UPNP_FORWARD: &str = "upnp_forward";
pub(crate) const UPNP_IN: &str = "upnp_in";
pub(crate) const UPNP_OUT: &str = "upnp_out";

impl Router<'_> {
    /// All of them, for `nft -f`.
    pub(crate) fn rules(&self) -> String {
        let mut text = format!("table inet {TABLE} {{\n");
        self.memories(&mut text);
        for chain in [UPNP_FORWARD, UPNP_IN, UPNP_OUT] {
            let _ = writeln!(text, "chain {chain} {{ }}");
        }
        let chains = [
            ("shunned", "filter hook prerouting priority -160", self.shunned()),
            ("hairpins", "filter hook prerouting priority -150", self.note_hairpins()),
            ("inwards", "nat hook prerouting priority -100", self.inwards()),
            ("outwards", "nat hook postrouting priority 100", self.outwards()),
            ("note", "filter hook postrouting priority 300", self.note()),
            ("own", "filter hook input priority 0", self.own()),
            ("through", "filter hook forward priority 0", self.through()),
        ];
        for (name, hook, rules) in chains {
            let _ = writeln!(text, "chain {name} {{\ntype {hook}; policy accept;");
            for rule in rules {
                let _ = writeln!(text, "{rule}");
            }
            text.push_str("}\n");
        }
        text.push_str("}\n");
        text
    }

    fn memories(&self, text: &mut String) {
        let end =
            format!("flags dynamic,timeout; timeout {}s; size 65536;", self.nat.lifetime.as_secs().max(1));
        let _ = writeln!(
            text,
            "map outside {{ type inet_proto . inet_service : ipv4_addr . inet_service; {end} }}\n\
             set spoken {{ type inet_proto . inet_service . ipv4_addr; {end} }}\n\
             set hairpinned {{ type inet_proto . inet_service . inet_service; {end} }}\n\
             set shunned {{ type inet_proto . ipv4_addr . inet_service . inet_service; flags dynamic,timeout; \
             timeout {SHUNNED_SECONDS}s; size 65536; }}"
        );
    }

    /// Nothing comes from whom the router shuts out.
    fn shunned(&self) -> Vec<String> {
        match self.nat.unsolicited {
            Unsolicited::Blacklist => vec![format!("iifname wan {STRANGER} @shunned drop")],
            _ => Vec::new(),
        }
    }

    /// Destinations on the inside for packets that would otherwise be the router's own.
    fn inwards(&self) -> Vec<String> {
        if !self.nat.translates {
            return Vec::new();
        }
        let mut rules = vec![format!("jump {UPNP_IN}")];
        let to = format!("{ANY} dnat ip to meta l4proto . th dport map @outside");
        match self.nat.filtering {
            Rule::EndpointIndependent => rules.push(format!("iifname wan meta nfproto ipv4 {to}")),
            Rule::AddressDependent => rules.push(format!(
                "iifname wan meta nfproto ipv4 meta l4proto . th dport . ip saddr @spoken {to}"
            )),
            Rule::AddressAndPortDependent => {}
        }
        if self.nat.hairpin {
            // What port the sender will have is known here only if ports are preserved.
            let filter = match self.nat.filtering {
                _ if self.nat.ports != PortChoice::Preserved => "",
                Rule::EndpointIndependent => "",
                Rule::AddressDependent => "meta l4proto . th dport . ip daddr @spoken ",
                Rule::AddressAndPortDependent => "meta l4proto . th dport . th sport @hairpinned ",
            };
            rules.push(format!("iifname lan ip daddr {} {filter}{to}", self.wan));
        }
        rules
    }

    fn note_hairpins(&self) -> Vec<String> {
        if !(self.nat.translates && self.nat.hairpin && self.nat.ports == PortChoice::Preserved) {
            return Vec::new();
        }
        let packet = format!("iifname lan ip daddr {} {ANY}", self.wan);
        vec![
            format!("{packet} update @hairpinned {{ meta l4proto . th sport . th dport }}"),
            format!("{packet} update @spoken {{ meta l4proto . th sport . ip daddr }}"),
        ]
    }

    /// Sources on the outside for packets of the inside.
    fn outwards(&self) -> Vec<String> {
        if !self.nat.translates {
            return Vec::new();
        }
        let mut rules = vec![format!("oifname wan ip saddr {} accept", self.wan), format!("jump {UPNP_OUT}")];
        for protocol in ["udp", "tcp"] {
            let source = self.source(protocol);
            rules.push(format!("oifname wan meta nfproto ipv4 meta l4proto {protocol} {source}"));
            if self.nat.hairpin {
                rules.push(format!(
                    "oifname lan ip saddr {} ct original ip daddr {} ct status dnat meta l4proto {protocol} {source}",
                    self.lan, self.wan
                ));
            }
        }
        rules.push("oifname wan meta nfproto ipv4 masquerade".into());
        rules
    }

    /// The statement that chooses the outside port.
    fn source(&self, protocol: &str) -> String {
        let wan = self.wan;
        let from = match (self.nat.ports, self.nat.mapping) {
            (PortChoice::Preserved, _) => return format!("snat ip to {wan}"),
            (PortChoice::Random, Rule::AddressAndPortDependent) => {
                return format!("snat ip to {wan} fully-random");
            }
            (PortChoice::Block(ports), _) => {
                // Each destination gets another port, whatever the mapping is to be: the kernel has no other way within a range.
                let (ports, spare) = (ports.clamp(1, PORTS), PORTS - ports.clamp(1, PORTS));
                let first =
                    FIRST_PORT + u16::try_from(self.seed % (u32::from(spare) + 1)).expect("below spare");
                return format!("snat ip to {wan}:{first}-{} fully-random", first + (ports - 1));
            }
            (PortChoice::Sequential(_), _) => format!("numgen inc mod {CHOICES}"),
            (PortChoice::Random, mapping) => {
                let remote = if mapping == Rule::AddressDependent { " . ip daddr" } else { "" };
                let seed = self.seed;
                format!("jhash ip saddr . {protocol} sport{remote} mod {CHOICES} seed {seed:#x}")
            }
        };
        // By a map, since a number is put into the port as it lies in memory: in the wrong order on most machines.
        let ports: Vec<String> =
            (0..CHOICES).map(|choice| format!("{choice} : {}", self.port(choice))).collect();
        format!("snat ip to {wan} : {from} map {{ {} }}", ports.join(", "))
    }

    /// The outside port of a choice; no two have the same.
    fn port(&self, choice: u32) -> u32 {
        match self.nat.ports {
            PortChoice::Sequential(_) => 20_000 + choice,
            _ => 4_096 + (choice ^ (self.seed % CHOICES)) * 15,
        }
    }

    /// Remembers what left by which port.
    fn note(&self) -> Vec<String> {
        let needed = self.nat.filtering != Rule::AddressAndPortDependent || self.nat.hairpin;
        if !(self.nat.translates && needed) {
            return Vec::new();
        }
        let packet = format!("oifname wan meta nfproto ipv4 {ANY}");
        vec![
            format!(
                "{packet} ct direction original update @outside \
                 {{ meta l4proto . th sport : ct original ip saddr . ct original proto-src }}"
            ),
            format!("{packet} update @spoken {{ meta l4proto . th sport . ip daddr }}"),
        ]
    }

    /// What the router takes for itself.
    fn own(&self) -> Vec<String> {
        let mut rules: Vec<String> = vec![
            "iifname wan ct state established,related accept".into(),
            "iifname wan icmp type echo-request accept".into(),
            // Without these there are no neighbours in IPv6.
            "icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert, nd-router-advert, echo-request } accept"
                .into(),
            format!("jump {UPNP_FORWARD}"),
        ];
        rules.extend(match self.nat.unsolicited {
            Unsolicited::Drop => vec!["iifname wan drop".to_owned()],
            Unsolicited::Reject => vec![
                "iifname wan meta l4proto tcp reject with tcp reset".to_owned(),
                "iifname wan reject".to_owned(),
            ],
            Unsolicited::Accept => vec!["iifname wan accept".to_owned()],
            Unsolicited::Blacklist => vec![
                format!("iifname wan {ANY} add @shunned {{ {STRANGER} }}"),
                "iifname wan drop".to_owned(),
            ],
        });
        // A hairpinned packet that nothing takes is not for the router either.
        rules.push(format!("iifname lan ip daddr {} {ANY} ct state new drop", self.wan));
        rules
    }

    /// What passes.
    fn through(&self) -> Vec<String> {
        let mut rules: Vec<String> = match self.nat.blocks {
            Blocks::Nothing => Vec::new(),
            Blocks::Udp => vec!["iifname lan oifname wan meta l4proto udp drop".into()],
            Blocks::AllButTcp443 => {
                vec![
                    "iifname lan oifname wan tcp dport 443 accept".into(),
                    "iifname lan oifname wan drop".into(),
                ]
            }
        };
        rules.extend([
            "ct state invalid drop".into(),
            "iifname wan ct state established,related accept".into(),
            "iifname wan ct status dnat accept".into(),
            format!("jump {UPNP_FORWARD}"),
            "iifname wan drop".into(),
        ]);
        rules
    }
}

const ANY: &str = "meta l4proto { tcp, udp }";

/// Whom it is about, at which port of ours.
const STRANGER: &str = "meta l4proto . ip saddr . th sport . th dport";

/// How long a stranger who came unasked is shut out.
const SHUNNED_SECONDS: u32 = 30;

/// NATs give no ports below, and so many above.
const FIRST_PORT: u16 = 1_024;
const PORTS: u16 = 64_512;

/// Ports to choose from, where the kernel does not choose itself.
const CHOICES: u32 = 4_096;

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn no_two_choices_have_the_same_port() {
        for nat in [Nat::easy_random(), Nat::hard_sequential()] {
            for seed in [0, 1, 0xFFFF_FFFF, 0x1234_5678] {
                let router = Router { nat: &nat, wan: Ipv4Addr::LOCALHOST, lan: "", seed };
                let ports: BTreeSet<u32> = (0..CHOICES).map(|choice| router.port(choice)).collect();
                assert_eq!(ports.len(), 4_096, "{nat:?} {seed}");
                assert!(ports.iter().all(|port| (1_024..65_536).contains(port)));
            }
        }
    }
}
