//! Keeps forwarded ports for as long as someone holds their lease, on the thread `nat-io`: a task for each mapping context that has
//! any.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use mio::Interest;
use socket2::{Domain, Socket, Type};

use super::lease_slot::{News, Slot, Watcher};
use super::run::{MAX_DATAGRAM_BYTES, receive, send};
use super::slow::Slow;
use super::upnp::{Search, UpnpRouter};
use super::worker::{self, Sources, Task, Turn};
use crate::protocol::port_map::{
    ANNOUNCEMENT_PORT, PortMapClient, PortMapEvent, PortMapFailure, PortMapRequest, PortMapper, UpnpAnswer,
    UpnpTask,
};
use crate::protocol::{Datagram, Machine as _, SocketIndex};

/// The leases of one context. Cheap to clone; the task is there while there are any.
#[derive(Clone, Default)]
pub(crate) struct Leases {
    shared: Arc<Mutex<Shared>>,
    slow: Slow,
}

#[derive(Default)]
struct Shared {
    /// Of the running task.
    task: Option<worker::Handle>,
    commands: Vec<Command>,
    next: usize,
    alive: usize,
}

enum Command {
    Start(Box<Lease>),
    Release(usize),
    Renew(usize),
    Upnp(usize, UpnpAnswer, Option<UpnpRouter>),
}

/// One port under way or forwarded.
struct Lease {
    number: usize,
    mapper: PortMapper,
    socket: UdpSocket,
    registered: Option<mio::net::UdpSocket>,
    request: PortMapRequest,
    search: Search,
    upnp: Option<UpnpRouter>,
    slot: Arc<Slot>,
}

impl Leases {
    /// Has a mapper run. Its news are in the slot.
    pub(crate) fn start(
        &self,
        mapper: PortMapper,
        request: PortMapRequest,
        search: Search,
        watcher: Option<Watcher>,
    ) -> io::Result<(usize, Arc<Slot>)> {
        let socket = UdpSocket::bind(SocketAddr::new(request.local.ip(), 0))?;
        socket.set_nonblocking(true)?;
        let slot = Arc::new(Slot::new(watcher));
        let mut shared = lock(&self.shared);
        if shared.alive >= MAX_LEASES {
            return Err(io::Error::other("too many leases on one mapping context"));
        }
        if shared.task.is_none() {
            shared.task = Some(worker::add(|sources| Worker::new(self.clone(), sources))?);
        }
        let number = shared.next;
        shared.next += 1;
        shared.alive += 1;
        let lease = Lease {
            number,
            mapper,
            socket,
            registered: None,
            request,
            search,
            upnp: None,
            slot: Arc::clone(&slot),
        };
        shared.command(Command::Start(Box::new(lease)));
        Ok((number, slot))
    }

    /// Begins to give a port back.
    pub(crate) fn release(&self, number: usize) {
        lock(&self.shared).command(Command::Release(number));
    }

    /// Has the router asked again whether it still forwards a port.
    pub(crate) fn renew(&self, number: usize) {
        lock(&self.shared).command(Command::Renew(number));
    }
}

impl Shared {
    fn command(&mut self, command: Command) {
        // Without a task there is no lease that it could be about.
        if let Some(task) = &self.task {
            self.commands.push(command);
            task.wake();
        }
    }
}

/// Whoever waits for a lease that its task has left learns that nothing will come.
impl Drop for Lease {
    fn drop(&mut self) {
        self.slot.tell(News::Closed);
    }
}

/// The task.
struct Worker {
    leases: Leases,
    sources: Sources,
    running: Vec<Lease>,
    announcements: Vec<mio::net::UdpSocket>,
    buffer: Vec<u8>,
}

impl Worker {
    fn new(leases: Leases, sources: Sources) -> io::Result<Self> {
        let mut announcements = Vec::new();
        for (index, group) in GROUPS.into_iter().enumerate() {
            // Another program may hold the port alone. Then restarts are noticed by the router's clock, a minute later.
            match announcement_socket(group) {
                Ok(socket) => {
                    let mut socket = mio::net::UdpSocket::from_std(socket);
                    sources.register(&mut socket, FIRST_ANNOUNCEMENTS + index, Interest::READABLE)?;
                    announcements.push(socket);
                }
                Err(error) => tracing::debug!(%error, %group, "routers' announcements are not heard"),
            }
        }
        Ok(Self { leases, sources, running: Vec::new(), announcements, buffer: vec![0; MAX_DATAGRAM_BYTES] })
    }

