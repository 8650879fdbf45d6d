//! Raw Ed25519 keys instead of certificates (RFC 7250), for TLS over TCP and for QUIC alike.
//!
//! There is one client configuration a peer, whoever it dials: the key that it expects is spelt in the server name, which is
//! never sent. So sessions are kept for resumption by the key they were made with, and by nothing else. A resumed session
//! skips the verifier; whoever drives the handshake compares [`peer_key`] with the expected key as well.

use std::{fmt, sync::Arc};

use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, DistinguishedName, Error, NoKeyLog,
    PeerIncompatible, ServerConfig, SignatureScheme,
    client::{
        AlwaysResolvesClientRawPublicKeys, Resumption,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{
        CryptoProvider, ring,
        ring::cipher_suite::{
            TLS13_AES_128_GCM_SHA256, TLS13_AES_256_GCM_SHA384, TLS13_CHACHA20_POLY1305_SHA256,
        },
        verify_tls13_signature_with_raw_key,
    },
    pki_types::{
        CertificateDer, DnsName, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName, SubjectPublicKeyInfoDer,
        UnixTime,
    },
    server::{
        AlwaysResolvesServerRawPublicKeys, NoServerSessionStorage,
        danger::{ClientCertVerified, ClientCertVerifier},
    },
    sign::CertifiedKey,
    version::TLS13,
};

use super::tls::exporter::ExporterLog;
use crate::{Identity, PublicKey};

/// What one peer presents and accepts, as a dialer and as an acceptor. One for each scheme, since a session of one
/// cannot be resumed in the other.
pub(crate) struct TlsConfigs {
    pub(crate) client: Arc<ClientConfig>,
    pub(crate) server: Arc<ServerConfig>,
}

impl TlsConfigs {
    pub(crate) fn new(identity: &Identity) -> Self {
        Self::with_provider(identity, provider())
    }

    /// The same, but every handshake is a full one.
    pub(crate) fn without_resumption(identity: &Identity) -> Self {
        let mut configs = Self::new(identity);
        Arc::make_mut(&mut configs.client).resumption = Resumption::disabled();
        Arc::make_mut(&mut configs.server).send_tls13_tickets = 0;
        configs
    }

    /// The same for QUIC, whose connections export by themselves.
    pub(crate) fn without_exporter_log(mut self) -> Self {
        Arc::make_mut(&mut self.client).key_log = Arc::new(NoKeyLog);
        Arc::make_mut(&mut self.server).key_log = Arc::new(NoKeyLog);
        self
    }

    pub(super) fn with_provider(identity: &Identity, provider: CryptoProvider) -> Self {
        let provider = Arc::new(provider);
        let key = certified_key(identity, &provider);
        let verifier = Arc::new(Verifier { provider: provider.clone() });
        Self {
            client: Arc::new(client_config(provider.clone(), key.clone(), verifier.clone())),
            server: Arc::new(server_config(provider, key, verifier)),
        }
    }
}

impl fmt::Debug for TlsConfigs {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("TlsConfigs").finish_non_exhaustive()
    }
}

/// ring's suites, AES-128 first: the keys that are exchanged (X25519, Ed25519) have its strength, which the longer key of
/// AES-256 does not raise, and it has 10 rounds instead of 14.
fn provider() -> CryptoProvider {
    CryptoProvider {
        cipher_suites: vec![
            TLS13_AES_128_GCM_SHA256,
            TLS13_AES_256_GCM_SHA384,
            TLS13_CHACHA20_POLY1305_SHA256,
        ],
        ..ring::default_provider()
    }
}

fn client_config(
    provider: Arc<CryptoProvider>,
    key: Arc<CertifiedKey>,
    verifier: Arc<Verifier>,
) -> ClientConfig {
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])
        .expect("ring speaks TLS 1.3")
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_client_cert_resolver(Arc::new(AlwaysResolvesClientRawPublicKeys::new(key)));
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.enable_sni = false;
    config.key_log = Arc::new(ExporterLog);
    config.resumption = Resumption::in_memory_sessions(MAX_SESSIONS);
    config
}

fn server_config(
    provider: Arc<CryptoProvider>,
    key: Arc<CertifiedKey>,
    verifier: Arc<Verifier>,
) -> ServerConfig {
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])
        .expect("ring speaks TLS 1.3")
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(Arc::new(AlwaysResolvesServerRawPublicKeys::new(key)));
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.key_log = Arc::new(ExporterLog);
    // Tickets are sealed by a key that changes every six hours, so that the acceptor keeps nothing for a session. Without
    // entropy for that key there is no resumption, only full handshakes.
    match ring::Ticketer::new() {
        Ok(ticketer) => {
            config.ticketer = ticketer;
            config.send_tls13_tickets = TICKETS_A_HANDSHAKE;
        }
        Err(error) => {
            tracing::warn!(%error, "sessions cannot be resumed");
            config.send_tls13_tickets = 0;
        }
    }
    config
}

