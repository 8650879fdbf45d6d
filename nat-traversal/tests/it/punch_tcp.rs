use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use nat_traversal::{
    MappedSocketAddr, MappedTcpSocket, MappingConfig, MappingContext, PrivRendezvousInfo, PubRendezvousInfo,
    PunchError, gen_rendezvous_info, tcp_punch_hole,
};
use socket2::{Domain, Socket, Type};

#[test]
fn two_peers_on_one_host_get_the_two_ends_of_one_stream() {
    let context = context();
    for _ in 0..5 {
        let [a, b] = [peer(&context), peer(&context)];
        assert_ne!(a.secret.leads(&b.public), b.secret.leads(&a.public));
        let (info_a, info_b) = (a.public.clone(), b.public.clone());
        let [first, second] = thread::scope(|scope| {
            let second = scope.spawn(|| b.punch(&info_a, &context, PATIENCE));
            [a.punch(&info_b, &context, PATIENCE).unwrap(), second.join().unwrap().unwrap()]
        });
        assert_eq!(first.peer_addr().unwrap(), second.local_addr().unwrap());
        for (mut from, mut to) in [(&first, &second), (&second, &first)] {
            // The first byte on the stream is the application's.
            from.write_all(b"hello").unwrap();
            let mut buffer = [0; 5];
            to.set_read_timeout(Some(PATIENCE)).unwrap();
            to.read_exact(&mut buffer).unwrap();
            assert_eq!(&buffer, b"hello");
        }
    }
}

#[test]
fn a_peer_that_begins_later_is_met() {
    let context = context();
    let [a, b] = [peer(&context), peer(&context)];
    let (info_a, info_b) = (a.public.clone(), b.public.clone());
    thread::scope(|scope| {
        let first = scope.spawn(|| a.punch(&info_b, &context, PATIENCE));
        // Not before the first has been refused a few times.
        thread::park_timeout(Duration::from_millis(300));
        b.punch(&info_a, &context, PATIENCE).unwrap();
        first.join().unwrap().unwrap();
    });
}

#[test]
fn strangers_on_both_ends_do_not_pass_for_the_peer() {
    let context = context();
    let stranger = TcpListener::bind("127.0.0.1:0").unwrap();
    let (_, theirs) = gen_rendezvous_info(vec![MappedSocketAddr::host(stranger.local_addr().unwrap())]);
    let victim = peer(&context);
    let address = victim.address;
    thread::scope(|scope| {
        let waiting = scope.spawn(|| victim.punch(&theirs, &context, Duration::from_secs(2)));
        // One stranger takes our connection and says what we said; another connects to us and says something.
        let (mut echo, _) = stranger.accept().unwrap();
        let mut nonce = [0; 16];
        echo.read_exact(&mut nonce).unwrap();
        echo.write_all(&nonce).unwrap();
        if let Ok(mut noise) = TcpStream::connect(address) {
            // It may be closed before all of this is written.
            drop(noise.write_all(&[1; 64]));
        }
        assert!(matches!(waiting.join().unwrap(), Err(PunchError::TimedOut { .. })));
    });
}

#[test]
fn an_interruption_ends_a_punch_for_tcp_and_frees_the_port() {
    let context = context();
    // An address that no other test's sockets are given a port of.
    let [a, absent] = [peer_at("127.0.0.78:0", &context), peer(&context)];
    let address = a.address;
    let start = Instant::now();
    thread::scope(|scope| {
        let waiting = scope.spawn(|| a.punch(&absent.public, &context, PATIENCE));
        thread::park_timeout(Duration::from_millis(100));
        context.interrupter().interrupt();
        assert!(matches!(waiting.join().unwrap(), Err(PunchError::Interrupted)));
    });
    assert!(start.elapsed() < PATIENCE / 2);
    TcpListener::bind(address).unwrap();
}

struct Peer {
    socket: Socket,
    address: SocketAddr,
    secret: PrivRendezvousInfo,
    public: PubRendezvousInfo,
}

impl Peer {
    fn punch(
        self,
        theirs: &PubRendezvousInfo,
        context: &MappingContext,
        patience: Duration,
    ) -> Result<TcpStream, PunchError> {
        tcp_punch_hole(self.socket, self.secret, theirs, context, Instant::now() + patience)
    }
}

fn peer(context: &MappingContext) -> Peer {
    peer_at("127.0.0.1:0", context)
}

fn peer_at(address: &str, context: &MappingContext) -> Peer {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.set_reuse_address(true).unwrap();
    #[cfg(unix)]
    socket.set_reuse_port(true).unwrap();
    socket.bind(&address.parse::<SocketAddr>().unwrap().into()).unwrap();
    let mapped = MappedTcpSocket::map(socket, context).unwrap();
    let address = mapped.endpoints[0].addr;
    let (secret, public) = gen_rendezvous_info(mapped.endpoints);
    Peer { socket: mapped.socket, address, secret, public }
}

fn context() -> MappingContext {
    MappingContext::new(MappingConfig::new()).unwrap()
}

/// Far beyond what loopback takes, on any machine.
const PATIENCE: Duration = Duration::from_secs(30);
