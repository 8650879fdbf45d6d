//! Keying material for the users of a connection (RFC 8446 §7.5).
//!
//! rustls exports from its buffered connections only. An unbuffered one tells the exporter's secret as it tells all of them, to
//! a key log, which belongs to the configuration. It is told while a call works on the connection, on the thread of that call,
//! which finds it there afterwards; so no connection needs a configuration of its own.

use std::cell::RefCell;

use ring::{digest, hkdf};
use rustls::KeyLog;
use zeroize::Zeroizing;

/// The exporter's secret of one connection, as long as the digest of its cipher suite.
pub(super) enum ExporterSecret {
    Sha256(Zeroizing<[u8; 32]>),
    Sha384(Zeroizing<[u8; 48]>),
}

/// Where rustls tells the secret. It is asked for no other.
#[derive(Debug)]
pub(crate) struct ExporterLog;

thread_local! {
    static TOLD: RefCell<Option<ExporterSecret>> = const { RefCell::new(None) };
}

/// What the call that has just worked on a connection was told.
pub(super) fn take_told() -> Option<ExporterSecret> {
    TOLD.take()
}

impl ExporterSecret {
    /// Fills `output`. `None` before the keys are exchanged, and for what the format has no room for.
    pub(super) fn export(&self, output: &mut [u8], label: &[u8], context: &[u8]) -> Option<()> {
        match self {
            Self::Sha256(secret) => {
                export::<32>(secret, &digest::SHA256, hkdf::HKDF_SHA256, output, label, context)
            }
            Self::Sha384(secret) => {
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

impl KeyLog for ExporterLog {
    fn log(&self, label: &str, _client_random: &[u8], secret: &[u8]) {
        if !self.will_log(label) {
            return;
        }
        let told = if let Ok(secret) = <[u8; 32]>::try_from(secret) {
            ExporterSecret::Sha256(Zeroizing::new(secret))
        } else if let Ok(secret) = <[u8; 48]>::try_from(secret) {
            ExporterSecret::Sha384(Zeroizing::new(secret))
        } else {
            return;
        };
        TOLD.set(Some(told));
    }

    fn will_log(&self, label: &str) -> bool {
        label == EXPORTER_SECRET
    }
}

/// What rustls calls it, as NSS does.
const EXPORTER_SECRET: &str = "EXPORTER_SECRET";
const LABEL_PREFIX: &[u8] = b"tls13 ";
