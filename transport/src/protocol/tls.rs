//! TLS 1.3 as bytes in and bytes out, over rustls' unbuffered connections: nothing is queued here but answers of TLS itself.

pub(super) mod exporter;

use std::{fmt, sync::Arc};

use rustls::{
    ClientConfig, ServerConfig,
    client::UnbufferedClientConnection,
    server::UnbufferedServerConnection,
    unbuffered::{ConnectionState, EncodeError, EncodeTlsData, EncryptError, UnbufferedStatus},
};

use self::exporter::ExporterSecret;
use super::raw_key;
use crate::PublicKey;

/// One end of a TLS connection.
pub(crate) struct TlsCore {
    connection: Connection,
    /// What TLS itself has to say, handshake messages, key updates and alerts: to be sent before anything encrypted later.
    replies: Vec<u8>,
    exporter: Option<ExporterSecret>,
    peer_ended: bool,
    failed: bool,
}

enum Connection {
    Dialer(UnbufferedClientConnection),
    Acceptor(UnbufferedServerConnection),
}

/// What [`TlsCore::decrypt`] came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Decrypted {
    /// Bytes at the front of the input that are done with.
    pub(crate) used: usize,
    pub(crate) progress: Progress,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Progress {
    /// The plaintext of one record was handed over; another may be there.
    Record,
    /// The peer has ended its direction; whatever comes after is ignored.
    Ended,
    /// There is no whole record in the rest of the input.
    Starved,
}

impl TlsCore {
    /// With a configuration of [`raw_key::TlsConfigs`], as `accept`: they tell the exporter's secret.
    pub(crate) fn dial(config: Arc<ClientConfig>, expected: &PublicKey) -> Result<Self, TlsError> {
        let connection = UnbufferedClientConnection::new(config, raw_key::server_name(expected))?;
        Ok(Self::new(Connection::Dialer(connection)))
    }

    pub(crate) fn accept(config: Arc<ServerConfig>) -> Result<Self, TlsError> {
        let connection = UnbufferedServerConnection::new(config)?;
        Ok(Self::new(Connection::Acceptor(connection)))
    }

    fn new(connection: Connection) -> Self {
        Self { connection, replies: Vec::new(), exporter: None, peer_ended: false, failed: false }
    }

    pub(crate) fn is_handshaking(&self) -> bool {
        match &self.connection {
            Connection::Dialer(connection) => connection.is_handshaking(),
            Connection::Acceptor(connection) => connection.is_handshaking(),
        }
    }

    /// The key that the peer has proved to hold, once the handshake is over.
    pub(crate) fn peer_key(&self) -> Option<PublicKey> {
        let presented = match &self.connection {
            Connection::Dialer(connection) => connection.peer_certificates(),
            Connection::Acceptor(connection) => connection.peer_certificates(),
        };
        raw_key::peer_key(presented?)
    }

    /// The application protocol that both sides agreed on.
    pub(crate) fn alpn(&self) -> Option<&[u8]> {
        match &self.connection {
            Connection::Dialer(connection) => connection.alpn_protocol(),
            Connection::Acceptor(connection) => connection.alpn_protocol(),
        }
    }

    /// Fills `output` with bytes that only the two ends of this connection know (RFC 8446 §7.5); an empty context is as good as
    /// none. `None` before the keys are exchanged, and for what the format has no room for.
    pub(crate) fn export(&self, output: &mut [u8], label: &[u8], context: &[u8]) -> Option<()> {
        self.exporter.as_ref()?.export(output, label, context)
    }

