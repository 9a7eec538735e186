//! A Sigstore instance of the tests' own: a certificate authority with an intermediate, and a log that promises and proves.

use attestations::Digest;
use attestations::sigstore::TrustedRoot;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use rcgen::{
    BasicConstraints, CertificateParams, CustomExtension, DistinguishedName, DnType, ExtendedKeyUsagePurpose,
    IsCa, Issuer, KeyPair, KeyUsagePurpose, PublicKeyData as _, SanType, SigningKey as _, date_time_ymd,
};
use serde_json::{Value, json};

pub(crate) const WORKFLOW: &str = "https://ci.example/lab/average/.ci/build.yml@refs/heads/main";
pub(crate) const PROVIDER: &str = "https://tokens.ci.example";
pub(crate) const FILE: &[u8] = b"what was signed";
/// The certificate is valid on this day alone.
pub(crate) const SIGNED: &str = "2026-06-01T12:00:00Z";

/// Days as `(year, month, day)`.
pub(crate) type Day = (i32, u8, u8);

pub(crate) struct Instance {
    root: Vec<u8>,
    intermediate: Vec<u8>,
    issuer: Issuer<'static, KeyPair>,
    log: KeyPair,
}

/// What the one who signs asks for, and when.
pub(crate) struct Wish<'a> {
    pub(crate) names: &'a [&'a str],
    pub(crate) usage: ExtendedKeyUsagePurpose,
    pub(crate) at: &'a str,
}

impl Default for Wish<'_> {
    fn default() -> Self {
        Self { names: &[WORKFLOW], usage: ExtendedKeyUsagePurpose::CodeSigning, at: SIGNED }
    }
}

fn name(text: &str) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, text);
    name
}

fn authority(text: &str, (year, month, day): Day) -> CertificateParams {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.distinguished_name = name(text);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    params.not_before = date_time_ymd(2020, 1, 1);
    params.not_after = date_time_ymd(year, month, day);
    params
}

impl Instance {
    /// One whose intermediate certificate ends on that day.
    pub(crate) fn until(end: Day) -> Self {
        let (root_key, key) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
        let root = authority("root", (2036, 1, 1));
        let root_certificate = root.self_signed(&root_key).unwrap().der().to_vec();
        let mut intermediate = authority("intermediate", end);
        intermediate.extended_key_usages = vec![ExtendedKeyUsagePurpose::CodeSigning];
        let signed = intermediate.signed_by(&key, &Issuer::new(root, root_key)).unwrap();
        Self {
            root: root_certificate,
            intermediate: signed.der().to_vec(),
            issuer: Issuer::new(intermediate, key),
            log: KeyPair::generate().unwrap(),
        }
    }

    pub(crate) fn new() -> Self {
        Self::until((2036, 1, 1))
    }

    /// Whom its users trust.
    pub(crate) fn trusted_root(&self) -> Value {
        let since = json!({ "start": "2020-01-01T00:00:00Z" });
        let certificates =
            [&self.intermediate, &self.root].map(|one| json!({ "rawBytes": STANDARD.encode(one) }));
        json!({
            "mediaType": "application/vnd.dev.sigstore.trustedroot+json;version=0.1",
            "tlogs": [{
                "baseUrl": "https://log.example",
                "hashAlgorithm": "SHA2_256",
                "publicKey": {
                    "rawBytes": STANDARD.encode(self.log.subject_public_key_info()),
                    "keyDetails": "PKIX_ECDSA_P256_SHA_256",
                    "validFor": since,
                },
                "logId": { "keyId": STANDARD.encode(self.log_id().as_bytes()) },
            }],
            "certificateAuthorities": [{
                "subject": { "organization": "example", "commonName": "root" },
                "uri": "https://ca.example",
                "certChain": { "certificates": certificates },
                "validFor": since,
            }],
            "ctlogs": [],
            "timestampAuthorities": [],
        })
    }

    pub(crate) fn trusted(&self) -> TrustedRoot {
        TrustedRoot::parse(self.trusted_root().to_string().as_bytes()).unwrap()
    }

