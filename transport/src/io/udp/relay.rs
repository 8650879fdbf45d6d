//! A TURN allocation where else a kernel's socket is: what peers send to the relay's address comes in, and what goes out
//! comes from there.

use std::{
    fmt, io,
    net::{IpAddr, SocketAddr},
    sync::{Mutex, Weak},
    time::Instant,
};

use bytes::BytesMut;
use mio::{Interest, Registry, Token};
use nat_traversal::{
    TurnServer, TurnSocket,
    protocol::turn::{AddressFamily, TurnEvent, TurnFailure, TurnSendError},
};

use super::Received;
use crate::{
    io::{lock::Lock as _, slot::Wakes},
    protocol::quic::Outgoing,
    transport::Shared,
};

pub(crate) struct RelaySocket {
    shared: Weak<Shared>,
    state: Mutex<State>,
}

struct State {
    turn: TurnSocket,
    token: Option<Token>,
    armed: Option<Instant>,
    /// Told once there is an address, or none to be had; or once the server has answered again.
    waiting: Option<std::sync::Arc<crate::io::slot::Slot>>,
    /// Since when whoever waits has done so.
    asked: Option<Instant>,
    outcome: Option<Result<SocketAddr, TurnFailure>>,
}

impl RelaySocket {
    /// Begins to ask a server at that address for an allocation; `slot` is woken when it has answered.
    pub(super) fn connect(
        shared: Weak<Shared>,
        server: &TurnServer,
        address: SocketAddr,
        slot: std::sync::Arc<crate::io::slot::Slot>,
    ) -> io::Result<Self> {
        let turn = TurnSocket::connect(server, address, AddressFamily::V4)?;
        let state = State { turn, token: None, armed: None, waiting: Some(slot), asked: None, outcome: None };
        Ok(Self { shared, state: Mutex::new(state) })
    }

    /// The address at the relay, or why there is none, once that is known.
    pub(crate) fn outcome(&self) -> Option<Result<SocketAddr, TurnFailure>> {
        self.state.hold().outcome
    }

    /// What the system or TLS said of a connection that failed or ended.
    pub(crate) fn take_error(&self) -> Option<io::Error> {
        self.state.hold().turn.take_error()
    }

    pub(super) fn watch(&self, registry: &Registry, token: Token) -> io::Result<()> {
        let mut state = self.state.hold();
        registry.register(&mut state.turn, token, Interest::READABLE)?;
        // Armed by whoever has put it into the table of sources, which is locked now.
        state.token = Some(token);
        Ok(())
    }

    /// Gives the allocation back, and ends what `watch` began.
    pub(super) fn unwatch(&self, registry: &Registry) -> Option<Token> {
        let mut state = self.state.hold();
        let token = state.token.take()?;
        state.turn.close();
        if let Err(error) = registry.deregister(&mut state.turn) {
            tracing::debug!(%error, "a relay was not watched any more");
        }
        Some(token)
    }

    /// Takes in what has come. Tells whether there is more.
    pub(crate) fn receive(&self, received: &mut Vec<Received>, wakes: &mut Wakes) -> bool {
        let mut state = self.state.hold();
        let more = state.turn.turn(|from, bytes| {
            received.push(Received { from, to: None, ecn: None, bytes: BytesMut::from(bytes) });
        });
        while let Some(event) = state.turn.poll_event() {
            tracing::debug!(?event, "a relay");
            match event {
                TurnEvent::Allocated { relayed, .. } => state.outcome = Some(Ok(relayed)),
                TurnEvent::Failed(failure) => state.outcome = Some(Err(failure)),
                _ => {}
            }
        }
        let is_answered = match state.outcome {
            Some(Ok(_)) => state.turn.last_served() >= state.asked,
            Some(Err(_)) => true,
            None => false,
        };
        if is_answered && let Some(slot) = state.waiting.take() {
            wakes.push(&slot);
        }
        drop(state);
        self.arm();
        more
    }

    /// Sends one batch; what the relay has no room for is lost, as on any network.
    pub(super) fn send(&self, to: SocketAddr, outgoing: Outgoing, buffer: &[u8]) -> io::Result<()> {
        let segment = outgoing.segment_bytes.unwrap_or(outgoing.bytes).max(1);
        for bytes in buffer[..outgoing.bytes].chunks(segment) {
            self.send_one(bytes, to)?;
        }
        Ok(())
    }

    pub(super) fn send_one(&self, bytes: &[u8], to: SocketAddr) -> io::Result<()> {
        let sent = self.state.hold().turn.send_to(bytes, to);
        self.arm();
        match sent {
            Ok(()) | Err(TurnSendError::Busy) => Ok(()),
            Err(error) => Err(io::Error::other(error)),
        }
    }

    /// Asks the server whether it still knows us; `slot` is woken when it has answered, or it is over.
    pub(crate) fn check(&self, now: Instant, slot: &std::sync::Arc<crate::io::slot::Slot>) {
        {
            let mut state = self.state.hold();
            (state.waiting, state.asked) = (Some(slot.clone()), Some(now));
            state.turn.check();
        }
        self.arm();
    }

    /// When it last did as it was asked.
    pub(crate) fn last_served(&self) -> Option<Instant> {
        self.state.hold().turn.last_served()
    }

    /// Lets a peer send to us before we have sent to it.
    pub(crate) fn permit(&self, peer: IpAddr) {
        if let Err(error) = self.state.hold().turn.permit(peer) {
            tracing::debug!(%error, %peer, "a relay does not let a peer in");
        }
        self.arm();
    }

    /// Has the driver look at the relay when it has something to do.
    pub(crate) fn arm(&self) {
        let Some(shared) = self.shared.upgrade() else { return };
        let (token, due) = {
            let mut state = self.state.hold();
            let due = state.turn.poll_timeout();
            if due == state.armed {
                return;
            }
            state.armed = due;
            (state.token, due)
        };
        let Some(token) = token else { return };
        shared.sources.hold().set_timer(token, due);
        if let Some(due) = due {
            shared.crank.poke(due);
        }
    }

    /// The timer has fired.
    pub(crate) fn disarmed(&self) {
        self.state.hold().armed = None;
    }
}

impl fmt::Debug for RelaySocket {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("RelaySocket").finish_non_exhaustive()
    }
}
