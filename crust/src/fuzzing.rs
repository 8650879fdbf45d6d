//! What the fuzz targets see of the protocol code; not part of the library as it is built otherwise.

use std::{
    net::IpAddr,
    time::{Duration, Instant},
};

use ring::{digest, signature::Ed25519KeyPair};
use transport::{Identity, PublicKey};

use crate::protocol::{
    cache::Cache,
    introducer::{
        Bounds, Switchboard,
        frame::{EndReason, Frame, Frames},
    },
    introduction::{self, Knock},
    kept::Kept,
    network_memory::NetworkMemory,
};

/// Any bytes as frames, however they are cut: what is read is written so that it reads the same.
pub fn frames(bytes: &[u8]) {
    let mut frames = Frames::default();
    for piece in bytes.chunks(7) {
        frames.push(piece);
        loop {
            match frames.next() {
                Ok(Some(frame)) => {
                    let mut again = Frames::default();
                    again.push(&frame.encode());
                    assert_eq!(again.next(), Ok(Some(frame)));
                }
                Ok(None) => break,
                Err(_) => return,
            }
        }
    }
}

/// Any bytes as what is sealed, as a knock, and as the signed part of one.
pub fn introduction(bytes: &[u8]) {
    let receiver = PublicKey::from_bytes([2; 32]);
    let _ = Knock::read(bytes, receiver);
    introduction::fuzz_particulars(bytes);
    // A knock under a right signature, which random bytes never have.
    let dialer = Identity::from_seed([1; 32]).public_key();
    let pair = Ed25519KeyPair::from_seed_unchecked(&[1; 32]).expect("every 32-byte string is a seed");
    let mut knock = vec![1];
    knock.extend_from_slice(dialer.as_bytes());
    knock.extend_from_slice(&[3; 32]);
    knock.extend_from_slice(&u16::try_from(bytes.len()).unwrap_or_default().to_be_bytes());
    knock.extend_from_slice(bytes);
    let text = [b"crust knock 1\0", &receiver.as_bytes()[..], &knock].concat();
    knock.extend_from_slice(pair.sign(&text).as_ref());
    if let Ok(knock) = Knock::read(&knock, receiver) {
        assert_eq!(knock.dialer(), dialer);
    }
}

/// What clients do to an introducer: three bytes a step. It stays bounded and never orders what makes no sense.
pub fn switchboard(bytes: &[u8]) {
    let mut now = Instant::now();
    let mut board = Switchboard::new(Bounds::default(), 1);
    let mut clients = Vec::new();
    for step in bytes.chunks_exact(3) {
        let [what, who, number] = [step[0], step[1], step[2]];
        now += Duration::from_millis(u64::from(number) * 4);
        let call = u32::from(number & 3) | if number & 4 == 0 { 0 } else { 1 << 31 };
        let key = PublicKey::from_bytes([who % 8; 32]);
        let frame = match what % 10 {
            0 => {
                clients.extend(board.connect(now, key, IpAddr::from([192, 0, 2, who % 4])));
                continue;
            }
            1 => Frame::Attach,
            2 => Frame::Knock { call, key, knock: vec![1] },
            3 => Frame::Note { call, note: vec![2] },
            4 => Frame::End { call, reason: EndReason::Done },
            5 => Frame::Attached { stun_port: 1 },
            8 => Frame::Vouch { call, source: None },
            9 => Frame::Rest { seconds: number.into() },
            6 => {
                board.handle_timeout(now);
                continue;
            }
            _ => {
                if let Some(&client) = clients.get(usize::from(who)) {
                    board.disconnect(client);
                }
                continue;
            }
        };
        if let Some(&client) = clients.get(usize::from(who) % clients.len().max(1)) {
            board.handle_frame(now, client, frame);
        }
        // No step is answered by more than a word to each side of each call that it ends, and to each client that it leaves.
        assert!(std::iter::from_fn(|| board.poll_order()).count() <= 64 + clients.len());
    }
}

/// Any bytes as the endpoint cache and as the network memory, also under a right checksum.
pub fn cache(bytes: &[u8]) {
    kept::<Cache>(b"crustend\x01", bytes);
    kept::<NetworkMemory>(b"crustnet\x01", bytes);
}

fn kept<T: Kept + PartialEq + std::fmt::Debug>(head: &[u8], bytes: &[u8]) {
    let mut whole = [head, bytes].concat();
    whole.extend_from_slice(&digest::digest(&digest::SHA256, &whole).as_ref()[..8]);
    for bytes in [bytes, &whole] {
        if let Ok(kept) = T::decode(bytes) {
            assert_eq!(T::decode(&kept.encode()), Ok(kept));
        }
    }
}
