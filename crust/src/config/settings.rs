//! The one table of settings: reading a file, printing one, and finding the nearest name all go over it.

#[cfg(feature = "dht")]
mod dht;
mod limits;
#[cfg(feature = "turn")]
mod relay;
mod values;

use std::{ops::Range, path::PathBuf};

use toml::de::{DeTable, DeValue};
use transport::{ListenEndpoint, NetworkName};

use crate::{Lan, Road};

use super::{Config, ConfigError, nearest::nearest, text::duration_text};
use values::{boolean, duration, integer, list, printed_list, quoted, string};

/// One setting: its name, what it means, how it is read and printed.
struct Setting {
    /// `limits.` before it: it stands in that table.
    name: &'static str,
    meaning: &'static str,
    read: fn(&mut Config, &DeValue<'_>) -> Result<(), String>,
    /// `None`: not set, and there is no value that says so.
    write: fn(&Config) -> Option<String>,
}

pub(super) fn read(text: &str, origin: &str) -> Result<Config, ConfigError> {
    let line_of =
        |span: Range<usize>| 1 + text.bytes().take(span.start).filter(|&byte| byte == b'\n').count();
    let table = DeTable::parse(text).map_err(|error| ConfigError::Syntax {
        origin: origin.to_owned(),
        line: line_of(error.span().unwrap_or_default()),
        message: error.message().to_owned(),
    })?;
    let mut config = Config::default();
    for (name, span, value) in flatten(table.get_ref()) {
        let Some(setting) = settings().find(|setting| setting.name == name) else {
            let nearest = nearest(&name, settings().map(|setting| setting.name));
            return Err(ConfigError::Unknown {
                origin: origin.to_owned(),
                line: line_of(span),
                name,
                nearest,
            });
        };
        (setting.read)(&mut config, value).map_err(|reason| ConfigError::Value {
            origin: origin.to_owned(),
            line: line_of(span),
            name: setting.name,
            reason,
        })?;
    }
    Ok(config)
}

/// The settings with their full names; a table is not one itself, unless it is empty and so named by itself.
fn flatten<'a>(table: &'a DeTable<'a>) -> Vec<(String, Range<usize>, &'a DeValue<'a>)> {
    let mut found = Vec::new();
    for (key, value) in table {
        match value.get_ref() {
            DeValue::Table(inner) if is_table(key.get_ref()) => {
                found.extend(inner.iter().map(|(name, value)| {
                    (format!("{}.{}", key.get_ref(), name.get_ref()), name.span(), value.get_ref())
                }))
            }
            other => found.push((key.get_ref().to_string(), key.span(), other)),
        }
    }
    found
}

fn is_table(name: &str) -> bool {
    settings().any(|setting| setting.name.split_once('.').is_some_and(|(table, _)| table == name))
}

/// The settings in which two configurations differ.
pub(super) fn differences(one: &Config, other: &Config) -> Vec<&'static str> {
    let differs = |setting: &&Setting| {
        (setting.write)(one) != (setting.write)(other) || differs_unseen(setting.name, one, other)
    };
    settings().filter(differs).map(|setting| setting.name).collect()
}

/// The same for what is not printed.
#[cfg_attr(not(feature = "turn"), expect(unused_variables, reason = "only relays have what is not printed"))]
fn differs_unseen(name: &str, one: &Config, other: &Config) -> bool {
    match name {
        #[cfg(feature = "turn")]
        "turn" => one.relays != other.relays,
        _ => false,
    }
}

pub(super) fn write(config: &Config) -> String {
    let mut text = String::new();
    let mut current = "";
    for setting in settings() {
        let (table, name) = setting.name.split_once('.').unwrap_or(("", setting.name));
        if !text.is_empty() {
            text.push('\n');
        }
        if table != current {
            text.push_str(&format!("[{table}]\n"));
            current = table;
        }
        for line in setting.meaning.lines() {
            text.push_str(&format!("# {}\n", line.trim_start()));
        }
        match (setting.write)(config) {
            Some(value) => text.push_str(&format!("{name} = {value}\n")),
            None => text.push_str(&format!("# {name} =\n")),
        }
    }
    text
}

fn settings() -> impl Iterator<Item = &'static Setting> {
    let all = SETTINGS.iter();
    #[cfg(feature = "turn")]
    let all = all.chain(relay::RELAY);
    #[cfg(feature = "dht")]
    let all = all.chain(dht::DHT);
    all.chain(limits::LIMITS)
}

