use std::{
    io::{self, Read, Write},
    marker::PhantomData,
    ops::Deref,
    time::Instant,
};

use transport::{AcceptError, ReadStream, Stream, StreamError, WriteStream};

use crate::{
    Config, ConnectError, ConnectOptions, Contact, Destination, Service, ServiceController, StartError,
};

/// Runs `run` with a service that ends with it: when `scope` returns, every stream, socket and thread of the service is
/// gone. Threads inside borrow the service instead of sharing it; use [`std::thread::scope`] for them.
///
/// ```
/// use std::{io::{Read, Write}, thread};
/// use crust::{Config, Scheme};
///
/// let place = "tcp://127.0.0.1:0".parse()?;
/// let config = Config::new().only([Scheme::Tcp]).listen([place]);
/// let heard = crust::scope(config, |service| {
///     thread::scope(|threads| {
///         threads.spawn(|| service.accept().expect("a stream").write_all(b"hello"));
///         let contact = service.contact().expect("interfaces");
///         let client = crust::scope(Config::new().listen([]), |client| {
///             let mut text = String::new();
///             client.connect(contact).expect("a stream").read_to_string(&mut text).map(|_| text)
///         });
///         client.expect("it starts").expect("all bytes")
///     })
/// })?;
/// assert_eq!(heard, "hello");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// No stream outlives it:
///
/// ```compile_fail
/// let stream = crust::scope(crust::Config::new(), |service| service.accept());
/// ```
///
/// nor does a thread:
///
/// ```compile_fail
/// crust::scope(crust::Config::new(), |service| std::thread::spawn(|| service.accept()));
/// ```
///
/// # Errors
///
/// [`StartError`] when the service does not start; `run` is not called then.
pub fn scope<T>(
    config: Config,
    run: impl for<'service> FnOnce(&'service ScopedService<'service>) -> T,
) -> Result<T, StartError> {
    let service = ScopedService { service: Service::new_from_config(config)?, life: PhantomData };
    Ok(run(&service))
}

/// The service inside of a [`scope`].
#[derive(Debug)]
pub struct ScopedService<'service> {
    service: Service,
    /// Invariant, so that no other lifetime can stand in for it.
    life: PhantomData<fn(&'service ()) -> &'service ()>,
}

impl<'service> ScopedService<'service> {
    /// As [`ServiceListener::accept`](crate::ServiceListener::accept).
    ///
    /// # Errors
    ///
    /// [`AcceptError::Closed`] after [`ServiceController::close`].
    pub fn accept(&'service self) -> Result<Scoped<'service, Stream>, AcceptError> {
        self.service.acceptor.accept().map(Scoped::new)
    }

    /// As [`ServiceListener::accept_deadline`](crate::ServiceListener::accept_deadline).
    ///
    /// # Errors
    ///
    /// [`AcceptError::TimedOut`] at the deadline.
    pub fn accept_deadline(
        &'service self,
        deadline: Instant,
    ) -> Result<Scoped<'service, Stream>, AcceptError> {
        self.service.acceptor.accept_deadline(deadline).map(Scoped::new)
    }

    /// As [`ServiceListener::incoming`](crate::ServiceListener::incoming).
    pub fn incoming(&'service self) -> impl Iterator<Item = Scoped<'service, Stream>> {
        self.service.acceptor.incoming().map(Scoped::new)
    }

    /// As [`ServiceController::connect`].
    ///
    /// # Errors
    ///
    /// [`ConnectError`] with every road that was tried.
    pub fn connect(
        &'service self,
        peer: impl Into<Destination>,
    ) -> Result<Scoped<'service, Stream>, ConnectError> {
        self.service.controller.connect(peer).map(Scoped::new)
    }

    /// As [`ServiceController::connect_with`].
    ///
    /// # Errors
    ///
    /// [`ConnectError`] with every road that was tried.
    pub fn connect_with(
        &'service self,
        peer: impl Into<Destination>,
        options: &ConnectOptions,
    ) -> Result<Scoped<'service, Stream>, ConnectError> {
        self.service.controller.connect_with(peer, options).map(Scoped::new)
    }

    /// As [`ServiceController::contact`].
    ///
    /// # Errors
    ///
    /// When the system does not tell its interfaces.
    pub fn contact(&self) -> io::Result<Contact> {
        self.service.controller.contact()
    }

    /// Everything else.
    #[must_use]
    pub fn controller(&'service self) -> &'service ServiceController {
        &self.service.controller
    }
}

/// A [`Stream`], or half of one, that cannot leave its [`scope`].
#[derive(Debug)]
pub struct Scoped<'service, S> {
    inner: S,
    life: PhantomData<fn(&'service ()) -> &'service ()>,
}

impl<S> Scoped<'_, S> {
    const fn new(inner: S) -> Self {
        Self { inner, life: PhantomData }
    }
}

impl<'service> Scoped<'service, Stream> {
    /// As [`Stream::split`].
    #[must_use]
    pub fn split(self) -> (Scoped<'service, ReadStream>, Scoped<'service, WriteStream>) {
        let (read, write) = self.inner.split();
        (Scoped::new(read), Scoped::new(write))
    }

    /// As [`Stream::try_clone`].
    ///
    /// # Errors
    ///
    /// [`StreamError`] as there.
    pub fn try_clone(&self) -> Result<Self, StreamError> {
        self.inner.try_clone().map(Self::new)
    }

    /// As [`Stream::close`].
    ///
    /// # Errors
    ///
    /// [`StreamError`] as there.
    pub fn close(self, deadline: Instant) -> Result<(), StreamError> {
        self.inner.close(deadline)
    }

    /// As [`Stream::reset`].
    pub fn reset(self, code: u32) {
        self.inner.reset(code);
    }
}

impl<S> Deref for Scoped<'_, S> {
    type Target = S;

    fn deref(&self) -> &S {
        &self.inner
    }
}

impl<S: Read> Read for Scoped<'_, S> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.inner.read(buffer)
    }
}

impl<S: Write> Write for Scoped<'_, S> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.inner.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

impl<S> Read for &Scoped<'_, S>
where
    for<'a> &'a S: Read,
{
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        (&self.inner).read(buffer)
    }
}

impl<S> Write for &Scoped<'_, S>
where
    for<'a> &'a S: Write,
{
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        (&self.inner).write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        (&self.inner).flush()
    }
}
