use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};
use std::{fmt, fs, io, thread};

use nix::ifaddrs::getifaddrs;
use nix::net::if_::InterfaceFlags;

use crate::namespace::{delete, enter, folder, ip, run, unique_prefix};
use crate::topology::Topology;
use crate::wire::Wires;

mod plan;

use plan::Plan;

/// A laboratory at work. When it is dropped, also by a panic, everything is gone; what a killed process leaves behind is
/// removed by the next one that builds a laboratory.
#[derive(Debug)]
pub struct Lab {
    prefix: String,
    folder: PathBuf,
    nodes: BTreeMap<String, Node>,
    wires: Option<Wires>,
}

/// A host or a router.
#[derive(Debug, Clone)]
pub struct Node {
    namespace: String,
    address: Ipv4Addr,
}

/// Why a laboratory could not be built or used.
#[derive(Debug)]
pub struct LabError(String);

impl LabError {
    pub(crate) fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }
}

impl fmt::Display for LabError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for LabError {}

impl From<io::Error> for LabError {
    fn from(error: io::Error) -> Self {
        Self(error.to_string())
    }
}

impl Lab {
    /// Where the server is reached: two addresses, so that it can be a STUN server as RFC 5780 wants it.
    pub const SERVER: [Ipv4Addr; 2] = [Ipv4Addr::new(203, 0, 113, 10), Ipv4Addr::new(203, 0, 113, 11)];

    /// Where it is reached in a laboratory [with IPv6](Topology::ipv6).
    pub const SERVER_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xDB8, 0x5, 0, 0, 0, 0, 0x10);

    /// Whether a laboratory can be built here.
    ///
    /// # Errors
    ///
    /// What is missing, in words for a line `NOT RUN: …`.
    pub fn check() -> Result<(), LabError> {
        for program in ["ip", "nft", "ethtool", "conntrack"] {
            if let Err(error) = Command::new(program).arg("--version").output() {
                return Err(LabError::new(format!("{program}: {error}")));
            }
        }
        let probe = unique_prefix()?;
        run(Command::new("ip").args(["netns", "add", &probe]), "")?;
        let rules = run(Command::new("ip").args(["netns", "exec", &probe, "nft", "list", "ruleset"]), "");
        delete(&[probe]);
        rules.map(drop)
    }

    pub(crate) fn build(topology: &Topology) -> Result<Self, LabError> {
        let plan = Plan::new(topology)?;
        let prefix = unique_prefix()?;
        let folder = folder(&prefix)?;
        let nodes = plan.nodes.iter().map(|(name, node)| {
            (name.clone(), Node { namespace: format!("{prefix}-{name}"), address: node.address })
        });
        let mut lab = Self { nodes: nodes.collect(), prefix, folder, wires: None };
        let adds: Vec<String> =
            lab.nodes.values().map(|node| format!("netns add {}", node.namespace)).collect();
        ip(None, &adds)?;
        for node in lab.nodes.values() {
            enter(&node.namespace, || set_up_kernel(topology.ipv6))?;
        }
        // With numbers of their own: the kernel lets a pair whose ends have the same number wait for a second.
        let cables = plan.cables.iter().zip((FIRST_INTERFACE..).step_by(2)).map(|(cable, number)| {
            let [(node, name), (other, peer)] = cable;
            let (here, there) = (&lab.node(node).namespace, &lab.node(other).namespace);
            format!(
                "link add name {name} index {number} netns {here} \
                 type veth peer name {peer} index {} netns {there}",
                number + 1
            )
        });
        ip(None, &cables.collect::<Vec<_>>())?;
        for (name, node) in &plan.nodes {
            lab.set_up(name, node)?;
        }
        for node in lab.nodes.values() {
            enter(&node.namespace, await_interfaces)?;
        }
        if !plan.wires.is_empty() {
            lab.wires = Some(enter(&lab.node(plan::WIRE).namespace, || Wires::start(&plan.wires))?);
        }
        Ok(lab)
    }

    fn set_up(&self, name: &str, plan: &plan::NodePlan) -> Result<(), LabError> {
        let namespace = &self.node(name).namespace;
        ip(Some(namespace), &plan.lines)?;
        for interface in &plan.without_offload {
            run(
                Command::new("ip")
                    .args(["netns", "exec", namespace, "ethtool", "-K", interface, "tx", "off"]),
                "",
            )?;
        }
        let Some(router) = &plan.router else { return Ok(()) };
        enter(namespace, || {
            fs::write("/proc/sys/net/ipv4/ip_forward", "1")?;
            if router.ipv6 {
                fs::write("/proc/sys/net/ipv6/conf/all/forwarding", "1")?;
            }
            if router.rules.is_empty() {
                return Ok(());
            }
            run(Command::new("nft").args(["-f", "-"]), &router.rules)?;
            for timeout in ["nf_conntrack_udp_timeout", "nf_conntrack_udp_timeout_stream"] {
                fs::write(
                    format!("/proc/sys/net/netfilter/{timeout}"),
                    router.lifetime.as_secs().max(1).to_string(),
                )?;
            }
            Ok(())
        })
    }

    /// A host or router: `server`, `a1`, `a2`, `ra`, `ca`, `b1`…
    ///
    /// # Panics
    ///
    /// If the topology has none of this name.
    #[must_use]
    pub fn node(&self, name: &str) -> &Node {
        let known = || self.nodes.keys().cloned().collect::<Vec<_>>().join(", ");
        self.nodes.get(name).unwrap_or_else(|| panic!("no node {name:?}; there are {}", known()))
    }

    /// All hosts and routers by their names.
    pub fn nodes(&self) -> impl Iterator<Item = (&str, &Node)> {
        self.nodes.iter().map(|(name, node)| (name.as_str(), node))
    }

    /// A folder that is removed with the laboratory.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        self.wires = None;
        delete(&self.nodes.values().map(|node| node.namespace.clone()).collect::<Vec<_>>());
        if let Err(error) = fs::remove_dir_all(&self.folder) {
            eprintln!("{}: {error}", self.prefix);
        }
    }
}

