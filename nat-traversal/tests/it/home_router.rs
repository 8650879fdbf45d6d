//! A home router on loopback: PCP and NAT-PMP at its port 5351, UPnP's search at 1900 and HTTP, well-behaved or not.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use nat_traversal::protocol::{Datagram, Machine as _, SocketIndex};
use nat_traversal::testing::Router;

/// How its UPnP behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Upnp {
    /// It has none.
    Off,
    /// Internet Gateway Device of this version.
    Works(u8),
    /// Leases that end are refused, as some routers do.
    OnlyPermanent,
    /// Every port but one is refused, since another host has it.
    Occupied,
    /// All is refused.
    Refuses,
    /// It answers with noise instead of a description.
    Garbage,
    /// Its description does not end.
    Huge,
    /// It says that its description is at this port of another host.
    Elsewhere(SocketAddr),
    /// It answers to a request for a port only when allowed to.
    Hesitates,
}

pub(crate) struct HomeRouter {
    pub(crate) address: IpAddr,
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
    wake: Vec<SocketAddr>,
    http: SocketAddr,
}

struct Shared {
    upnp: Upnp,
    router: Mutex<Router>,
    forwarded: Mutex<BTreeMap<(String, u16), (String, u32)>>,
    changed: Condvar,
    may_answer: Mutex<bool>,
    ends: AtomicBool,
}

impl HomeRouter {
    pub(crate) fn start(address: &str, upnp: Upnp, change: impl FnOnce(&mut Router)) -> Self {
        let address: IpAddr = address.parse().unwrap();
        let mut router = Router::new(Instant::now(), EXTERNAL.parse().unwrap());
        change(&mut router);
        let shared = Arc::new(Shared {
            upnp,
            router: Mutex::new(router),
            forwarded: Mutex::default(),
            changed: Condvar::new(),
            may_answer: Mutex::new(upnp != Upnp::Hesitates),
            ends: AtomicBool::new(false),
        });
        let pcp = UdpSocket::bind((address, 5351)).unwrap();
        let ssdp = UdpSocket::bind((address, 1900)).unwrap();
        let http = TcpListener::bind((address, 0)).unwrap();
        let at = http.local_addr().unwrap();
        let wake = vec![pcp.local_addr().unwrap(), ssdp.local_addr().unwrap()];
        let threads = vec![
            shared.thread(move |shared| shared.serve_pcp(&pcp)),
            shared.thread(move |shared| shared.serve_search(&ssdp, at)),
            shared.thread(move |shared| shared.serve_http(&http)),
        ];
        Self { address, shared, threads, wake, http: at }
    }

    /// What is forwarded by UPnP: protocol, outside port, inside address and lease in seconds.
    pub(crate) fn by_upnp(&self) -> Vec<(String, u16, String, u32)> {
        let forwarded = self.shared.forwarded.lock().unwrap();
        forwarded.iter().map(|((p, port), (to, s))| (p.clone(), *port, to.clone(), *s)).collect()
    }

    /// How many ports are forwarded by PCP and NAT-PMP.
    pub(crate) fn by_pcp(&self) -> usize {
        self.shared.router.lock().unwrap().forwardings(Instant::now()).len()
    }

    pub(crate) fn router(&self) -> MutexGuard<'_, Router> {
        self.shared.router.lock().unwrap()
    }

    /// Waits until nothing is forwarded any more.
    pub(crate) fn wait_until_clean(&self) {
        self.wait_until(|upnp, pcp| upnp == 0 && pcp == 0);
    }

    /// Waits until as many ports are forwarded by UPnP and by the others.
    pub(crate) fn wait_until(&self, done: impl Fn(usize, usize) -> bool) {
        let mut forwarded = self.shared.forwarded.lock().unwrap();
        let deadline = Instant::now() + PATIENCE;
        while !done(forwarded.len(), self.by_pcp()) {
            assert!(Instant::now() < deadline, "still forwarded: {forwarded:?} and {}", self.by_pcp());
            forwarded = self.shared.changed.wait_timeout(forwarded, Duration::from_millis(50)).unwrap().0;
        }
    }

    /// Lets one that hesitates answer.
    pub(crate) fn answer(&self) {
        *self.shared.may_answer.lock().unwrap() = true;
        self.shared.changed.notify_all();
    }
}

impl Drop for HomeRouter {
    fn drop(&mut self) {
        self.shared.ends.store(true, Ordering::SeqCst);
        self.answer();
        let knock = UdpSocket::bind("127.0.0.1:0").unwrap();
        for address in &self.wake {
            knock.send_to(b"", address).unwrap();
        }
        drop(TcpStream::connect(self.http));
        for thread in self.threads.drain(..) {
            if thread.join().is_err() && !thread::panicking() {
                panic!("the router panicked");
            }
        }
    }
}

