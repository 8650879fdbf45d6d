use std::net::{IpAddr, Ipv6Addr};

use super::{ParseTurnServerError, TurnServer, TurnTransport};
use crate::protocol::turn::TurnCredentials;

/// Reads `turn:` or `turns:`, then `[USER:PASSWORD@]HOST[:PORT][?NAME=VALUE[&NAME=VALUE]…]`.
pub(super) fn parse(text: &str) -> Result<TurnServer, ParseTurnServerError> {
    let (scheme, rest) = text.split_once(':').ok_or(ParseTurnServerError::Scheme)?;
    let tls = match scheme.to_ascii_lowercase().as_str() {
        "turn" => false,
        "turns" => true,
        _ => return Err(ParseTurnServerError::Scheme),
    };
    if rest.starts_with('/') {
        return Err(ParseTurnServerError::Scheme);
    }
    let (place, query) = rest.split_once('?').map_or((rest, None), |(place, query)| (place, Some(query)));
    let (user, place) = place.rsplit_once('@').map_or((None, place), |(user, place)| (Some(user), place));
    let credentials = match user {
        None => TurnCredentials::new("", ""),
        Some(user) => {
            let (name, password) = user.split_once(':').ok_or(ParseTurnServerError::Credentials)?;
            let decoded = decode(name).zip(decode(password)).filter(|(name, _)| !name.is_empty());
            let (name, password) = decoded.ok_or(ParseTurnServerError::Credentials)?;
            TurnCredentials::new(&name, &password)
        }
    };
    let (host, port) = split_port(place)?;
    let mut server = TurnServer {
        host,
        port: port.unwrap_or(if tls { TLS_PORT } else { PORT }),
        transport: if tls { TurnTransport::Tls } else { TurnTransport::Udp },
        credentials,
        ca: None,
        pin: None,
    };
    let mut transport = None;
    for parameter in query.into_iter().flat_map(|query| query.split('&')) {
        let (name, value) = parameter.split_once('=').ok_or(ParseTurnServerError::Parameter)?;
        let first = match name {
            "transport" => transport.replace(value).is_none(),
            "ca" if !tls => return Err(ParseTurnServerError::NotTls),
            "pin" if !tls => return Err(ParseTurnServerError::NotTls),
            "ca" => {
                let file = decode(value).filter(|file| !file.is_empty());
                server.ca.replace(file.ok_or(ParseTurnServerError::Parameter)?.into()).is_none()
            }
            "pin" => {
                let digest = data_encoding::HEXLOWER_PERMISSIVE.decode(value.as_bytes()).ok();
                let digest = digest.and_then(|digest| <[u8; 32]>::try_from(digest).ok());
                server.pin.replace(digest.ok_or(ParseTurnServerError::Pin)?).is_none()
            }
            _ => false,
        };
        if !first {
            return Err(ParseTurnServerError::Parameter);
        }
    }
    match (transport.map(str::to_ascii_lowercase).as_deref(), tls) {
        (None, _) | (Some("udp"), false) | (Some("tcp"), true) => Ok(server),
        (Some("tcp"), false) => Ok(TurnServer { transport: TurnTransport::Tcp, ..server }),
        _ => Err(ParseTurnServerError::Transport),
    }
}

/// The host, without brackets, and the port.
fn split_port(place: &str) -> Result<(String, Option<u16>), ParseTurnServerError> {
    let (host, port) = if let Some(bracketed) = place.strip_prefix('[') {
        let (ip, rest) = bracketed.split_once(']').ok_or(ParseTurnServerError::Host)?;
        let ip: Ipv6Addr = ip.parse().map_err(|_| ParseTurnServerError::Host)?;
        let port = if rest.is_empty() { None } else { rest.strip_prefix(':').or(Some("")) };
        (ip.to_string(), port)
    } else {
        let (host, port) = place.split_once(':').map_or((place, None), |(host, port)| (host, Some(port)));
        (host.to_ascii_lowercase(), port)
    };
    let named = |letter: char| letter.is_ascii_alphanumeric() || matches!(letter, '-' | '.' | '_');
    let ip = host.parse::<IpAddr>().is_ok();
    if !ip && (host.is_empty() || host.len() > MAX_NAME_BYTES || !host.chars().all(named)) {
        return Err(ParseTurnServerError::Host);
    }
    let port =
        port.map(|port| port.parse::<u16>().ok().filter(|number| *number > 0 && !port.starts_with('+')));
    match port {
        Some(None) => Err(ParseTurnServerError::Port),
        port => Ok((host, port.flatten())),
    }
}

