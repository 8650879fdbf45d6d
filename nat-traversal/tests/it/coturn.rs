//! A coturn of our own on loopback, for as long as a test holds it.

use std::io::Write as _;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nat_traversal::{MappedUdpSocket, MappingConfig, MappingContext, TurnServer};

pub(crate) struct Coturn {
    child: Child,
    folder: tempfile::TempDir,
    port: u16,
    tls_port: u16,
}

impl Coturn {
    /// Starts a server for the user alice with the password secret; `None`, and says why, if there is no coturn here.
    pub(crate) fn start(options: &[&str]) -> Option<Self> {
        let Some(program) =
            ["/usr/bin/turnserver", "/usr/local/bin/turnserver"].iter().find(|at| Path::new(at).exists())
        else {
            // Past the harness, which swallows what a passing test prints.
            let line = b"NOT RUN: relays against coturn: turnserver is not installed\n";
            std::io::stdout().write_all(line).unwrap();
            return None;
        };
        let folder = tempfile::tempdir().unwrap();
        let [port, tls_port] = free_ports();
        let child = Command::new(program)
            .args(["-n", "--no-cli", "--no-dtls", "--lt-cred-mech", "--allow-loopback-peers", "--simple-log"])
            .args([
                "--listening-ip=127.0.0.1",
                "--listening-ip=127.0.0.2",
                "--relay-ip=127.0.0.1",
                "--realm=test",
            ])
            .args(["--user=alice:secret", "-m", "1"])
            .arg(format!("--listening-port={port}"))
            .arg(format!("--tls-listening-port={tls_port}"))
            .arg(format!("--pidfile={}", folder.path().join("pid").display()))
            .arg(format!("--userdb={}", folder.path().join("db").display()))
            .arg(format!("--log-file={}", folder.path().join("log").display()))
            .arg(format!("--cert={}", certificate("server.pem").display()))
            .arg(format!("--pkey={}", certificate("server-key.pem").display()))
            .args(options)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let coturn = Self { child, folder, port, tls_port };
        coturn.wait_until_it_answers();
        Some(coturn)
    }

    /// `turn:` or `turns:` at 127.0.0.1 with the right credentials.
    pub(crate) fn server(&self, scheme: &str, parameters: &str) -> TurnServer {
        self.at("127.0.0.1", scheme, parameters).with_credentials("alice", "secret")
    }

    pub(crate) fn at(&self, host: &str, scheme: &str, parameters: &str) -> TurnServer {
        let port = if scheme == "turns" { self.tls_port } else { self.port };
        format!("{scheme}:{host}:{port}{parameters}").parse().unwrap()
    }

    pub(crate) const fn port(&self) -> u16 {
        self.port
    }

    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    fn wait_until_it_answers(&self) {
        let server = SocketAddr::from(([127, 0, 0, 1], self.port));
        let config = MappingConfig::new().server(server).map_timeout(Duration::from_secs(1));
        let context = MappingContext::new(config).unwrap();
        let deadline = Instant::now() + Duration::from_secs(30);
        while Instant::now() < deadline {
            let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
            if MappedUdpSocket::map(socket, &context).unwrap().failures.is_empty() {
                return;
            }
        }
        let log = std::fs::read_dir(self.folder.path()).unwrap().filter_map(Result::ok);
        let log: Vec<String> = log.filter_map(|file| std::fs::read_to_string(file.path()).ok()).collect();
        panic!("coturn did not start:\n{}", log.join("\n"));
    }
}

impl Drop for Coturn {
    fn drop(&mut self) {
        self.child.kill().and_then(|()| self.child.wait().map(drop)).unwrap_or_default();
    }
}

/// A certificate for relay.test, localhost and 127.0.0.1, its key and its authority, good until 2126. The authority's key
/// is thrown away.
pub(crate) fn certificate(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/certificates").join(name)
}

/// Two ports that are free for UDP and TCP, with which coturn also takes the next ones.
fn free_ports() -> [u16; 2] {
    let mut held = Vec::new();
    let mut ports = Vec::new();
    while ports.len() < 2 {
        let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
        let port = udp.local_addr().unwrap().port();
        if let Ok(tcp) = TcpListener::bind(("127.0.0.1", port)) {
            ports.push(port);
            held.push((udp, tcp));
        }
    }
    [ports[0], ports[1]]
}
