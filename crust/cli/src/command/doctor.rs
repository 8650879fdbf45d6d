use std::{
    net::{SocketAddr, UdpSocket},
    thread,
    time::{Duration, Instant},
};

use crust::{Config, ConnectOptions, Contact};
use nat_traversal::{
    MapFailure, MappingConfig, MappingContext, NatProfile, PortLease, PortMapMethod, PortProtocol,
    protocol::nat_profile::{BindingLifetime, Filtering, Mapping, Ports, Strategy, Udp, strategy},
};

use super::{Running, connect, dialling};
use crate::{
    arguments::Common,
    events::{Doctor, Event, Output},
    failure::Failure,
    setup::{self, Who},
};

/// Finds out what is between this host and the internet, and says what that means; with a peer, tries to reach it, and with
/// a lifetime, waits that long to see whether ports are forgotten.
pub(super) fn run(
    peer: Option<&Contact>,
    lifetime: Option<Duration>,
    common: &Common,
    output: Output,
) -> Result<(), Failure> {
    let config = setup::config(common, Who::Fresh, output)?;
    let findings = examine(&config, lifetime)?;
    output.event(&Event::Doctor(findings.event()));
    for line in findings.text() {
        output.print(&line);
    }
    let Some(peer) = peer else { return Ok(()) };
    let running = Running::start(dialling(config))?;
    running.completed(try_peer(&running, peer, output))
}

fn try_peer(running: &Running, peer: &Contact, output: Output) -> Result<(), Failure> {
    // Dropped, it ends; what the peer makes of it is not waited for. How it went is what was asked.
    connect::dial(&running.controller, peer, &ConnectOptions::new(), output.verbose(true)).map(drop)
}

/// What was found out.
struct Findings {
    local: Vec<SocketAddr>,
    profile: NatProfile,
    lifetime: Option<BindingLifetime>,
    servers: usize,
    router: Router,
    /// Whether nodes of the DHT answer, if it is to be used; if not, why.
    dht: Option<Result<u32, String>>,
}

/// What came of asking the router for a port.
enum Router {
    Forwards {
        method: PortMapMethod,
        external: Option<SocketAddr>,
    },
    Refuses(Vec<MapFailure>),
    /// None is needed, or none may be asked.
    NotAsked,
}

fn examine(settings: &Config, lifetime: Option<Duration>) -> Result<Findings, Failure> {
    // A port is taken for a minute at most, should this be killed before it is given back.
    let config = MappingConfig::new().port_map(settings.maps_ports()).lease_lifetime(Duration::from_secs(60));
    let config = settings.named_router().into_iter().fold(config, MappingConfig::router);
    let servers = settings.stun_servers();
    let config = servers.iter().fold(config, |config, server| config.server(*server));
    let context = MappingContext::new(config).map_err(|error| Failure::of("system", &error))?;
    let deadline = Instant::now() + ROUTER_TIME;
    let (profile, router) = thread::scope(|scope| {
        let router = scope.spawn(|| ask_router(&context, deadline));
        let profile = context.nat_profile().map_err(|error| Failure::of("system", &error));
        let router = router.join().unwrap_or_else(|_| Err(Failure::new("system", "a thread panicked")));
        (profile, router)
    });
    let any = |address: &str| address.parse::<SocketAddr>().ok();
    let local = ["0.0.0.0:0", "[::]:0"].into_iter().filter_map(any);
    let local = local.filter_map(|address| context.host_endpoints(address).ok()).flatten();
    let local = local.map(|endpoint| endpoint.addr).collect();
    let mut profile = profile?;
    let measured =
        lifetime.filter(|_| profile.udp == Some(Udp::Open)).map(|most| context.binding_lifetime(most));
    let lifetime = measured.transpose().map_err(|error| Failure::of("system", &error))?;
    profile.binding_lifetime = lifetime.and_then(BindingLifetime::at_least);
    let dht = ask_dht(settings)?;
    Ok(Findings { local, profile, lifetime, servers: servers.len(), router: router?, dht })
}

#[cfg(not(feature = "dht"))]
#[expect(clippy::unnecessary_wraps, reason = "so is the other one")]
fn ask_dht(_: &Config) -> Result<Option<Result<u32, String>>, Failure> {
    Ok(None)
}

/// Looks up a key that nobody has.
#[cfg(feature = "dht")]
fn ask_dht(settings: &Config) -> Result<Option<Result<u32, String>>, Failure> {
    if !settings.uses_dht() {
        return Ok(None);
    }
    let config = Config::new().listen([]).lan(crust::Lan::Off).port_map(false);
    let service = crust::Service::new_from_config(config.dht(true).dht_bootstrap(settings.dht_nodes()))?;
    let nobody = crust::Identity::generate().public_key();
    Ok(Some(match service.controller.find_in_dht(nobody, Instant::now() + DHT_TIME) {
        Err(crust::DhtError::NotFound { answered }) => Ok(answered),
        Err(error) => Err(error.to_string()),
        Ok(_) => Err("it answers with what nobody can have told it".to_owned()),
    }))
}