    /// Works on received bytes, in place, up to the next record of the application's, whose plaintext goes to `take`.
    pub(crate) fn decrypt(
        &mut self,
        incoming: &mut [u8],
        take: &mut dyn FnMut(&[u8]),
    ) -> Result<Decrypted, TlsError> {
        if self.failed {
            return Err(TlsError::Failed);
        }
        let mut used = 0;
        loop {
            let (discard, event) = self.step(&mut incoming[used..], Work::Read(take));
            used += discard;
            let progress = match event {
                Ok(Event::Again) => continue,
                Ok(Event::Record) => Progress::Record,
                Ok(Event::PeerEnded) => Progress::Ended,
                Ok(Event::Idle) if self.peer_ended => Progress::Ended,
                Ok(Event::Idle | Event::Written(_)) => Progress::Starved,
                Err(error) => {
                    self.collect_alert(&mut incoming[used..]);
                    return Err(error);
                }
            };
            // rustls keeps the place of a half handshake message in this very input. A writer, who comes without it, would
            // then make it read past the end. No peer of ours cuts such a message after the handshake.
            if progress == Progress::Starved && !self.is_handshaking() && holds_record(&incoming[used..]) {
                self.failed = true;
                return Err(TlsError::Fragmented);
            }
            return Ok(Decrypted { used, progress });
        }
    }

    /// After an error rustls may have an alert that tells the peer why. It must not be asked for anything else any more.
    fn collect_alert(&mut self, rest: &mut [u8]) {
        self.failed = true;
        let mut position = 0;
        while self.has_message() {
            let (discard, event) = self.step(&mut rest[position..], Work::Reply);
            if event.is_err() {
                break;
            }
            position += discard;
        }
    }

    fn has_message(&self) -> bool {
        match &self.connection {
            Connection::Dialer(connection) => connection.wants_write(),
            Connection::Acceptor(connection) => connection.wants_write(),
        }
    }

    /// Encrypts at most [`MAX_PLAINTEXT_BYTES`] into `out`, after what TLS itself had to say; gives the bytes written.
    /// When there is no room nothing is lost.
    pub(crate) fn encrypt(&mut self, data: &[u8], out: &mut [u8]) -> Result<usize, TlsError> {
        self.write(Some(data), out)
    }

    /// Encrypts the end of our direction (close_notify); nothing may be encrypted after it.
    pub(crate) fn end(&mut self, out: &mut [u8]) -> Result<usize, TlsError> {
        self.write(None, out)
    }

    fn write(&mut self, data: Option<&[u8]>, out: &mut [u8]) -> Result<usize, TlsError> {
        if self.failed {
            return Err(TlsError::Failed);
        }
        loop {
            let start = self.replies.len();
            let Some(rest) = out.get_mut(start..) else {
                return Err(TlsError::NoRoom { needed: start + MAX_RECORD_BYTES });
            };
            let work = match data {
                Some(data) => Work::Write { data, out: rest },
                None => Work::End { out: rest },
            };
            match self.step(&mut [], work).1? {
                Event::Written(written) => {
                    if start > 0 {
                        out[..start].copy_from_slice(&self.take_replies());
                    }
                    return Ok(start + written);
                }
                // What TLS has to say comes first, and may be more than one message.
                Event::Again | Event::PeerEnded => {}
                Event::Record | Event::Idle => return Err(TlsError::Failed),
            }
        }
    }

    /// What TLS itself has to say, so far.
    pub(crate) fn take_replies(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.replies)
    }

    fn step(&mut self, incoming: &mut [u8], work: Work<'_>) -> (usize, Result<Event, TlsError>) {
        let is_secret_awaited = self.exporter.is_none();
        if is_secret_awaited {
            // What is there by mistake is not this connection's.
            drop(exporter::take_told());
        }
        let (discard, event) = match &mut self.connection {
            Connection::Dialer(connection) => {
                handle(connection.process_tls_records(incoming), &mut self.replies, work)
            }
            Connection::Acceptor(connection) => {
                handle(connection.process_tls_records(incoming), &mut self.replies, work)
            }
        };
        self.peer_ended |= matches!(event, Ok(Event::PeerEnded));
        if is_secret_awaited {
            self.exporter = exporter::take_told();
        }
        (discard, event)
    }
}

impl fmt::Debug for TlsCore {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("TlsCore").field("failed", &self.failed).finish_non_exhaustive()
    }
}

