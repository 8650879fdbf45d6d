//! Keying material for the users of a connection (RFC 8446 §7.5).
//!
//! rustls exports from its buffered connections only. An unbuffered one tells the exporter's secret as it tells all of them, to
//! a key log, so each connection gets a log of its own, which keeps that one and is asked for no other.

use std::{fmt, sync::OnceLock};

use ring::{digest, hkdf};
use rustls::KeyLog;
use zeroize::Zeroizing;

/// The exporter's secret of one connection, once its handshake is over.
#[derive(Default)]
pub(super) struct ExporterSecret(OnceLock<Secret>);

/// As long as the digest of its cipher suite.
enum Secret {
    Sha256(Zeroizing<[u8; 32]>),
    Sha384(Zeroizing<[u8; 48]>),
}

impl ExporterSecret {
    /// Fills `output`. `None` before the keys are exchanged, and for what the format has no room for.
    pub(super) fn export(&self, output: &mut [u8], label: &[u8], context: &[u8]) -> Option<()> {
        match self.0.get()? {
            Secret::Sha256(secret) => {
                export::<32>(secret, &digest::SHA256, hkdf::HKDF_SHA256, output, label, context)
            }
            Secret::Sha384(secret) => {
                export::<48>(secret, &digest::SHA384, hkdf::HKDF_SHA384, output, label, context)
            }
        }
    }
}

/// HKDF-Expand-Label(Derive-Secret(secret, label, ""), "exporter", Hash(context), length).
fn export<const BYTES: usize>(
    secret: &[u8; BYTES],
    digest: &'static digest::Algorithm,
    hkdf: hkdf::Algorithm,
    output: &mut [u8],
    label: &[u8],
    context: &[u8],
) -> Option<()> {
    let mut derived = Zeroizing::new([0; BYTES]);
    let nothing = digest::digest(digest, &[]);
    expand_label(&hkdf::Prk::new_less_safe(hkdf, secret), label, nothing.as_ref(), &mut *derived)?;
    let context = digest::digest(digest, context);
    expand_label(&hkdf::Prk::new_less_safe(hkdf, &*derived), b"exporter", context.as_ref(), output)
}

/// RFC 8446 §7.1.
fn expand_label(secret: &hkdf::Prk, label: &[u8], context: &[u8], output: &mut [u8]) -> Option<()> {
    let length = u16::try_from(output.len()).ok()?.to_be_bytes();
    let label_length = [u8::try_from(LABEL_PREFIX.len() + label.len()).ok()?];
    let context_length = [u8::try_from(context.len()).ok()?];
    let info = [&length[..], &label_length, LABEL_PREFIX, label, &context_length, context];
    secret.expand(&info, Length(output.len())).ok()?.fill(output).ok()
}

/// How much to expand to.
struct Length(usize);

impl hkdf::KeyType for Length {
    fn len(&self) -> usize {
        self.0
    }
}

impl KeyLog for ExporterSecret {
    fn log(&self, label: &str, _client_random: &[u8], secret: &[u8]) {
        let kept = if let Ok(secret) = <[u8; 32]>::try_from(secret) {
            Secret::Sha256(Zeroizing::new(secret))
        } else if let Ok(secret) = <[u8; 48]>::try_from(secret) {
            Secret::Sha384(Zeroizing::new(secret))
        } else {
            return;
        };
        if self.will_log(label) {
            // A connection has one.
            let _ = self.0.set(kept);
        }
    }

    fn will_log(&self, label: &str) -> bool {
        label == EXPORTER_SECRET
    }
}

impl fmt::Debug for ExporterSecret {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("ExporterSecret").finish_non_exhaustive()
    }
}

/// What rustls calls it, as NSS does.
const EXPORTER_SECRET: &str = "EXPORTER_SECRET";
const LABEL_PREFIX: &[u8] = b"tls13 ";
