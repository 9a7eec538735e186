//! SBOMs: the inputs of an image's build, as SPDX and as CycloneDX. Equal builds give equal bytes: identifiers are
//! derived from digests, and the time is the commit's.

use std::collections::BTreeMap;

use attestations::Digest;
use serde::Serialize;
use serde_json::Value;

use super::Package;

/// The predicate type of an SPDX document.
pub(crate) const SPDX_PREDICATE: &str = "https://spdx.dev/Document/v2.3";
/// The predicate type of a CycloneDX document.
pub(crate) const CYCLONEDX_PREDICATE: &str = "https://cyclonedx.org/bom/v1.6";

const TOOL: &str = concat!("countersign-builder-", env!("CARGO_PKG_VERSION"));

/// The subject of an SBOM.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Whole<'a> {
    /// The image's name, for people.
    pub(crate) name: &'a str,
    /// The digest of its manifest.
    pub(crate) image: &'a Digest,
    /// Its bases, by name.
    pub(crate) bases: &'a BTreeMap<String, Digest>,
    /// The packages of its build.
    pub(crate) packages: &'a [Package],
    /// A time, as RFC 3339 in whole seconds.
    pub(crate) created: &'a str,
}

/// The SBOM as SPDX 2.3.
///
/// # Errors
/// Never for these values; otherwise the serialiser's own error.
pub(crate) fn spdx(whole: &Whole<'_>) -> serde_json::Result<Value> {
    const IMAGE: &str = "SPDXRef-image";
    let mut packages = vec![SpdxPackage::container(IMAGE.to_owned(), whole.name, whole.image)];
    let mut relationships = vec![relation("SPDXRef-DOCUMENT", "DESCRIBES", IMAGE)];
    for (number, (name, digest)) in whole.bases.iter().enumerate() {
        let id = format!("SPDXRef-base-{number}");
        relationships.push(relation(IMAGE, "DESCENDANT_OF", &id));
        packages.push(SpdxPackage::container(id, name, digest));
    }
    for (number, package) in whole.packages.iter().enumerate() {
        let id = format!("SPDXRef-package-{number}");
        relationships.push(relation(&id, "BUILD_DEPENDENCY_OF", IMAGE));
        packages.push(SpdxPackage::library(id, package));
    }
    serde_json::to_value(Spdx {
        spdx_version: "SPDX-2.3",
        spdxid: "SPDXRef-DOCUMENT",
        data_license: "CC0-1.0",
        document_namespace: format!("https://countersign.dev/spdx/{}", whole.image.hex()),
        name: whole.name,
        creation_info: CreationInfo { created: whole.created, creators: [format!("Tool: {TOOL}")] },
        packages,
        relationships,
    })
}

/// An SPDX document, with the fields that are used here.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Spdx<'a> {
    spdx_version: &'static str,
    #[serde(rename = "SPDXID")]
    spdxid: &'static str,
    data_license: &'static str,
    document_namespace: String,
    name: &'a str,
    creation_info: CreationInfo<'a>,
    packages: Vec<SpdxPackage>,
    relationships: Vec<Relationship>,
}

#[derive(Serialize)]
struct CreationInfo<'a> {
    created: &'a str,
    creators: [String; 1],
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Relationship {
    spdx_element_id: String,
    relationship_type: &'static str,
    related_spdx_element: String,
}

fn relation(from: &str, kind: &'static str, to: &str) -> Relationship {
    let (spdx_element_id, related_spdx_element) = (from.to_owned(), to.to_owned());
    Relationship { spdx_element_id, relationship_type: kind, related_spdx_element }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct SpdxPackage {
    #[serde(rename = "SPDXID")]
    spdxid: String,
    name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    version_info: Option<String>,
    checksums: [Checksum; 1],
    download_location: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    external_refs: Option<[ExternalRef; 1]>,
    files_analyzed: bool,
    primary_package_purpose: &'static str,
    copyright_text: &'static str,
    license_concluded: &'static str,
    license_declared: &'static str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Checksum {
    algorithm: &'static str,
    checksum_value: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ExternalRef {
    reference_category: &'static str,
    reference_type: &'static str,
    reference_locator: String,
}

/// SPDX's value for unknown information.
const UNSAID: &str = "NOASSERTION";

impl SpdxPackage {
    fn container(spdxid: String, name: &str, digest: &Digest) -> Self {
        Self {
            spdxid,
            name: name.to_owned(),
            version_info: None,
            checksums: [Checksum { algorithm: "SHA256", checksum_value: digest.hex() }],
            download_location: UNSAID.to_owned(),
            external_refs: None,
            files_analyzed: false,
            primary_package_purpose: "CONTAINER",
            copyright_text: UNSAID,
            license_concluded: UNSAID,
            license_declared: UNSAID,
        }
    }

    fn library(spdxid: String, package: &Package) -> Self {
        let purl = ExternalRef {
            reference_category: "PACKAGE-MANAGER",
            reference_type: "purl",
            reference_locator: package.purl.to_string(),
        };
        Self {
            version_info: Some(package.purl.version.clone()).filter(|version| !version.is_empty()),
            // Without the query, where a signed link has its secret.
            download_location: package.url.split('?').next().unwrap_or_default().to_owned(),
            external_refs: Some([purl]),
            primary_package_purpose: "LIBRARY",
            ..Self::container(spdxid, &package.purl.plain_name(), &package.digest)
        }
    }
}

/// The SBOM as CycloneDX 1.6.
///
/// # Errors
/// Never for these values; otherwise the serialiser's own error.
pub(crate) fn cyclonedx(whole: &Whole<'_>) -> serde_json::Result<Value> {
    let container = |reference, name, digest| Component::new("container", reference, name, digest);
    let bases = whole.bases.iter().enumerate();
    let bases = bases.map(|(number, (name, digest))| container(format!("base-{number}"), name, digest));
    let packages = whole.packages.iter().enumerate();
    let packages = packages.map(|(number, package)| Component::of(format!("package-{number}"), package));
    serde_json::to_value(CycloneDx {
        bom_format: "CycloneDX",
        spec_version: "1.6",
        serial_number: format!("urn:uuid:{}", uuid_of(whole.image)),
        version: 1,
        metadata: Metadata {
            timestamp: whole.created,
            component: container("image".to_owned(), whole.name, whole.image),
        },
        components: bases.chain(packages).collect(),
    })
}

/// A CycloneDX document, with the fields that are used here.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct CycloneDx<'a> {
    bom_format: &'static str,
    spec_version: &'static str,
    serial_number: String,
    version: u32,
    metadata: Metadata<'a>,
    components: Vec<Component>,
}

#[derive(Serialize)]
struct Metadata<'a> {
    timestamp: &'a str,
    component: Component,
}