impl Shared {
    fn thread(self: &Arc<Self>, work: impl FnOnce(&Self) + Send + 'static) -> JoinHandle<()> {
        let shared = Arc::clone(self);
        thread::spawn(move || work(&shared))
    }

    fn serve_pcp(&self, socket: &UdpSocket) {
        let mut buffer = [0; 2048];
        while !self.ends.load(Ordering::SeqCst) {
            let Ok((length, source)) = socket.recv_from(&mut buffer) else { continue };
            let mut router = self.router.lock().unwrap();
            let datagram = Datagram { socket: SocketIndex::MAIN, source, bytes: &buffer[..length] };
            router.handle_datagram(Instant::now(), datagram);
            while let Some(answer) = router.poll_transmit() {
                if !answer.destination.ip().is_multicast() {
                    socket.send_to(&answer.bytes, answer.destination).unwrap();
                }
            }
            drop(router);
            self.changed.notify_all();
        }
    }

    fn serve_search(&self, socket: &UdpSocket, http: SocketAddr) {
        let mut buffer = [0; 2048];
        while !self.ends.load(Ordering::SeqCst) {
            let Ok((length, source)) = socket.recv_from(&mut buffer) else { continue };
            if self.upnp == Upnp::Off || !buffer[..length].starts_with(b"M-SEARCH") {
                continue;
            }
            let at = if let Upnp::Elsewhere(victim) = self.upnp { victim } else { http };
            let answer = format!(
                "HTTP/1.1 200 OK\r\nCACHE-CONTROL: max-age=120\r\nST: urn:schemas-upnp-org:device:\
                 InternetGatewayDevice:1\r\nUSN: uuid:1\r\nEXT:\r\nSERVER: test\r\nLOCATION: http://{at}/root.xml\r\n\r\n"
            );
            socket.send_to(answer.as_bytes(), source).unwrap();
        }
    }

    fn serve_http(&self, listener: &TcpListener) {
        while let Ok((mut stream, _)) = listener.accept() {
            if self.ends.load(Ordering::SeqCst) {
                return;
            }
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            // Whoever hangs up in the middle has had enough.
            let _ = self.answer_http(&mut stream);
        }
    }

    fn answer_http(&self, stream: &mut TcpStream) -> std::io::Result<()> {
        let request = read_request(stream)?;
        let body = match () {
            () if request.starts_with("GET /root.xml") => self.description(stream)?,
            () if request.starts_with("GET /scpd.xml") => self.actions(),
            () => match self.act(&request) {
                Ok(body) => body,
                Err(code) => {
                    let body = fault(code);
                    let head = "HTTP/1.1 500 Internal Server Error\r\nContent-Type: text/xml";
                    return write!(stream, "{head}\r\nContent-Length: {}\r\n\r\n{body}", body.len());
                }
            },
        };
        let head = "HTTP/1.1 200 OK\r\nContent-Type: text/xml";
        write!(stream, "{head}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}", body.len())
    }

    fn version(&self) -> u8 {
        if let Upnp::Works(version) = self.upnp { version } else { 1 }
    }

    fn description(&self, stream: &mut TcpStream) -> std::io::Result<String> {
        match self.upnp {
            Upnp::Garbage => return Ok("<root><device>\u{0}<<<&&& noise".repeat(20)),
            Upnp::Huge => {
                write!(stream, "HTTP/1.1 200 OK\r\nContent-Type: text/xml\r\n\r\n<root>")?;
                for _ in 0..(64 << 20) / 4_096 {
                    stream.write_all("<a>aaaaaaaa</a>\n".repeat(256).as_bytes())?;
                }
                return Ok(String::new());
            }
            _ => {}
        }
        Ok(format!(
            "<?xml version=\"1.0\"?><root xmlns=\"urn:schemas-upnp-org:device-1-0\"><device><deviceList><device>\
             <deviceList><device><serviceList><service><serviceType>{}</serviceType><controlURL>/control</controlURL>\
             <SCPDURL>/scpd.xml</SCPDURL></service></serviceList></device></deviceList></device></deviceList></device>\
             </root>",
            self.service()
        ))
    }

    fn service(&self) -> String {
        format!("urn:schemas-upnp-org:service:WANIPConnection:{}", self.version())
    }

