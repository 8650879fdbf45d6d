//! What the user says and hears of messages over several nodes.

use std::time::Instant;

use crust::{Endpoint, PublicKey};

use super::{Request, readable};
use crate::protocol::kv::{OnionError, OnionInput, OnionOutcome, Over, onion::MAX_LAYERS};

/// A message that the user wants to be sent.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Wish {
    pub(super) to: PublicKey,
    over: Over,
    answered: bool,
    text: String,
}

impl Wish {
    /// Reads what follows the verb: to whom, options, and what is left is the text.
    pub(super) fn read(to: &str, words: &str) -> Result<Self, String> {
        let (mut drawn, mut there, mut back, mut answered) = (None, None, None, true);
        let mut rest = words;
        loop {
            let (word, others) = rest.split_once(' ').unwrap_or((rest, ""));
            match word.split_once('=').unwrap_or((word, "")) {
                ("hops", number) => drawn = Some(hops(number)?),
                ("via", list) => there = Some(nodes_named(list)?),
                ("back", list) => back = Some(nodes_named(list)?),
                ("one-way", "") => answered = false,
                _ => break,
            }
            rest = others;
        }
        let over = match (drawn, there, back) {
            (Some(_), Some(_), _) => return Err("either hops or via: not both".to_owned()),
            (drawn, None, None) => Over::Drawn(drawn.unwrap_or(HOPS)),
            (_, None, Some(_)) => return Err("back goes with via".to_owned()),
            (None, Some(there), back) => Over::Named { there, back },
        };
        Ok(Self { to: node(to)?, over, answered, text: rest.to_owned() })
    }

    pub(super) fn send(self, request: u64) -> OnionInput {
        let Self { to, over, answered, text } = self;
        OnionInput::Send { request, to, over, text: text.into_bytes(), answered }
    }
}

/// What the user is told of what he waited for.
pub(super) fn outcome(
    now: Instant,
    waited: &Request,
    result: Result<OnionOutcome, OnionError>,
) -> Option<String> {
    let line = match (waited, result) {
        (Request::Onion { .. } | Request::Answer { .. }, Err(error)) => format!("error: {error}"),
        (Request::Onion { to, since }, Ok(OnionOutcome::Answered { text })) => {
            let micros = now.saturating_duration_since(*since).as_micros();
            format!("{to} answers: {}, in {micros} us", readable(&text))
        }
        (Request::Onion { to, .. }, Ok(OnionOutcome::Sent { relays })) => {
            format!("sent to {to} over {relays} nodes")
        }
        (Request::Answer { number }, Ok(OnionOutcome::AnswerSent)) => format!("message {number} is answered"),
        _ => return None,
    };
    Some(line)
}

/// What somebody has written to the user.
pub(super) fn heard(number: Option<u64>, text: &[u8]) -> String {
    let text = readable(text);
    match number {
        Some(number) => format!("message {number}: {text}"),
        None => format!("message that cannot be answered: {text}"),
    }
}

/// Who can be written to.
pub(super) fn nodes(nodes: &[(PublicKey, usize)]) -> String {
    let lines = nodes.iter().map(|(node, neighbours)| format!("node {node} has {neighbours} neighbours\n"));
    lines.collect::<String>() + "end of nodes"
}

fn hops(text: &str) -> Result<u8, String> {
    let hops = text.parse().ok().filter(|hops| usize::from(*hops) < MAX_LAYERS);
    hops.ok_or_else(|| format!("hops={text}: a number up to {} is wanted", MAX_LAYERS - 1))
}

fn nodes_named(list: &str) -> Result<Vec<PublicKey>, String> {
    let nodes: Vec<PublicKey> =
        list.split(',').filter(|text| !text.is_empty()).map(node).collect::<Result<_, _>>()?;
    if nodes.len() < MAX_LAYERS {
        Ok(nodes)
    } else {
        Err(format!("at most {} nodes are named", MAX_LAYERS - 1))
    }
}

/// A key, or an endpoint, of which the key counts.
fn node(text: &str) -> Result<PublicKey, String> {
    let endpoint = text.parse::<Endpoint>().map(|endpoint| endpoint.public_key());
    endpoint
        .or_else(|_| text.parse())
        .map_err(|error| format!("{text:?} is neither a key nor an endpoint: {error}"))
}

/// Nodes between, unless the user says how many: of three the middle one sees neither end, and it takes the two others together to know both.
const HOPS: u8 = 3;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_option_is_the_text() {
        let key = |seed| crust::Identity::from_seed([seed; 32]).public_key();
        let (one, other) = (key(1), key(2));
        let read = |words: &str| Wish::read(&one.to_string(), words);
        let wish = |over, answered, text: &str| Ok(Wish { to: one, over, answered, text: text.to_owned() });
        assert_eq!(read("hello there"), wish(Over::Drawn(HOPS), true, "hello there"));
        assert_eq!(read("hops=4 one-way  hops=3 x"), wish(Over::Drawn(4), false, " hops=3 x"));
        assert_eq!(read(""), wish(Over::Drawn(HOPS), true, ""));
        let there = vec![other, one];
        let named = Over::Named { there: there.clone(), back: None };
        assert_eq!(read(&format!("via={other},{one} x")), wish(named, true, "x"));
        let named = Over::Named { there, back: Some(Vec::new()) };
        assert_eq!(read(&format!("via={other},{one} back= x")), wish(named, true, "x"));
        let endpoint = format!("tcp://127.0.0.1:1?pubkey={one}");
        assert_eq!(Wish::read(&endpoint, "x"), wish(Over::Drawn(HOPS), true, "x"));
        for (words, why) in [
            ("hops=8 x", "hops=8: a number up to 7 is wanted"),
            ("hops=many x", "hops=many: a number up to 7 is wanted"),
            ("back= x", "back goes with via"),
            ("via= hops=1 x", "either hops or via: not both"),
            (&format!("via={} x", vec![one.to_string(); 8].join(",")), "at most 7 nodes are named"),
        ] {
            assert_eq!(read(words), Err(why.to_owned()));
        }
        assert!(
            Wish::read("nobody", "x")
                .unwrap_err()
                .starts_with("\"nobody\" is neither a key nor an endpoint: ")
        );
    }
}
