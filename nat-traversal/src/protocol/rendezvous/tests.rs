use proptest::prelude::*;

use super::*;

#[test]
fn bytes_and_text_come_back() {
    let info = info();
    assert_eq!(PubRendezvousInfo::from_bytes(&info.to_bytes()), Ok(info.clone()));
    assert_eq!(info.to_string().parse(), Ok(info));
}

#[test]
fn the_text_survives_line_breaks_and_capitals_and_fits_a_message() {
    let info = info();
    let text = info.to_string();
    let broken: Vec<String> =
        text.as_bytes().chunks(60).map(|line| format!("  {}\r\n", String::from_utf8_lossy(line))).collect();
    assert_eq!(broken.concat().to_uppercase().parse(), Ok(info.clone()));

    let longest = MappedSocketAddr {
        ports: PortRule::Sequential(-1),
        ..MappedSocketAddr::host("[2001:db8::1]:1".parse().unwrap())
    };
    let longest = PubRendezvousInfo::new(vec![longest; 99], [0xFF; 32]);
    assert_eq!(longest.endpoints().len(), 16);
    assert!(longest.to_string().len() <= 603);
}

#[test]
fn one_wrong_or_missing_letter_is_noticed() {
    let text = info().to_string();
    for index in 4..text.len() {
        let other = if &text[index..=index] == "a" { "b" } else { "a" };
        let wrong = format!("{}{other}{}", &text[..index], &text[index + 1..]);
        assert!(wrong.parse::<PubRendezvousInfo>().is_err(), "letter {index}");
        let missing = format!("{}{}", &text[..index], &text[index + 1..]);
        assert!(missing.parse::<PubRendezvousInfo>().is_err(), "letter {index}");
    }
    assert_eq!("hello".parse::<PubRendezvousInfo>(), Err(ParseInfoError::Prefix));
    assert_eq!("nat1-0189".parse::<PubRendezvousInfo>(), Err(ParseInfoError::Letters));
    assert_eq!("nat1".parse::<PubRendezvousInfo>(), Err(ParseInfoError::Checksum));
}

#[test]
fn another_version_and_bytes_left_over_are_refused() {
    let mut bytes = info().to_bytes();
    bytes.push(0);
    assert_eq!(PubRendezvousInfo::from_bytes(&bytes), Err(ParseInfoError::Content));
    bytes.pop();
    bytes[0] = 2;
    assert_eq!(PubRendezvousInfo::from_bytes(&bytes), Err(ParseInfoError::Content));
}

proptest! {
    #[test]
    fn what_is_read_is_written_the_same(mut bytes in prop::collection::vec(any::<u8>(), 34..120), count in 0..4_u8) {
        bytes[0] = VERSION;
        bytes[33] = count;
        if let Ok(info) = PubRendezvousInfo::from_bytes(&bytes) {
            prop_assert_eq!(PubRendezvousInfo::from_bytes(&info.to_bytes()), Ok(info));
        }
    }
}

fn info() -> PubRendezvousInfo {
    let address = |text: &str| text.parse().unwrap();
    let rules = [PortRule::Stable, PortRule::Sequential(-2), PortRule::Random, PortRule::Unknown];
    let mut endpoints: Vec<_> =
        rules.map(|rule| MappedSocketAddr::reflexive(address("198.51.100.2:4000"), rule)).to_vec();
    endpoints.push(MappedSocketAddr::host(address("[2001:db8::1]:4001")));
    endpoints.push(MappedSocketAddr {
        kind: AddrKind::PortMapped,
        ..MappedSocketAddr::host(address("192.0.2.1:1"))
    });
    endpoints
        .push(MappedSocketAddr { kind: AddrKind::Relayed, ..MappedSocketAddr::host(address("192.0.2.1:2")) });
    PubRendezvousInfo::new(endpoints, std::array::from_fn(|index| u8::try_from(index).unwrap()))
}