fn certified_key(identity: &Identity, provider: &CryptoProvider) -> Arc<CertifiedKey> {
    let der = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(identity.to_pkcs8_der().to_vec()));
    let key = provider.key_provider.load_private_key(der).expect("an identity is an Ed25519 key in PKCS#8");
    let spki = CertificateDer::from([SPKI_PREFIX, identity.public_key().as_bytes()].concat());
    Arc::new(CertifiedKey::new(vec![spki], key))
}

/// The server name that makes a client configuration expect this key.
pub(crate) fn server_name(expected: &PublicKey) -> ServerName<'static> {
    let name =
        DnsName::try_from(format!("{expected}{NAME_SUFFIX}")).expect("52 letters and digits are a DNS label");
    ServerName::DnsName(name)
}

fn expected_key(name: &ServerName<'_>) -> Option<PublicKey> {
    let ServerName::DnsName(name) = name else { return None };
    name.as_ref().strip_suffix(NAME_SUFFIX)?.parse().ok()
}

/// The key that a peer presented, as `peer_certificates` of TLS and `peer_identity` of QUIC give it.
pub(crate) fn peer_key(presented: &[CertificateDer<'_>]) -> Option<PublicKey> {
    let [spki] = presented else { return None };
    let key = spki.as_ref().strip_prefix(SPKI_PREFIX)?;
    Some(PublicKey::from_bytes(key.try_into().ok()?))
}

/// Whether this is what rustls says when a peer presented another key than expected.
pub(crate) fn is_wrong_key(error: &Error) -> bool {
    *error == Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure)
}

/// Dialers compare keys; acceptors take every key whose holder proves it, and judge it with the preface.
#[derive(Debug)]
struct Verifier {
    provider: Arc<CryptoProvider>,
}

impl Verifier {
    fn key(presented: &CertificateDer<'_>, intermediates: &[CertificateDer<'_>]) -> Result<PublicKey, Error> {
        let key = peer_key(std::slice::from_ref(presented)).filter(|_| intermediates.is_empty());
        key.ok_or(Error::InvalidCertificate(CertificateError::BadEncoding))
    }

    fn check_signature(
        &self,
        message: &[u8],
        presented: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let spki = SubjectPublicKeyInfoDer::from(presented.as_ref());
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature_with_raw_key(message, &spki, signature, algorithms)
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        presented: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let key = Self::key(presented, intermediates)?;
        if expected_key(name) != Some(key) {
            return Err(Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure));
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _presented: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(Error::PeerIncompatible(PeerIncompatible::Tls12NotOfferedOrEnabled))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        presented: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.check_signature(message, presented, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}

impl ClientCertVerifier for Verifier {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        presented: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        Self::key(presented, intermediates).map(|_| ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _presented: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(Error::PeerIncompatible(PeerIncompatible::Tls12NotOfferedOrEnabled))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        presented: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.check_signature(message, presented, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}

/// What tells our streams from other protocols on a port.
pub(crate) const ALPN: &[u8] = b"crust/1";
/// RFC 8410 §4: SubjectPublicKeyInfo of id-Ed25519, up to the 32 bytes of the key.
const SPKI_PREFIX: &[u8] = b"\x30\x2a\x30\x05\x06\x03\x2b\x65\x70\x03\x21\x00";
/// RFC 6761 §6.4: a name that no resolver will ever know.
const NAME_SUFFIX: &str = ".invalid";
/// Peers whose sessions are kept for resumption, some 2 KiB each.
const MAX_SESSIONS: usize = 256;
/// One suffices: each resumed session brings the next.
const TICKETS_A_HANDSHAKE: usize = 1;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_spells_the_key_it_expects() {
        let key = Identity::from_seed([3; 32]).public_key();
        assert_eq!(expected_key(&server_name(&key)), Some(key));
        assert_eq!(expected_key(&ServerName::try_from("example.org").unwrap()), None);
        assert_eq!(expected_key(&ServerName::try_from("127.0.0.1").unwrap()), None);
    }

    #[test]
    fn a_key_is_read_from_its_exact_spki_only() {
        let identity = Identity::from_seed([3; 32]);
        let key = certified_key(&identity, &provider());
        assert_eq!(peer_key(&key.cert), Some(identity.public_key()));
        assert_eq!(key.key.public_key().unwrap().as_ref(), key.cert[0].as_ref());
        let longer = [key.cert[0].as_ref(), &[0]].concat();
        assert_eq!(peer_key(&[CertificateDer::from(longer)]), None);
        assert_eq!(peer_key(&[key.cert[0].clone(), key.cert[0].clone()]), None);
        assert_eq!(peer_key(&[]), None);
    }
}
