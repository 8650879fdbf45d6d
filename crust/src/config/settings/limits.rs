//! The table `limits`.

use super::{
    Setting,
    values::{bytes, small},
};

pub(super) const LIMITS: &[Setting] = &[
    Setting {
        name: "limits.pending_handshakes",
        meaning: "Incoming handshakes in progress, all together.",
        read: |config, value| small(value).map(|number| config.bounds.pending_handshakes = number),
        write: |config| Some(config.bounds.pending_handshakes.to_string()),
    },
    Setting {
        name: "limits.pending_handshakes_per_prefix",
        meaning: "The same from one /24 (IPv4) or /48 (IPv6); private sources are exempt.",
        read: |config, value| small(value).map(|number| config.bounds.pending_handshakes_per_prefix = number),
        write: |config| Some(config.bounds.pending_handshakes_per_prefix.to_string()),
    },
    Setting {
        name: "limits.accept_queue",
        meaning: "Streams that are ready and wait to be accepted; further ones are refused.",
        read: |config, value| small(value).map(|number| config.bounds.accept_queue = number),
        write: |config| Some(config.bounds.accept_queue.to_string()),
    },
    Setting {
        name: "limits.streams_per_connection",
        meaning: "Streams that one QUIC peer may have open at a time.",
        read: |config, value| small(value).map(|number| config.bounds.streams_per_connection = number),
        write: |config| Some(config.bounds.streams_per_connection.to_string()),
    },
    Setting {
        name: "limits.stream_receive_bytes",
        meaning: "Bytes that one QUIC stream may have in flight towards us.",
        read: |config, value| bytes(value).map(|number| config.bounds.stream_receive_bytes = number),
        write: |config| Some(config.bounds.stream_receive_bytes.to_string()),
    },
    Setting {
        name: "limits.connection_receive_bytes",
        meaning: "The same for one QUIC connection, at first; doubles while the reader keeps up.",
        read: |config, value| bytes(value).map(|number| config.bounds.connection_receive_bytes = number),
        write: |config| Some(config.bounds.connection_receive_bytes.to_string()),
    },
    Setting {
        name: "limits.receive_bytes",
        meaning: "The same for all QUIC connections together.",
        read: |config, value| bytes(value).map(|number| config.bounds.receive_bytes = number),
        write: |config| Some(config.bounds.receive_bytes.to_string()),
    },
];