fn ask_router(context: &MappingContext, deadline: Instant) -> Result<Router, Failure> {
    let socket = UdpSocket::bind("0.0.0.0:0").map_err(|error| Failure::of("system", &error))?;
    let local = socket.local_addr().map_err(|error| Failure::of("system", &error))?;
    Ok(match context.map_port(local, PortProtocol::Udp, deadline) {
        Ok(Some(lease)) => {
            let found = Router::Forwards { method: lease.method(), external: lease.external() };
            PortLease::release(lease, Instant::now() + GIVING_BACK);
            found
        }
        Ok(None) => Router::NotAsked,
        Err(failures) => Router::Refuses(failures),
    })
}

impl Findings {
    /// Behind how many NATs: the router's own idea of its address tells what packets may not.
    fn nat_levels(&self) -> Option<u8> {
        match &self.router {
            Router::Forwards { external: Some(external), .. } if !self.profile.public.is_empty() => {
                let is_last = self.profile.public.iter().any(|seen| seen.ip() == external.ip());
                Some(if is_last { 1 } else { 2 })
            }
            _ => self.profile.nat_levels,
        }
    }

    fn event(&self) -> Doctor {
        let step = match self.profile.ports {
            Some(Ports::Sequential(step)) => Some(step),
            _ => None,
        };
        Doctor {
            local: self.local.iter().map(|address| address.ip().to_string()).collect(),
            public: self.profile.public.iter().map(ToString::to_string).collect(),
            mapping: self.profile.mapping.map(|it| it.to_string()),
            filtering: self.profile.filtering.map(|it| it.to_string()),
            ports: self.profile.ports.map(|it| it.to_string()),
            port_step: step,
            hairpin: self.profile.hairpin,
            udp: self.profile.udp.map(|udp| if udp == Udp::Open { "open" } else { "blocked" }),
            nat_levels: self.nat_levels(),
            binding_lifetime_s: self.profile.binding_lifetime.map(|time| time.as_secs()),
            port_mapper: match &self.router {
                Router::Forwards { method, .. } => Some(name(*method)),
                Router::Refuses(_) => Some("none"),
                Router::NotAsked => None,
            },
            dht: self.dht.as_ref().map(|asked| if asked.is_ok() { "answers" } else { "silent" }),
            advice: self.advice(),
        }
    }

    fn text(&self) -> Vec<String> {
        let mut lines = Vec::new();
        let mut line = |name: &str, text: String| lines.push(format!("{name:<12}{text}"));
        let joined = |texts: Vec<String>| if texts.is_empty() { UNKNOWN.into() } else { texts.join(", ") };
        let event = self.event();
        line("this host", joined(event.local));
        line("seen as", joined(event.public));
        line("UDP", event.udp.unwrap_or(UNKNOWN).into());
        line(
            "NATs",
            match event.nat_levels {
                None => UNKNOWN.into(),
                Some(2..) => "2 or more".into(),
                Some(count) => count.to_string(),
            },
        );
        line("mapping", self.profile.mapping.map_or_else(|| UNKNOWN.into(), mapping_text));
        line("filtering", self.profile.filtering.map_or_else(|| UNKNOWN.into(), filtering_text));
        line(
            "ports",
            match (self.profile.ports, event.port_step) {
                (None, _) => UNKNOWN.into(),
                (Some(ports), Some(step)) => format!("{ports}, by steps of {step}"),
                (Some(ports), None) => ports.to_string(),
            },
        );
        line("hairpin", event.hairpin.map_or(UNKNOWN, |works| if works { "yes" } else { "no" }).into());
        if let Some(lifetime) = self.lifetime {
            line("lifetime", lifetime_text(lifetime));
        }
        line(
            "router",
            match &self.router {
                Router::Forwards { method, external: Some(external) } => {
                    format!("forwards ports by {method}, as {external}")
                }
                Router::Forwards { method, external: None } => format!("forwards ports by {method}"),
                Router::Refuses(_) => "forwards no ports".into(),
                Router::NotAsked => "not asked".into(),
            },
        );
        if let Some(asked) = &self.dht {
            line(
                "DHT",
                match asked {
                    Ok(nodes) => format!("{nodes} nodes answered"),
                    Err(reason) => reason.clone(),
                },
            );
        }
        if self.profile.udp.is_some() {
            lines.push("peers are reached".into());
            for (who, theirs) in usual_peers() {
                lines.push(format!("  {who:<42}{}", self.way_to(&theirs)));
            }
        }
        lines.extend(event.advice.into_iter().map(|advice| format!("advice: {advice}")));
        lines
    }

