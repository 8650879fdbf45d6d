use std::{io, sync::Arc, time::Duration};

use mio::{Token, net::TcpStream};
use socket2::{Domain, Protocol, Socket, Type};

use super::{Role, State, Step, TcpHandshake};
use crate::{
    config::Driver,
    io::{clock, dial::DialOrder, slot::Wakes},
    protocol::handshake::Handshake,
    transport::Shared,
};

impl TcpHandshake {
    /// Begins a dial; the outcome goes to `order`. `None`: it is there already.
    pub(crate) fn dial(shared: &Arc<Shared>, order: DialOrder) -> io::Result<Option<Token>> {
        let remote = order.remote;
        let socket = non_blocking(Domain::for_address(remote))?;
        if let Some(local) = order.local {
            socket.bind(&local.into())?;
        }
        match socket.connect(&remote.into()) {
            Err(error) if !is_in_progress(&error) => return Err(error),
            _ => {}
        }
        let directly = order.directly;
        let (state, role) = Self::first_flight(shared, socket.into(), order)?;
        if directly {
            Self::go_on_directly(shared, state, role)
        } else {
            Self::watch(shared, state, role).map(Some)
        }
    }

    /// The same over a connection that is being made, or is there.
    pub(crate) fn dial_over(
        shared: &Arc<Shared>,
        socket: std::net::TcpStream,
        order: DialOrder,
    ) -> io::Result<Token> {
        let (state, role) = Self::first_flight(shared, socket, order)?;
        Self::watch(shared, state, role)
    }

    /// Made while the network carries the SYN, it goes at once where that was quick.
    fn first_flight(
        shared: &Arc<Shared>,
        socket: std::net::TcpStream,
        order: DialOrder,
    ) -> io::Result<(State, Role)> {
        // The handshake's small flights must not wait for each other.
        socket.set_nodelay(true)?;
        let config = shared.tls.client.clone();
        let handshake = Handshake::dial(config, order.expected, order.preface.clone(), order.is_held());
        let mut state = State::new(TcpStream::from_std(socket), handshake.map_err(io::Error::other)?);
        state.collect();
        state.try_send()?;
        Ok((state, Role::Dialer(order)))
    }

    /// On the caller's own thread, as long as near peers take: no poll, no other thread. What takes longer goes on in the poll.
    /// Others who wait have the background thread meanwhile; where there is none, the caller must turn for them.
    fn go_on_directly(shared: &Arc<Shared>, state: State, role: Role) -> io::Result<Option<Token>> {
        if !cfg!(unix) || !state.unsent.is_empty() || shared.config.driver != Driver::Background {
            return Self::watch(shared, state, role).map(Some);
        }
        let until = clock::now() + PATIENCE;
        let mut state = state.with_timeout(Some(PATIENCE))?;
        // What is sent fits the buffer of a new connection, so that no send waits.
        let mut wakes = Wakes::default();
        loop {
            match state.advance(shared, &role, false) {
                Step::Wait if shared.is_closed() || clock::now() >= until => {
                    return Self::watch(shared, state.with_timeout(None)?, role).map(Some);
                }
                Step::Wait => {}
                Step::Established => {
                    role.establish(shared, state, Some(PATIENCE), &mut wakes);
                    break;
                }
                Step::Failed(error) => {
                    let Role::Dialer(order) = &role else { unreachable!("only dials come here") };
                    order.finish(Err(error), &mut wakes);
                    break;
                }
            }
        }
        wakes.fire();
        Ok(None)
    }
}

impl State {
    /// With a timeout its calls block for so long, without one not at all.
    fn with_timeout(self, timeout: Option<Duration>) -> io::Result<Self> {
        let socket = std::net::TcpStream::from(self.socket);
        socket.set_read_timeout(timeout)?;
        socket.set_nonblocking(timeout.is_none())?;
        Ok(Self { socket: TcpStream::from_std(socket), ..self })
    }
}

fn non_blocking(domain: Domain) -> io::Result<Socket> {
    #[cfg(any(target_os = "linux", target_os = "android", target_os = "freebsd"))]
    return Socket::new(domain, Type::STREAM.nonblocking(), Some(Protocol::TCP));
    #[cfg(not(any(target_os = "linux", target_os = "android", target_os = "freebsd")))]
    {
        let socket = Socket::new(domain, Type::STREAM, Some(Protocol::TCP))?;
        socket.set_nonblocking(true)?;
        Ok(socket)
    }
}

/// A non-blocking connect that has begun: EINPROGRESS on Unix, which std has no stable name for, else WSAEWOULDBLOCK.
fn is_in_progress(error: &io::Error) -> bool {
    let in_progress = if cfg!(any(target_os = "linux", target_os = "android")) { 115 } else { 36 };
    error.kind() == io::ErrorKind::WouldBlock || cfg!(unix) && error.raw_os_error() == Some(in_progress)
}

/// Whoever calls for the end of a dial is not heard meanwhile, and a last read may begin just before: together less than the 50 ms
/// that an end may take.
const PATIENCE: Duration = Duration::from_millis(15);
