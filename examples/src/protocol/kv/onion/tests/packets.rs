use super::*;
use crate::protocol::kv::onion::{
    keys::Tag,
    packet::{BODY_BYTES, Header, LAYER_BYTES, LAYERS_BYTES},
};

fn secret(place: usize) -> OnionSecret {
    OnionSecret::from_seed([place as u8 + 101; 32])
}

fn way(places: impl IntoIterator<Item = usize>) -> Vec<Hop> {
    places.into_iter().map(|place| Hop { node: key(place), key: secret(place).public() }).collect()
}

fn content(text: &[u8], reply: Option<ReplyBlock>) -> Content {
    Content { text: text.to_vec(), reply }
}

/// Has each of these take its layer off. Gives what each got and what the last one found.
fn walk(mut packet: Packet, places: &[usize]) -> (Vec<Packet>, Peeled) {
    let mut seen = Vec::new();
    for (step, place) in places.iter().enumerate() {
        seen.push(packet.clone());
        match Opened::new(&secret(*place), &packet).unwrap().peel().unwrap() {
            Peeled::Pass { next, packet: rest } => {
                assert_eq!(next, key(places[step + 1]));
                packet = rest;
            }
            end => {
                assert_eq!(step + 1, places.len());
                return (seen, end);
            }
        }
    }
    panic!("the last one is to pass it on to {packet:?}");
}

/// A message to the last of some nodes and its answer back over others: what each of them got.
fn there_and_back(there: &[usize], back: &[usize]) -> (Vec<Packet>, Vec<Packet>) {
    let ticket = [7; 16];
    let (block, keys) = reply_block(&[1; 32], &way(back.iter().copied()), ticket).unwrap();
    let packet =
        message(&[2; 32], &way(there.iter().copied()), &content(b"a question", Some(block.clone()))).unwrap();
    let (seen, end) = walk(packet, there);
    assert_eq!(end, Peeled::Message(content(b"a question", Some(block.clone()))));
    let (first, packet) = block.answer(b"an answer").unwrap();
    assert_eq!(first, key(back[0]));
    let (seen_back, end) = walk(packet, back);
    let Peeled::Home { ticket: home, body } = end else { panic!("{end:?}") };
    assert_eq!((home, keys.open(&body)), (ticket, Some(b"an answer".to_vec())));
    (seen, seen_back)
}

#[test]
fn each_takes_its_layer_off_and_the_answer_comes_home() {
    for length in 1..=MAX_LAYERS {
        let there: Vec<usize> = (0..length).collect();
        let back: Vec<usize> = (20..20 + length).collect();
        there_and_back(&there, &back);
    }
    there_and_back(&[1, 2, 3, 4, 5], &[4, 3, 2, 1, 0]);
}

#[test]
fn nobody_else_can_read_a_layer() {
    let (there, _) = there_and_back(&[1, 2, 3], &[2, 1, 0]);
    for (place, packet) in there.iter().enumerate() {
        for other in (0..8).filter(|other| *other != place + 1) {
            assert!(matches!(Opened::new(&secret(other), packet), Err(Refused::Unreadable)));
        }
    }
}

#[test]
fn packets_are_equally_long_wherever_and_nothing_in_them_is_at_two_places() {
    let (there, back) = there_and_back(&[1, 2, 3, 4, 5], &[6, 7, 8, 9, 0]);
    let mut all: Vec<Vec<u8>> = there.iter().chain(&back).map(Packet::to_bytes).collect();
    // Two messages of the same text over the same nodes, and ways of other lengths.
    all.push(message(&[3; 32], &way(1..=5), &content(b"a question", None)).unwrap().to_bytes());
    all.push(message(&[4; 32], &way([1]), &content(b"", None)).unwrap().to_bytes());
    all.push(message(&[5; 32], &way(1..=8), &content(&[b'x'; MAX_TEXT], None)).unwrap().to_bytes());
    for (place, one) in all.iter().enumerate() {
        assert_eq!(one.len(), PACKET_BYTES);
        assert_eq!(Packet::from_bytes(one).unwrap().to_bytes(), *one);
        for other in &all[..place] {
            assert!(
                !share(one, other, 6),
                "6 bytes in a row are the same by chance once in 10 million times"
            );
        }
        for text in [&b"question"[..], b"answer", b"xxxx"] {
            assert!(!one.windows(text.len()).any(|window| window == text));
        }
        for node in 0..10 {
            assert!(!share(one, key(node).as_bytes(), 6) && !share(one, secret(node).public().as_bytes(), 6));
        }
    }
}

