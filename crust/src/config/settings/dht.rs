use super::{
    Setting,
    values::{boolean, list, printed_list},
};

pub(super) const DHT: &[Setting] = &[
    Setting {
        name: "dht",
        meaning: "Whether to be found and find others by a key alone, in the Mainline DHT.",
        read: |config, value| boolean(value).map(|dht| config.dht = dht),
        write: |config| Some(config.dht.to_string()),
    },
    Setting {
        name: "dht_bootstrap",
        meaning: "The nodes by which the DHT is entered, such as \"192.0.2.1:6881\".",
        read: |config, value| {
            config.dht_bootstrap = list(value, |text| {
                let has_port = text.rsplit_once(':').is_some_and(|(host, port)| {
                    !host.is_empty() && port.parse::<u16>().is_ok_and(|port| port > 0)
                });
                if has_port { Ok(text.to_owned()) } else { Err("HOST:PORT".to_owned()) }
            })?;
            Ok(())
        },
        write: |config| Some(printed_list(config.dht_bootstrap.iter())),
    },
];
