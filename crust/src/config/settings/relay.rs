//! Relays: those to use, and being one.

use super::{
    Setting,
    values::{boolean, integer, list, printed_list, quoted, string},
};

pub(super) const RELAY: &[Setting] = &[
    Setting {
        name: "turn",
        meaning: "TURN servers, such as \"turns:user:password@relay.example\"; not printed, as passwords may be in it.",
        read: |config, value| {
            config.relays = list(value, |text| {
                text.parse().map_err(|_| "a TURN server such as \"turn:192.0.2.1:3478\"".to_owned())
            })?;
            Ok(())
        },
        write: |_| None,
    },
    Setting {
        name: "relay",
        meaning: "Whether an introducer also relays (TURN), for peers that are attached to it only.",
        read: |config, value| boolean(value).map(|lends| config.lends = lends),
        write: |config| Some(config.lends.to_string()),
    },
    Setting {
        name: "relay_port",
        meaning: "Where it does, over UDP and TCP; 0 lets the system choose.",
        read: |config, value| {
            config.terms.port =
                u16::try_from(integer(value, 0, 65_535)?).expect("within the bounds just checked");
            Ok(())
        },
        write: |config| Some(config.terms.port.to_string()),
    },
    Setting {
        name: "relay_address",
        meaning: "The address at which others reach what it lends, if it listens at every address.",
        read: |config, value| {
            let address = string(value)?.parse().map_err(|_| "must be an address such as \"192.0.2.1\"")?;
            config.terms.address = Some(address);
            Ok(())
        },
        write: |config| config.terms.address.map(|address| quoted(&address.to_string())),
    },
    Setting {
        name: "relay_allow",
        meaning: "Networks that may be reached by it although they are not public, such as \"10.0.0.0/8\".",
        read: |config, value| {
            config.terms.allow =
                list(value, |text| text.parse().map_err(|_| "a network such as \"10.0.0.0/8\"".to_owned()))?;
            Ok(())
        },
        write: |config| Some(printed_list(config.terms.allow.iter())),
    },
];
