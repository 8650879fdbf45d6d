use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::panic;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nat_lab::{Coturn, Igd, Lab, Link, Nat, Process, Site, Topology, Unsolicited, parse_nats};

mod probe;

use probe::Probe;

/// One test: its name, and what it does.
type Case = (&'static str, fn());

const CASES: [Case; 12] = [
    ("every_nat_measures_as_described", every_nat_measures_as_described),
    ("two_hosts_of_a_site_meet_over_hairpins_only_where_there_are", hairpins),
    ("two_customers_of_a_carrier_are_apart", two_customers_of_a_carrier_are_apart),
    ("what_is_blocked_does_not_leave", what_is_blocked_does_not_leave),
    ("a_wire_takes_its_time_and_loses_its_share", a_wire_takes_its_time_and_loses_its_share),
    ("routers_on_a_wire_count_hops_down", routers_on_a_wire_count_hops_down),
    ("who_comes_unasked_is_shut_out_of_that_port", who_comes_unasked_is_shut_out),
    ("hosts_have_ipv6_behind_a_firewall", hosts_have_ipv6_behind_a_firewall),
    ("nothing_is_left_after_a_panic", nothing_is_left_after_a_panic),
    ("what_a_killed_process_left_is_swept_away", what_a_killed_process_left_is_swept_away),
    ("coturn_answers_over_udp_tcp_and_tls", coturn_answers),
    ("miniupnpd_answers_where_it_may", miniupnpd_answers),
];

pub(crate) fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.first().is_some_and(|first| first == KEEP) {
        let lab = Topology::pair("easy", "easy").unwrap().build().unwrap();
        let _daemon = Process::start(lab.node("a1").command("sleep").arg("1000")).unwrap();
        println!("{}", lab.node("a1").namespace());
        std::io::stdin().read_to_end(&mut Vec::new()).unwrap();
        return ExitCode::SUCCESS;
    }
    nat_lab::run_cases("nat-lab", Lab::check(), &CASES)
}

/// Mapping over UDP, filtering, ports, mapping over TCP, and what a stranger's connection meets.
fn every_nat_measures_as_described() {
    let expected = [
        ("open", "ei ei preserved ei accepted"),
        ("fw", "ei apd preserved ei dropped"),
        ("easy", "ei apd preserved ei dropped"),
        ("easyrand", "ei apd changed ei dropped"),
        ("acone", "ei ad preserved ei dropped"),
        ("cone", "ei ei preserved ei accepted"),
        ("hardad", "ad apd changed ad dropped"),
        ("hard", "apd apd changed apd dropped"),
        ("hardseq", "apd apd sequential apd dropped"),
        ("cgnat", "ei apd preserved ei dropped"),
        ("cgnathard", "apd apd changed apd dropped"),
        ("easy,reject", "ei apd preserved ei refused"),
        ("easy,accept", "ei apd preserved ei refused"),
    ];
    // Most of the time is spent waiting for what does not come.
    thread::scope(|scope| {
        for (name, expected) in expected {
            scope.spawn(move || {
                let lab = Topology::new().site(Site::new(parse_nats(name).unwrap())).build().unwrap();
                assert_eq!(Probe::new(&lab, "a1").summary(), expected, "{name}");
            });
        }
    });
}

fn hairpins() {
    for (nats, passes) in [
        ("easy", false),
        ("easy,hairpin", true),
        ("acone,hairpin", true),
        ("cone,hairpin", true),
        ("easyrand,hairpin", true),
    ] {
        let lab = Topology::new().site(Site::new(parse_nats(nats).unwrap())).build().unwrap();
        assert_eq!(probe::punches(&lab, "a1", "a2"), passes, "{nats}");
    }
}

fn two_customers_of_a_carrier_are_apart() {
    for hairpin in [false, true] {
        let carrier = Nat { hairpin, ..Nat::easy() };
        let topology =
            Topology::new().site(Site::new([Nat::easy(), carrier])).site(Site::at_first_carrier(Nat::easy()));
        let lab = topology.build().unwrap();
        assert_eq!(probe::punches(&lab, "a1", "b1"), hairpin);
    }
}

