//! Peers that find each other by a key alone, over a DHT of `mainline`'s own nodes on loopback.

use std::{
    net::UdpSocket,
    sync::mpsc::{Receiver, channel},
    thread,
    time::{Duration, Instant},
};

use crust::{
    Config, ConnectOptions, Contact, DhtError, Endpoint, Identity, Lan, PublicKey, Scheme, Service,
    ServiceEvent,
};
use mainline::{MutableItem, Testnet, async_dht::AsyncDht};

/// Far more than anything here takes.
const PATIENCE: Duration = Duration::from_secs(60);

#[test]
fn a_peer_is_found_and_connected_by_its_key_alone() {
    let testnet = Testnet::builder(10).build().unwrap();
    let server = Service::new_from_config(member(&testnet).listen(somewhere())).unwrap();
    let nodes = published(&server);
    assert!((1..=20).contains(&nodes), "{nodes}");

    let client = Service::new_from_config(member(&testnet).listen([])).unwrap();
    let key = server.controller.public_key();
    let (stream, trace) = client.controller.connect_traced(key, &ConnectOptions::new().deadline(PATIENCE));
    assert_eq!(stream.unwrap().public_key(), key);
    assert!(trace.dht().unwrap().contains(": addresses 2, introducers 0, "), "{trace}");
    assert!(trace.to_string().contains("\n  DHT: a contact"), "{trace}");
    assert_eq!(server.acceptor.accept().unwrap().public_key(), client.controller.public_key());

    // As a question of its own; of a peer that listens nowhere nothing stands there.
    let found = client.controller.find_in_dht(key, Instant::now() + PATIENCE).unwrap();
    assert_eq!(found, server.controller.contact().unwrap());
    let error = server.controller.find_in_dht(client.controller.public_key(), Instant::now() + PATIENCE);
    assert!(matches!(error, Err(DhtError::NotFound { answered: 1.. })), "{error:?}");
    let error = client.controller.find_in_dht(PublicKey::from_bytes([2; 32]), Instant::now() + PATIENCE);
    assert_eq!(error, Err(DhtError::NoKey));
}

#[test]
fn of_several_services_each_is_found_and_a_later_address_instead_of_the_first() {
    let testnet = Testnet::builder(10).build().unwrap();
    let servers = [(); 2].map(|()| Service::new_from_config(member(&testnet).listen(somewhere())).unwrap());
    servers.iter().for_each(|server| assert!(published(server) > 0));
    let client = Service::new_from_config(member(&testnet).listen([])).unwrap();
    for server in &servers {
        let controller = &server.controller;
        let found =
            client.controller.find_in_dht(controller.public_key(), Instant::now() + PATIENCE).unwrap();
        assert_eq!(found, controller.contact().unwrap());
    }

    // It moves: what stands there follows, five seconds after the first at the earliest.
    let moved = &servers[0].controller;
    for place in moved.accepting_endpoints().map(|one| *one.local_endpoint()).collect::<Vec<_>>() {
        assert!(moved.remove_listener(place));
    }
    moved.add_listener("tcp://127.0.0.1:0".parse().unwrap()).unwrap();
    // Should it be slow, it tells of what is between as well.
    let found = || client.controller.find_in_dht(moved.public_key(), Instant::now() + PATIENCE);
    while found() != Ok(moved.contact().unwrap()) {
        published(&servers[0]);
    }
    let stream =
        client.controller.connect_with(moved.public_key(), &ConnectOptions::new().deadline(PATIENCE));
    assert_eq!(stream.unwrap().path().scheme, Scheme::Tcp);
}

#[test]
fn one_that_is_started_again_with_its_key_takes_the_place_of_its_former_self() {
    let testnet = Testnet::builder(10).build().unwrap();
    let client = Service::new_from_config(member(&testnet).listen([])).unwrap();
    let mut contacts = Vec::new();
    for _ in 0..2 {
        let identity = Identity::from_seed([77; 32]);
        let key = identity.public_key();
        let config = member(&testnet).identity(identity).listen(somewhere());
        let server = Service::new_from_config(config).unwrap();
        published(&server);
        let found = client.controller.find_in_dht(key, Instant::now() + PATIENCE).unwrap();
        assert_eq!(found, server.controller.contact().unwrap());
        contacts.push(found);
    }
    assert_ne!(contacts[0], contacts[1]);
}