/// The receiver may be one who wants to find out whom he answers: he knows what he has written.
#[test]
fn who_answers_does_not_know_his_answer_again_after_an_honest_hop() {
    let (_, back) = there_and_back(&[1], &[2, 3, 4, 0]);
    let written = back[0].to_bytes();
    for later in &back[1..] {
        let later = later.to_bytes();
        assert!(!share(&written, &later, 6));
        // Nor is the difference between the two something that he could know beforehand.
        let mixed: Vec<u8> = written.iter().zip(&later).map(|(one, other)| one ^ other).collect();
        assert!(!share(&mixed, &[0; 4], 4));
    }
}

#[test]
fn a_mark_on_a_message_is_found_by_the_next_hop() {
    let (there, _) = there_and_back(&[1, 2, 3, 4, 5], &[0]);
    for (place, packet) in there.iter().enumerate() {
        let (secret, bytes) = (secret(place + 1), packet.to_bytes());
        let step = if place == 0 { 1 } else { 97 };
        for at in (1..PACKET_BYTES).step_by(step) {
            let mut marked = bytes.clone();
            marked[at] ^= 1 << (at % 8);
            let marked = Packet::from_bytes(&marked).unwrap();
            let found = Opened::new(&secret, &marked).and_then(Opened::peel);
            // The highest bit of a key of X25519 does not count, but it is part of what keys are made of.
            let wanted = if at < PACKET_BYTES - BODY_BYTES { Refused::Unreadable } else { Refused::Damaged };
            assert_eq!(found, Err(wanted), "at {place}, byte {at}");
        }
    }
}

#[test]
fn a_mark_on_an_answer_is_found_in_its_header_by_the_next_hop_and_else_at_home() {
    let (block, keys) = reply_block(&[1; 32], &way([1, 2, 3, 0]), [7; 16]).unwrap();
    let (_, packet) = block.answer(b"an answer").unwrap();
    for at in (1..PACKET_BYTES).step_by(31) {
        let mut marked = packet.to_bytes();
        marked[at] ^= 1;
        let marked = Packet::from_bytes(&marked).unwrap();
        if at < PACKET_BYTES - BODY_BYTES {
            assert!(matches!(Opened::new(&secret(1), &marked), Err(Refused::Unreadable)), "byte {at}");
        } else {
            let (_, end) = walk(marked, &[1, 2, 3, 0]);
            let Peeled::Home { body, .. } = end else { panic!("{end:?}") };
            assert_eq!(keys.open(&body), None, "byte {at}");
        }
    }
}

#[test]
fn a_header_serves_for_the_body_that_it_was_made_for() {
    let [one, other] = [1, 2].map(|seed| message(&[seed; 32], &way(1..=3), &content(b"x", None)).unwrap());
    let mixed = Packet { header: one.header, body: other.body };
    assert_eq!(Opened::new(&secret(1), &mixed).and_then(Opened::peel), Err(Refused::Damaged));
}