    fn way_to(&self, theirs: &NatProfile) -> Strategy {
        let forwarded = matches!(self.router, Router::Forwards { .. }) && self.nat_levels() == Some(1);
        if forwarded && self.profile.udp == Some(Udp::Open) {
            Strategy::Direct
        } else {
            strategy(&self.profile, theirs)
        }
    }

    fn advice(&self) -> Vec<String> {
        let mut advice: Vec<String> = Vec::new();
        let profile = &self.profile;
        match (self.servers, profile.udp) {
            (0, _) => advice.push(
                "name a STUN server with --stun HOST:PORT: without one only this host's own addresses are known".into(),
            ),
            (_, None) => advice.push(
                "no STUN server answers, over UDP or TCP: look at the network, and at the names given with --stun".into(),
            ),
            (_, Some(Udp::Blocked)) => advice.push(
                "UDP does not pass: only TCP is tried. Let UDP out on the firewall if it is yours".into(),
            ),
            (1, _) if profile.filtering.is_none() => advice.push(
                "one server tells little: name a second one, or one with two addresses (RFC 5780)".into(),
            ),
            _ => {}
        }
        let has_nat = profile.mapping.is_some_and(|mapping| mapping != Mapping::None);
        if self.nat_levels() == Some(2) {
            advice.push(
                "another NAT is behind the nearest router, the provider's mostly: ports that the router forwards lead nowhere"
                    .into(),
            );
        } else if has_nat && let Router::Refuses(failures) = &self.router {
            advice.push("switch on PCP, NAT-PMP or UPnP in the router: then everybody can be let in".into());
            advice.extend(
                failures.iter().map(|failure| format!("the router: {}", crust::error_chain(failure))),
            );
        }
        let forwards = matches!(self.router, Router::Forwards { .. });
        if !forwards && matches!(profile.ports, Some(Ports::Random | Ports::Sequential(_))) {
            advice.push(
                "this NAT gives every peer another port: peers behind such a NAT need a relay, or a port that a router forwards"
                    .into(),
            );
        }
        advice
    }
}

fn mapping_text(mapping: Mapping) -> String {
    let meaning = match mapping {
        Mapping::None => "addresses are not changed",
        Mapping::EndpointIndependent => "all peers see the same port",
        Mapping::AddressDependent => "each peer sees another port",
        Mapping::AddressAndPortDependent => "each port of each peer sees another port",
    };
    format!("{mapping}: {meaning}")
}

fn lifetime_text(lifetime: BindingLifetime) -> String {
    let shown = |time: Duration| format!("{:.1} s", time.as_secs_f64());
    match lifetime {
        BindingLifetime::Between(open, closed) => {
            format!("a silent port is open after {}, and closed after {}", shown(open), shown(closed))
        }
        BindingLifetime::AtLeast(open) => format!("a silent port is open after {}", shown(open)),
        _ => "not known: no server sends answers to another port (RFC 5780)".into(),
    }
}

fn filtering_text(filtering: Filtering) -> String {
    let meaning = match filtering {
        Filtering::EndpointIndependent => "everybody is let in",
        Filtering::AddressDependent => "addresses are let in that were sent to",
        Filtering::AddressAndPortDependent => "who was sent to is let in",
    };
    format!("{filtering}: {meaning}")
}

/// Peers as they are met, and what is between them and the internet.
fn usual_peers() -> [(&'static str, NatProfile); 4] {
    let peer = |mapping, filtering, ports| NatProfile {
        mapping: Some(mapping),
        filtering: Some(filtering),
        ports: Some(ports),
        udp: Some(Udp::Open),
        ..NatProfile::default()
    };
    let strict = Filtering::AddressAndPortDependent;
    let changing = Mapping::AddressAndPortDependent;
    [
        (
            "with an open address or a forwarded port",
            peer(Mapping::None, Filtering::EndpointIndependent, Ports::Preserved),
        ),
        ("behind most home routers", peer(Mapping::EndpointIndependent, strict, Ports::Preserved)),
        ("behind a NAT that counts ports", peer(changing, strict, Ports::Sequential(1))),
        ("behind a NAT that draws ports", peer(changing, strict, Ports::Random)),
    ]
}

const fn name(method: PortMapMethod) -> &'static str {
    match method {
        PortMapMethod::Pcp => "pcp",
        PortMapMethod::NatPmp => "nat-pmp",
        PortMapMethod::Upnp => "upnp",
    }
}

const UNKNOWN: &str = "not known";

/// A router by UPnP takes a second or two; the measurement takes three.
const ROUTER_TIME: Duration = Duration::from_secs(4);

/// Nodes far away, and those that are gone, of which there are many.
#[cfg(feature = "dht")]
const DHT_TIME: Duration = Duration::from_secs(20);

/// How long a port that was only asked for to see whether it is forwarded may take to be given back.
const GIVING_BACK: Duration = Duration::from_secs(1);