    fn take_commands(&mut self, time: Instant) {
        let commands = std::mem::take(&mut lock(&self.leases.shared).commands);
        for command in commands {
            match command {
                Command::Start(mut lease) => match lease.register(&self.sources) {
                    Ok(()) => self.running.push(*lease),
                    Err(error) => lease.slot.tell(News::Failed(vec![system(&error)])),
                },
                Command::Release(number) => {
                    if let Some(lease) = self.running.iter_mut().find(|lease| lease.number == number) {
                        lease.mapper.release(time);
                    }
                }
                Command::Renew(number) => {
                    if let Some(lease) = self.running.iter_mut().find(|lease| lease.number == number) {
                        lease.mapper.renew(time);
                    }
                }
                Command::Upnp(number, answer, router) => {
                    if let Some(lease) = self.running.iter_mut().find(|lease| lease.number == number) {
                        // A search that was begun before finds nothing new.
                        if lease.upnp.is_none() || !matches!(answer, UpnpAnswer::Found(_)) {
                            lease.upnp = router.or_else(|| lease.upnp.take());
                        }
                        lease.mapper.handle_upnp(time, answer);
                    }
                }
            }
        }
    }

    /// Whether there is nothing left to do; nobody can ask for more between that and the end.
    fn ends(&self) -> bool {
        let mut shared = lock(&self.leases.shared);
        shared.alive = self.running.len()
            + shared.commands.iter().filter(|command| matches!(command, Command::Start(_))).count();
        let ends = shared.alive == 0;
        if ends {
            shared.task = None;
            shared.commands.clear();
        }
        ends
    }

    fn receive_all(&mut self, time: Instant) {
        for index in 0..self.running.len() {
            while let Some(socket) = &self.running[index].registered
                && let Ok(Some((length, source))) = receive(socket, &mut self.buffer)
            {
                let bytes = &self.buffer[..length];
                for (other, lease) in self.running.iter_mut().enumerate() {
                    let socket = if other == index { SocketIndex::MAIN } else { PortMapClient::SIBLINGS };
                    lease.mapper.handle_datagram(time, Datagram { socket, source, bytes });
                }
            }
        }
        for socket in &self.announcements {
            while let Ok(Some((length, source))) = receive(socket, &mut self.buffer) {
                for lease in &mut self.running {
                    let bytes = &self.buffer[..length];
                    let socket = PortMapClient::ANNOUNCEMENTS;
                    lease.mapper.handle_datagram(time, Datagram { socket, source, bytes });
                }
            }
        }
    }
}

impl Task for Worker {
    fn turn(&mut self, time: Instant, _ready: &[usize], _woken: bool) -> Turn {
        self.receive_all(time);
        self.take_commands(time);
        for lease in &mut self.running {
            if lease.mapper.poll_timeout().is_some_and(|due| due <= time) {
                lease.mapper.handle_timeout(time);
            }
            lease.drain(&self.leases);
        }
        let sources = &self.sources;
        self.running.retain_mut(|lease| {
            let is_over = lease.slot.is_over();
            if is_over && let Some(socket) = &mut lease.registered {
                sources.deregister(socket, lease.number);
            }
            !is_over
        });
        if self.ends() { Turn::Over } else { Turn::Wait }
    }

    fn poll_timeout(&self) -> Option<Instant> {
        self.running.iter().filter_map(|lease| lease.mapper.poll_timeout()).min()
    }
}

/// A task that is dropped with leases, by whatever, leaves a context that can start another.
impl Drop for Worker {
    fn drop(&mut self) {
        if !self.running.is_empty() {
            let mut shared = lock(&self.leases.shared);
            (shared.task, shared.alive) = (None, 0);
            shared.commands.clear();
        }
    }
}

impl Lease {
    fn register(&mut self, sources: &Sources) -> io::Result<()> {
        let mut socket = mio::net::UdpSocket::from_std(self.socket.try_clone()?);
        sources.register(&mut socket, self.number, Interest::READABLE)?;
        self.registered = Some(socket);
        Ok(())
    }

    fn drain(&mut self, leases: &Leases) {
        loop {
            while let Some(transmit) = self.mapper.poll_transmit() {
                send(&self.socket, &transmit);
            }
            let Some(event) = self.mapper.poll_event() else { return };
            match event {
                PortMapEvent::Mapped(mapping) => {
                    tracing::debug!(external = %mapping.external, method = %mapping.method, "a router forwards a port");
                    self.slot.tell(News::Open(mapping));
                }
                PortMapEvent::Lost(failure) => {
                    tracing::debug!(%failure, local = %self.request.local, "a router no longer forwards a port");
                    self.slot.tell(News::Lost(failure));
                }
                PortMapEvent::Failed(failures) => self.slot.tell(News::Failed(failures)),
                PortMapEvent::Closed => self.slot.tell(News::Closed),
                PortMapEvent::Upnp(task) => self.hand_out(task, leases),
            }
        }
    }

