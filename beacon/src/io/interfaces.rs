//! The interfaces of this machine on which a beacon makes sense.

use std::collections::BTreeMap;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr};

use get_if_addrs::{IfAddr, IfOperStatus, Ifv4Addr, Interface};

use crate::config::Interfaces;
use crate::protocol::{LinkId, Network};

/// One usable interface with its addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Candidate {
    pub(crate) id: LinkId,
    pub(crate) name: String,
    pub(crate) is_loopback: bool,
    pub(crate) v4: Vec<V4Address>,
    /// The address multicast is sent from: IPv6 peers are found by link-local addresses, which every interface has.
    pub(crate) v6: Option<Ipv6Addr>,
    pub(crate) networks: Vec<Network>,
}

/// An IPv4 address and the broadcast address of its network, if it has one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct V4Address {
    pub(crate) address: Ipv4Addr,
    pub(crate) broadcast: Option<Ipv4Addr>,
}

/// Lists the interfaces that are up, can reach more than one machine and are wanted.
///
/// Takes well under a millisecond.
pub(crate) fn list(wanted: &Interfaces) -> io::Result<Vec<Candidate>> {
    Ok(choose(group(get_if_addrs::get_if_addrs()?), wanted))
}

fn group(entries: Vec<Interface>) -> Vec<Candidate> {
    let mut candidates: BTreeMap<LinkId, Candidate> = BTreeMap::new();
    for entry in entries {
        let Some(index) = entry.index else { continue };
        if entry.oper_status != IfOperStatus::Up || entry.is_p2p {
            continue;
        }
        let id = LinkId(index);
        let candidate = candidates.entry(id).or_insert_with(|| Candidate {
            id,
            name: entry.name.clone(),
            is_loopback: false,
            v4: Vec::new(),
            v6: None,
            networks: Vec::new(),
        });
        candidate.is_loopback |= entry.is_loopback();
        candidate.add(&entry.addr);
    }
    candidates.into_values().take(MAX_INTERFACES).collect()
}

fn choose(candidates: Vec<Candidate>, wanted: &Interfaces) -> Vec<Candidate> {
    let (loopback, others): (Vec<_>, Vec<_>) =
        candidates.into_iter().partition(|candidate| candidate.is_loopback);
    match wanted {
        Interfaces::Lan if others.is_empty() => loopback,
        Interfaces::Lan => others,
        Interfaces::Loopback => loopback,
        Interfaces::Named(names) => {
            let all = loopback.into_iter().chain(others);
            all.filter(|candidate| names.contains(&candidate.name)).collect()
        }
    }
}

impl Candidate {
    fn add(&mut self, address: &IfAddr) {
        let prefix_bits = match address {
            IfAddr::V4(v4) => {
                if self.v4.len() >= MAX_ADDRESSES {
                    return;
                }
                self.v4.push(V4Address { address: v4.ip, broadcast: broadcast(v4) });
                v4.prefixlen
            }
            IfAddr::V6(v6) => {
                if self.networks.len() >= MAX_NETWORKS {
                    return;
                }
                if v6.is_link_local() && self.v6.is_none() {
                    self.v6 = Some(v6.ip);
                }
                v6.prefixlen
            }
        };
        self.networks.push(Network { address: address.ip(), prefix_bits });
        // The system lists addresses in the order in which they were added; only a change of the set is a change.
        self.networks.sort_by_key(|network| (network.address, network.prefix_bits));
    }
}

/// The broadcast address that the system gives; for the loopback network, which has none in the list, and where the
/// system knows none, the last address of the network.
fn broadcast(v4: &Ifv4Addr) -> Option<Ipv4Addr> {
    let last = v4.ip.to_bits() | !v4.netmask.to_bits();
    let has_broadcast = v4.prefixlen <= MAX_BROADCAST_PREFIX_BITS;
    v4.broadcast
        .filter(|address| *address != v4.ip)
        .or_else(|| has_broadcast.then(|| Ipv4Addr::from_bits(last)))
}

/// A machine with more interfaces is a host of containers, on whose bridges nobody is looked for. Linux allows 20
/// memberships of a socket by default; above that, broadcast goes on alone.
const MAX_INTERFACES: usize = 32;

/// Each address costs a socket; more than this many on one interface are aliases of servers.
const MAX_ADDRESSES: usize = 4;

/// Networks of one interface that count as directly connected.
const MAX_NETWORKS: usize = 32;

/// Networks of one or two addresses (RFC 3021) have no broadcast address.
const MAX_BROADCAST_PREFIX_BITS: u8 = 30;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lan_is_every_interface_but_loopback_and_loopback_if_there_is_no_other() {
        let (lo, eth0) = (candidate(1, "lo", true), candidate(2, "eth0", false));

        assert_eq!(choose(vec![lo.clone(), eth0.clone()], &Interfaces::Lan), vec![eth0]);
        assert_eq!(choose(vec![lo.clone()], &Interfaces::Lan), vec![lo]);
    }

    #[test]
    fn named_interfaces_are_taken_by_name_only() {
        let (lo, eth0) = (candidate(1, "lo", true), candidate(2, "eth0", false));
        let named = |name: &str| Interfaces::Named(vec![name.into()]);

        assert_eq!(choose(vec![lo.clone(), eth0.clone()], &named("eth0")), vec![eth0.clone()]);
        assert_eq!(choose(vec![lo.clone(), eth0], &named("lo")), vec![lo]);
        assert_eq!(choose(vec![], &named("lo")), vec![]);
    }

    #[test]
    fn the_broadcast_address_is_the_systems_or_the_last_of_the_network() {
        let v4 = |netmask: [u8; 4], prefixlen, broadcast| Ifv4Addr {
            ip: [10, 1, 2, 3].into(),
            netmask: netmask.into(),
            prefixlen,
            broadcast,
        };
        let given = Ipv4Addr::new(10, 1, 2, 254);

        assert_eq!(broadcast(&v4([255, 255, 255, 0], 24, Some(given))), Some(given));
        assert_eq!(broadcast(&v4([255, 255, 255, 0], 24, None)), Some([10, 1, 2, 255].into()));
        assert_eq!(broadcast(&v4([255, 255, 255, 254], 31, None)), None);
        assert_eq!(broadcast(&v4([255; 4], 32, None)), None);
    }

    fn candidate(index: u32, name: &str, is_loopback: bool) -> Candidate {
        let (v4, networks) = (Vec::new(), Vec::new());
        Candidate { id: LinkId(index), name: name.into(), is_loopback, v4, v6: None, networks }
    }
}
