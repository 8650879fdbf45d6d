use std::{collections::BTreeSet, path::PathBuf, time::Duration};

use crust::{Endpoint, PublicKey};

use super::Threading;
use crate::protocol::kv::{Route, Rules};

/// What a node is told when it is started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// Neighbours to dial.
    pub others: Vec<Endpoint>,
    /// The file for its own values, if they are to outlive it.
    pub file: Option<PathBuf>,
    /// How it treats queries.
    pub rules: Rules,
    /// If there are any, only these are let in.
    pub allowed: Option<BTreeSet<PublicKey>>,
    /// What runs in which thread.
    pub threading: Threading,
    /// Where others reach it.
    pub listen: String,
    /// How long the answer to an onion message is waited for.
    pub answer_within: Duration,
    /// The file for what goes over its streams, as it reads it, if that is to be written down.
    pub capture: Option<PathBuf>,
}

impl Options {
    /// Reads the words of a command line.
    ///
    /// # Errors
    ///
    /// What is wrong, and how it is used.
    pub fn parse(words: impl IntoIterator<Item = String>) -> Result<Self, String> {
        let mut options = Self {
            others: Vec::new(),
            file: None,
            rules: Rules::default(),
            allowed: None,
            threading: Threading::threads(),
            listen: "tcp://127.0.0.1:0".to_owned(),
            answer_within: Duration::from_secs(30),
            capture: None,
        };
        let mut words = words.into_iter();
        while let Some(word) = words.next() {
            options.take(&word, &mut words).map_err(|error| format!("{word}: {error}\n{USAGE}"))?;
        }
        Ok(options)
    }

    fn take(&mut self, word: &str, words: &mut impl Iterator<Item = String>) -> Result<(), String> {
        let mut next = || words.next().ok_or_else(|| "something must follow".to_owned());
        match word {
            "--store" => self.file = Some(next()?.into()),
            "--threading" => self.threading = next()?.parse()?,
            "--references" => self.threading = self.threading.references(next()?.parse()?),
            "--place" => {
                let pair = next()?;
                let (service, place) = pair.split_once('=').ok_or("SERVICE=PLACE is wanted")?;
                self.threading = self.threading.place(service.parse()?, place.parse()?);
            }
            "--route" => {
                self.rules.route = match next()?.as_str() {
                    "kademlia" => Route::Kademlia,
                    "simple" => Route::Simple,
                    other => return Err(format!("a route is kademlia or simple, not {other:?}")),
                };
            }
            "--listen" => self.listen = next()?,
            "--answer-within" => {
                self.answer_within = Duration::from_millis(number(&next()?)?.clamp(1, 120_000));
            }
            "--capture" => self.capture = Some(next()?.into()),
            "--lifetime" => self.rules.lifetime = Duration::from_millis(number(&next()?)?.clamp(1, 60_000)),
            "--cache" => self.rules.cache_for = Duration::from_millis(number(&next()?)?.min(86_400_000)),
            "--silent-not-found" => self.rules.tell_not_found = false,
            "--hide-origin" => self.rules.hide_origin = true,
            "--allow" => {
                let key = next()?.parse().map_err(|error| format!("{error}"))?;
                self.allowed.get_or_insert_default().insert(key);
            }
            flag if flag.starts_with("--") => return Err("there is no such option".to_owned()),
            endpoint => self.others.push(endpoint.parse().map_err(|error| format!("{error}"))?),
        }
        Ok(())
    }
}

fn number(text: &str) -> Result<u64, String> {
    text.parse().map_err(|_| format!("a number of milliseconds is wanted, not {text:?}"))
}

const USAGE: &str = "usage: kv [--store FILE] [--threading threads|pool|local] [--references arc|rc] [--place SERVICE=caller|own|pool]
          [--route kademlia|simple] [--lifetime MILLISECONDS] [--cache MILLISECONDS] [--silent-not-found] [--hide-origin]
          [--listen ENDPOINT] [--answer-within MILLISECONDS] [--capture FILE] [--allow KEY]... [ENDPOINT]...
services are gate, router, store, api and onion";