fn what_is_blocked_does_not_leave() {
    let lab = Topology::pair("udpblock", "tcp443").unwrap().build().unwrap();
    let listen = |port: u16| lab.node("server").enter(|| TcpListener::bind((Lab::SERVER[0], port)).unwrap());
    let listeners = [80, 443].map(listen);
    for (host, port, passes) in [("a1", 80, true), ("a1", 443, true), ("b1", 443, true), ("b1", 80, false)] {
        let address = SocketAddr::from((Lab::SERVER[0], port));
        let connected = lab.node(host).enter(|| TcpStream::connect_timeout(&address, PATIENCE).is_ok());
        assert_eq!(connected, passes, "{host} {port}");
    }
    drop(listeners);
    for host in ["a1", "b1"] {
        assert!(!probe::is_echoed(&lab, host), "UDP of {host}");
    }
}

fn a_wire_takes_its_time_and_loses_its_share() {
    let lab = Topology::pair("open", "easy")
        .unwrap()
        .links(Link::delay(Duration::from_millis(20)).loss(0.2))
        .build()
        .unwrap();
    let server = lab.node("server").enter(|| UdpSocket::bind((Lab::SERVER[0], 7)).unwrap());
    let client = lab.node("b1").enter(|| UdpSocket::bind("0.0.0.0:0").unwrap());
    client.connect(server.local_addr().unwrap()).unwrap();
    let mut shortest = Duration::MAX;
    let mut arrived = 0;
    let mut bytes = [0; 16];
    let begun = Instant::now();
    // The first of them finds out the hardware addresses. No more at once than a receive buffer holds.
    for count in [1, 1, 1, 100, 100, 100, 100, 100] {
        for _ in 0..count {
            client.send(&begun.elapsed().as_nanos().to_be_bytes()).unwrap();
        }
        server.set_read_timeout(Some(PATIENCE / 4)).unwrap();
        while server.recv(&mut bytes).is_ok() {
            let sent = Duration::from_nanos(u64::try_from(u128::from_be_bytes(bytes)).unwrap());
            shortest = shortest.min(begun.elapsed().saturating_sub(sent));
            arrived += u32::from(count > 1);
        }
    }
    // 400 are expected, with a deviation of 9.
    assert!((350..450).contains(&arrived), "{arrived} of 500");
    assert!(shortest >= Duration::from_millis(20), "{shortest:?}");
    assert!(shortest < Duration::from_millis(60), "{shortest:?}: a wide margin for busy machines");
}

fn routers_on_a_wire_count_hops_down() {
    let link = Link::delay(Duration::from_millis(1)).hops(4);
    let lab = Topology::pair("open", "easy").unwrap().links(link).ipv6().build().unwrap();
    for (server, client) in [("203.0.113.10:7", "0.0.0.0:0"), ("[2001:db8:5::10]:7", "[::]:0")] {
        let server = lab.node("server").enter(|| UdpSocket::bind(server).unwrap());
        let client = lab.node("b1").enter(|| UdpSocket::bind(client).unwrap());
        client.connect(server.local_addr().unwrap()).unwrap();
        let options = socket2::SockRef::from(&client);
        // Two routers of the laboratory and four on the wire; who arrives has one hop left.
        for (hops, arrives) in [(6, false), (7, true)] {
            match client.local_addr().unwrap() {
                SocketAddr::V4(_) => options.set_ttl_v4(hops).unwrap(),
                SocketAddr::V6(_) => options.set_unicast_hops_v6(hops).unwrap(),
            }
            // What arrives is waited for with patience, and what does not, for less.
            server.set_read_timeout(Some(if arrives { PATIENCE * 10 } else { PATIENCE / 4 })).unwrap();
            client.send(b"count").unwrap();
            assert_eq!(server.recv(&mut [0; 8]).is_ok(), arrives, "{hops} hops to {server:?}");
        }
    }
}