impl Node {
    /// Its address; a router's is the outside one.
    #[must_use]
    pub const fn address(&self) -> Ipv4Addr {
        self.address
    }

    /// The name of its network namespace, for `ip netns exec`.
    #[must_use]
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// Runs `work` here, on a thread of its own. Sockets that it makes, and threads and processes that it starts, stay here;
    /// sockets may be handed out.
    ///
    /// # Panics
    ///
    /// If `work` does, or the laboratory is gone.
    pub fn enter<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        enter(&self.namespace, work)
    }

    /// A program to run here.
    #[must_use]
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.namespace]).arg(program);
        command
    }

    /// Has a router forget what is under way, but not what it was told to let in.
    ///
    /// # Errors
    ///
    /// If a program fails.
    pub fn forget_flows(&self) -> Result<(), LabError> {
        run(self.command("conntrack").arg("-F"), "").map(drop)
    }

    /// Has a router forget all its mappings, as if it had just been switched on.
    ///
    /// # Errors
    ///
    /// If a program fails.
    pub fn forget(&self) -> Result<(), LabError> {
        self.forget_flows()?;
        let table = format!("inet {}", crate::rules::TABLE);
        let memories =
            ["map", "set", "set", "set"].iter().zip(["outside", "spoken", "hairpinned", "shunned"]);
        let chains = [crate::rules::UPNP_FORWARD, crate::rules::UPNP_IN, crate::rules::UPNP_OUT];
        let mut lines: Vec<String> =
            memories.map(|(kind, name)| format!("flush {kind} {table} {name}")).collect();
        lines.extend(chains.map(|chain| format!("flush chain {table} {chain}")));
        run(self.command("nft").args(["-f", "-"]), &lines.join("\n")).map(drop)
    }
}

/// Waits until all interfaces of a namespace carry packets, which they do a moment after they were switched on.
fn await_interfaces() -> Result<(), LabError> {
    let deadline = Instant::now() + INTERFACES_PATIENCE;
    loop {
        let found = getifaddrs().map_err(io::Error::from)?;
        let down: Vec<String> = found
            .filter(|interface| !interface.flags.contains(InterfaceFlags::IFF_RUNNING))
            .map(|interface| interface.interface_name)
            .collect();
        if down.is_empty() {
            return Ok(());
        }
        if Instant::now() >= deadline {
            return Err(LabError::new(format!("interfaces stay down: {}", down.join(", "))));
        }
        // The kernel tells of it by netlink only, which is not worth its code here.
        thread::sleep(INTERFACES_PAUSE);
    }
}

/// What all namespaces have in common, to be run inside one.
fn set_up_kernel(ipv6: bool) -> Result<(), LabError> {
    let write = |name: &str, value: &str| {
        let path = format!("/proc/sys/net/{name}");
        fs::write(&path, value).map_err(|error| LabError::new(format!("{path}: {error}")))
    };
    for which in ["all", "default"] {
        if ipv6 || Path::new("/proc/sys/net/ipv6").exists() {
            write(&format!("ipv6/conf/{which}/disable_ipv6"), if ipv6 { "0" } else { "1" })?;
        }
        if ipv6 {
            // Addresses are known to be nobody else's, and no router advertises any.
            write(&format!("ipv6/conf/{which}/accept_dad"), "0")?;
            write(&format!("ipv6/conf/{which}/accept_ra"), "0")?;
        }
        write(&format!("ipv4/conf/{which}/rp_filter"), "0")?;
        write(&format!("ipv4/conf/{which}/send_redirects"), "0")?;
    }
    // Else frames between two hosts on one side of a router pass its rules.
    for kind in ["iptables", "ip6tables", "arptables"] {
        let name = format!("bridge/bridge-nf-call-{kind}");
        if Path::new("/proc/sys/net").join(&name).exists() {
            write(&name, "0")?;
        }
    }
    Ok(())
}

/// Above those that namespaces have from the beginning.
const FIRST_INTERFACE: usize = 100;

const INTERFACES_PATIENCE: Duration = Duration::from_secs(10);
const INTERFACES_PAUSE: Duration = Duration::from_millis(2);
