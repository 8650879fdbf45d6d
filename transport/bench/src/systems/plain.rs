//! Plain `std::net`: what the system calls alone cost.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};

use anyhow::Result;

use super::blocking::Blocking;
use crate::plan::Workload;

/// Dials one address.
pub(crate) struct Plain {
    address: String,
}

impl Blocking for Plain {
    type Stream = TcpStream;
    type Listener = TcpListener;

    fn listen(_: Workload) -> Result<(TcpListener, String)> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let address = listener.local_addr()?.to_string();
        Ok((listener, address))
    }

    fn accept(listener: &TcpListener) -> Result<TcpStream> {
        let (stream, _) = listener.accept()?;
        stream.set_nodelay(true)?;
        Ok(stream)
    }

    fn dialer(address: &str, _: Workload) -> Result<Self> {
        Ok(Self { address: address.to_owned() })
    }

    fn dial(&self) -> Result<TcpStream> {
        let stream = TcpStream::connect(&self.address)?;
        stream.set_nodelay(true)?;
        Ok(stream)
    }

    fn split(stream: TcpStream) -> Result<(Box<dyn Read + Send>, Box<dyn Write + Send>)> {
        Ok((Box::new(stream.try_clone()?), Box::new(stream)))
    }
}