/// Percent-encoding ([RFC 3986, section 2.1](https://www.rfc-editor.org/rfc/rfc3986#section-2.1)).
pub(super) fn encode(text: &str) -> String {
    text.bytes().fold(String::new(), |mut encoded, byte| {
        if byte.is_ascii_alphanumeric() || b"-._~/".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push('%');
            encoded.push_str(&data_encoding::HEXUPPER.encode(&[byte]));
        }
        encoded
    })
}

fn decode(text: &str) -> Option<String> {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((byte, tail)) = rest.split_first() {
        rest = tail;
        if *byte != b'%' {
            bytes.push(*byte);
            continue;
        }
        let (digits, tail) = rest.split_first_chunk::<2>()?;
        rest = tail;
        bytes.extend(data_encoding::HEXLOWER_PERMISSIVE.decode(digits).ok()?);
    }
    String::from_utf8(bytes).ok()
}

/// RFC 7065 takes them from RFC 8656.
pub(super) const PORT: u16 = 3478;
pub(super) const TLS_PORT: u16 = 5349;

/// The longest name that DNS has.
const MAX_NAME_BYTES: usize = 253;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_examples_of_rfc_7065_mean_what_its_table_says() {
        // Appendix A has these; without a transport it leaves the choice to us.
        let cases = [
            ("turn:example.org", ("example.org", 3478, TurnTransport::Udp)),
            ("turns:example.org", ("example.org", 5349, TurnTransport::Tls)),
            ("turn:example.org:8000", ("example.org", 8000, TurnTransport::Udp)),
            ("turn:example.org?transport=udp", ("example.org", 3478, TurnTransport::Udp)),
            ("turn:example.org?transport=tcp", ("example.org", 3478, TurnTransport::Tcp)),
            ("turns:example.org?transport=tcp", ("example.org", 5349, TurnTransport::Tls)),
            ("TURN:Example.ORG", ("example.org", 3478, TurnTransport::Udp)),
            ("turn:192.0.2.1:1", ("192.0.2.1", 1, TurnTransport::Udp)),
            ("turns:[2001:db8::1]:443", ("2001:db8::1", 443, TurnTransport::Tls)),
        ];
        for (text, expected) in cases {
            let server = parse(text).unwrap_or_else(|error| panic!("{text}: {error}"));
            assert_eq!((server.host(), server.port(), server.transport()), expected, "{text}");
            assert_eq!(parse(&server.to_string()), Ok(server), "{text}");
        }
    }

    #[test]
    fn what_names_no_server_is_told_why() {
        let cases = [
            ("example.org", ParseTurnServerError::Scheme),
            ("stun:example.org", ParseTurnServerError::Scheme),
            ("turn://example.org", ParseTurnServerError::Scheme),
            ("turn:", ParseTurnServerError::Host),
            ("turn:a b", ParseTurnServerError::Host),
            ("turn:[::1", ParseTurnServerError::Host),
            ("turn:[1.2.3.4]", ParseTurnServerError::Host),
            ("turn:2001:db8::1", ParseTurnServerError::Port),
            ("turn:a:0", ParseTurnServerError::Port),
            ("turn:a:+1", ParseTurnServerError::Port),
            ("turn:a:", ParseTurnServerError::Port),
            ("turn:[::1]1", ParseTurnServerError::Port),
            ("turn:user@a", ParseTurnServerError::Credentials),
            ("turn::secret@a", ParseTurnServerError::Credentials),
            ("turn:u:%zz@a", ParseTurnServerError::Credentials),
            ("turn:u:%c3@a", ParseTurnServerError::Credentials),
            ("turn:a?", ParseTurnServerError::Parameter),
            ("turn:a?proxy=b", ParseTurnServerError::Parameter),
            ("turn:a?transport=tcp&transport=tcp", ParseTurnServerError::Parameter),
            ("turns:a?ca=", ParseTurnServerError::Parameter),
            ("turn:a?transport=sctp", ParseTurnServerError::Transport),
            ("turns:a?transport=udp", ParseTurnServerError::Transport),
            ("turn:a?pin=00", ParseTurnServerError::NotTls),
            ("turns:a?pin=00", ParseTurnServerError::Pin),
        ];
        for (text, error) in cases {
            assert_eq!(parse(text), Err(error), "{text}");
        }
    }

    #[test]
    fn credentials_and_files_come_back_as_they_were() {
        let server = parse("turns:al%40ice:p%3A%25w@h?ca=/etc/a%20b.pem&transport=tcp").unwrap();
        assert_eq!(server.credentials(), &TurnCredentials::new("al@ice", "p:%w"));
        assert_eq!(server.ca().unwrap().to_str(), Some("/etc/a b.pem"));
        assert_eq!(server.to_string(), "turns:h?ca=/etc/a%20b.pem");
        assert_eq!(format!("{server:?}"), "TurnServer(turns:h?ca=/etc/a%20b.pem)");
    }
}
