//! "Built on the stack" can be checked: the systems of the examples have no sockets of their own.

use std::{
    fs,
    path::{Path, PathBuf},
};

#[test]
fn no_example_opens_a_socket_of_its_own() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"));
    let all = sources(&folder.join("src"));
    assert!(all.len() > 20, "{all:?}");
    for file in all {
        let text = fs::read_to_string(&file).unwrap();
        let name = file.file_name().unwrap();
        for word in FORBIDDEN {
            // It is about sockets for punching holes, which the library makes and hands out.
            let handed_out = name == "hole_punch.rs" && ["TcpStream", "UdpSocket"].contains(&word);
            assert!(handed_out || !text.contains(word), "{} has {word}", file.display());
        }
        for maker in ["TcpStream::connect", "UdpSocket::bind"] {
            assert!(!text.contains(maker), "{} has {maker}", file.display());
        }
    }
    let manifest = fs::read_to_string(folder.join("Cargo.toml")).unwrap();
    for crate_name in ["mio", "socket2", "rustix", "libc", "quinn", "tokio"] {
        assert!(!manifest.lines().any(|line| line.starts_with(crate_name)), "{crate_name}");
    }
}

#[test]
fn what_the_actors_own_is_not_locked() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut all = sources(&folder.join("protocol/gossip"));
    all.extend(sources(&folder.join("protocol/mesh")));
    for name in ["gossip.rs", "maelstrom.rs", "mesh.rs", "node.rs"] {
        all.push(folder.join("protocol").join(name));
    }
    all.push(folder.join("broadcast.rs"));
    for file in all {
        let text = fs::read_to_string(&file).unwrap();
        for word in ["Mutex", "RwLock", "RefCell", "Atomic"] {
            assert!(!text.contains(word), "{} has {word}", file.display());
        }
    }
}

#[test]
fn the_services_of_kv_know_no_threads() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/protocol/kv");
    for name in ["gate.rs", "router.rs", "store.rs", "api.rs", "api/onion.rs", "onion.rs", "onion/keyring.rs"]
    {
        let text = fs::read_to_string(folder.join(name)).unwrap();
        for word in
            ["thread::", "Mutex", "RwLock", "RefCell", "Atomic", "channel", "Arc<", "Rc<", "ArcRef", "RcRef"]
        {
            assert!(!text.contains(word), "{name} has {word}");
        }
    }
}

fn sources(folder: &Path) -> Vec<PathBuf> {
    let mut all = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            all.extend(sources(&path));
        } else if path.extension().is_some_and(|end| end == "rs") {
            all.push(path);
        }
    }
    all
}

const FORBIDDEN: [&str; 9] = [
    "TcpStream",
    "TcpListener",
    "UdpSocket",
    "UnixStream",
    "UnixListener",
    "UnixDatagram",
    "socket2",
    "mio::",
    "quinn",
];
