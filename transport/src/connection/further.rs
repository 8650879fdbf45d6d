//! One more stream on a connection that is there.

use super::Connection;
use crate::{
    ConnectError, ConnectOptions, Scheme, Stream,
    admission::Refusal,
    endpoint::{Endpoint, NamedEndpoint},
    interrupter::Interrupter,
    io::{
        clock,
        crank::Waited,
        dial::{DialError, DialOrder, Outcomes},
        quic::ConnectionRef,
    },
    protocol::{
        preface::{Preface, Purpose},
        rounds::Round,
    },
};

pub(super) fn connect(connection: &Connection, options: &ConnectOptions) -> Result<Stream, ConnectError> {
    let shared = &connection.shared;
    let begun = clock::now();
    let deadline = options.deadline_of(begun, shared.config.connect_timeout);
    let outcomes = Outcomes::new(shared.crank.slot());
    let _watch = options.interrupter.as_ref().map(|interrupter| interrupter.watch(outcomes.slot()));
    let known = connection.upgrade().map_err(|error| {
        if shared.is_closed() {
            return ConnectError::Closed;
        }
        // Nothing is left by which it could be named.
        let nowhere = Endpoint::new(Scheme::Quic, ([0; 4], 0).into(), connection.peer).into();
        ConnectError::Handshake { endpoint: nowhere, reason: format!("the connection is over: {error}") }
    })?;
    let order = order(&known, options, &outcomes);
    let endpoint: NamedEndpoint = Endpoint::new(Scheme::Quic, order.remote, connection.peer).into();
    let _dial = shared.quic.dial_on(shared, known.link(), order);
    loop {
        if options.interrupter.as_ref().is_some_and(Interrupter::is_interrupted) {
            return Err(ConnectError::Interrupted);
        }
        if let Some((_, outcome)) = outcomes.take().pop() {
            return outcome.map_err(|error| failure(endpoint, error));
        }
        match shared.crank.wait(outcomes.slot(), Some(deadline)) {
            Waited::Ready => {}
            Waited::Closed => return Err(ConnectError::Closed),
            Waited::TimedOut => {
                let waited = clock::now().saturating_duration_since(begun);
                return Err(ConnectError::TimedOut { endpoint, waited });
            }
        }
    }
}

fn order(
    connection: &ConnectionRef,
    options: &ConnectOptions,
    outcomes: &std::sync::Arc<Outcomes>,
) -> DialOrder {
    DialOrder {
        attempt: 0,
        scheme: Scheme::Quic,
        remote: connection.path().remote,
        local: None,
        via: None,
        punched: false,
        expected: connection.public_key(),
        preface: Preface {
            purpose: Purpose::Direct,
            label: options.label.clone(),
            token: options.token.clone(),
            network: options.network.clone(),
            stays: true,
        },
        early: false,
        own_connection: false,
        over_guest: true,
        directly: false,
        round: Round::Last,
        outcomes: outcomes.clone(),
    }
}

fn failure(endpoint: NamedEndpoint, error: DialError) -> ConnectError {
    match error {
        // That is no word on us.
        DialError::Refused(Refusal::Elsewhere) => {
            let reason = "the peer takes no streams on this connection".to_owned();
            ConnectError::Handshake { endpoint, reason }
        }
        DialError::Refused(reason) => ConnectError::Refused { endpoint, reason },
        other => ConnectError::Handshake { endpoint, reason: other.to_string() },
    }
}