const ROADS: &str = "\"lan\", \"direct\", \"punched\" or \"relayed\"";

const SETTINGS: &[Setting] = &[
    Setting {
        name: "key",
        meaning: "The file with this peer's secret key, made on first use.",
        read: |config, value| {
            config.key = Some(PathBuf::from(string(value)?));
            Ok(())
        },
        write: |config| config.key.as_ref().map(|path| quoted(&path.display().to_string())),
    },
    Setting {
        name: "listen",
        meaning: "Where to listen; port 0 lets the system choose. An empty list listens nowhere.",
        read: |config, value| {
            config.listen = list(value, |text| {
                text.parse::<ListenEndpoint>().map_err(|_| "such as \"quic://0.0.0.0:0\"".to_owned())
            })?;
            Ok(())
        },
        write: |config| Some(printed_list(config.listen.iter())),
    },
    Setting {
        name: "only",
        meaning: "The schemes to use, the preferred one first: \"quic\", \"tcp\".",
        read: |config, value| {
            config.schemes = list(value, |text| text.parse().map_err(|_| "\"quic\" or \"tcp\"".to_owned()))?;
            if config.schemes.is_empty() {
                return Err("must name \"quic\", \"tcp\" or both".to_owned());
            }
            Ok(())
        },
        write: |config| Some(printed_list(config.schemes.iter())),
    },
    Setting {
        name: "allow",
        meaning: "Who may connect: \"any\", or a list of public keys.",
        read: |config, value| {
            config.allow = match value {
                DeValue::String(text) if text == "any" => None,
                DeValue::String(_) => return Err("must be \"any\" or a list of public keys".to_owned()),
                _ => Some(list(value, |text| text.parse().map_err(|_| "a public key".to_owned()))?),
            };
            Ok(())
        },
        write: |config| {
            Some(config.allow.as_ref().map_or_else(|| quoted("any"), |keys| printed_list(keys.iter())))
        },
    },
    Setting {
        name: "lan",
        meaning: "Finding each other on the local network: \"on\", \"loopback\" (this machine only) or \"off\".",
        read: |config, value| {
            config.lan = match string(value)? {
                "on" => Lan::On,
                "loopback" => Lan::Loopback,
                "off" => Lan::Off,
                _ => return Err("must be \"on\", \"loopback\" or \"off\"".to_owned()),
            };
            Ok(())
        },
        write: |config| {
            Some(quoted(match config.lan {
                Lan::On => "on",
                Lan::Loopback => "loopback",
                Lan::Off => "off",
            }))
        },
    },
    Setting {
        name: "lan_port",
        meaning: "The UDP port on which that is done, the same for all; 0 lets the system choose.",
        read: |config, value| {
            config.lan_port =
                u16::try_from(integer(value, 0, 65_535)?).expect("within the bounds just checked");
            Ok(())
        },
        write: |config| Some(config.lan_port.to_string()),
    },
    Setting {
        name: "block",
        meaning: "Keys that may not connect, also if they are allowed.",
        read: |config, value| {
            config.blocked = list(value, |text| text.parse().map_err(|_| "a public key".to_owned()))?;
            Ok(())
        },
        write: |config| Some(printed_list(config.blocked.iter())),
    },
    Setting {
        name: "network_name",
        meaning: "The network that this peer belongs to; peers of another one are refused.",
        read: |config, value| {
            config.network = NetworkName::new(string(value)?).map_err(|error| error.to_string())?;
            Ok(())
        },
        write: |config| Some(quoted(config.network.as_str())),
    },
    Setting {
        name: "roads",
        meaning: "The roads by which peers may be reached: \"lan\", \"direct\", \"punched\", \"relayed\".",
        read: |config, value| {
            let roads: Vec<Road> = list(value, |text| text.parse().map_err(|_| ROADS.to_owned()))?;
            config.roads = roads.into_iter().collect();
            Ok(())
        },
        write: |config| Some(printed_list(config.roads.iter())),
    },
    Setting {
        name: "introducers",
        meaning: "Who introduces others to this peer: endpoints such as \"quic://192.0.2.1:4433?pubkey=…\".",
        read: |config, value| {
            config.introducers =
                list(value, |text| text.parse().map_err(|_| "an endpoint with its key".to_owned()))?;
            Ok(())
        },
        write: |config| Some(printed_list(config.introducers.iter())),
    },
    Setting {
        name: "attach",
        meaning: "Whether to stay in touch with the introducers, so that others find this peer there.",
        read: |config, value| boolean(value).map(|attach| config.attach = attach),
        write: |config| Some(config.attach.to_string()),
    },
    Setting {
        name: "introduce",
        meaning: "Whether to introduce others to each other; for a peer that can be reached without help.",
        read: |config, value| boolean(value).map(|introduces| config.introduces = introduces),
        write: |config| Some(config.introduces.to_string()),
    },
    Setting {
        name: "stun_port",
        meaning: "Where an introducer answers STUN; 0: the ports after that of its first listener.",
        read: |config, value| {
            config.stun_port =
                u16::try_from(integer(value, 0, 65_535)?).expect("within the bounds just checked");
            Ok(())
        },
        write: |config| Some(config.stun_port.to_string()),
    },
    Setting {
        name: "stun",
        meaning: "STUN servers besides the introducers, such as \"192.0.2.1:3478\".",
        read: |config, value| {
            config.stun = list(value, |text| {
                text.parse().map_err(|_| "an address such as \"192.0.2.1:3478\"".to_owned())
            })?;
            Ok(())
        },
        write: |config| Some(printed_list(config.stun.iter())),
    },
    Setting {
        name: "port_map",
        meaning: "Whether routers are asked to forward our ports, by PCP, NAT-PMP or UPnP.",
        read: |config, value| boolean(value).map(|port_map| config.port_map = port_map),
        write: |config| Some(config.port_map.to_string()),
    },
    Setting {
        name: "router",
        meaning: "The router to ask for that, where the system does not tell its own: \"192.168.1.1\".",
        read: |config, value| {
            let router = string(value)?.parse().map_err(|_| "must be an address such as \"192.168.1.1\"")?;
            config.router = Some(router);
            Ok(())
        },
        write: |config| config.router.map(|router| quoted(&router.to_string())),
    },
    Setting {
        name: "lan_secret",
        meaning: "A file with at least 16 random bytes; only services with the same find each other.",
        read: |config, value| {
            config.lan_secret_file = Some(PathBuf::from(string(value)?));
            Ok(())
        },
        write: |config| config.lan_secret_file.as_ref().map(|path| quoted(&path.display().to_string())),
    },
    #[cfg(feature = "mdns")]
    Setting {
        name: "mdns",
        meaning: "Whether to be announced by multicast DNS as well, and to hear who is.",
        read: |config, value| boolean(value).map(|on| config.mdns = on),
        write: |config| Some(config.mdns.to_string()),
    },
    Setting {
        name: "cache",
        meaning: "The file in which to remember where peers were reached.",
        read: |config, value| {
            config.cache = Some(PathBuf::from(string(value)?));
            Ok(())
        },
        write: |config| config.cache.as_ref().map(|path| quoted(&path.display().to_string())),
    },
    Setting {
        name: "reload",
        meaning: "Whether changes of this file are taken over while the service runs.",
        read: |config, value| boolean(value).map(|reload| config.reload = reload),
        write: |config| Some(config.reload.to_string()),
    },
    Setting {
        name: "deadline",
        meaning: "How long a connect may take, name look-up and all.",
        read: |config, value| {
            config.times.deadline = duration(value)?;
            Ok(())
        },
        write: |config| Some(quoted(&duration_text(config.times.deadline))),
    },
    Setting {
        name: "handshake_timeout",
        meaning: "How long an incoming handshake may take.",
        read: |config, value| {
            config.times.handshake = duration(value)?;
            Ok(())
        },
        write: |config| Some(quoted(&duration_text(config.times.handshake))),
    },
    Setting {
        name: "dead_after",
        meaning: "How long a peer may be silent before its streams end, at least \"2s\"; \"never\" waits for ever.",
        read: |config, value| {
            config.times.dead_after = match string(value)? {
                "never" => None,
                _ => Some(duration(value)?),
            };
            Ok(())
        },
        write: |config| {
            Some(quoted(&config.times.dead_after.map_or_else(|| "never".to_owned(), duration_text)))
        },
    },
    Setting {
        name: "linger",
        meaning: "How long the end waits for streams that are still ending.",
        read: |config, value| {
            config.times.linger = duration(value)?;
            Ok(())
        },
        write: |config| Some(quoted(&duration_text(config.times.linger))),
    },
    Setting {
        name: "max_mtu",
        meaning: "The largest UDP payload that is tried, in bytes, from 1200 to 65500.",
        read: |config, value| {
            config.max_mtu =
                u16::try_from(integer(value, 1_200, 65_500)?).expect("within the bounds just checked");
            Ok(())
        },
        write: |config| Some(config.max_mtu.to_string()),
    },
];

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn error(text: &str) -> String {
        read(text, "crust.toml").unwrap_err().to_string()
    }

    #[test]
    fn what_is_printed_reads_as_the_same_configuration() {
        let all = "key = 'a \"b\".pem'\nlisten = [\"tcp://[::1]:5\"]\nonly = ['tcp']\nallow = []\nnetwork_name = 'test'\nroads = ['lan', 'relayed']\nlan = 'loopback'\nlan_port = 0\nlan_secret = 'b.key'\nport_map = false\nrouter = '192.168.1.1'\n\
                   deadline = '2m'\nhandshake_timeout = '1500ms'\ndead_after = 'never'\nlinger = '0s'\n\
                   max_mtu = 1_452\n[limits]\npending_handshakes = 1\npending_handshakes_per_prefix = 2\n\
                   accept_queue = 3\nstreams_per_connection = 4\nstream_receive_bytes = 0x10000\n\
                   connection_receive_bytes = 16384\nreceive_bytes = 1048576\n";
        for config in [Config::default(), read(all, "x").unwrap()] {
            let again = read(&config.to_toml(), "x").unwrap();
            assert_eq!(format!("{again:?}"), format!("{config:?}"));
        }
        assert!(read(all, "x").unwrap().to_toml().contains("stream_receive_bytes = 65536"));
    }

    #[test]
    fn each_setting_is_printed_with_its_meaning() {
        let text = Config::default().to_toml();
        for setting in settings() {
            let name = setting.name.split_once('.').map_or(setting.name, |(_, name)| name);
            assert!(text.contains(&format!("{name} =")), "{name}");
            assert!(text.contains(setting.meaning), "{name}");
        }
    }

    #[test]
    fn an_unknown_name_is_an_error_with_its_line_and_the_nearest_name() {
        assert_eq!(
            error("deadline = '1s'\nlisen = []\n"),
            "crust.toml:2: unknown setting `lisen`, did you mean `listen`?"
        );
        assert_eq!(
            error("[limits]\n\naccept_queues = 3"),
            "crust.toml:3: unknown setting `limits.accept_queues`, did you mean `limits.accept_queue`?"
        );
        assert_eq!(error("colour = 1"), "crust.toml:1: unknown setting `colour`");
        assert_eq!(error("[limit]\nx = 1"), "crust.toml:1: unknown setting `limit`");
    }

    #[test]
    fn a_wrong_value_is_an_error_with_its_line_and_what_it_must_be() {
        for (text, wanted) in [
            ("\ndeadline = 5", "crust.toml:2: `deadline` must be a text in quotes, not a number"),
            (
                "deadline = '5'",
                "crust.toml:1: `deadline` must be a duration such as \"10s\", \"250ms\" or \"2m\"",
            ),
            ("only = 'tcp'", "crust.toml:1: `only` must be a list, not a text"),
            ("only = ['utp']", "crust.toml:1: `only` has an entry that is not \"quic\" or \"tcp\": \"utp\""),
            ("only = []", "crust.toml:1: `only` must name \"quic\", \"tcp\" or both"),
            ("router = 'fritz.box'", "crust.toml:1: `router` must be an address such as \"192.168.1.1\""),
            ("max_mtu = 100", "crust.toml:1: `max_mtu` must be from 1200 to 65500, not 100"),
            ("max_mtu = -1", "crust.toml:1: `max_mtu` must be from 1200 to 65500, not -1"),
            ("allow = 'nobody'", "crust.toml:1: `allow` must be \"any\" or a list of public keys"),
            (
                "[limits]\naccept_queue = true",
                "crust.toml:2: `limits.accept_queue` must be a number, not true or false",
            ),
        ] {
            assert_eq!(error(text), wanted);
        }
        assert!(error("a = 1\n[").starts_with("crust.toml:2: "), "{}", error("a = 1\n["));
        assert!(error("limits = 3").contains("`limits`"));
    }

    #[test]
    fn a_missing_file_is_named() {
        let error = Config::from_file("/nowhere/crust.toml").unwrap_err();
        assert!(error.to_string().contains("/nowhere/crust.toml"));
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "[a-z_\\[\\]=\"'0-9.\n ]{0,200}") {
            let _ = read(&text, "x");
        }
    }
}
