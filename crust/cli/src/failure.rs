use crust::{AcceptError, ConfigError, ConnectError, IdentityFileError, StartError};

use crate::{
    events::{Event, Output},
    transfer::{SourceError, TransferError},
};

/// Why a command did not do what it was asked: the last line that it prints, and its exit status.
#[derive(Debug)]
pub(crate) struct Failure {
    kind: &'static str,
    message: String,
    status: u8,
    failed: Option<Box<Event>>,
    /// How it went has been told at length.
    traced: bool,
}

impl Failure {
    /// The command was given what makes no sense: exit status 2.
    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self { kind: "usage", status: WRONG_USAGE, ..Self::new("", message) }
    }

    /// It could not be done: exit status 1.
    pub(crate) fn new(kind: &'static str, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), status: FAILED, failed: None, traced: false }
    }

    pub(crate) fn of(kind: &'static str, error: &dyn std::error::Error) -> Self {
        Self::new(kind, crust::error_chain(error))
    }

    pub(crate) fn interrupted() -> Self {
        Self::new("interrupted", "interrupted")
    }

    /// `traced`: a person has been told the trace, and does not need its steps again.
    pub(crate) fn connect(error: &ConnectError, traced: bool) -> Self {
        let kind = if error.refusal().is_some() { "refused" } else { "connect" };
        Self { failed: Some(Box::new(Event::failed(error))), traced, ..Self::of(kind, error) }
    }

    /// Whether it is the end of one stream only, for who serves several.
    pub(crate) fn ends_one_stream(&self) -> bool {
        self.kind == "stream"
    }

    /// Reports itself as the end of one stream.
    pub(crate) fn close(self, output: Output) {
        if let Some(failed) = &self.failed {
            output.event(failed);
        }
        output.event(&Event::Closed { peer: None, reason: Some(self.message) });
    }

    /// Reports itself; gives the exit status.
    pub(crate) fn report(self, output: Output) -> u8 {
        if let Some(failed) = &self.failed
            && (output.is_json() || !self.traced)
        {
            output.event(failed);
        }
        output.event(&Event::Error { kind: self.kind, message: self.message });
        self.status
    }
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        Self { status: WRONG_USAGE, ..Self::of("config", &error) }
    }
}

impl From<IdentityFileError> for Failure {
    fn from(error: IdentityFileError) -> Self {
        Self::of("key", &error)
    }
}

impl From<StartError> for Failure {
    fn from(error: StartError) -> Self {
        let kind = match &error {
            StartError::Identity(_) => "key",
            StartError::Listen(_) => "listen",
            _ => "system",
        };
        Self::of(kind, &error)
    }
}

impl From<AcceptError> for Failure {
    fn from(error: AcceptError) -> Self {
        Self::of("accept", &error)
    }
}

impl From<SourceError> for Failure {
    fn from(error: SourceError) -> Self {
        Self::of("file", &error)
    }
}

impl From<TransferError> for Failure {
    fn from(error: TransferError) -> Self {
        let kind = match &error {
            TransferError::Stream(_) | TransferError::CutOff => "stream",
            TransferError::Protocol(_) => "protocol",
            TransferError::Peer { .. } => "peer",
            TransferError::Source(_) | TransferError::Target(_) => "file",
        };
        Self::of(kind, &error)
    }
}

const FAILED: u8 = 1;
const WRONG_USAGE: u8 = 2;
