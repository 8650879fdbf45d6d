//! The whole machine: timetable, answers, filter and table of peers behind one set of verbs.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::announcer::{Announcer, Crowd, Round};
use super::answers::{Answer, Answers};
use super::envelope::{self, Envelope};
use super::filter::Filter;
use super::freshness::Verdict;
use super::packet::{Tag, max_data_bytes, tag};
use super::peers::{Heard, Peers};
use super::private::Private;
use super::seed::Random;
use super::seekers::Seekers;
use super::{Event, GroupSecret, Kind, Link, LinkId, MAX_ID_BYTES, Packet, Refusals, Seed, TooLarge};

/// One beacon as a state machine.
///
/// # Examples
///
/// Two beacons that meet in virtual time:
///
/// ```
/// use std::net::SocketAddr;
/// use std::time::Instant;
///
/// use beacon::protocol::{Discovery, DiscoveryConfig, Link, LinkId, Network, News, Seed};
///
/// let now = Instant::now();
/// let network = Network { address: [10, 0, 0, 1].into(), prefix_bits: 24 };
/// let link = Link { id: LinkId(1), name: "net0".into(), networks: vec![network], datagrams_per_round: 1 };
/// let mut peers = [1, 2].map(|number| {
///     let seed = Seed::new([number; 32]);
///     let mut peer = Discovery::new(DiscoveryConfig::default(), seed, &[number])?;
///     peer.set_links(now, vec![link.clone()]);
///     Ok::<_, beacon::protocol::TooLarge>(peer)
/// });
/// let [Ok(one), Ok(two)] = &mut peers else { panic!("one byte of data fits") };
///
/// let wake = one.poll_timeout().expect("a newcomer wants to ask");
/// one.handle_timeout(wake);
/// let question = one.poll_transmit().expect("it asks everybody");
/// let source = SocketAddr::from(([10, 0, 0, 1], 5000));
/// two.handle_datagram(wake, LinkId(1), source, &question.contents);
///
/// let event = two.poll_event().expect("the other has heard it");
/// assert_eq!((event.news, event.payload), (News::Appeared, vec![1]));
/// ```
#[derive(Debug)]
pub struct Discovery {
    id: Vec<u8>,
    /// What is announced; `None` when this beacon only listens.
    data: Option<Vec<u8>>,
    period: Duration,
    sequence: u32,
    random: Random,
    private: Option<Private>,
    links: BTreeMap<LinkId, LinkState>,
    filter: Filter,
    peers: Peers,
    /// The last moment at which the machine was called.
    last_call: Option<Instant>,
    transmits: VecDeque<Transmit>,
    events: VecDeque<Event>,
}

/// What a [`Discovery`] is made with.
#[derive(Clone, Debug)]
pub struct DiscoveryConfig {
    /// How many random bytes tell this beacon from others and its own echo from others' words. 16 by default, at most
    /// [`MAX_ID_BYTES`]; with 0 the echo is heard like a peer. At least 16 are used with a secret.
    pub id_bytes: usize,
    /// The time between two announcements, one second by default.
    pub period: Duration,
    /// What the members of a private group share; none by default.
    pub secret: Option<GroupSecret>,
}

impl Default for DiscoveryConfig {
    fn default() -> Self {
        Self { id_bytes: 16, period: Duration::from_secs(1), secret: None }
    }
}

/// A datagram to send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transmit {
    /// The link on which to send it.
    pub link: LinkId,
    /// To whom.
    pub destination: Destination,
    /// The bytes.
    pub contents: Vec<u8>,
}

/// To whom a datagram goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Destination {
    /// To all who listen on the shared port of the link, by every broadcast address and multicast group there is.
    Everybody,
    /// To one address.
    Peer(SocketAddr),
}

/// What to say.
#[derive(Debug)]
enum Word {
    Announce,
    Answer,
    /// A question, and who need not answer it.
    Ask(Vec<Tag>),
    Goodbye,
}

#[derive(Debug)]
struct LinkState {
    link: Arc<Link>,
    announcer: Announcer,
    answers: Answers,
    seekers: Seekers,
    /// When we last asked because of words that might be recordings.
    doubted: Option<Instant>,
}

impl Discovery {
    /// Makes a beacon that announces `data`; it is silent until it is told its links.
    ///
    /// # Errors
    ///
    /// [`TooLarge`] if the data, or the number of identity bytes, does not fit into one datagram.
    pub fn new(config: DiscoveryConfig, seed: Seed, data: &[u8]) -> Result<Self, TooLarge> {
        let mut discovery = Self::listening(config, seed)?;
        discovery.check_size(data)?;
        discovery.data = Some(data.to_vec());
        Ok(discovery)
    }