fn who_comes_unasked_is_shut_out() {
    let lab = Topology::pair("easy,blacklist", "easy").unwrap().build().unwrap();
    let stranger = lab.node("server").enter(|| UdpSocket::bind((Lab::SERVER[0], 7)).unwrap());
    let inside = lab.node("a1").enter(|| UdpSocket::bind("0.0.0.0:0").unwrap());
    let others = lab.node("a1").enter(|| UdpSocket::bind("0.0.0.0:0").unwrap());
    let outside = |socket: &UdpSocket| {
        let port = socket.local_addr().unwrap().port();
        SocketAddr::from((lab.node("ra").address(), port))
    };
    stranger.set_read_timeout(Some(PATIENCE * 10)).unwrap();
    stranger.send_to(b"knock", outside(&inside)).unwrap();
    for (socket, passes) in [(&inside, false), (&others, true)] {
        // Asked now, but for one port too late.
        socket.send_to(b"ask", stranger.local_addr().unwrap()).unwrap();
        assert_eq!(stranger.recv_from(&mut [0; 8]).unwrap().1, outside(socket), "it leaves as usual");
        stranger.send_to(b"answer", outside(socket)).unwrap();
        socket.set_read_timeout(Some(if passes { PATIENCE * 10 } else { PATIENCE / 4 })).unwrap();
        assert_eq!(socket.recv(&mut [0; 8]).is_ok(), passes);
    }
}

fn hosts_have_ipv6_behind_a_firewall() {
    let lab = Topology::pair("easy", "open").unwrap().ipv6().build().unwrap();
    let server = lab.node("server").enter(|| UdpSocket::bind((Lab::SERVER_V6, 7)).unwrap());
    server.set_read_timeout(Some(PATIENCE * 10)).unwrap();
    let stranger = lab.node("server").enter(|| UdpSocket::bind((Lab::SERVER_V6, 8)).unwrap());
    for (host, lets_in) in [("a1", false), ("b1", true)] {
        let socket = lab.node(host).enter(|| UdpSocket::bind("[::]:0").unwrap());
        socket.send_to(b"ask", server.local_addr().unwrap()).unwrap();
        let (_, seen) = server.recv_from(&mut [0; 8]).unwrap();
        assert_eq!(seen.port(), socket.local_addr().unwrap().port(), "nothing is translated");
        socket.set_read_timeout(Some(if lets_in { PATIENCE * 10 } else { PATIENCE / 4 })).unwrap();
        stranger.send_to(b"knock", seen).unwrap();
        assert_eq!(socket.recv(&mut [0; 8]).is_ok(), lets_in, "{host} and a stranger");
        socket.set_read_timeout(Some(PATIENCE * 10)).unwrap();
        server.send_to(b"answer", seen).unwrap();
        assert_eq!(socket.recv(&mut [0; 8]).unwrap(), 6, "{host} and whom it asked");
    }
}

fn nothing_is_left_after_a_panic() {
    let namespace = panic::catch_unwind(|| {
        let lab = Topology::pair("easy", "easy").unwrap().build().unwrap();
        // Not ended by its own drop.
        std::mem::forget(Process::start(lab.node("a1").command("sleep").arg("1000")).unwrap());
        panic::resume_unwind(Box::new(lab.node("a1").namespace().to_owned()));
    })
    .unwrap_err();
    let namespace = namespace.downcast::<String>().unwrap();
    assert!(!exists(&namespace));
}

fn what_a_killed_process_left_is_swept_away() {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .arg(KEEP)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(exists(line.trim()), "{line}");
    // The next process that builds a laboratory.
    let mut next = Command::new(std::env::current_exe().unwrap());
    assert!(next.arg("nothing has this name").stdout(Stdio::null()).status().unwrap().success());
    assert!(!exists(line.trim()), "{line}");
}