#[test]
fn a_sequence_number_from_the_future_is_caught_up_with() {
    let testnet = Testnet::builder(10).build().unwrap();
    let identity = || Identity::from_seed([78; 32]);
    let blinded = transport_blinded(&identity());
    // A clock that was a thousand years ahead.
    let ahead = 32_000_000_000_000_000;
    let node = member_node(&testnet);
    let junk = b"left by another clock";
    let signable = [format!("3:seqi{ahead}e1:v{}:", junk.len()).as_bytes(), junk].concat();
    let signature = blinded.sign(&signable);
    let key = *blinded.public_key().as_bytes();
    let item = MutableItem::new_signed_unchecked(key, signature, junk, ahead, None);
    block_on(node.put_mutable(item, None)).unwrap();

    // Meanwhile whoever asks is told that it is of no use.
    let client = Service::new_from_config(member(&testnet).listen([])).unwrap();
    let error = client.controller.find_in_dht(identity().public_key(), Instant::now() + PATIENCE);
    assert!(matches!(error, Err(DhtError::Unusable { .. })), "{error:?}");

    let config = member(&testnet).identity(identity()).listen(somewhere());
    let server = Service::new_from_config(config).unwrap();
    published(&server);
    let found = client.controller.find_in_dht(identity().public_key(), Instant::now() + PATIENCE).unwrap();
    assert_eq!(found, server.controller.contact().unwrap());
}

#[test]
fn nodes_that_store_a_contact_cannot_read_it_nor_whose_it_is() {
    let testnet = Testnet::builder(10).build().unwrap();
    let identity = Identity::from_seed([79; 32]);
    let (key, blinded) = (identity.public_key(), transport_blinded(&identity).public_key());
    let config = member(&testnet).identity(identity).listen(somewhere());
    let server = Service::new_from_config(config).unwrap();
    published(&server);
    let node = member_node(&testnet);
    assert_eq!(block_on(node.get_mutable_most_recent(key.as_bytes(), None)), None);
    let item = block_on(node.get_mutable_most_recent(blinded.as_bytes(), None)).unwrap();
    let port = server.controller.endpoints().unwrap()[0].addr().port().to_be_bytes();
    let has = |needle: &[u8]| item.value().windows(needle.len()).any(|window| window == needle);
    assert!(!has(key.as_bytes()) && !has(&[127, 0, 0, 1]) && !has(&[&[0, 1][..], &port].concat()));
    assert!(item.value().len() <= 733, "{}", item.value().len());
}

#[test]
fn forged_oversized_and_older_items_are_not_taken() {
    let identity = Identity::from_seed([80; 32]);
    let blinded = transport_blinded(&identity);
    let key = identity.public_key();
    let value = valid_value(&identity);
    let liar = Liar::start(blinded.public_key());
    let client = Service::new_from_config(liar.member()).unwrap();
    let find = || client.controller.find_in_dht(key, Instant::now() + PATIENCE);
    let sign = |sequence: i64, value: &[u8]| {
        let signable = [format!("3:seqi{sequence}e1:v{}:", value.len()).as_bytes(), value].concat();
        blinded.sign(&signable)
    };

    // Signed by nobody, which the node of `mainline` sees.
    liar.says(5, &value, [7; 64]);
    let error = find();
    assert!(matches!(error, Err(DhtError::NotFound { answered: 1 })), "{error:?}");
    // Signed, and not what it should be: too long; sealed by somebody else; of a later version.
    for wrong in [vec![1; 734], [&[1][..], &[3; 92]].concat(), [&[2][..], &value[1..]].concat()] {
        liar.says(5, &wrong, sign(5, &wrong));
        let error = find();
        assert!(matches!(error, Err(DhtError::Unusable { .. })), "{error:?}");
    }
    // As it should be, and then older.
    liar.says(6, &value, sign(6, &value));
    assert_eq!(find().unwrap().public_key(), key);
    liar.says(5, &value, sign(5, &value));
    assert_eq!(find(), Err(DhtError::Older));
    liar.says(6, &value, sign(6, &value));
    assert!(find().is_ok(), "the same as before is no older");
}

