//! What a service says of itself by DNS-SD (RFC 6763), as the type [`SERVICE_TYPE`]: the same as in its beacon.
//!
//! The TXT record has `v=1`, `key=` with the public key as text, and `quic=` and `tcp=` with the ports at the host's addresses.
//! The instance is named after the beginning of the key, and the port of the SRV record is the first of these.

use std::net::SocketAddr;

use transport::{Endpoint, ListenEndpoint, PublicKey, Scheme};

/// The type of service, of the protocol that is preferred.
pub(crate) const SERVICE_TYPE: &str = "_crust._udp.local.";

/// What is said of a service.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Description {
    pub(crate) instance: String,
    pub(crate) port: u16,
    pub(crate) properties: Vec<(&'static str, String)>,
    /// The addresses, if it listens on certain ones only.
    pub(crate) addresses: Vec<std::net::IpAddr>,
}

/// Describes a service; `None` if it listens nowhere.
pub(crate) fn describe(key: PublicKey, places: &[ListenEndpoint]) -> Option<Description> {
    let text = key.to_string();
    let mut properties = vec![("v", "1".to_owned()), ("key", text.clone())];
    let mut port = None;
    for (scheme, name) in SCHEMES {
        // One port a scheme: a record of DNS-SD describes one service at one host.
        let Some(place) = places.iter().find(|place| place.scheme() == scheme) else { continue };
        properties.push((name, place.addr().port().to_string()));
        port.get_or_insert_with(|| place.addr().port());
    }
    let everywhere = places.iter().any(|place| place.addr().ip().is_unspecified());
    let mut addresses: Vec<_> = places.iter().map(|place| place.addr().ip()).collect();
    addresses.dedup();
    Some(Description {
        instance: text.get(..INSTANCE_BYTES)?.to_owned(),
        port: port?,
        properties,
        addresses: if everywhere { Vec::new() } else { addresses },
    })
}

/// Where to dial a service that describes itself so at these addresses; `None` if it makes no sense.
pub(crate) fn endpoints<'a>(
    property: impl Fn(&str) -> Option<&'a str>,
    addresses: &[SocketAddr],
) -> Option<(PublicKey, Vec<Endpoint>)> {
    if property("v") != Some("1") {
        return None;
    }
    let key: PublicKey = property("key")?.parse().ok()?;
    let mut endpoints = Vec::new();
    for (scheme, name) in SCHEMES {
        let port = property(name).and_then(|port| port.parse::<u16>().ok()).filter(|&port| port != 0);
        let Some(port) = port else { continue };
        for address in addresses.iter().take(MAX_ADDRESSES) {
            let mut address = *address;
            address.set_port(port);
            endpoints.push(Endpoint::new(scheme, address, key));
        }
    }
    Some((key, endpoints))
}

const SCHEMES: [(Scheme, &str); 2] = [(Scheme::Quic, "quic"), (Scheme::Tcp, "tcp")];

/// Enough of a key to tell services apart in a list; a label has at most 63.
const INSTANCE_BYTES: usize = 16;

/// With both schemes as many as a beacon may name.
const MAX_ADDRESSES: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_described_leads_back_to_the_service() {
        let key = PublicKey::from_bytes([3; 32]);
        let places =
            ["tcp://0.0.0.0:2", "quic://0.0.0.0:1"].map(|place| place.parse::<ListenEndpoint>().unwrap());
        let description = describe(key, &places).unwrap();
        assert_eq!((description.port, description.addresses.len()), (1, 0));
        assert!(key.to_string().starts_with(&description.instance));

        let property = |name: &str| {
            let found = description.properties.iter().find(|(known, _)| *known == name);
            found.map(|(_, value)| value.as_str())
        };
        let address = "10.0.0.1:9".parse().unwrap();
        let (found, endpoints) = endpoints(property, &[address]).unwrap();
        let texts: Vec<_> = endpoints.iter().map(|at| format!("{}://{}", at.scheme(), at.addr())).collect();
        assert_eq!(found, key);
        assert_eq!(texts, ["quic://10.0.0.1:1", "tcp://10.0.0.1:2"]);
    }

    #[test]
    fn a_service_on_certain_addresses_names_them_and_one_that_listens_nowhere_is_not_described() {
        let key = PublicKey::from_bytes([3; 32]);
        let place: ListenEndpoint = "tcp://10.0.0.1:2".parse().unwrap();
        assert_eq!(describe(key, &[place]).unwrap().addresses, [place.addr().ip()]);
        assert_eq!(describe(key, &[]), None);
    }

    #[test]
    fn what_makes_no_sense_is_passed_over() {
        let key = PublicKey::from_bytes([3; 32]).to_string();
        let address: SocketAddr = "10.0.0.1:9".parse().unwrap();
        for (version, key, port, count) in [
            ("1", key.as_str(), "5", Some(1)),
            ("1", &key, "0", Some(0)),
            ("1", &key, "70000", Some(0)),
            ("2", &key, "5", None),
            ("1", "nobody", "5", None),
        ] {
            let property = |name: &str| match name {
                "v" => Some(version),
                "key" => Some(key),
                "quic" => Some(port),
                _ => None,
            };
            assert_eq!(endpoints(property, &[address]).map(|(_, found)| found.len()), count);
        }
    }
}