    fn actions(&self) -> String {
        let mapping = [
            "NewRemoteHost",
            "NewExternalPort",
            "NewProtocol",
            "NewInternalPort",
            "NewInternalClient",
            "NewEnabled",
            "NewPortMappingDescription",
            "NewLeaseDuration",
        ];
        let mut actions = vec![
            ("GetExternalIPAddress", &[][..]),
            ("AddPortMapping", &mapping[..]),
            ("DeletePortMapping", &mapping[..3]),
        ];
        if self.version() == 2 {
            actions.push(("AddAnyPortMapping", &mapping[..]));
        }
        let action = |(name, arguments): &(&str, &[&str])| {
            let argument =
                |name: &&str| format!("<argument><name>{name}</name><direction>in</direction></argument>");
            let arguments: String = arguments.iter().map(argument).collect();
            format!("<action><name>{name}</name><argumentList>{arguments}</argumentList></action>")
        };
        let actions: String = actions.iter().map(action).collect();
        format!("<?xml version=\"1.0\"?><scpd><actionList>{actions}</actionList></scpd>")
    }

    /// Does what a SOAP request asks for; the error code if not.
    fn act(&self, request: &str) -> Result<String, u16> {
        let value = |name: &str| {
            let (_, rest) = request.split_once(&format!("<{name}>"))?;
            Some(rest.split_once("</")?.0.to_owned())
        };
        let port = || value("NewExternalPort").and_then(|port| port.parse::<u16>().ok()).unwrap_or(0);
        let protocol = value("NewProtocol").unwrap_or_default();
        if request.contains("#GetExternalIPAddress") {
            let answer = format!("<NewExternalIPAddress>{EXTERNAL}</NewExternalIPAddress>");
            return Ok(self.soap("GetExternalIPAddressResponse", &answer));
        }
        let mut forwarded = self.forwarded.lock().unwrap();
        if request.contains("#DeletePortMapping") {
            let removed = forwarded.remove(&(protocol, port()));
            self.changed.notify_all();
            return removed.map(|_| self.soap("DeletePortMappingResponse", "")).ok_or(714);
        }
        drop(forwarded);
        let any = request.contains("#AddAnyPortMapping");
        let lease: u32 = value("NewLeaseDuration").and_then(|lease| lease.parse().ok()).unwrap_or(0);
        match self.upnp {
            Upnp::Refuses => return Err(606),
            Upnp::OnlyPermanent if lease > 0 => return Err(725),
            Upnp::Occupied if !any && value("NewInternalPort") == value("NewExternalPort") => {
                return Err(718);
            }
            _ => {}
        }
        let may_answer = self.may_answer.lock().unwrap();
        drop(self.changed.wait_timeout_while(may_answer, PATIENCE, |may| !*may).unwrap());
        let inside = format!(
            "{}:{}",
            value("NewInternalClient").unwrap_or_default(),
            value("NewInternalPort").unwrap_or_default()
        );
        forwarded = self.forwarded.lock().unwrap();
        forwarded.insert((protocol, port()), (inside, lease));
        self.changed.notify_all();
        if any {
            let reserved = format!("<NewReservedPort>{}</NewReservedPort>", port());
            return Ok(self.soap("AddAnyPortMappingResponse", &reserved));
        }
        Ok(self.soap("AddPortMappingResponse", ""))
    }

    fn soap(&self, name: &str, content: &str) -> String {
        format!(
            "<?xml version=\"1.0\"?><s:Envelope xmlns:s=\"http://schemas.xmlsoap.org/soap/envelope/\"><s:Body>\
             <u:{name} xmlns:u=\"{}\">{content}</u:{name}></s:Body></s:Envelope>",
            self.service()
        )
    }
}

fn fault(code: u16) -> String {
    format!(
        "<?xml version=\"1.0\"?><s:Envelope xmlns:s=\"http://schemas.xmlsoap.org/soap/envelope/\"><s:Body><s:Fault>\
         <faultcode>s:Client</faultcode><faultstring>UPnPError</faultstring><detail><UPnPError \
         xmlns=\"urn:schemas-upnp-org:control-1-0\"><errorCode>{code}</errorCode><errorDescription>no\
         </errorDescription></UPnPError></detail></s:Fault></s:Body></s:Envelope>"
    )
}

fn read_request(stream: &mut TcpStream) -> std::io::Result<String> {
    let mut bytes = Vec::new();
    let mut chunk = [0; 2048];
    loop {
        let text = String::from_utf8_lossy(&bytes);
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head.lines().find_map(|line| {
                let (name, value) = line.split_once(':')?;
                name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>().ok())?
            });
            if body.len() >= length.unwrap_or(0) {
                return Ok(text.into_owned());
            }
        }
        match stream.read(&mut chunk)? {
            0 => return Err(std::io::ErrorKind::UnexpectedEof.into()),
            length => bytes.extend(&chunk[..length]),
        }
    }
}

/// What the router says is its address outside.
pub(crate) const EXTERNAL: &str = "198.51.100.2";

/// Far beyond what loopback takes, on any machine.
const PATIENCE: Duration = Duration::from_secs(30);