    fn hand_out(&mut self, task: UpnpTask, leases: &Leases) {
        if task == UpnpTask::Search {
            self.upnp = None;
        }
        let mut report =
            Report { shared: Arc::clone(&leases.shared), number: self.number, task, answer: None };
        let (search, request, router) = (self.search.clone(), self.request, self.upnp.clone());
        let submitted = leases.slow.submit(move || {
            report.answer = Some(perform(task, &search, request, router));
            drop(report);
        });
        if submitted.is_err() {
            tracing::debug!("too much waits for routers that speak UPnP");
        }
    }
}

/// Does one step of UPnP; blocks.
fn perform(
    task: UpnpTask,
    search: &Search,
    request: PortMapRequest,
    router: Option<UpnpRouter>,
) -> (UpnpAnswer, Option<UpnpRouter>) {
    if task == UpnpTask::Search {
        return match UpnpRouter::find(search, request) {
            Ok(router) => (UpnpAnswer::Found(router.address()), Some(router)),
            Err(reason) => (UpnpAnswer::NotFound(reason), None),
        };
    }
    let Some(mut router) = router else { return (UpnpAnswer::Refused("no router was found".into()), None) };
    let answer = match task {
        UpnpTask::Search => unreachable!("handled above"),
        UpnpTask::Add { external_port, lifetime } => router.add(external_port, lifetime),
        UpnpTask::Remove { external_port } => {
            router.remove(external_port);
            UpnpAnswer::Removed
        }
    };
    (answer, Some(router))
}

/// Brings the outcome of a task back, also that of one that was never done or panicked.
struct Report {
    shared: Arc<Mutex<Shared>>,
    number: usize,
    task: UpnpTask,
    answer: Option<(UpnpAnswer, Option<UpnpRouter>)>,
}

impl Drop for Report {
    fn drop(&mut self) {
        let (answer, router) = self.answer.take().unwrap_or_else(|| {
            let reason = "too many requests to routers are under way".into();
            match self.task {
                UpnpTask::Search => (UpnpAnswer::NotFound(reason), None),
                UpnpTask::Add { .. } => (UpnpAnswer::Refused(reason), None),
                UpnpTask::Remove { .. } => (UpnpAnswer::Removed, None),
            }
        });
        lock(&self.shared).command(Command::Upnp(self.number, answer, router));
    }
}

pub(crate) fn system(error: &io::Error) -> PortMapFailure {
    PortMapFailure::System { reason: error.to_string().into() }
}

fn announcement_socket(group: IpAddr) -> io::Result<UdpSocket> {
    let address = match group {
        IpAddr::V4(_) => SocketAddr::from((Ipv4Addr::UNSPECIFIED, ANNOUNCEMENT_PORT)),
        IpAddr::V6(_) => SocketAddr::from((Ipv6Addr::UNSPECIFIED, ANNOUNCEMENT_PORT)),
    };
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, None)?;
    socket.set_nonblocking(true)?;
    socket.set_reuse_address(true)?;
    if group.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.bind(&address.into())?;
    // Every host is a member of the group of all hosts; some systems want it said, others refuse to hear it.
    let joined = match group {
        IpAddr::V4(group) => socket.join_multicast_v4(&group, &Ipv4Addr::UNSPECIFIED),
        IpAddr::V6(group) => socket.join_multicast_v6(&group, 0),
    };
    if let Err(error) = joined {
        tracing::trace!(%error, %group, "not joined");
    }
    Ok(socket.into())
}

fn lock(shared: &Mutex<Shared>) -> MutexGuard<'_, Shared> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

/// All hosts of a link (RFC 6887, section 14.1).
const GROUPS: [IpAddr; 2] =
    [IpAddr::V4(Ipv4Addr::new(224, 0, 0, 1)), IpAddr::V6(Ipv6Addr::new(0xFF02, 0, 0, 0, 0, 0, 0, 1))];

/// Leases of one context. Routers give a host some dozens of ports.
const MAX_LEASES: usize = 256;

/// Numbers of sources below are leases.
const FIRST_ANNOUNCEMENTS: usize = usize::MAX - 8;
