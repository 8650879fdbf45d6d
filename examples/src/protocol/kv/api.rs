mod onion;

use std::{collections::BTreeMap, fmt, time::Instant};

use crust::PublicKey;

use super::{
    ApiInput, GateInput, Item, NetworkOutput, OnionInput, Query, RouterInput, Signer, StoreInput,
    message::Mode,
    record::{MAX_KEY, Record, RecordError},
    reference::Reference,
};

/// Does what the user says, and tells him what came of it: a line each.
pub struct Api<R: Reference> {
    me: PublicKey,
    sign: Signer,
    requests: BTreeMap<u64, Request>,
    next: u64,
    ended: bool,
    references: std::marker::PhantomData<R>,
}

/// What the user waits for.
#[derive(Debug)]
enum Request {
    Keep { name: String },
    Put { name: String },
    Get { name: String, since: Instant },
    Peers,
    Counters { missing: usize, counts: Vec<(&'static str, u64)> },
    Onion { to: PublicKey, since: Instant },
    Answer { number: u64 },
    Nodes,
}

impl<R: Reference> Api<R> {
    /// For a user whose values are signed with the key of this node.
    #[must_use]
    pub fn new(me: PublicKey, sign: Signer) -> Self {
        Self {
            me,
            sign,
            requests: BTreeMap::new(),
            next: 0,
            ended: false,
            references: std::marker::PhantomData,
        }
    }

    /// Takes what is told to the user's side.
    pub fn handle(&mut self, now: Instant, input: ApiInput<R>, out: &mut Vec<Item<R>>) {
        match input {
            ApiInput::Line { line, micros } => {
                let done = line.and_then(|line| self.command(now, line.trim(), micros, out));
                if let Err(error) = done {
                    out.push(Item::User(format!("error: {error}")));
                }
            }
            ApiInput::End => self.ended = true,
            ApiInput::Kept { request, result } => self.kept(request, result, out),
            ApiInput::Found { request, records } => self.found(now, request, &records, out),
            ApiInput::Peers { request, peers } => {
                if self.requests.remove(&request).is_some() {
                    let lines = peers.iter().map(|peer| format!("peer {} at {}\n", peer.key, peer.contact));
                    out.push(Item::User(lines.collect::<String>() + "end of peers"));
                }
            }
            ApiInput::Counted { request, counts } => self.counted(request, counts, out),
            ApiInput::OnionDone { request, result } => {
                let waited = self.requests.remove(&request);
                out.extend(waited.and_then(|waited| onion::outcome(now, &waited, result)).map(Item::User));
            }
            ApiInput::Heard { number, text } => out.push(Item::User(onion::heard(number, &text))),
            ApiInput::Nodes { request, nodes } => {
                if self.requests.remove(&request).is_some() {
                    out.push(Item::User(onion::nodes(&nodes)));
                }
            }
        }
        if self.ended && self.requests.is_empty() {
            out.push(Item::Network(NetworkOutput::Done));
        }
    }

    fn command(
        &mut self,
        now: Instant,
        line: &str,
        micros: u64,
        out: &mut Vec<Item<R>>,
    ) -> Result<(), String> {
        let (verb, rest) = line.split_once(' ').unwrap_or((line, ""));
        let (name, value) = rest.split_once(' ').unwrap_or((rest, ""));
        if self.requests.len() >= MAX_REQUESTS && !verb.is_empty() {
            return Err(format!("{MAX_REQUESTS} commands wait for their answers: say it again later"));
        }
        match verb {
            "" => {}
            "keep" if !name.is_empty() => {
                let record = self.sign(name, value, micros)?;
                let request = self.request(Request::Keep { name: name.to_owned() });
                out.push(Item::Store(StoreInput::Keep { record, request: Some(request) }));
            }
            "put" if !name.is_empty() => {
                let record = self.sign(name, value, micros)?;
                let request = self.request(Request::Put { name: name.to_owned() });
                out.push(Item::Router(RouterInput::Put { request, record, copies: COPIES }));
            }
            "get" if !name.is_empty() => {
                let query = query(name, value)?;
                let request = self.request(Request::Get { name: name.to_owned(), since: now });
                out.push(Item::Router(RouterInput::Find { request, query }));
            }
            "connect" if !name.is_empty() => {
                out.push(Item::Network(NetworkOutput::Connect(name.to_owned())));
            }
            "onion" if !name.is_empty() => {
                let wish = onion::Wish::read(name, value)?;
                let request = self.request(Request::Onion { to: wish.to, since: now });
                out.push(Item::Onion(wish.send(request)));
            }
            "answer" if !name.is_empty() => {
                let number =
                    name.parse().map_err(|_| format!("{name}: the number of a message is wanted"))?;
                let request = self.request(Request::Answer { number });
                let text = value.as_bytes().to_vec();
                out.push(Item::Onion(OnionInput::Answer { request, number, text }));
            }
            "nodes" => {
                let request = self.request(Request::Nodes);
                out.push(Item::Onion(OnionInput::Nodes { request }));
            }
            "peers" => {
                let request = self.request(Request::Peers);
                out.push(Item::Router(RouterInput::Peers { request }));
            }
            "counters" => {
                let request = self.request(Request::Counters { missing: COUNTERS, counts: Vec::new() });
                out.push(Item::Router(RouterInput::Count { request }));
                out.push(Item::Store(StoreInput::Count { request }));
                out.push(Item::Gate(GateInput::Count { request }));
                out.push(Item::Onion(OnionInput::Count { request }));
                out.push(Item::Network(NetworkOutput::Count { request }));
            }
            _ => return Err(COMMANDS.to_owned()),
        }
        Ok(())
    }

    fn kept(&mut self, request: u64, result: Result<(), RecordError>, out: &mut Vec<Item<R>>) {
        let line = match (self.requests.remove(&request), result) {
            (Some(Request::Keep { .. } | Request::Put { .. }), Err(error)) => format!("error: {error}"),
            (Some(Request::Keep { name }), Ok(())) => format!("{name} is kept here"),
            (Some(Request::Put { name }), Ok(())) => format!("{name} is put"),
            _ => return,
        };
        out.push(Item::User(line));
    }

    fn found(&mut self, now: Instant, request: u64, records: &[R::To<Record>], out: &mut Vec<Item<R>>) {
        let Some(Request::Get { name, since }) = self.requests.remove(&request) else { return };
        let micros = now.saturating_duration_since(since).as_micros();
        if records.is_empty() {
            out.push(Item::User(format!("{name}: not found, in {micros} us")));
        }
        for record in records {
            let value = readable(&record.value);
            out.push(Item::User(format!("{name} = {value}, by {}, in {micros} us", record.author)));
        }
    }

    fn counted(&mut self, request: u64, new: Vec<(&'static str, u64)>, out: &mut Vec<Item<R>>) {
        let Some(Request::Counters { missing, counts }) = self.requests.get_mut(&request) else { return };
        counts.extend(new);
        *missing -= 1;
        if *missing == 0 {
            counts.sort_unstable(); // services answer in any order
            let words: Vec<String> = counts.iter().map(|(name, count)| format!("{name}={count}")).collect();
            out.push(Item::User(format!("counters {}", words.join(" "))));
            self.requests.remove(&request);
        }
    }

    fn request(&mut self, request: Request) -> u64 {
        self.next += 1;
        self.requests.insert(self.next, request);
        self.next
    }

    fn sign(&self, name: &str, value: &str, micros: u64) -> Result<R::To<Record>, String> {
        let record = Record::new(self.me, name, value.as_bytes(), micros, &self.sign);
        record.map(R::new).map_err(|error| error.to_string())
    }
}

impl<R: Reference> fmt::Debug for Api<R> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Api").field("requests", &self.requests).finish_non_exhaustive()
    }
}

/// As text on one line: what has line ends in it must not look like several answers.
fn readable(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// Reads what follows the name: a mode and limits, in any order.
fn query(name: &str, words: &str) -> Result<Query, String> {
    let mut query =
        Query { key: name.to_owned(), mode: Mode::Proxy, hops: HOPS, fan_out: FAN_OUT, wanted: 1 };
    if name.len() > MAX_KEY {
        return Err(RecordError::TooLong.to_string());
    }
    for word in words.split_whitespace() {
        let number =
            |text: &str| text.parse::<u8>().map_err(|_| format!("{word}: a number up to 255 is wanted"));
        match word.split_once('=').unwrap_or((word, "")) {
            ("proxy", "") => query.mode = Mode::Proxy,
            ("asynch", "") => query.mode = Mode::Asynch,
            ("mix", "") => query.mode = Mode::Mix(1),
            ("mix", hops) => query.mode = Mode::Mix(number(hops)?),
            ("hops", hops) => query.hops = number(hops)?,
            ("fan-out", peers) => query.fan_out = number(peers)?,
            ("wanted", values) => query.wanted = number(values)?,
            _ => return Err(format!("a mode is proxy, asynch, mix or mix=HOPS, not {word:?}")),
        }
    }
    Ok(query)
}

const COMMANDS: &str = "commands are: put NAME VALUE, keep NAME VALUE, \
    get NAME [proxy|asynch|mix[=HOPS]] [hops=N] [fan-out=N] [wanted=N], \
    onion NODE [hops=N|via=NODE,...] [back=NODE,...] [one-way] TEXT, answer NUMBER TEXT, nodes, \
    connect ENDPOINT, peers, counters";
/// How many nodes a value is given to.
const COPIES: usize = 3;
/// How far a value is looked for, and how many are asked by each.
const HOPS: u8 = 4;
const FAN_OUT: u8 = 3;
/// Services that count something, the streams among them.
const COUNTERS: usize = 5;
/// Commands that wait for their answers.
const MAX_REQUESTS: usize = 4_096;
