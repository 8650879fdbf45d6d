use std::io::{self, BufRead as _, BufReader};
use std::net::{Ipv4Addr, TcpStream, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::time::{Duration, Instant};
use std::{fs, thread};

use crate::lab::{Lab, LabError};
use crate::namespace::run;
use crate::rules::{TABLE, UPNP_FORWARD, UPNP_IN, UPNP_OUT};

/// A program that runs until it is dropped.
#[derive(Debug)]
pub struct Process {
    child: Child,
    lines: Receiver<String>,
    said: String,
}

/// coturn on both addresses of the server; see [`Lab::coturn`].
#[derive(Debug)]
pub struct Coturn {
    /// The program.
    pub process: Process,
    /// The certificate of the TLS listeners, PEM: self-signed, for `server.lab` and both addresses.
    pub certificate: PathBuf,
}

/// miniupnpd on a home router; see [`Lab::miniupnpd`].
#[derive(Debug)]
pub struct Miniupnpd {
    /// The program.
    pub process: Process,
}

/// Which description of itself a router gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Igd {
    /// `InternetGatewayDevice:1`.
    V1,
    /// `InternetGatewayDevice:2`.
    V2,
}

impl Process {
    /// Starts a program, both of whose outputs can be waited for.
    ///
    /// # Errors
    ///
    /// If it cannot be started.
    pub fn start(command: &mut Command) -> io::Result<Self> {
        let (output, writer) = io::pipe()?;
        let outputs = command.stdin(Stdio::null()).stdout(writer.try_clone()?).stderr(writer);
        let child = outputs.spawn()?;
        // The command holds the pipe's other end, and with it the reader below.
        command.stdout(Stdio::null()).stderr(Stdio::null());
        let (tell, lines) = mpsc::channel();
        thread::Builder::new().name("nat-lab-output".into()).spawn(move || {
            for line in BufReader::new(output).split(b'\n').map_while(Result::ok) {
                if tell.send(String::from_utf8_lossy(&line).into_owned()).is_err() {
                    return;
                }
            }
        })?;
        Ok(Self { child, lines, said: String::new() })
    }

