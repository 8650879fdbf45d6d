use proptest::prelude::*;

use super::*;

/// RFC 5769, section 2.1: a request with SOFTWARE, PRIORITY, ICE-CONTROLLED, USERNAME.
const REQUEST: &str = "
    000100582112a442b7e7a701bc34d686fa87dfae802200105354554e207465737420636c69656e74002400046e0001ff
    80290008932ff9b151263b36000600096576746a3a68367659202020000800149aeaa70cbfd8cb56781ef2b5b2d3f249
    c1b571a280280004e57a3bcf";

/// RFC 5769, section 2.2: its answer over IPv4.
const ANSWER_V4: &str = "
    0101003c2112a442b7e7a701bc34d686fa87dfae8022000b7465737420766563746f7220002000080001a147e112a643
    000800142b91f599fd9e90c38c7489f92af9ba53f06be7d780280004c07d4c96";

/// RFC 5769, section 2.3: its answer over IPv6.
const ANSWER_V6: &str = "
    010100482112a442b7e7a701bc34d686fa87dfae8022000b7465737420766563746f7220002000140002a1470113a9fa
    a5d3f179bc25f4b5bed2b9d900080014a382954e4be67bf11784c97c8292c275bfe3ed4180280004c8fb0b4c";

/// RFC 5769, section 2.4: a request with long-term credentials.
const LONG_TERM: &str = "
    000100602112a44278ad3433c6ad72c029da412e00060012e3839ee38388e383aae38383e382afe382b900000015001c
    662f2f3439396b39353464364f4c33346f4c394653547679363473410014000b6578616d706c652e6f72670000080014
    f67024656dd64a3e02b8e0712e85c9a28ca89666";

#[test]
fn the_request_of_rfc_5769_is_read_and_its_integrity_holds() {
    let bytes = hex(REQUEST);
    let message = Message::decode(&bytes).unwrap();
    assert_eq!((message.class(), message.method()), (Class::Request, Method::BINDING));
    assert_eq!(message.transaction().0[..], hex("b7e7a701bc34d686fa87dfae"));
    assert_eq!(message.find(attribute::USERNAME).unwrap().value, b"evtj:h6vY");
    assert!(message.has_integrity(&short_term_key()));
    assert!(!message.has_integrity(&hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, b"another")));
}

#[test]
fn the_answers_of_rfc_5769_tell_the_mapped_address() {
    let cases = [(ANSWER_V4, "192.0.2.1:32853"), (ANSWER_V6, "[2001:db8:1234:5678:11:2233:4455:6677]:32853")];
    for (text, address) in cases {
        let bytes = hex(text);
        let message = Message::decode(&bytes).unwrap();
        assert_eq!(message.class(), Class::Success);
        assert_eq!(message.mapped_address().unwrap().to_string(), address);
        assert!(message.has_integrity(&short_term_key()));
    }
}

#[test]
fn the_long_term_request_of_rfc_5769_has_the_integrity_of_its_key() {
    let bytes = hex(LONG_TERM);
    let message = Message::decode(&bytes).unwrap();
    // The MD5 of name, realm and password, which RFC 5769 gives in words.
    let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, &hex(LONG_TERM_KEY));
    assert!(message.has_integrity(&key));
}

#[test]
fn what_we_write_is_what_rfc_5769_writes() {
    let transaction = TransactionId(hex("b7e7a701bc34d686fa87dfae").try_into().unwrap());
    let written = MessageBuilder::new(Class::Success, Method::BINDING, transaction)
        // The RFC pads with a space and we with zeros, so a value that needs no padding is compared.
        .attribute(attribute::SOFTWARE, b"test vector ")
        .mapped_address("192.0.2.1:32853".parse().unwrap())
        .integrity(&short_term_key())
        .fingerprint();
    let expected = hex(ANSWER_V4);
    assert_eq!(written[24..44], expected[24..44], "value and XOR-MAPPED-ADDRESS");
    assert_eq!(written.len(), expected.len());
    assert!(Message::decode(&written).unwrap().has_integrity(&short_term_key()));
}

#[test]
fn one_changed_bit_anywhere_before_the_fingerprint_is_noticed() {
    let bytes = hex(ANSWER_V6);
    // The last eight bytes are the fingerprint, which may be left out.
    for bit in 0..(bytes.len() - 8) * 8 {
        let mut changed = bytes.clone();
        changed[bit / 8] ^= 1 << (bit % 8);
        // A changed length can hide the fingerprint, but then the integrity does not hold.
        let passes = Message::decode(&changed).is_ok_and(|message| message.has_integrity(&short_term_key()));
        assert!(!passes, "bit {bit}");
    }
}

#[test]
fn integrity_by_sha_256_covers_the_header_and_what_stands_before_it() {
    let key = hmac::Key::new(hmac::HMAC_SHA256, b"key");
    let written = MessageBuilder::new(Class::Request, Method::BINDING, TransactionId([7; 12]))
        .attribute(attribute::USERNAME, b"tag")
        .integrity(&key)
        .finish();
    assert!(Message::decode(&written).unwrap().has_integrity(&key));
    for index in [1, 9, 24] {
        let mut changed = written.clone();
        changed[index] ^= 1;
        assert!(!Message::decode(&changed).unwrap().has_integrity(&key), "byte {index}");
    }
}

#[test]
fn every_class_and_method_comes_back() {
    for class in [Class::Request, Class::Indication, Class::Success, Class::Error] {
        for method in [0, 1, 3, 9, 0x0FFF] {
            let bytes = MessageBuilder::new(class, Method(method), TransactionId([1; 12])).finish();
            let message = Message::decode(&bytes).unwrap();
            assert_eq!((message.class(), message.method()), (class, Method(method)));
        }
    }
}

#[test]
fn an_error_code_comes_back() {
    let bytes = MessageBuilder::new(Class::Error, Method::BINDING, TransactionId([1; 12]))
        .error_code(420, "Unknown Attribute")
        .fingerprint();
    assert_eq!(Message::decode(&bytes).unwrap().error_code(), Some(420));
}

#[test]
fn other_protocols_are_told_apart() {
    for bytes in [&b""[..], b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", &[0xC0; 1200], &[0x16, 0xFE, 0xFD, 0, 0]] {
        assert_eq!(Message::decode(bytes).unwrap_err(), DecodeError::NotStun);
    }
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(mut bytes in prop::collection::vec(any::<u8>(), 0..200), stun in any::<bool>()) {
        if stun && bytes.len() >= HEADER_BYTES {
            bytes.truncate(bytes.len() / 4 * 4);
            bytes[0] &= 0x3F;
            bytes[4..8].copy_from_slice(&COOKIE);
            let length = bytes.len() - HEADER_BYTES;
            set_length(&mut bytes, length);
        }
        if let Ok(message) = Message::decode(&bytes) {
            let _ = (message.mapped_address(), message.other_address(), message.error_code());
            prop_assert!(!message.has_integrity(&short_term_key()));
            prop_assert!(message.attributes().count() <= bytes.len() / 4);
        }
    }
}

fn short_term_key() -> hmac::Key {
    hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, b"VOkJxbRl1RmTxUk/WvJxBt")
}

fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u32> = text.chars().filter_map(|c| c.to_digit(16)).collect();
    digits.chunks(2).map(|pair| u8::try_from(pair[0] * 16 + pair[1]).unwrap()).collect()
}

const LONG_TERM_KEY: &str = "e8ca7ad59d5eb0518e312911d2dab2a9";
