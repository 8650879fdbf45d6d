use std::{path::PathBuf, time::Duration};

use clap::{Args, Parser, Subcommand};
use crust::{
    Cidr, Contact, ListenEndpoint, NamedEndpoint, PublicKey, Road, Scheme, TurnServer, parse_duration,
};

/// Pipes, files and ports between two peers, encrypted end to end and known by their keys.
#[derive(Debug, Parser)]
#[command(name = "crust", version, max_term_width = 100, after_help = EXAMPLE)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    pub(crate) command: Command,
    #[command(flatten)]
    pub(crate) common: Common,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Prints this peer's public key
    #[command(after_help = "Example:\n  crust id")]
    Id,
    /// Prints a contact and waits: the peer's bytes go to stdout, stdin goes to the peer
    #[command(after_help = "Example:\n  crust listen --once > backup.tar < /dev/null")]
    Listen {
        /// End after the first stream
        #[arg(long)]
        once: bool,
    },
    /// Introduces peers to each other: for a host that others can reach
    #[command(
        after_help = "Example:\n  crust serve --listen quic://0.0.0.0:4433 --listen tcp://0.0.0.0:4433"
    )]
    Serve {
        /// The port at which it tells others their addresses (STUN); 0: the next to that of its first listener
        #[arg(long, value_name = "PORT", default_value_t = 0)]
        stun_port: u16,
        #[command(flatten)]
        relay: RelayArguments,
    },
    /// A pipe to a peer that listens
    #[command(after_help = "Example:\n  tar c photos | crust connect crust1aeq…")]
    Connect {
        /// A contact, an endpoint such as quic://192.0.2.1:4433?pubkey=…, or a key that this network or an introducer knows
        #[arg(value_parser = parse_peer)]
        peer: Contact,
    },
    /// Prints a contact and hands files and folders to who receives with it
    #[command(after_help = "Example:\n  crust send photos notes.txt")]
    Send {
        /// Files and folders
        #[arg(required = true, value_name = "PATH")]
        paths: Vec<PathBuf>,
        /// Go on for further receivers until interrupted
        #[arg(long)]
        keep: bool,
    },
    /// Fetches what a peer sends; goes on where an earlier attempt stopped
    #[command(after_help = "Example:\n  crust receive crust1aeq… -o downloads")]
    Receive {
        /// The contact that `crust send` printed
        #[arg(value_parser = parse_peer)]
        peer: Contact,
        /// The folder to put it into
        #[arg(short, long, value_name = "DIR", default_value = ".")]
        output: PathBuf,
        /// Replace files that are there already and differ
        #[arg(long)]
        overwrite: bool,
    },
    /// Carries a TCP port through streams: to a service here, or from a port here
    #[command(
        override_usage = "crust forward [OPTIONS] --to <HOST:PORT>\n       crust forward [OPTIONS] <LOCAL> <PEER>",
        after_help = "Example, where the service is, then where it is wanted:\n  \
            crust forward --to 127.0.0.1:5432\n  crust forward 127.0.0.1:15432 crust1aeq…"
    )]
    Forward(ForwardArguments),
    /// Prints who is announced on the local network
    #[command(after_help = "Example, one machine then another:\n  crust listen\n  crust discover")]
    Discover {
        /// How long to listen
        #[arg(long = "for", value_name = "TIME", default_value = "3s", value_parser = parse_duration)]
        time: Duration,
    },
    /// Tells what is between this host and the internet, and which peers can be reached how
    #[command(after_help = "Example:\n  crust doctor --stun stun.example.org:3478 --peer crust1aeq…")]
    Doctor {
        /// Try to reach this peer as well
        #[arg(long, value_parser = parse_peer)]
        peer: Option<Contact>,
        /// Measure as well how long a silent port stays open, up to this long, which it takes
        #[arg(
            long,
            value_name = "TIME",
            num_args = 0..=1,
            default_missing_value = "120s",
            value_parser = parse_duration
        )]
        lifetime: Option<Duration>,
    },
    /// Measures connect time, round trips and throughput to a peer
    #[command(
        override_usage = "crust perf [OPTIONS] --serve\n       crust perf [OPTIONS] <PEER>",
        after_help = "Example, one side then the other:\n  crust perf --serve\n  crust perf crust1aeq… --only quic --json"
    )]
    Perf(PerfArguments),
    /// Prints the effective configuration, commented
    #[command(after_help = "Example:\n  crust config > ~/.config/crust/config.toml")]
    Config,
    /// Two peers on this machine find, connect, exchange and verify a file, over TCP, then QUIC
    #[command(after_help = "Example:\n  crust demo")]
    Demo,
}

#[derive(Debug, Args)]
pub(crate) struct RelayArguments {
    /// Relay for attached peers that nothing direct leads to (TURN)
    #[arg(long)]
    pub(crate) relay: bool,
    /// The port at which to; 0 lets the system choose
    #[arg(long, value_name = "PORT", requires = "relay")]
    pub(crate) relay_port: Option<u16>,
    /// The public address of this host, if it listens at every address
    #[arg(long, value_name = "ADDRESS", requires = "relay")]
    pub(crate) relay_address: Option<std::net::IpAddr>,
    /// A network that may be reached by the relay although it is not public; repeatable
    #[arg(long, value_name = "CIDR", requires = "relay")]
    pub(crate) relay_allow: Vec<Cidr>,
}