/// As Kuhn and others found of Sphinx (2020): where the last layer was filled up with zeros, their number told how many hops had been before.
#[test]
fn what_is_left_of_a_header_looks_like_chance_at_every_place_of_every_way() {
    for length in 1..=MAX_LAYERS {
        let places: Vec<usize> = (1..=length).collect();
        let (there, back) = there_and_back(&places, &places);
        for (place, packet) in there.iter().chain(&back).enumerate() {
            let opened = Opened::new(&secret(places[place % length]), packet).unwrap();
            for (number, layer) in opened.rest().layers.chunks(LAYER_BYTES).enumerate() {
                let distinct: BTreeSet<u8> = layer.iter().copied().collect();
                // 97 bytes by chance are some 81 different ones; fewer than 60 are one case in a million millions.
                assert!(distinct.len() >= 60, "way of {length}, place {place}, layer {number}: {layer:?}");
            }
        }
    }
}

#[test]
fn a_hop_is_told_the_same_kind_of_thing_at_every_place() {
    let (there, back) = there_and_back(&[1, 2, 3, 4, 5, 6, 7], &[8, 9, 10, 11, 12, 13, 0]);
    for (packets, first) in [(there, 1), (back, 8)] {
        let told = packets[..6].iter().zip(first..).map(|(packet, place)| {
            let layer = Opened::new(&secret(place), packet).unwrap();
            (std::mem::discriminant(layer.instruction()), layer.rest().layers.len())
        });
        let told: Vec<_> = told.collect();
        assert!(told.iter().all(|one| *one == told[0]));
    }
}

#[test]
fn ways_and_texts_have_bounds() {
    let build = |hops: &[Hop], text: &[u8]| message(&[1; 32], hops, &content(text, None)).map(drop);
    assert_eq!(build(&[], b"x"), Err(BuildError::Way(0)));
    assert_eq!(build(&way(0..9), b"x"), Err(BuildError::Way(9)));
    assert_eq!(build(&way(0..8), &[b'x'; MAX_TEXT]), Ok(()));
    assert_eq!(build(&way(0..8), &[b'x'; MAX_TEXT + 1]), Err(BuildError::TooLong(MAX_TEXT + 1)));
    assert!(matches!(reply_block(&[1; 32], &[], [0; 16]), Err(BuildError::Way(0))));
    let (block, _) = reply_block(&[1; 32], &way(0..8), [0; 16]).unwrap();
    assert!(block.answer(&[b'x'; MAX_TEXT]).is_ok());
    assert_eq!(block.answer(&[b'x'; MAX_TEXT + 1]), Err(BuildError::TooLong(MAX_TEXT + 1)));
    // Keys of small order, with which everybody has the same secret.
    let mut one = [0; 32];
    one[0] = 1;
    for low in [[0; 32], one] {
        let hops = [Hop { node: key(1), key: OnionKey::from_bytes(low) }];
        assert_eq!(build(&hops, b"x"), Err(BuildError::Key(key(1))));
    }
}

#[test]
fn nonsense_is_refused() {
    for length in [0, 1, PACKET_BYTES - 1, PACKET_BYTES + 1] {
        assert_eq!(Packet::from_bytes(&vec![0; length]), None);
    }
    assert_eq!(Packet::from_bytes(&[b'{'; PACKET_BYTES]), None, "it is text");
    for seed in 0..200 {
        let mut chance = chance(seed);
        let mut bytes: Vec<u8> = std::iter::repeat_with(&mut chance).take(PACKET_BYTES).collect();
        bytes[0] = 0;
        let packet = Packet::from_bytes(&bytes).unwrap();
        assert!(matches!(Opened::new(&secret(1), &packet), Err(Refused::Unreadable)), "seed {seed}");
    }
}

