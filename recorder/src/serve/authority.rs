//! The certificate authority of one build. Its key never leaves memory and ends with the build.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, Certificate, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use rustls::ServerConfig;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};

use super::http2::Wire;
use crate::Error;
use crate::host_name::HostName;

/// Tolerance for a clock that is behind.
const BEFORE: Duration = Duration::from_secs(24 * 3600);

/// Longer than any build, and shorter than the lifetime that clients accept for a server certificate.
const AFTER: Duration = Duration::from_secs(30 * 24 * 3600);

/// Issues a certificate for each name that the build connects to.
pub(crate) struct Authority {
    pem: String,
    der: Vec<u8>,
    issuer: Issuer<'static, KeyPair>,
    leaf_key: KeyPair,
    configs: Mutex<HashMap<(HostName, Wire), Arc<ServerConfig>>>,
}

impl Authority {
    pub(crate) fn mint() -> Result<Authority, Error> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::new(Vec::new())?;
        params.distinguished_name.push(DnType::CommonName, "countersign: network of this build");
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        set_validity(&mut params);
        let certificate = params.self_signed(&key)?;
        Ok(Authority {
            pem: certificate.pem(),
            der: certificate.der().to_vec(),
            issuer: Issuer::new(params, key),
            leaf_key: KeyPair::generate()?,
            configs: Mutex::default(),
        })
    }

    /// The CA certificate for the step to trust, as PEM.
    pub(crate) fn pem(&self) -> &str {
        &self.pem
    }

    /// The CA certificate as DER.
    pub(crate) fn der(&self) -> &[u8] {
        &self.der
    }

    /// The TLS configuration for one name. The cache is bounded, because names come from the bounded table.
    pub(crate) fn config_for(&self, name: &HostName, wire: Wire) -> Result<Arc<ServerConfig>, Error> {
        let mut configs = self.configs.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (name.clone(), wire);
        if let Some(config) = configs.get(&key) {
            return Ok(config.clone());
        }
        let config = Arc::new(self.new_config(name, wire)?);
        configs.insert(key, config.clone());
        Ok(config)
    }

    fn new_config(&self, name: &HostName, wire: Wire) -> Result<ServerConfig, Error> {
        let leaf = self.leaf(name)?;
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(self.leaf_key.serialize_der()));
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(vec![leaf.der().clone()], key)?;
        config.alpn_protocols = vec![wire.alpn().to_vec()];
        Ok(config)
    }

    fn leaf(&self, name: &HostName) -> Result<Certificate, Error> {
        let mut params = CertificateParams::new(vec![name.as_str().to_owned()])?;
        // A common name has at most 64 characters; clients check the alternative name anyway.
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, "countersign");
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;
        set_validity(&mut params);
        Ok(params.signed_by(&self.leaf_key, &self.issuer)?)
    }
}

fn set_validity(params: &mut CertificateParams) {
    let now = SystemTime::now();
    params.not_before = (now - BEFORE).into();
    params.not_after = (now + AFTER).into();
}
