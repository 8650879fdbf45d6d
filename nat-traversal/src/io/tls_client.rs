use std::io;
use std::sync::Arc;

use ring::digest;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{
    CertificateError, ClientConfig, ClientConnection, DigitallySignedStruct, RootCertStore, SignatureScheme,
};

use crate::TurnServer;

/// Begins a TLS connection to a TURN server, which is to prove itself as [`TurnServer`] says.
pub(crate) fn connect(server: &TurnServer) -> io::Result<ClientConnection> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let by_roots = |roots| {
        WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
            .build()
            .map_err(io::Error::other)
    };
    let verifier: Arc<dyn ServerCertVerifier> = match (server.ca(), server.pin()) {
        (None, None) => by_roots(RootCertStore::from_iter(webpki_roots::TLS_SERVER_ROOTS.iter().cloned()))?,
        (Some(file), None) => by_roots(read_roots(file)?)?,
        (ca, Some(pin)) => {
            let roots = ca.map(read_roots).transpose()?.map(by_roots).transpose()?;
            Arc::new(Pinned { pin: *pin, roots, provider: Arc::clone(&provider) })
        }
    };
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(rustls::ALL_VERSIONS)
        .map_err(io::Error::other)?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_no_client_auth();
    // RFC 7443: so that a server at port 443 can tell us from the web.
    config.alpn_protocols = vec![b"stun.turn".to_vec()];
    let name = ServerName::try_from(server.host().to_owned())
        .map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
    let mut connection = ClientConnection::new(Arc::new(config), name).map_err(io::Error::other)?;
    // Who writes bounds what waits.
    connection.set_buffer_limit(None);
    Ok(connection)
}

fn read_roots(file: &std::path::Path) -> io::Result<RootCertStore> {
    let named = |error: String| {
        io::Error::new(io::ErrorKind::InvalidData, format!("certificates in {}: {error}", file.display()))
    };
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(file).map_err(|error| named(error.to_string()))? {
        let certificate = certificate.map_err(|error| named(error.to_string()))?;
        roots.add(certificate).map_err(|error| named(error.to_string()))?;
    }
    if roots.is_empty() {
        return Err(named("there are none".to_owned()));
    }
    Ok(roots)
}

/// Believes one key, and with roots only if its certificate is in order as well.
#[derive(Debug)]
struct Pinned {
    pin: [u8; 32],
    roots: Option<Arc<WebPkiServerVerifier>>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let key = ParsedCertificate::try_from(end_entity)?.subject_public_key_info();
        if digest::digest(&digest::SHA256, &key).as_ref() != self.pin {
            return Err(CertificateError::ApplicationVerificationFailure.into());
        }
        match &self.roots {
            Some(roots) => {
                roots.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
            }
            None => Ok(ServerCertVerified::assertion()),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