/// Whoever writes a packet can put anything into it.
#[test]
fn nonsense_that_is_rightly_sealed_is_refused() {
    for kind in (0..=255_u8).filter(|kind| !(1..=4).contains(kind)) {
        let packet = sealed(|layers, _| layers[0] = kind);
        assert!(matches!(Opened::new(&secret(1), &packet), Err(Refused::Malformed)), "kind {kind}");
    }
    let lengths = [MAX_TEXT + 1, BODY_BYTES, usize::from(u16::MAX)].map(|length| (0, length as u16));
    for (answerable, length) in lengths.into_iter().chain([(2, 1), (255, 1)]) {
        let packet = sealed(|layers, body| {
            layers[0] = 2;
            body[0] = answerable;
            let at = 1 + 64 + 48 + LAYERS_BYTES;
            body[at..at + 2].copy_from_slice(&length.to_be_bytes());
        });
        let found = Opened::new(&secret(1), &packet).and_then(Opened::peel);
        assert_eq!(found, Err(Refused::Malformed), "{answerable} {length}");
    }
}

#[test]
fn whatever_is_sealed_is_read_or_refused() {
    let mut read = 0;
    for seed in 0..400_u64 {
        let mut chance = chance(seed);
        let packet = sealed(|layers, body| {
            layers.iter_mut().chain(body.iter_mut()).for_each(|byte| *byte = chance());
            layers[0] = (seed % 6) as u8;
            body[0] = (seed / 6 % 3) as u8;
            body[1 + 64 + 48 + LAYERS_BYTES] %= 16;
        });
        match Opened::new(&secret(1), &packet).and_then(Opened::peel) {
            Ok(Peeled::Message(Content { text, reply })) => {
                read += 1;
                assert!(text.len() <= MAX_TEXT);
                // Who answers such a block sends a packet that goes nowhere.
                if let Some(block) = reply {
                    let (_, packet) = block.answer(&text).unwrap();
                    assert!(Opened::new(&secret(1), &packet).is_err(), "seed {seed}");
                }
            }
            Ok(_) | Err(Refused::Malformed) => {}
            Err(other) => panic!("{other:?}, seed {seed}"),
        }
    }
    assert!(read > 10, "{read}");
}

#[test]
fn an_announcement_is_the_nodes_or_nobodys() {
    let identity = identity(1);
    let told = Announcement {
        node: key(1),
        key: secret(1).public(),
        neighbours: vec![key(2), key(3)],
        version: 7,
        signature: [0; 64],
    };
    let told = told.sign(|purpose, bytes| identity.sign_for(purpose, bytes));
    let read = |bytes: &[u8]| match Message::<crate::protocol::kv::RcRef>::from_bytes(bytes) {
        Ok(Message::Announcement(told)) => Some(*told),
        _ => None,
    };
    let bytes = Message::<crate::protocol::kv::RcRef>::Announcement(Box::new(told.clone())).to_bytes();
    assert_eq!(read(&bytes), Some(told.clone()));
    assert!(told.is_genuine());
    for seed in 0..2_000 {
        let mut chance = chance(seed);
        let mut changed = bytes.clone();
        for _ in 0..=chance() % 3 {
            let at = usize::from(u16::from_be_bytes([chance(), chance()])) % changed.len();
            // Digits, mostly: most other bytes leave no announcement.
            changed[at] = if chance() < 200 { b'0' + chance() % 10 } else { chance() };
        }
        assert!(read(&changed).is_none_or(|one| one == told || !one.is_genuine()), "seed {seed}");
    }
}

/// A packet for node 1 with anything in it.
fn sealed(fill: impl FnOnce(&mut [u8; LAYERS_BYTES], &mut [u8; BODY_BYTES])) -> Packet {
    let (mut layers, mut body) = (Box::new([0; LAYERS_BYTES]), Box::new([0; BODY_BYTES]));
    fill(&mut layers, &mut body);
    let ephemeral = OnionSecret::from_seed([9; 32]);
    let keys = ephemeral.writing(&secret(1).public()).unwrap();
    let tag: Tag = keys.body.seal(&mut body[..]);
    layers[33..49].copy_from_slice(&tag);
    let tag = keys.seal_header(&mut layers);
    Packet { header: Header { ephemeral: ephemeral.public(), tag, layers }, body }
}