/// What to do at the next stop of rustls that allows it.
enum Work<'a> {
    Read(&'a mut dyn FnMut(&[u8])),
    Reply,
    Write { data: &'a [u8], out: &'a mut [u8] },
    End { out: &'a mut [u8] },
}

/// At what rustls stopped.
enum Event {
    Again,
    Record,
    PeerEnded,
    Idle,
    Written(usize),
}

fn handle<Data>(
    status: UnbufferedStatus<'_, '_, Data>,
    replies: &mut Vec<u8>,
    work: Work<'_>,
) -> (usize, Result<Event, TlsError>) {
    let mut discard = status.discard;
    let event = match (status.state, work) {
        (Err(error), _) => Err(error.into()),
        (Ok(ConnectionState::ReadTraffic(mut traffic)), Work::Read(take)) => {
            while let Some(record) = traffic.next_record() {
                match record {
                    Ok(record) => {
                        discard += record.discard;
                        take(record.payload);
                    }
                    Err(error) => return (discard, Err(error.into())),
                }
            }
            Ok(Event::Record)
        }
        (Ok(ConnectionState::EncodeTlsData(message)), _) => encode(message, replies).map(|()| Event::Again),
        (Ok(ConnectionState::TransmitTlsData(message)), _) => {
            message.done();
            Ok(Event::Again)
        }
        (Ok(ConnectionState::PeerClosed), _) => Ok(Event::PeerEnded),
        (Ok(ConnectionState::WriteTraffic(mut traffic)), Work::Write { data, out }) => {
            traffic.encrypt(data, out).map(Event::Written).map_err(TlsError::from)
        }
        (Ok(ConnectionState::WriteTraffic(mut traffic)), Work::End { out }) => {
            traffic.queue_close_notify(out).map(Event::Written).map_err(TlsError::from)
        }
        (
            Ok(
                ConnectionState::WriteTraffic(_)
                | ConnectionState::BlockedHandshake
                | ConnectionState::Closed,
            ),
            _,
        ) => Ok(Event::Idle),
        // Plaintext while writing: every record is taken when it is decrypted. Early data: never offered.
        _ => Err(TlsError::Failed),
    };
    (discard, event)
}

fn encode<Data>(mut message: EncodeTlsData<'_, Data>, replies: &mut Vec<u8>) -> Result<(), TlsError> {
    let start = replies.len();
    if let Err(EncodeError::InsufficientSize(size)) = message.encode(&mut []) {
        replies.resize(start + size.required_size, 0);
        message.encode(&mut replies[start..]).map_err(|_| TlsError::Failed)?;
    }
    Ok(())
}

/// Whether the bytes begin with a whole record: type, version, length, body (RFC 8446 §5.1).
pub(crate) fn holds_record(bytes: &[u8]) -> bool {
    record_length(bytes).is_some_and(|length| bytes.len() >= length)
}

/// The length of the record that the bytes begin with, its header included.
pub(crate) fn record_length(bytes: &[u8]) -> Option<usize> {
    let &[_, _, _, high, low] = bytes.get(..RECORD_HEADER_BYTES)? else { return None };
    Some(RECORD_HEADER_BYTES + usize::from(u16::from_be_bytes([high, low])))
}

/// Why TLS cannot go on, or not so.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TlsError {
    #[error(transparent)]
    Tls(#[from] rustls::Error),
    #[error("a handshake message in pieces after the handshake")]
    Fragmented,
    #[error("room for {needed} bytes is needed")]
    NoRoom { needed: usize },
    #[error("the connection had failed or ended before")]
    Failed,
}

impl From<EncryptError> for TlsError {
    fn from(error: EncryptError) -> Self {
        match error {
            EncryptError::InsufficientSize(size) => Self::NoRoom { needed: size.required_size },
            EncryptError::EncryptExhausted => Self::Tls(rustls::Error::EncryptError),
        }
    }
}

/// RFC 8446 §5.1: the most that a record carries.
pub(crate) const MAX_PLAINTEXT_BYTES: usize = 1 << 14;
/// A full record as rustls writes it: header, content, its type, tag.
pub(crate) const MAX_RECORD_BYTES: usize = MAX_PLAINTEXT_BYTES + RECORD_OVERHEAD_BYTES;
/// What a record is longer than its plaintext.
pub(crate) const RECORD_OVERHEAD_BYTES: usize = RECORD_HEADER_BYTES + 1 + 16;
const RECORD_HEADER_BYTES: usize = 5;

#[cfg(test)]
mod tests;