#[derive(Serialize)]
struct Component {
    #[serde(rename = "type")]
    kind: &'static str,
    #[serde(rename = "bom-ref")]
    reference: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    group: Option<String>,
    name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<String>,
    hashes: [Hash; 1],
    #[serde(skip_serializing_if = "Option::is_none")]
    purl: Option<String>,
}

#[derive(Serialize)]
struct Hash {
    alg: &'static str,
    content: String,
}

impl Component {
    fn new(kind: &'static str, reference: String, name: &str, digest: &Digest) -> Self {
        let hashes = [Hash { alg: "SHA-256", content: digest.hex() }];
        Self { kind, reference, group: None, name: name.to_owned(), version: None, hashes, purl: None }
    }

    fn of(reference: String, package: &Package) -> Self {
        let purl = &package.purl;
        let kind = if purl.kind == "generic" { "file" } else { "library" };
        Self {
            group: Some(purl.namespace.clone()).filter(|group| !group.is_empty()),
            version: Some(purl.version.clone()).filter(|version| !version.is_empty()),
            purl: Some(purl.to_string()),
            ..Self::new(kind, reference, &purl.name, &package.digest)
        }
    }
}

/// A UUID from a digest's first bytes, with the version for such UUIDs (RFC 9562, section 5.8).
fn uuid_of(digest: &Digest) -> String {
    let hex = digest.hex();
    let variant = match hex.as_bytes()[16] {
        b'0'..=b'3' => '8',
        b'4'..=b'7' => '9',
        b'8' | b'9' | b'a' | b'b' => 'a',
        _ => 'b',
    };
    format!("{}-{}-8{}-{variant}{}-{}", &hex[..8], &hex[8..12], &hex[13..16], &hex[17..20], &hex[20..32])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packages::Purl;

    #[test]
    fn a_bill_is_the_same_for_the_same_build_and_names_every_package() {
        let package = |purl: Purl, url: &str| Package {
            purl,
            digest: Digest::of(b"file"),
            size: 4,
            url: url.into(),
            step: recorder::StepId::new("stage", 2),
        };
        let packages = [
            package(
                Purl::new("npm", "core", "1.0").within("@a"),
                "https://mirror.example/x?signature=secret",
            ),
            package(
                Purl::new("generic", "tool", "").with("download_url", "https://dl.example/tool"),
                "https://dl.example/tool",
            ),
        ];
        let bases = BTreeMap::from([("debian:bookworm".to_owned(), Digest::of(b"base"))]);
        let whole = Whole {
            name: "average",
            image: &Digest::of(b"image"),
            bases: &bases,
            packages: &packages,
            created: "2026-01-02T03:04:05Z",
        };
        let (one, other) = (spdx(&whole).unwrap(), cyclonedx(&whole).unwrap());
        assert_eq!((spdx(&whole).unwrap(), cyclonedx(&whole).unwrap()), (one.clone(), other.clone()));
        for bill in [one.to_string(), other.to_string()] {
            assert!(bill.contains("pkg:npm/%40a/core@1.0") && bill.contains("pkg:generic/tool?"), "{bill}");
            assert!(bill.contains(&Digest::of(b"base").hex()) && !bill.contains("null"), "{bill}");
        }
        // Exactly the bytes that the formats' own libraries write: signed documents must not change with the
        // implementation.
        let text = |bill: &Value| format!("{bill:#}\n").replace(TOOL, "countersign-builder-VERSION");
        assert_eq!(text(&one), include_str!("vectors/spdx.json"));
        assert_eq!(text(&other), include_str!("vectors/cyclonedx.json"));
        let serial = other["serialNumber"].as_str().unwrap();
        assert_eq!((serial.len(), &serial[23..24]), (45, "8"), "{serial}");
    }
}