fn coturn_answers() {
    if let Err(reason) = has("turnserver").and_then(|()| has("openssl")) {
        return println!("NOT RUN: nat-lab with coturn: {reason}");
    }
    let lab = Topology::pair("easy", "easy").unwrap().build().unwrap();
    let coturn = lab.coturn(&[]).unwrap();
    let server = SocketAddr::from((Lab::SERVER[0], Coturn::PORT));
    let mut request = [0; 20];
    request[..8].copy_from_slice(&[0, 1, 0, 0, 0x21, 0x12, 0xA4, 0x42]);
    let mut answer = [0; 512];
    lab.node("a1").enter(|| {
        let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket.send_to(&request, server).unwrap();
        assert!(socket.recv(&mut answer).unwrap() > 20);
        assert_eq!(answer[..2], [1, 1], "a success");
        let mut stream = TcpStream::connect_timeout(&server, PATIENCE).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(&request).unwrap();
        stream.read_exact(&mut answer[..20]).unwrap();
        assert_eq!(answer[..2], [1, 1], "a success");
    });
    for port in [Coturn::TLS_PORT, Coturn::HTTPS_PORT] {
        let mut client = lab.node("a1").command("openssl");
        client.args(["s_client", "-verify_return_error", "-CAfile"]).arg(&coturn.certificate);
        client.arg("-connect").arg(format!("{}:{port}", Lab::SERVER[0])).stdin(Stdio::null());
        let output = client.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
}

fn miniupnpd_answers() {
    for program in ["turnserver", "openssl", "miniupnpd"] {
        if let Err(reason) = has(program) {
            return println!("NOT RUN: nat-lab with miniupnpd: {reason}");
        }
    }
    let home = Nat { unsolicited: Unsolicited::Reject, ..Nat::easy_random() };
    let lab = Topology::new().site(Site::new([home])).site(Site::new([Nat::easy()])).build().unwrap();
    let coturn = lab.coturn(&[]).unwrap();
    let _routers = [("ra", Igd::V1), ("rb", Igd::V2)]
        .map(|(router, igd)| lab.miniupnpd(router, igd, &coturn, &[]).unwrap());
    let stranger = lab.node("server").enter(|| UdpSocket::bind((Lab::SERVER[1], 4_000)).unwrap());
    for (host, router) in [("a1", "ra"), ("b1", "rb")] {
        let gateway = [192, 168, if host == "a1" { 1 } else { 2 }, 1];
        let inside = lab.node(host).enter(|| UdpSocket::bind("0.0.0.0:5555").unwrap());
        inside.set_read_timeout(Some(PATIENCE)).unwrap();
        // NAT-PMP: map UDP 5555 for a minute, the outside port as well.
        let request = [0, 1, 0, 0, 0x15, 0xB3, 0x15, 0xB3, 0, 0, 0, 60];
        let mut answer = [0; 16];
        inside.send_to(&request, (std::net::Ipv4Addr::from(gateway), 5_351)).unwrap();
        assert_eq!(inside.recv(&mut answer).unwrap(), 16, "{host}");
        assert_eq!(answer[..4], [0, 129, 0, 0], "{host}: success");
        let port = u16::from_be_bytes([answer[10], answer[11]]);
        stranger.send_to(b"hello", (lab.node(router).address(), port)).unwrap();
        assert_eq!(inside.recv(&mut answer).unwrap(), 5, "{host}");
    }
}

fn has(program: &str) -> Result<(), String> {
    Command::new(program).arg("-h").output().map(drop).map_err(|error| format!("{program}: {error}"))
}

fn exists(namespace: &str) -> bool {
    Path::new("/run/netns").join(namespace).exists()
}

/// Longer than a packet takes, even on a busy machine.
const PATIENCE: Duration = Duration::from_secs(1);

/// Makes this program a process that holds a laboratory until it is killed.
const KEEP: &str = "--keep";
