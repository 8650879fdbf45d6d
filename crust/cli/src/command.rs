//! One command a file.

mod config;
mod connect;
mod demo;
mod discover;
mod doctor;
mod forward;
mod id;
mod listen;
mod perf;
mod receive;
mod send;
mod serve;
#[cfg(feature = "dht")]
mod telling;

use std::{
    sync::Arc,
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use crust::{
    AccessToken, Config, Contact, LanError, Service, ServiceBeaconReceiver, ServiceBeaconState,
    ServiceController, ServiceEvent, ServiceListener,
};

use crate::{
    arguments::{Command, Common},
    events::{Event, Output},
    failure::Failure,
    interrupt::Interrupt,
};

pub(crate) fn run(command: Command, common: &Common, output: Output) -> Result<(), Failure> {
    match command {
        Command::Id => id::run(common, output),
        Command::Listen { once } => listen::run(once, common, output),
        Command::Serve { stun_port, relay } => serve::run(stun_port, &relay, common, output),
        Command::Connect { peer } => connect::run(&peer, common, output),
        Command::Send { paths, keep } => send::run(&paths, keep, common, output),
        Command::Receive { peer, output: into, overwrite } => {
            receive::run(&peer, &receive::Into { folder: &into, overwrite }, common, output)
        }
        Command::Forward(arguments) => forward::run(&arguments, common, output),
        Command::Discover { time } => discover::run(time, common, output),
        Command::Doctor { peer, lifetime } => doctor::run(peer.as_ref(), lifetime, common, output),
        Command::Perf(arguments) => perf::run(&arguments, common, output),
        Command::Config => config::run(common, output),
        Command::Demo => demo::run(output),
    }
}

impl Command {
    /// Whether standard output carries a stream's bytes.
    pub(crate) const fn is_piped(&self) -> bool {
        matches!(self, Self::Listen { .. } | Self::Connect { .. })
    }
}

/// A service that Ctrl-C ends.
struct Running {
    acceptor: ServiceListener,
    beacon_state: ServiceBeaconState,
    beacon_receiver: ServiceBeaconReceiver,
    controller: Arc<ServiceController>,
    interrupt: Interrupt,
    late: Option<LateContact>,
    #[cfg(feature = "dht")]
    telling: Option<telling::Telling>,
    #[cfg(feature = "dht")]
    uses_dht: bool,
}

/// A router that takes its time: when it forwards a port, there is a contact with more in it.
struct LateContact {
    controller: Arc<ServiceController>,
    thread: Option<JoinHandle<()>>,
}

impl Drop for LateContact {
    fn drop(&mut self) {
        // The command is over. The thread ends with the service, and must not be its last holder.
        self.controller.close();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Running {
    fn start(config: Config) -> Result<Self, Failure> {
        #[cfg(feature = "dht")]
        let uses_dht = config.uses_dht();
        let Service { acceptor, beacon_state, beacon_receiver, controller, .. } =
            Service::new_from_config(config)?;
        let controller = Arc::new(controller);
        let interrupt = Interrupt::install(&controller)?;
        Ok(Self {
            acceptor,
            beacon_state,
            beacon_receiver,
            controller,
            interrupt,
            late: None,
            #[cfg(feature = "dht")]
            telling: None,
            #[cfg(feature = "dht")]
            uses_dht,
        })
    }

    /// Tells how to reach this peer, here and on the local network; gives the contact as text.
    fn announce(&mut self, output: Output) -> Result<String, Failure> {
        match self.beacon_state.set_enabled(true) {
            Ok(()) | Err(LanError::Off) => {}
            // Who has the contact gets here all the same.
            Err(error) => {
                output.note(&format!("not announced on the local network: {}", crust::error_chain(&error)));
            }
        }
        // A contact is of more use when its introducers know us, and their answers are then known too.
        let now = Instant::now();
        let known = self.controller.wait_attached(now + ATTACHING);
        let forwarded = self.controller.wait_port_mapped(now + ROUTER);
        self.tell_events(output);
        let contact = self.controller.contact().map_err(|error| Failure::of("system", &error))?;
        if !known && !contact.introducers().is_empty() {
            output.note("no introducer answers yet; it is tried again and again");
        }
        let text = listening(&self.controller, &contact, output);
        if !forwarded {
            self.late = Some(LateContact::follow(&self.controller, contact, output)?);
        }
        #[cfg(feature = "dht")]
        if self.uses_dht {
            self.telling = Some(telling::Telling::start(&self.controller, output)?);
        }
        Ok(text)
    }

    /// Tells what introducers did meanwhile, to programs and to those who want to know.
    fn tell_events(&self, output: Output) {
        self.controller.events().try_iter().for_each(|event| tell_event(event, output));
    }

    /// What ended a command that serves until it is told to stop.
    fn served(&self, result: Result<(), Failure>) -> Result<(), Failure> {
        if self.interrupt.happened() { Ok(()) } else { result }
    }

    /// What ended a command that has something to complete.
    fn completed(&self, result: Result<(), Failure>) -> Result<(), Failure> {
        match result {
            Err(_) if self.interrupt.happened() => Err(Failure::interrupted()),
            other => other,
        }
    }
}

impl LateContact {
    /// Says so on a thread of its own, which ends with the service at the latest.
    fn follow(
        controller: &Arc<ServiceController>,
        contact: Contact,
        output: Output,
    ) -> Result<Self, Failure> {
        let asked = Arc::clone(controller);
        let work = move || {
            if !asked.wait_port_mapped(Instant::now() + ROUTER_AT_MOST) {
                return;
            }
            let Some(better) = asked.contact().ok().filter(|better| *better != contact) else { return };
            let text = listening(&asked, &better, output);
            output.note(&format!("a router lets peers in now; a contact that tells them where: {text}"));
        };
        let thread = thread::Builder::new().name("crust-router".into()).spawn(work);
        let thread = thread.map_err(|error| Failure::of("system", &error))?;
        Ok(Self { controller: Arc::clone(controller), thread: Some(thread) })
    }
}

fn tell_event(event: ServiceEvent, output: Output) {
    let told = match event {
        ServiceEvent::IntroducerAttached { introducer } => {
            Event::Introducer { state: "attached", endpoint: introducer.to_string(), reason: None }
        }
        ServiceEvent::IntroducerLost { introducer, reason } => {
            Event::Introducer { state: "lost", endpoint: introducer.to_string(), reason: Some(reason) }
        }
        ServiceEvent::IntroducerIsMyself { introducer } => {
            output.note(&format!(
                "warning: the introducer {introducer} has this peer's own key: use --key for one of them"
            ));
            let reason = Some("it has this peer's own key".to_owned());
            Event::Introducer { state: "unusable", endpoint: introducer.to_string(), reason }
        }
        ServiceEvent::DhtPublished { nodes } => {
            Event::Dht { state: "published", nodes: Some(nodes), reason: None }
        }
        ServiceEvent::DhtUnusable { reason } => {
            Event::Dht { state: "unusable", nodes: None, reason: Some(reason) }
        }
        event => {
            // Of interest to programs, and to people who ask how things came about.
            if let Some(told) = router_event(&event).filter(|_| output.is_json() || output.is_verbose()) {
                output.event(&told);
            }
            return;
        }
    };
    output.event(&told);
}

/// Tells programs where we listen; gives the contact as text.
fn listening(controller: &ServiceController, contact: &Contact, output: Output) -> String {
    let text = contact.to_string();
    output.event(&Event::Listening {
        id: contact.public_key().to_string(),
        contact: Some(text.clone()),
        endpoints: contact.endpoints().iter().map(ToString::to_string).collect(),
        lan_port: controller.lan_port(),
    });
    text
}

/// What a router did.
fn router_event(event: &ServiceEvent) -> Option<Event> {
    Some(match event {
        ServiceEvent::PortMapped { place, external, router, method } => Event::Router {
            state: "forwards",
            place: place.to_string(),
            external: Some(external.to_string()),
            reason: Some(format!("{router}, by {method}")),
        },
        ServiceEvent::PortMapLost { place, external, reason } => Event::Router {
            state: "lost",
            place: place.to_string(),
            external: Some(external.to_string()),
            reason: Some(reason.clone()),
        },
        ServiceEvent::PortMapFailed { place, reason } => Event::Router {
            state: "refuses",
            place: place.to_string(),
            external: None,
            reason: Some(reason.clone()),
        },
        _ => return None,
    })
}

/// Asks for a token, unless flags or configuration say who may connect.
fn guarded(config: Config, common: &Common) -> Config {
    let decided = !common.allow.is_empty() || config.allowed().is_some();
    if decided { config } else { config.access_token(AccessToken::generate()) }
}

/// Dialling commands listen nowhere.
fn dialling(config: Config) -> Config {
    config.listen([]).attach(false).reload(false)
}

/// Three lost packets on the way to an introducer.
const ATTACHING: Duration = Duration::from_secs(3);
/// Routers that speak PCP or NAT-PMP answer within that, and nobody has to wait longer for a contact where none does.
const ROUTER: Duration = Duration::from_millis(300);
/// Those that speak UPnP take a second or two, some ten.
const ROUTER_AT_MOST: Duration = Duration::from_secs(30);
/// How long the peer may take to acknowledge the last bytes.
const CLOSING: Duration = Duration::from_secs(10);
