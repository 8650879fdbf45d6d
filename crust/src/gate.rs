use std::collections::BTreeSet;

use transport::{AccessToken, Admission, NetworkName, ProtocolLabel, PublicKey, Refusal};

use crate::protocol::introduction::Knock;

/// Who may open streams here, asked by `transport` for streams that come in and by us for peers that are introduced.
#[derive(Debug, Clone)]
pub(crate) struct Gate {
    /// Nobody is let in while this is false.
    pub(crate) open: bool,
    pub(crate) allowed: Option<BTreeSet<PublicKey>>,
    pub(crate) blocked: BTreeSet<PublicKey>,
    pub(crate) protocols: BTreeSet<ProtocolLabel>,
    pub(crate) token: Option<AccessToken>,
    pub(crate) network: NetworkName,
}

impl Gate {
    /// The rules in the form that `transport` applies.
    pub(crate) fn admission(&self) -> Admission {
        let mut admission = Admission::default()
            .protocols(self.protocols.iter().cloned())
            .block(self.blocked.iter().copied())
            .network(self.network.clone());
        if !self.open {
            admission = admission.allow([]);
        } else if let Some(allowed) = &self.allowed {
            admission = admission.allow(allowed.iter().copied());
        }
        if let Some(token) = &self.token {
            admission = admission.access_token(token.clone());
        }
        admission
    }

    /// Whether to tell a peer that knocks where we are; the protocol that it wants.
    pub(crate) fn judge(&self, knock: &Knock) -> Result<ProtocolLabel, Refusal> {
        if !knock.is_of(&self.network) {
            return Err(Refusal::Network);
        }
        let dialer = knock.dialer();
        let admitted = self.allowed.as_ref().is_none_or(|allowed| allowed.contains(&dialer));
        if !self.open || !admitted || self.blocked.contains(&dialer) {
            return Err(Refusal::Key);
        }
        if self.token.as_ref().is_some_and(|token| !knock.knows(token)) {
            return Err(Refusal::Token);
        }
        knock.wants(&self.protocols).cloned().ok_or(Refusal::Label)
    }
}

/// A refusal as a number of the verdict's table in `docs/wire.md`.
pub(crate) const fn code_of(refusal: Refusal) -> u8 {
    match refusal {
        Refusal::Key => 1,
        Refusal::Version { .. } => 2,
        Refusal::Label => 3,
        Refusal::Token => 4,
        Refusal::Myself => 5,
        Refusal::Malformed => 7,
        Refusal::Rendezvous => 8,
        Refusal::Network => 9,
        Refusal::Unknown { code } => code,
        _ => 6,
    }
}

/// The refusal of such a number.
pub(crate) const fn refusal_of(code: u8) -> Refusal {
    match code {
        1 => Refusal::Key,
        3 => Refusal::Label,
        4 => Refusal::Token,
        5 => Refusal::Myself,
        6 => Refusal::Full,
        7 => Refusal::Malformed,
        8 => Refusal::Rendezvous,
        9 => Refusal::Network,
        code => Refusal::Unknown { code },
    }
}
