use std::{
    io::{Read as _, Write as _},
    thread,
};

use crust::{Config, Endpoint, Scheme};

use crate::support::{SCHEMES, client, listening};

#[test]
fn threads_borrow_the_service_and_all_ends_with_the_scope() {
    for scheme in SCHEMES {
        let mut heard = Vec::new();
        let endpoint = crust::scope(listening(scheme), |service| {
            thread::scope(|threads| {
                let answering = threads.spawn(|| {
                    for mut stream in service.incoming().take(3) {
                        threads.spawn(move || stream.write_all(b"hello").unwrap());
                    }
                });
                let contact = service.contact().unwrap();
                let client = client();
                for _ in 0..3 {
                    let mut text = String::new();
                    client.controller.connect(&contact).unwrap().read_to_string(&mut text).unwrap();
                    heard.push(text);
                }
                answering.join().unwrap();
            });
            service.controller().endpoints().unwrap()[0]
        })
        .unwrap();
        assert_eq!(heard, ["hello"; 3], "{scheme}: what is outside can be borrowed as well");
        assert!(is_free(endpoint), "{scheme}: the socket is gone");
    }
}

fn is_free(endpoint: Endpoint) -> bool {
    match endpoint.scheme() {
        Scheme::Tcp => crust::Service::new_from_config(
            Config::new().listen([crust::ListenEndpoint::new(Scheme::Tcp, endpoint.addr())]),
        )
        .is_ok(),
        _ => std::net::UdpSocket::bind(endpoint.addr()).is_ok(),
    }
}

#[test]
fn halves_of_a_stream_work_in_two_threads() {
    crust::scope(listening(Scheme::Tcp), |service| {
        let client = client();
        let mut dialled = client.controller.connect(service.contact().unwrap()).unwrap();
        let (mut read, mut write) = service.accept().unwrap().split();
        thread::scope(|threads| {
            threads.spawn(move || write.write_all(b"down"));
            dialled.write_all(b"up").unwrap();
            dialled.shutdown(std::net::Shutdown::Write).unwrap();
            let mut up = String::new();
            read.read_to_string(&mut up).unwrap();
            let mut down = String::new();
            dialled.read_to_string(&mut down).unwrap();
            assert_eq!((up.as_str(), down.as_str()), ("up", "down"));
        });
    })
    .unwrap();
}