    /// Makes a beacon that asks who is there and announces nothing, so that the others do not report it, until it is
    /// given data.
    ///
    /// # Errors
    ///
    /// [`TooLarge`] if the number of identity bytes is over [`MAX_ID_BYTES`].
    pub fn listening(config: DiscoveryConfig, seed: Seed) -> Result<Self, TooLarge> {
        if config.id_bytes > MAX_ID_BYTES {
            return Err(TooLarge { bytes: config.id_bytes, limit_bytes: MAX_ID_BYTES });
        }
        let mut random = Random::new(&seed);
        let private = config.secret.map(|secret| Private::new(secret, &seed));
        let least = if private.is_some() { MIN_PRIVATE_ID_BYTES } else { 0 };
        Ok(Self {
            id: random.bytes(config.id_bytes.max(least)),
            data: None,
            period: config.period,
            sequence: 0,
            random,
            private,
            links: BTreeMap::new(),
            filter: Filter::new(),
            peers: Peers::new(),
            last_call: None,
            transmits: VecDeque::new(),
            events: VecDeque::new(),
        })
    }

    /// Announces other data from now on, at once and once more shortly after.
    ///
    /// # Errors
    ///
    /// [`TooLarge`] if it does not fit into one datagram; what was announced before stays.
    pub fn set_data(&mut self, now: Instant, data: &[u8]) -> Result<(), TooLarge> {
        self.check_size(data)?;
        if self.data.as_deref() != Some(data) {
            self.data = Some(data.to_vec());
            for state in self.links.values_mut() {
                state.announcer.data_changed(now);
            }
        }
        Ok(())
    }

    /// Says goodbye and announces nothing any more; what others announce is still heard.
    pub fn hide(&mut self) {
        self.say_goodbye();
        self.data = None;
        for state in self.links.values_mut() {
            state.answers.forget();
        }
    }

    /// Asks anew who is there, on every link.
    pub fn search(&mut self, now: Instant) {
        for state in self.links.values_mut() {
            state.announcer.search(now, &mut self.random);
        }
    }

    /// Says what the system's clock shows, as the time since 1970: of use with a secret, where it tells recordings from what
    /// is said now. Call it often, so that a clock that is set is noticed; without it newcomers are believed one question
    /// later.
    pub fn set_clock(&mut self, now: Instant, time: Duration) {
        if let Some(private) = &mut self.private {
            private.set_clock(now, time);
        }
    }

    /// Announces every `period` from now on.
    pub fn set_period(&mut self, now: Instant, period: Duration) {
        self.period = period;
        for state in self.links.values_mut() {
            let crowd = crowd(&self.peers, &state.link);
            state.announcer.set_period(now, period, crowd);
        }
    }

    /// Says which links there are now. On new links, and on those whose addresses have changed, the search for peers
    /// begins; the peers of links that are gone have left.
    pub fn set_links(&mut self, now: Instant, links: Vec<Link>) {
        let mut before = std::mem::take(&mut self.links);
        for link in links {
            let state = match before.remove(&link.id) {
                Some(state) if *state.link == link => state,
                Some(mut state) => {
                    state.announcer.search(now, &mut self.random);
                    LinkState { link: Arc::new(link), ..state }
                }
                None => LinkState {
                    announcer: Announcer::new(now, self.period, &mut self.random),
                    answers: Answers::new(now),
                    seekers: Seekers::default(),
                    doubted: None,
                    link: Arc::new(link),
                },
            };
            self.links.insert(state.link.id, state);
        }
        for gone in before.keys() {
            self.events.extend(self.peers.link_down(*gone));
        }
    }

    /// Takes a datagram that came from `source` by `link`.
    pub fn handle_datagram(&mut self, now: Instant, link: LinkId, source: SocketAddr, bytes: &[u8]) {
        self.notice_sleep(now);
        let Some(private) = &self.private else { return self.take(now, link, source, bytes, None) };
        let Some(opened) = private.open(bytes) else {
            return self.filter.count(|refusals| &mut refusals.not_of_group);
        };
        match Envelope::decode(&opened) {
            Some(envelope) => self.take(now, link, source, envelope.packet, Some(&envelope)),
            None => self.filter.count(|refusals| &mut refusals.malformed),
        }
    }