    fn log_id(&self) -> Digest {
        Digest::of(&self.log.subject_public_key_info())
    }

    fn certificate(&self, wish: &Wish<'_>, key: &KeyPair) -> Vec<u8> {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name = DistinguishedName::new();
        params.not_before = date_time_ymd(2026, 6, 1);
        params.not_after = date_time_ymd(2026, 6, 2);
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![wish.usage.clone()];
        params.subject_alt_names =
            wish.names.iter().map(|name| SanType::URI((*name).try_into().unwrap())).collect();
        let mut issuer = vec![0x0c, u8::try_from(PROVIDER.len()).unwrap()];
        issuer.extend(PROVIDER.as_bytes());
        params.custom_extensions =
            vec![CustomExtension::from_oid_content(&[1, 3, 6, 1, 4, 1, 57264, 1, 8], issuer)];
        params.signed_by(key, &self.issuer).unwrap().der().to_vec()
    }

    /// A bundle over [`FILE`], as a workflow makes it.
    pub(crate) fn sign(&self, wish: &Wish<'_>) -> Value {
        let key = KeyPair::generate().unwrap();
        let (certificate, signature) = (self.certificate(wish, &key), key.sign(FILE).unwrap());
        let digest = Digest::of(FILE);
        json!({
            "mediaType": "application/vnd.dev.sigstore.bundle.v0.3+json",
            "verificationMaterial": {
                "certificate": { "rawBytes": STANDARD.encode(&certificate) },
                "tlogEntries": [self.entry(&certificate, &digest, &signature, wish.at)],
            },
            "messageSignature": {
                "messageDigest": { "algorithm": "SHA2_256", "digest": STANDARD.encode(digest.as_bytes()) },
                "signature": STANDARD.encode(&signature),
            },
        })
    }

    /// An entry of the log, the first of two.
    fn entry(&self, certificate: &[u8], digest: &Digest, signature: &[u8], at: &str) -> Value {
        let pem = format!(
            "-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n",
            STANDARD.encode(certificate)
        );
        let body = json!({
            "apiVersion": "0.0.1",
            "kind": "hashedrekord",
            "spec": {
                "data": { "hash": { "algorithm": "sha256", "value": digest.hex() } },
                "signature": {
                    "content": STANDARD.encode(signature),
                    "publicKey": { "content": STANDARD.encode(pem) },
                },
            },
        })
        .to_string();
        let seconds = at.parse::<Timestamp>().unwrap().as_second();
        let (id, encoded) = (self.log_id(), STANDARD.encode(&body));
        // RFC 8785: keys in order, no blanks.
        let promised = format!(
            "{{\"body\":\"{encoded}\",\"integratedTime\":{seconds},\"logID\":\"{}\",\"logIndex\":0}}",
            id.hex()
        );
        let (leaf, other) = (Digest::of(&[&[0], body.as_bytes()].concat()), Digest::of(b"another entry"));
        let top = Digest::of(&[&[1][..], leaf.as_bytes(), other.as_bytes()].concat());
        let note = format!("log.example\n2\n{}\n", STANDARD.encode(top.as_bytes()));
        let signed = [&id.as_bytes()[..4], &self.log.sign(note.as_bytes()).unwrap()].concat();
        json!({
            "logIndex": "0",
            "logId": { "keyId": STANDARD.encode(id.as_bytes()) },
            "kindVersion": { "kind": "hashedrekord", "version": "0.0.1" },
            "integratedTime": seconds.to_string(),
            "inclusionPromise": {
                "signedEntryTimestamp": STANDARD.encode(self.log.sign(promised.as_bytes()).unwrap()),
            },
            "inclusionProof": {
                "logIndex": "0",
                "treeSize": "2",
                "rootHash": STANDARD.encode(top.as_bytes()),
                "hashes": [STANDARD.encode(other.as_bytes())],
                "checkpoint": { "envelope": format!("{note}\n— log.example {}\n", STANDARD.encode(signed)) },
            },
            "canonicalizedBody": encoded,
        })
    }
}