#[derive(Debug, Args)]
pub(crate) struct ForwardArguments {
    /// Carry streams from peers to this service
    #[arg(long, value_name = "HOST:PORT", conflicts_with_all = ["local", "peer"])]
    pub(crate) to: Option<String>,
    /// The address to listen on for TCP connections, such as 127.0.0.1:8080
    #[arg(value_name = "LOCAL", required_unless_present = "to")]
    pub(crate) local: Option<String>,
    /// The contact that `crust forward --to` printed
    #[arg(value_parser = parse_peer, required_unless_present = "to")]
    pub(crate) peer: Option<Contact>,
}

#[derive(Debug, Args)]
pub(crate) struct PerfArguments {
    /// Be the other side of such measurements
    #[arg(long, conflicts_with = "peer")]
    pub(crate) serve: bool,
    /// The contact that `crust perf --serve` printed
    #[arg(value_parser = parse_peer, required_unless_present = "serve")]
    pub(crate) peer: Option<Contact>,
}

/// What every command takes.
#[derive(Debug, Args)]
pub(crate) struct Common {
    /// Print one JSON object a line for each event
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// This peer's secret key; dialling commands use a fresh one unless it is given
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) key: Option<PathBuf>,
    /// Read this configuration instead of the user's own
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Where to listen, such as quic://0.0.0.0:0; repeatable
    #[arg(long, global = true, value_name = "ENDPOINT")]
    pub(crate) listen: Vec<ListenEndpoint>,
    /// The schemes to use, the preferred one first: quic,tcp
    #[arg(long, global = true, value_delimiter = ',', value_name = "SCHEMES")]
    pub(crate) only: Vec<Scheme>,
    /// The roads to take: lan,direct,punched,relayed
    #[arg(long, global = true, value_delimiter = ',', value_name = "ROADS")]
    pub(crate) roads: Vec<Road>,
    /// Admit this key only, or `any` for everybody; repeatable
    #[arg(long, global = true, value_name = "KEY|any")]
    pub(crate) allow: Vec<Allow>,
    /// Who introduces peers to each other, such as quic://192.0.2.1:4433?pubkey=…; repeatable
    #[arg(long, global = true, value_name = "ENDPOINT")]
    pub(crate) introducer: Vec<NamedEndpoint>,
    /// Who tells us our outside addresses, besides the introducers; repeatable
    #[arg(long, global = true, value_name = "HOST:PORT")]
    pub(crate) stun: Vec<String>,
    /// Ask no router to forward a port
    #[arg(long, global = true)]
    pub(crate) no_port_map: bool,
    /// A relay for peers that nothing direct leads to, such as turn:HOST or turns:HOST; repeatable
    #[arg(long, global = true, value_name = "URL")]
    pub(crate) turn: Vec<TurnServer>,
    /// Who we are to the relays
    #[arg(long, global = true, value_name = "USER", requires = "turn_password_file")]
    pub(crate) turn_user: Option<String>,
    /// The file with the password of --turn-user
    #[arg(long, global = true, value_name = "FILE", requires = "turn_user")]
    pub(crate) turn_password_file: Option<PathBuf>,
    /// Neither be announced on the local network nor look for others there
    #[arg(long, global = true)]
    pub(crate) no_lan: bool,
    /// Be found and find others by a key alone, in the Mainline DHT, which then learns this host's address
    #[cfg(feature = "dht")]
    #[arg(long, global = true)]
    pub(crate) dht: bool,
    /// Enter the DHT by this node instead of the well-known ones; repeatable
    #[cfg(feature = "dht")]
    #[arg(long, global = true, value_name = "HOST:PORT", requires = "dht")]
    pub(crate) dht_bootstrap: Vec<String>,
    /// How long connecting may take, such as 10s
    #[arg(long, global = true, value_name = "TIME", value_parser = parse_duration)]
    pub(crate) deadline: Option<Duration>,
    /// Log decisions to stderr; twice: packets as well
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub(crate) verbose: u8,
}

/// Who may connect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Allow {
    Any,
    Key(PublicKey),
}

impl std::str::FromStr for Allow {
    type Err = crust::ParsePublicKeyError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == "any" { Ok(Self::Any) } else { text.parse().map(Self::Key) }
    }
}

/// A contact, an endpoint, or a bare key, which is looked for on the local network and by the introducers.
fn parse_peer(text: &str) -> Result<Contact, String> {
    let text = text.trim();
    if text.contains("://") {
        return text.parse::<NamedEndpoint>().map(Contact::from).map_err(|error| crust::error_chain(&error));
    }
    if let Ok(key) = text.parse::<PublicKey>() {
        return Ok(key.into());
    }
    text.parse::<Contact>().map_err(|error| crust::error_chain(&error))
}

const EXAMPLE: &str = "Example, one side then the other:\n  crust send photos\n  crust receive crust1aeq…";

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn each_command_has_an_example_in_its_help() {
        let mut command = Arguments::command();
        assert!(command.render_long_help().to_string().contains("Example"));
        for sub in command.get_subcommands_mut().filter(|sub| sub.get_name() != "help") {
            let help = sub.render_long_help().to_string();
            assert!(help.contains("Example") && help.contains("crust "), "{help}");
        }
    }

    #[test]
    fn a_peer_is_a_key_an_endpoint_or_a_contact() {
        let key = crust::Identity::from_seed([1; 32]).public_key();
        assert_eq!(parse_peer(&key.to_string()), Ok(Contact::new(key)));
        assert!(parse_peer(&format!("tcp://localhost:5?pubkey={key}")).is_ok());
        assert!(parse_peer("nonsense").unwrap_err().contains("crust1"));
    }
}