    fn take(
        &mut self,
        now: Instant,
        link: LinkId,
        source: SocketAddr,
        bytes: &[u8],
        envelope: Option<&Envelope<'_>>,
    ) {
        let Some(state) = self.links.get_mut(&link) else { return };
        let Some(packet) = self.filter.admit(now, &state.link, source, &self.id, bytes) else { return };
        let verdict = match (&mut self.private, envelope) {
            (Some(_), Some(envelope)) if !envelope.addresses.contains(&source.ip()) => {
                return self.filter.count(|refusals| &mut refusals.passed_on);
            }
            (Some(private), Some(envelope)) => private.judge(now, envelope, &packet),
            _ => Verdict::Fresh,
        };
        let heard = match (verdict, packet.kind) {
            (Verdict::Recorded, _) => return self.filter.count(|refusals| &mut refusals.not_fresh),
            // These leave nobody in the table by whom a copy could be told from a recording; neither does anything.
            (Verdict::Copy, Kind::Seek | Kind::Goodbye) => return,
            // A copy of what a peer that left has said is a recording.
            (Verdict::Copy, _) if !self.peers.knows(link, source, &packet) => {
                return self.filter.count(|refusals| &mut refusals.not_fresh);
            }
            (Verdict::Doubtful, _) => {
                self.filter.count(|refusals| &mut refusals.not_fresh);
                state.doubt(now, &mut self.random);
                state.seekers.is_news(source, &packet).then_some(None)
            }
            (_, Kind::Goodbye) => {
                return self.events.extend(self.peers.goodbye(link, source, &packet));
            }
            (_, Kind::Seek) => state.seekers.is_news(source, &packet).then_some(None),
            _ => match self.peers.heard(now, &state.link, source, &packet) {
                Heard::Word(event) => Some(Some(event)),
                Heard::NewWay(event) => return self.events.push_back(event),
                Heard::Copy => None,
            },
        };
        let Some(event) = heard else { return };
        let is_known = || tag(&self.id).is_some_and(|own| packet.known.contains(&own));
        if packet.kind.asks() && self.data.is_some() && !is_known() {
            let crowd = crowd(&self.peers, &state.link);
            let spread = ANSWER_SPREAD.saturating_mul(u32::try_from(crowd.peers).unwrap_or(u32::MAX));
            let due = now + self.random.up_to(spread.min(MAX_ANSWER_SPREAD));
            state.answers.asked(source, due, answer_pause(crowd));
        }
        self.events.extend(event);
        self.speak(now);
    }

    /// Does whatever is due. Early and repeated calls are harmless.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.notice_sleep(now);
        let gone = self.peers.expire(now);
        self.events.extend(gone);
        self.speak(now);
    }

    /// Says goodbye to everybody; afterwards there is nothing left to do but to send it.
    pub fn close(&mut self) {
        self.transmits.clear();
        self.say_goodbye();
        self.links.clear();
    }

    /// The next datagram to send; call it until it gives none.
    pub fn poll_transmit(&mut self) -> Option<Transmit> {
        self.transmits.pop_front()
    }

    /// The next thing learned; call it until it gives none.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// When to call [`handle_timeout`](Self::handle_timeout); `None` if there is nothing to wait for.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        let links = self.links.values();
        let spoken = links.flat_map(|state| [Some(state.announcer.next()), state.answers.next()]);
        spoken.flatten().chain(self.peers.next_expiry()).min()
    }

    /// What was not looked at so far, and why.
    #[must_use]
    pub const fn refusals(&self) -> Refusals {
        self.filter.refusals()
    }

    fn say_goodbye(&mut self) {
        if self.data.is_none() {
            return;
        }
        let links: Vec<_> = self.links.keys().copied().collect();
        for link in links {
            self.transmit(link, Destination::Everybody, &Word::Goodbye, self.period);
        }
    }

    /// Says what is due on each link.
    fn speak(&mut self, now: Instant) {
        let mut said = Vec::new();
        for (&id, state) in &mut self.links {
            if state.announcer.next() > now && state.answers.next().is_none_or(|next| next > now) {
                continue;
            }
            let crowd = crowd(&self.peers, &state.link);
            let interval = state.announcer.interval(crowd);
            if let Some(round) = state.announcer.due(now, crowd, &mut self.random) {
                state.answers.said_to_all(now);
                let word = match round {
                    Round::Announce if self.data.is_none() => continue,
                    Round::Announce => Word::Announce,
                    Round::Ask => Word::Ask(self.peers.known_on(id, state.announcer.searching_since())),
                };
                said.push((id, Destination::Everybody, word, interval));
            }
            while let Some(answer) = state.answers.due(now) {
                let destination = match answer {
                    Answer::One(address) => Destination::Peer(address),
                    Answer::All => {
                        state.announcer.said(now, crowd, &mut self.random);
                        Destination::Everybody
                    }
                };
                said.push((id, destination, Word::Answer, interval));
            }
        }
        for (link, destination, word, interval) in said {
            self.transmit(link, destination, &word, interval);
        }
    }

    fn transmit(&mut self, link: LinkId, destination: Destination, word: &Word, interval: Duration) {
        self.sequence = self.sequence.wrapping_add(1);
        let data = self.data.as_deref();
        let (kind, known): (_, &[Tag]) = match word {
            Word::Announce => (Kind::Announce, &[]),
            Word::Answer => (Kind::Answer, &[]),
            Word::Ask(known) if data.is_none() => (Kind::Seek, known),
            Word::Ask(known) => (Kind::Ask, known),
            Word::Goodbye => (Kind::Goodbye, &[]),
        };
        let data = data.filter(|_| kind != Kind::Goodbye).unwrap_or_default();
        let packet = Packet { kind, sequence: self.sequence, interval, id: &self.id, data, known };
        let encoded = match (&mut self.private, self.links.get(&link), self.last_call) {
            (Some(private), Some(state), Some(now)) => {
                let length = self.data.as_deref().unwrap_or_default().len();
                private.seal(now, &state.link, &packet, length)
            }
            // Nobody has heard of us yet who would have to hear this.
            (Some(_), ..) => return,
            (None, ..) => packet.encode(),
        };
        let contents = encoded.expect("the sizes of identity and data are checked when they are set");
        self.transmits.push_back(Transmit { link, destination, contents });
    }

    /// If the machine was not called for long after it should have been, the process was stopped or the computer
    /// slept: what was heard is old, but nobody has had the chance to be heard again.
    fn notice_sleep(&mut self, now: Instant) {
        let called = self.last_call.replace(now);
        let wanted = called.and_then(|_| self.poll_timeout());
        if wanted.is_some_and(|wanted| now > wanted + ASLEEP) {
            self.peers.postpone_expiry(now + AWAKE_GRACE);
            for state in self.links.values_mut() {
                state.announcer.search(now, &mut self.random);
            }
        }
    }

    /// The most data that [`set_data`](Self::set_data) takes, in bytes.
    #[must_use]
    pub const fn max_data_bytes(&self) -> usize {
        match self.private {
            Some(_) => envelope::max_data_bytes(self.id.len()),
            None => max_data_bytes(self.id.len()),
        }
    }

    const fn check_size(&self, data: &[u8]) -> Result<(), TooLarge> {
        let limit_bytes = self.max_data_bytes();
        if data.len() > limit_bytes { Err(TooLarge { bytes: data.len(), limit_bytes }) } else { Ok(()) }
    }
}