    /// Waits until it has said `text`, or at most `patience`.
    ///
    /// # Errors
    ///
    /// With all that it said, if it does not say so in time or ends.
    pub fn wait_for(&mut self, text: &str, patience: Duration) -> Result<(), LabError> {
        let deadline = Instant::now() + patience;
        while !self.said.contains(text) {
            let Ok(line) = self.lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) else {
                return Err(LabError::new(format!("never said {text:?}, but: {}", self.said)));
            };
            self.said += &line;
            self.said.push('\n');
        }
        Ok(())
    }

    /// All that it has said so far.
    pub fn said(&mut self) -> &str {
        while let Ok(line) = self.lines.try_recv() {
            self.said += &line;
            self.said.push('\n');
        }
        &self.said
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

impl Coturn {
    /// Who may relay, with long-term credentials.
    pub const USER: &str = "lab";
    /// The password.
    pub const PASSWORD: &str = "secret of the lab";
    /// The realm.
    pub const REALM: &str = "nat-lab";
    /// STUN (with RFC 5780) and TURN over UDP and TCP.
    pub const PORT: u16 = 3478;
    /// TURN over TLS, and DTLS.
    pub const TLS_PORT: u16 = 5349;
    /// TURN over TLS and TCP at the port that firewalls leave open, on the first address only.
    pub const HTTPS_PORT: u16 = 443;
}

impl Lab {
    /// Starts coturn on the server and waits until it listens. `further` are options of its own.
    ///
    /// # Errors
    ///
    /// If `turnserver` or `openssl` is missing or fails.
    pub fn coturn(&self, further: &[&str]) -> Result<Coturn, LabError> {
        let (certificate, key) = (self.folder().join("coturn.pem"), self.folder().join("coturn.key"));
        make_certificate(&certificate, &key)?;
        let mut command = self.node("server").command("turnserver");
        command.arg("-n"); // no file of the system
        for address in Self::SERVER {
            command.args(["--listening-ip".to_owned(), address.to_string()]);
        }
        command.arg(format!("--aux-server={}:{}", Self::SERVER[0], Coturn::HTTPS_PORT));
        command.arg(format!("--cert={}", certificate.display())).arg(format!("--pkey={}", key.display()));
        command.arg(format!("--user={}:{}", Coturn::USER, Coturn::PASSWORD));
        command.args([
            "--lt-cred-mech",
            "--realm",
            Coturn::REALM,
            "--no-cli",
            "--log-file=stdout",
            "--simple-log",
        ]);
        command.arg(format!("--userdb={}", self.folder().join("coturn.db").display()));
        command.arg(format!("--pidfile={}", self.folder().join("coturn.pid").display()));
        command.args(further);
        let mut process = Process::start(&mut command)?;
        let deadline = Instant::now() + PATIENCE;
        while !self.node("server").enter(coturn_answers) {
            if Instant::now() >= deadline {
                return Err(LabError::new(format!("coturn does not answer: {}", process.said())));
            }
        }
        Ok(Coturn { process, certificate })
    }

    /// Starts miniupnpd on a home router (`ra`), with UPnP, NAT-PMP and PCP, and waits until it serves; that takes 3 to 12
    /// seconds, in which it asks `_coturn` whether its outside address works, because it would refuse the reserved one that a
    /// laboratory has. Behind a carrier's NAT it refuses, as real ones do. `further` are lines of its configuration.
    ///
    /// # Errors
    ///
    /// If it is missing or does not serve.
    pub fn miniupnpd(
        &self,
        router: &str,
        igd: Igd,
        _coturn: &Coturn,
        further: &[&str],
    ) -> Result<Miniupnpd, LabError> {
        let path = |name: &str| self.folder().join(format!("{router}-{name}")).display().to_string();
        let mut lines: Vec<String> = [
            "ext_ifname=wan",
            "enable_natpmp=yes",
            "enable_upnp=yes",
            // By its name, for with an address it would leave IPv6 alone.
            "listening_ip=lan",
            "http_port=5000",
            "secure_mode=yes",
            "min_lifetime=2",
            "max_lifetime=86400",
            "notify_interval=60",
            "ext_perform_stun=yes",
            "uuid=2f2b0a34-6f0d-4b4b-9f3b-6d9f5a3c1e70",
        ]
        .map(str::to_owned)
        .to_vec();
        lines.push(format!("ext_stun_host={}\next_stun_port={}", Self::SERVER[0], Coturn::PORT));
        lines.push(format!("upnp_table_name={TABLE}\nupnp_nat_table_name={TABLE}"));
        lines.push(format!("upnp_forward_chain={UPNP_FORWARD}\nupnp_nat_chain={UPNP_IN}"));
        lines.push(format!("upnp_nat_postrouting_chain={UPNP_OUT}"));
        lines.push(format!("force_igd_desc_v1={}", if igd == Igd::V1 { "yes" } else { "no" }));
        lines.push(format!("lease_file={}", path("leases")));
        lines.extend(further.iter().map(|line| (*line).to_owned()));
        lines.push("allow 1024-65535 0.0.0.0/0 1024-65535\ndeny 0-65535 0.0.0.0/0 0-65535\n".into());
        fs::write(path("miniupnpd.conf"), lines.join("\n"))?;
        let mut command = self.node(router).command("miniupnpd");
        command.args(["-d", "-f", &path("miniupnpd.conf"), "-P", &path("miniupnpd.pid")]);
        let mut process = Process::start(&mut command)?;
        process.wait_for("Listening for NAT-PMP/PCP", PATIENCE)?;
        Ok(Miniupnpd { process })
    }
}

/// Whether all its ports are open; takes some milliseconds if they are not.
fn coturn_answers() -> bool {
    let ports = [Coturn::PORT, Coturn::TLS_PORT];
    let mut tcp = Lab::SERVER.into_iter().flat_map(|address| ports.map(|port| (address, port)));
    let request = [0, 1, 0, 0, 0x21, 0x12, 0xA4, 0x42, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let udp = |address: Ipv4Addr| {
        let socket = UdpSocket::bind((address, 0))?;
        socket.set_read_timeout(Some(Duration::from_millis(20)))?;
        socket.send_to(&request, (address, Coturn::PORT))?;
        socket.recv(&mut [0; 512])
    };
    Lab::SERVER.into_iter().all(|address| udp(address).is_ok())
        && tcp.all(|address| TcpStream::connect(address).is_ok())
        && TcpStream::connect((Lab::SERVER[0], Coturn::HTTPS_PORT)).is_ok()
}

fn make_certificate(certificate: &Path, key: &Path) -> Result<(), LabError> {
    if certificate.exists() {
        return Ok(());
    }
    let [first, second] = Lab::SERVER;
    let names = format!("subjectAltName=DNS:server.lab,IP:{first},IP:{second}");
    let mut command = Command::new("openssl");
    command.args(
        "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 30 -subj /CN=server.lab"
            .split(' '),
    );
    // One that calls itself an authority is no server's to rustls.
    command.args(["-addext", &names, "-addext", "basicConstraints=critical,CA:FALSE"]);
    run(command.arg("-keyout").arg(key).arg("-out").arg(certificate), "").map(drop)
}

/// Both are ready within seconds; miniupnpd asks a STUN server first.
const PATIENCE: Duration = Duration::from_secs(40);