#[test]
fn where_nobody_answers_it_ends_by_its_deadline_and_says_so() {
    // It takes everything, and answers nothing.
    let silent = UdpSocket::bind("127.0.0.1:0").unwrap();
    let config = entering([silent.local_addr().unwrap().to_string()]);
    let service = Service::new_from_config(config.listen(somewhere())).unwrap();
    let stranger = Identity::generate().public_key();
    let error = service.controller.find_in_dht(stranger, Instant::now() + Duration::from_millis(200));
    assert!(matches!(error, Err(DhtError::TimedOut | DhtError::NoAnswer)), "{error:?}");
    let error = service.controller.find_in_dht(stranger, Instant::now() + PATIENCE);
    assert_eq!(error, Err(DhtError::NoAnswer));
    let options = ConnectOptions::new().deadline(PATIENCE);
    let (error, trace) = service.controller.connect_traced(stranger, &options);
    assert!(error.unwrap_err().attempts().is_empty());
    assert_eq!(trace.dht(), Some(DhtError::NoAnswer.to_string().as_str()));
    until_event(&service, |event| match event {
        ServiceEvent::DhtUnusable { reason } => Some(reason),
        _ => None,
    });
}

#[test]
fn without_the_setting_it_says_so_and_no_name_of_a_node_is_an_error() {
    let service = Service::new_from_config(Config::new().listen([]).lan(Lan::Off)).unwrap();
    let stranger = Identity::generate().public_key();
    let deadline = Instant::now() + PATIENCE;
    assert_eq!(service.controller.find_in_dht(stranger, deadline), Err(DhtError::Off));
    let (_, trace) = service.controller.connect_traced(stranger, &ConnectOptions::new());
    assert_eq!(trace.dht(), None);
    let service = Service::new_from_config(entering(["nowhere.invalid:6881".to_owned()]).listen([])).unwrap();
    assert_eq!(service.controller.find_in_dht(stranger, deadline), Err(DhtError::NoBootstrap));
}

#[test]
fn a_contact_is_dialled_without_asking_the_dht() {
    let silent = UdpSocket::bind("127.0.0.1:0").unwrap();
    let config = entering([silent.local_addr().unwrap().to_string()]);
    let client = Service::new_from_config(config.listen([])).unwrap();
    let nobody = Identity::generate().public_key();
    let endpoint = Endpoint::new(Scheme::Tcp, "127.0.0.1:1".parse().unwrap(), nobody);
    let contact = Contact::new(nobody).endpoint(endpoint).unwrap();
    let (stream, trace) = client.controller.connect_traced(contact, &ConnectOptions::new());
    assert!(stream.is_err() && trace.dht().is_none(), "{trace}");
    silent.set_nonblocking(true).unwrap();
    assert!(silent.recv(&mut [0; 1]).is_err(), "nothing was sent there");
}

#[test]
fn dropping_ends_what_looks_up_and_what_publishes() {
    let silent = UdpSocket::bind("127.0.0.1:0").unwrap();
    let member = || entering([silent.local_addr().unwrap().to_string()]);
    for waits in [false, true] {
        let service = Service::new_from_config(member().listen(somewhere())).unwrap();
        if waits {
            // The node is under way.
            silent.set_read_timeout(Some(PATIENCE)).unwrap();
            silent.recv(&mut [0; 2_048]).unwrap();
        }
        let Service { controller, .. } = service;
        let controller = std::sync::Arc::new(controller);
        let (tell, told): (_, Receiver<_>) = channel();
        let asked = controller.clone();
        let asking = thread::spawn(move || {
            let stranger = Identity::generate().public_key();
            let deadline = Instant::now() + Duration::from_secs(3_600);
            tell.send(()).unwrap();
            asked.find_in_dht(stranger, deadline)
        });
        told.recv().unwrap();
        let begun = Instant::now();
        controller.close();
        let error = asking.join().unwrap();
        // Before a node has answered or not, unless the machine is very slow.
        assert!(matches!(error, Err(DhtError::Closed | DhtError::NoAnswer)), "{error:?}");
        drop(controller);
        assert!(begun.elapsed() < PATIENCE);
    }
}

/// Publishes and looks up in a DHT of this machine, and nowhere else.
fn member(testnet: &Testnet) -> Config {
    entering(testnet.bootstrap.clone())
}