impl LinkState {
    /// Asks everybody once, soon, so that who has said what may be a recording can prove that it is there.
    fn doubt(&mut self, now: Instant, random: &mut Random) {
        if self.doubted.is_none_or(|last| now >= last + DOUBT_PAUSE) {
            self.doubted = Some(now);
            self.announcer.ask_once(now, random);
        }
    }
}

fn crowd(peers: &Peers, link: &Link) -> Crowd {
    Crowd { peers: peers.confirmed_on(link.id), datagrams_per_round: link.datagrams_per_round }
}

/// The least time between two answers to everybody: with many peers, each answers less often.
fn answer_pause(crowd: Crowd) -> Duration {
    let datagrams = crowd.peers.saturating_add(1).saturating_mul(crowd.datagrams_per_round);
    let shared = ANSWER_TO_ALL_SHARE.saturating_mul(u32::try_from(datagrams).unwrap_or(u32::MAX));
    shared.clamp(ANSWER_TO_ALL_PAUSE, ANSWER_TO_ALL_MAX_PAUSE)
}

/// Each peer that might answer the same question adds this to the time over which answers are spread.
const ANSWER_SPREAD: Duration = Duration::from_millis(1);

/// A newcomer should not wait longer than a person notices.
const MAX_ANSWER_SPREAD: Duration = Duration::from_millis(100);

/// At most four answers to everybody a second; with the answers to single addresses, 20 for any one address.
const ANSWER_TO_ALL_PAUSE: Duration = Duration::from_millis(250);

/// In a crowd the answers to everybody of all peers together come to at most 200 datagrams a second...
const ANSWER_TO_ALL_SHARE: Duration = Duration::from_millis(5);

/// ...unless newcomers would wait longer than this.
const ANSWER_TO_ALL_MAX_PAUSE: Duration = Duration::from_secs(2);

/// Recordings said again without end cost a link one question of each member in this time.
const DOUBT_PAUSE: Duration = Duration::from_secs(2);

/// Words of a private group are numbered by identity, so two must never be the same.
const MIN_PRIVATE_ID_BYTES: usize = 16;

/// So late a driver on a busy machine never is.
const ASLEEP: Duration = Duration::from_secs(2);

/// The time peers get to be heard again: the length of a search and a little more.
const AWAKE_GRACE: Duration = Duration::from_secs(2);
