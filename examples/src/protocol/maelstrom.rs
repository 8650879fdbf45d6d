//! Messages of the Maelstrom test harness: one JSON object a line.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::gossip;

/// One line: who says what to whom.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Message {
    /// Who says it.
    pub src: String,
    /// To whom.
    pub dest: String,
    /// What.
    pub body: Body,
}

/// What is said, and its place in a conversation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Body {
    /// Numbers a request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub msg_id: Option<u64>,
    /// The request that this answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub in_reply_to: Option<u64>,
    /// The thing itself.
    #[serde(flatten)]
    pub payload: Payload,
}

/// Requests of clients, answers to them, and what nodes say to each other.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
#[allow(missing_docs, reason = "named and described by the harness")]
pub enum Payload {
    Init { node_id: String, node_ids: Vec<String> },
    InitOk,
    Topology { topology: BTreeMap<String, Vec<String>> },
    TopologyOk,
    Broadcast { message: i64 },
    BroadcastOk,
    Add { delta: i64 },
    AddOk,
    Read,
    ReadOk(Read),
    Echo { echo: Value },
    EchoOk { echo: Value },
    Generate,
    GenerateOk { id: String },
    Gossip(gossip::Message),
    Error { code: u32, text: String },
}

/// What is read: all messages in a broadcast workload, the sum in a counter's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Read {
    /// Every message that was broadcast, as far as the node knows.
    Messages(Vec<i64>),
    /// The sum of all that was added, as far as the node knows.
    Value(i64),
}

/// Why a line is not taken.
#[derive(Debug, thiserror::Error)]
pub enum LineError {
    /// Not even an envelope: nobody can be told.
    #[error("not a message: {reason}; the line begins {start:?}")]
    Form {
        /// What the parser said.
        reason: String,
        /// The first characters of the line.
        start: String,
    },
    /// The envelope is right, its content is not: whoever sent it can be told.
    #[error("{} sent a body that is malformed or unknown: {reason}", answer.dest)]
    Body {
        /// The error to send back, if the sender waits for an answer.
        answer: Box<Message>,
        /// What the parser said.
        reason: String,
    },
}

impl Message {
    /// Reads a line.
    ///
    /// # Errors
    ///
    /// [`LineError`] when it is not a message.
    pub fn from_line(line: &[u8]) -> Result<Self, LineError> {
        serde_json::from_slice(line).map_err(|error| refusal(line, &error.to_string()))
    }

    /// Writes it as a line, with its end.
    ///
    /// # Panics
    ///
    /// Never: everything in it can be written as JSON.
    #[must_use]
    pub fn to_line(&self) -> Vec<u8> {
        let mut line = serde_json::to_vec(self).expect("strings and numbers are JSON");
        line.push(b'\n');
        line
    }
}

fn refusal(line: &[u8], reason: &str) -> LineError {
    #[derive(Deserialize)]
    struct Envelope {
        src: String,
        dest: String,
        body: BTreeMap<String, Value>,
    }
    let Ok(Envelope { src, dest, body }) = serde_json::from_slice(line) else {
        let start = String::from_utf8_lossy(&line[..line.len().min(60)]).into_owned();
        return LineError::Form { reason: reason.to_owned(), start };
    };
    let kind = body.get("type").and_then(Value::as_str);
    let unknown = reason.starts_with("unknown variant");
    let code = if unknown { NOT_SUPPORTED } else { MALFORMED };
    let text = format!("{}: {reason}", kind.unwrap_or("no type"));
    let in_reply_to = body.get("msg_id").and_then(Value::as_u64);
    let body = Body { msg_id: None, in_reply_to, payload: Payload::Error { code, text } };
    LineError::Body { answer: Box::new(Message { src: dest, dest: src, body }), reason: reason.to_owned() }
}

/// Error codes of the harness.
pub(super) const NOT_SUPPORTED: u32 = 10;
pub(super) const TEMPORARILY_UNAVAILABLE: u32 = 11;
pub(super) const MALFORMED: u32 = 12;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_the_harness_are_read_and_written() {
        for line in [
            r#"{"src":"c1","dest":"n1","body":{"msg_id":1,"type":"init","node_id":"n1","node_ids":["n1","n2"]}}"#,
            r#"{"src":"n1","dest":"c1","body":{"in_reply_to":1,"type":"read_ok","messages":[1,2]}}"#,
            r#"{"src":"n1","dest":"c1","body":{"in_reply_to":1,"type":"read_ok","value":-3}}"#,
            r#"{"src":"n1","dest":"n2","body":{"type":"gossip","kind":"batch","term":3,"have":{"n1/7":[4,6]},"entries":{"n1/7":[[6,-9]]}}}"#,
        ] {
            let message = Message::from_line(line.as_bytes()).unwrap();
            assert_eq!(String::from_utf8(message.to_line()).unwrap().trim_end(), line);
        }
    }

    #[test]
    fn whoever_can_be_told_of_an_error_is() {
        let error = |line: &str| match Message::from_line(line.as_bytes()).unwrap_err() {
            LineError::Body { answer, .. } => match answer.body.payload {
                Payload::Error { code, .. } => Some((answer.dest, answer.body.in_reply_to, code)),
                other => panic!("{other:?}"),
            },
            LineError::Form { .. } => None,
        };
        let said = |body: &str| error(&format!(r#"{{"src":"c1","dest":"n1","body":{body}}}"#));
        assert_eq!(said(r#"{"type":"dance","msg_id":4}"#), Some(("c1".to_owned(), Some(4), NOT_SUPPORTED)));
        assert_eq!(said(r#"{"type":"broadcast","msg_id":5}"#), Some(("c1".to_owned(), Some(5), MALFORMED)));
        assert_eq!(said(r#"{"type":"broadcast","message":"x"}"#), Some(("c1".to_owned(), None, MALFORMED)));
        assert_eq!(said("{}"), Some(("c1".to_owned(), None, MALFORMED)));
        for line in ["", "{", "[]", "null", r#"{"src":1,"dest":"n1","body":{}}"#, "\u{0}"] {
            assert_eq!(error(line), None, "{line}");
        }
    }
}
