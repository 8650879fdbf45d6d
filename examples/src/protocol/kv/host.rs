use std::time::Instant;

use super::{Api, Gate, Item, Onion, Record, Reference, Router, Store};

/// Some of a node's services, or all, in one thread: what they tell each other is a call.
#[derive(Debug)]
pub struct Host<R: Reference> {
    gate: Option<Gate<R>>,
    router: Option<Router<R>>,
    store: Option<Store<R>>,
    api: Option<Api<R>>,
    onion: Option<Onion<R>>,
    inner: Vec<Item<R>>,
}

impl<R: Reference> Default for Host<R> {
    fn default() -> Self {
        Self { gate: None, router: None, store: None, api: None, onion: None, inner: Vec::new() }
    }
}

impl<R: Reference> Host<R> {
    /// Takes a service in.
    pub fn add_gate(&mut self, gate: Gate<R>) {
        self.gate = Some(gate);
    }

    /// Takes a service in.
    pub fn add_router(&mut self, router: Router<R>) {
        self.router = Some(router);
    }

    /// Takes a service in.
    pub fn add_store(&mut self, store: Store<R>) {
        self.store = Some(store);
    }

    /// Takes a service in.
    pub fn add_api(&mut self, api: Api<R>) {
        self.api = Some(api);
    }

    /// Takes a service in.
    pub fn add_onion(&mut self, onion: Onion<R>) {
        self.onion = Some(onion);
    }

    /// Whether the service that an item is for is here.
    #[must_use]
    pub const fn has(&self, item: &Item<R>) -> bool {
        match item {
            Item::Gate(_) => self.gate.is_some(),
            Item::Router(_) => self.router.is_some(),
            Item::Store(_) => self.store.is_some(),
            Item::Api(_) => self.api.is_some(),
            Item::Onion(_) => self.onion.is_some(),
            Item::Network(_) | Item::User(_) => false,
        }
    }

    /// Lets the service that an item is for have it, and others here what follows from it. What is for nobody here is added to `out`.
    pub fn handle(&mut self, now: Instant, item: Item<R>, out: &mut Vec<Item<R>>) {
        self.inner.push(item);
        self.run(now, out);
    }

    /// Does whatever is due.
    pub fn handle_timeout(&mut self, now: Instant, out: &mut Vec<Item<R>>) {
        if let Some(gate) = self.gate.as_mut().filter(|gate| is_due(now, gate.poll_timeout())) {
            gate.handle_timeout(now, &mut self.inner);
        }
        if let Some(router) = self.router.as_mut().filter(|router| is_due(now, router.poll_timeout())) {
            router.handle_timeout(now, &mut self.inner);
        }
        if let Some(store) = self.store.as_mut().filter(|store| is_due(now, store.poll_timeout())) {
            store.handle_timeout(now);
        }
        if let Some(onion) = self.onion.as_mut().filter(|onion| is_due(now, onion.poll_timeout())) {
            onion.handle_timeout(now, &mut self.inner);
        }
        self.run(now, out);
    }

    /// When [`Host::handle_timeout`] wants to be called.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        let gate = self.gate.as_ref().and_then(Gate::poll_timeout);
        let router = self.router.as_ref().and_then(Router::poll_timeout);
        let store = self.store.as_ref().and_then(Store::poll_timeout);
        let onion = self.onion.as_ref().and_then(Onion::poll_timeout);
        [gate, router, store, onion].into_iter().flatten().min()
    }

    /// The next record to be written down before anything is told to others.
    pub fn poll_unwritten(&mut self) -> Option<R::To<Record>> {
        self.store.as_mut()?.poll_unwritten()
    }

    fn run(&mut self, now: Instant, out: &mut Vec<Item<R>>) {
        while !self.inner.is_empty() {
            for item in std::mem::take(&mut self.inner) {
                let inner = &mut self.inner;
                let (gate, router) = (&mut self.gate, &mut self.router);
                match (item, gate, router, &mut self.store, &mut self.api, &mut self.onion) {
                    (Item::Gate(input), Some(gate), ..) => gate.handle(now, input, inner),
                    (Item::Router(input), _, Some(router), ..) => router.handle(now, input, inner),
                    (Item::Store(input), .., Some(store), _, _) => store.handle(now, input, inner),
                    (Item::Api(input), .., Some(api), _) => api.handle(now, input, inner),
                    (Item::Onion(input), .., Some(onion)) => onion.handle(now, input, inner),
                    (item, ..) => out.push(item),
                }
            }
        }
    }
}

fn is_due(now: Instant, at: Option<Instant>) -> bool {
    at.is_some_and(|at| at <= now)
}
