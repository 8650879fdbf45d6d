use std::net::UdpSocket;
use std::thread;
use std::time::{Duration, Instant};

use nat_traversal::protocol::Obstacle;
use nat_traversal::{
    MappedSocketAddr, MappedUdpSocket, MappingConfig, MappingContext, PrivRendezvousInfo, PubRendezvousInfo,
    PunchError, PunchedUdpSocket, gen_rendezvous_info,
};

#[test]
fn two_peers_on_one_host_meet_and_exactly_one_leads() {
    let context = context();
    let [a, b] = [peer(&context), peer(&context)];
    let (info_a, info_b) = (a.public.clone(), b.public.clone());
    let [first, second] = thread::scope(|scope| {
        let second = scope.spawn(|| b.punch(&info_a, &context, PATIENCE));
        [a.punch(&info_b, &context, PATIENCE).unwrap(), second.join().unwrap().unwrap()]
    });
    assert_ne!(first.leads, second.leads);
    assert_eq!(first.peer_addr, second.socket.local_addr().unwrap());
    assert_eq!(second.peer_addr, first.socket.local_addr().unwrap());
    for (from, to) in [(&first, &second), (&second, &first)] {
        from.socket.send_to(b"numbered message", from.peer_addr).unwrap();
        assert_eq!(receive_past_checks(&to.socket), b"numbered message");
    }
}

#[test]
fn a_peer_that_never_comes_is_told_at_the_deadline() {
    let context = context();
    let [a, absent] = [peer(&context), peer(&context)];
    let start = Instant::now();
    let error = a.punch(&absent.public, &context, Duration::from_millis(200)).unwrap_err();
    assert!(matches!(error, PunchError::TimedOut { obstacle: Obstacle::NothingHeard, .. }), "{error:?}");
    assert!(start.elapsed() >= Duration::from_millis(200));
}

#[test]
fn an_interruption_ends_a_punch() {
    let context = context();
    let [a, absent] = [peer(&context), peer(&context)];
    let start = Instant::now();
    thread::scope(|scope| {
        let waiting = scope.spawn(|| a.punch(&absent.public, &context, PATIENCE));
        absent.socket.set_read_timeout(Some(PATIENCE)).unwrap();
        absent.socket.recv_from(&mut [0; 256]).unwrap();
        context.interrupter().interrupt();
        assert!(matches!(waiting.join().unwrap(), Err(PunchError::Interrupted)));
    });
    assert!(start.elapsed() < PATIENCE / 2);
}

#[test]
fn information_of_ones_own_or_with_a_broken_key_is_refused() {
    let context = context();
    let own = peer(&context);
    let public = own.public.clone();
    assert!(matches!(own.punch(&public, &context, PATIENCE), Err(PunchError::Info)));

    // A key of small order would make the secret known to everybody.
    let victim = peer(&context);
    let mut bytes = public.to_bytes();
    bytes[1..33].fill(0);
    let broken = PubRendezvousInfo::from_bytes(&bytes).unwrap();
    assert!(matches!(victim.punch(&broken, &context, PATIENCE), Err(PunchError::Info)));
}

#[test]
fn a_peer_of_another_address_family_is_hopeless_at_once() {
    let context = context();
    let (_, theirs) = gen_rendezvous_info(vec![MappedSocketAddr::host("[2001:db8::1]:1".parse().unwrap())]);
    let error = peer(&context).punch(&theirs, &context, PATIENCE).unwrap_err();
    assert!(matches!(error, PunchError::Hopeless(Obstacle::NoAddress)), "{error:?}");
}

struct Peer {
    socket: UdpSocket,
    secret: PrivRendezvousInfo,
    public: PubRendezvousInfo,
}

impl Peer {
    fn punch(
        self,
        theirs: &PubRendezvousInfo,
        context: &MappingContext,
        patience: Duration,
    ) -> Result<PunchedUdpSocket, PunchError> {
        PunchedUdpSocket::punch_hole(self.socket, self.secret, theirs, context, Instant::now() + patience)
    }
}

fn peer(context: &MappingContext) -> Peer {
    let mapped = MappedUdpSocket::map(UdpSocket::bind("127.0.0.1:0").unwrap(), context).unwrap();
    let (secret, public) = gen_rendezvous_info(mapped.endpoints);
    Peer { socket: mapped.socket, secret, public }
}

fn context() -> MappingContext {
    MappingContext::new(MappingConfig::new()).unwrap()
}

/// The next datagram that does not belong to the punch.
fn receive_past_checks(socket: &UdpSocket) -> Vec<u8> {
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut buffer = [0; 2048];
    loop {
        let (length, _) = socket.recv_from(&mut buffer).unwrap();
        if nat_traversal::protocol::stun::Message::decode(&buffer[..length]).is_err() {
            return buffer[..length].to_vec();
        }
    }
}

/// Far beyond what loopback takes, on any machine.
const PATIENCE: Duration = Duration::from_secs(30);
