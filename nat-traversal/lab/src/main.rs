//! Builds a laboratory and runs a command in one of its hosts.

use std::process::ExitCode;

fn main() -> ExitCode {
    #[cfg(target_os = "linux")]
    return command::main();
    #[cfg(not(target_os = "linux"))]
    {
        eprintln!("nat-lab needs Linux");
        ExitCode::from(2)
    }
}

#[cfg(target_os = "linux")]
mod command {
    use std::error::Error;
    use std::process::ExitCode;
    use std::time::Duration;

    use nat_lab::{Coturn, Igd, Lab, Link, Miniupnpd, Topology};

    pub(super) fn main() -> ExitCode {
        let arguments: Vec<String> = std::env::args().skip(1).collect();
        match Order::read(&arguments) {
            Err(reason) => {
                eprintln!("nat-lab: {reason}\n{USAGE}");
                ExitCode::from(2)
            }
            Ok(order) => order.carry_out().unwrap_or_else(|error| {
                eprintln!("nat-lab: {error}");
                ExitCode::FAILURE
            }),
        }
    }

    /// What the command line asks for.
    struct Order {
        sites: [String; 2],
        link: Link,
        coturn: bool,
        /// Routers with miniupnpd.
        upnp: Vec<String>,
        host: String,
        command: Vec<String>,
    }

    impl Order {
        fn read(arguments: &[String]) -> Result<Self, String> {
            let mut order = Self {
                sites: ["easy".into(), "easy".into()],
                link: Link::default(),
                coturn: false,
                upnp: Vec::new(),
                host: String::new(),
                command: Vec::new(),
            };
            let mut words = arguments.iter();
            while let Some(word) = words.next() {
                let mut value = || words.next().ok_or_else(|| format!("{word} wants a value"));
                match word.as_str() {
                    "--a" => order.sites[0].clone_from(value()?),
                    "--b" => order.sites[1].clone_from(value()?),
                    "--delay-ms" => order.link.delay = Duration::from_millis(number(value()?)?),
                    "--jitter-ms" => order.link.jitter = Duration::from_millis(number(value()?)?),
                    "--loss-percent" => order.link.loss = number::<f64>(value()?)? / 100.0,
                    "--coturn" => order.coturn = true,
                    "--upnp" => order.upnp.push(value()?.clone()),
                    option if option.starts_with('-') => return Err(format!("{option} is not known")),
                    host => {
                        order.host = host.to_owned();
                        order.command = words.by_ref().cloned().collect();
                    }
                }
            }
            if order.command.is_empty() { Err("no command".into()) } else { Ok(order) }
        }

        fn carry_out(&self) -> Result<ExitCode, Box<dyn Error>> {
            let lab = Topology::pair(&self.sites[0], &self.sites[1])?.links(self.link).build()?;
            if !lab.nodes().any(|(name, _)| name == self.host) {
                return Err(format!("there is no host {}", self.host).into());
            }
            // An interrupt is for the command; we go on to clear up.
            ctrlc::set_handler(|| ())?;
            let _services = self.services(&lab)?;
            for (name, node) in lab.nodes() {
                eprintln!("{name:8}{:16}ip netns exec {} …", node.address().to_string(), node.namespace());
            }
            let (program, rest) = self.command.split_first().ok_or("no command")?;
            let status = lab.node(&self.host).command(program).args(rest).status()?;
            Ok(status
                .code()
                .and_then(|code| u8::try_from(code).ok())
                .map_or(ExitCode::FAILURE, ExitCode::from))
        }

        fn services(&self, lab: &Lab) -> Result<(Option<Coturn>, Vec<Miniupnpd>), Box<dyn Error>> {
            if !self.coturn && self.upnp.is_empty() {
                return Ok((None, Vec::new()));
            }
            let coturn = lab.coturn(&[])?;
            let routers = self.upnp.iter().map(|router| lab.miniupnpd(router, Igd::V2, &coturn, &[]));
            let routers = routers.collect::<Result<_, _>>()?;
            Ok((Some(coturn), routers))
        }
    }

    fn number<T: std::str::FromStr>(text: &str) -> Result<T, String> {
        text.parse().map_err(|_| format!("{text:?} is no number"))
    }

    const USAGE: &str = "usage: nat-lab [--a NATS] [--b NATS] [--delay-ms N] [--jitter-ms N] [--loss-percent N]
               [--coturn] [--upnp ROUTER]… HOST COMMAND [ARGUMENT]…
NATS is open, fw, cone, acone, easy, easyrand, cgnat, hardad, hard, hardseq, cgnathard, udpblock or tcp443, with options
as in easy,hairpin and a carrier's behind the home's as in easy,reject+hard. HOST is a1, a2, b1, b2, server, ra, ca, rb or cb.";
}
