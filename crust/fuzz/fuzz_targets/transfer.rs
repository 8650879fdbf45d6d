//! Any bytes from either side of a file transfer, in any pieces.
//!
//! The first byte says how large the pieces are and whose side is tried.
#![no_main]

use crust_cli::transfer::{
    Answer, Decoder, Entry, EntryKind, EntryPath, ProtocolError, Receiving, Record, Rules, Sending, Step,
};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let Some((&mode, input)) = input.split_first() else { return };
    let piece = usize::from(mode >> 2) + 1;
    let rules = if mode & 1 == 0 { Rules::Unix } else { Rules::Windows };
    let whole = records(input, input.len().max(1), rules);
    assert_eq!(whole, records(input, piece, rules), "pieces make no difference");
    if let Ok(records) = &whole {
        for record in records {
            let mut bytes = Vec::new();
            record.encode(&mut bytes);
            assert_eq!(records_of(&bytes, rules), vec![record.clone()]);
        }
    }
    if mode & 2 == 0 {
        receive(input, rules);
    } else {
        send(input, rules);
    }
});

/// The records, with data joined to one piece a record, which is how they were sent.
fn records(input: &[u8], piece: usize, rules: Rules) -> Result<Vec<Record<'static>>, ProtocolError> {
    let mut decoder = Decoder::new(rules);
    let mut all = Vec::new();
    for mut part in input.chunks(piece) {
        while let Some(record) = decoder.next(&mut part)? {
            all.push(match record {
                // Compared by what follows; its bytes are passed through as they are.
                Record::Data(_) => continue,
                other => owned(other),
            });
        }
    }
    Ok(all)
}

fn records_of(mut bytes: &[u8], rules: Rules) -> Vec<Record<'static>> {
    let mut decoder = Decoder::new(rules);
    let mut all = Vec::new();
    while let Some(record) = decoder.next(&mut bytes).expect("what is written can be read") {
        all.push(owned(record));
    }
    assert!(bytes.is_empty() && decoder.is_between());
    all
}

fn receive(mut input: &[u8], rules: Rules) {
    let mut decoder = Decoder::new(rules);
    let mut receiving = Receiving::new();
    let mut left = 0;
    while let Ok(Some(record)) = decoder.next(&mut input) {
        match receiving.handle(record) {
            Ok(Step::Listed) => {
                for entry in receiving.entries() {
                    assert!(entry.path.names().all(|name| !matches!(name, "" | "." | "..")));
                }
                receiving.have(0, 1, [0; 32]);
                receiving.start();
            }
            Ok(Step::File { index, offset }) => {
                let entry = &receiving.entries()[index as usize];
                left = entry.size_bytes - offset;
            }
            Ok(Step::Data(data)) => left -= data.len() as u64,
            Ok(Step::End { .. }) => assert_eq!(left, 0),
            Ok(_) => {}
            Err(_) => return,
        }
    }
}

fn send(mut input: &[u8], rules: Rules) {
    let entry = |path, kind, size_bytes| Entry {
        kind,
        size_bytes,
        path: EntryPath::parse(path, rules).expect("a plain name"),
    };
    let entries = [
        entry("d", EntryKind::Folder, 0),
        entry("d/a", EntryKind::File { executable: false }, 5),
        entry("d/b", EntryKind::File { executable: true }, 1 << 40),
    ];
    let mut decoder = Decoder::new(rules);
    let mut sending = Sending::new(&entries);
    let mut started = false;
    while let Ok(Some(record)) = decoder.next(&mut input) {
        match sending.handle(record) {
            Ok(Answer::Have { index, bytes, .. }) => {
                assert!(!started && bytes <= entries[index as usize].size_bytes);
            }
            Ok(Answer::Start) => {
                assert!(!started);
                started = true;
                sending.all_sent();
            }
            Ok(Answer::Done) => assert!(started),
            Ok(Answer::Failed { .. }) => {}
            Err(_) => return,
        }
    }
}

fn owned(record: Record<'_>) -> Record<'static> {
    match record {
        Record::Offer { entries, total_bytes } => Record::Offer { entries, total_bytes },
        Record::Entry(entry) => Record::Entry(entry),
        Record::Have { index, bytes, hash } => Record::Have { index, bytes, hash },
        Record::Start => Record::Start,
        Record::File { index, offset } => Record::File { index, offset },
        Record::Data(_) => Record::Data(&[]),
        Record::End(hash) => Record::End(hash),
        Record::Done => Record::Done,
        Record::Failed { reason } => Record::Failed { reason },
    }
}