fn entering(nodes: impl IntoIterator<Item = String>) -> Config {
    Config::new().dht(true).dht_bootstrap(nodes).lan(Lan::Off).port_map(false)
}

fn somewhere() -> [crust::ListenEndpoint; 2] {
    ["quic://127.0.0.1:0", "tcp://127.0.0.1:0"].map(|place| place.parse().unwrap())
}

/// Waits until it has told the DHT; gives at how many nodes.
fn published(service: &Service) -> u32 {
    until_event(service, |event| match event {
        ServiceEvent::DhtPublished { nodes } => Some(nodes),
        _ => None,
    })
}

fn until_event<T>(service: &Service, wanted: impl Fn(ServiceEvent) -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let event = service.controller.events().recv_deadline(deadline).unwrap();
        if let Some(found) = wanted(event) {
            return found;
        }
    }
}

/// A node of its own, as a stranger has one.
fn member_node(testnet: &Testnet) -> AsyncDht {
    let mut builder = mainline::Dht::builder();
    builder.bootstrap(&testnet.bootstrap).bind_address(std::net::Ipv4Addr::LOCALHOST).port(0);
    builder.build().unwrap().as_async()
}

fn transport_blinded(identity: &Identity) -> transport::BlindedIdentity {
    identity.blinded("crust dht 1")
}

/// What a service with this identity tells.
fn valid_value(identity: &Identity) -> Vec<u8> {
    let testnet = Testnet::builder(3).build().unwrap();
    let blinded = transport_blinded(identity).public_key();
    let again = Identity::from_pkcs8_pem(&identity.to_pkcs8_pem()).unwrap();
    let server = Service::new_from_config(member(&testnet).identity(again).listen(somewhere())).unwrap();
    published(&server);
    let node = member_node(&testnet);
    block_on(node.get_mutable_most_recent(blinded.as_bytes(), None)).unwrap().value().to_vec()
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    struct Unpark(thread::Thread);
    impl std::task::Wake for Unpark {
        fn wake(self: std::sync::Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = std::task::Waker::from(std::sync::Arc::new(Unpark(thread::current())));
    let mut future = std::pin::pin!(future);
    loop {
        match future.as_mut().poll(&mut std::task::Context::from_waker(&waker)) {
            std::task::Poll::Ready(value) => return value,
            std::task::Poll::Pending => thread::park(),
        }
    }
}

/// A DHT of one node, which says what it is told to say.
struct Liar {
    address: String,
    answer: std::sync::Arc<std::sync::Mutex<Vec<u8>>>,
    key: PublicKey,
}

impl Liar {
    fn start(key: PublicKey) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let address = socket.local_addr().unwrap().to_string();
        let answer: std::sync::Arc<std::sync::Mutex<Vec<u8>>> = std::sync::Arc::default();
        let says = answer.clone();
        // Ends with the process.
        thread::spawn(move || {
            let mut buffer = [0; 2_048];
            while let Ok((length, from)) = socket.recv_from(&mut buffer) {
                let question = &buffer[..length];
                let Some(at) = find(question, b"1:t4:") else { continue };
                let Some(transaction) = question.get(at + 5..at + 9) else { continue };
                let get = find(question, b"1:q3:get").is_some();
                let body = if get { says.lock().unwrap().clone() } else { b"5:nodes0:".to_vec() };
                let id = [b"d1:rd2:id20:", &[6; 20][..]].concat();
                let reply = [&id, &body[..], b"e1:t4:", transaction, b"1:y1:re"].concat();
                let _ = socket.send_to(&reply, from);
            }
        });
        Self { address, answer, key }
    }

    fn member(&self) -> Config {
        entering([self.address.clone()]).listen([])
    }

    fn says(&self, sequence: i64, value: &[u8], signature: [u8; 64]) {
        *self.answer.lock().unwrap() = [
            b"1:k32:",
            &self.key.as_bytes()[..],
            format!("5:nodes0:3:seqi{sequence}e3:sig64:").as_bytes(),
            &signature,
            format!("5:token4:abcd1:v{}:", value.len()).as_bytes(),
            value,
        ]
        .concat();
    }
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|window| window == needle)
}
