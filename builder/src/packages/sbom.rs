//! SBOMs: the packages of an image, and what was fetched for it besides, as SPDX and as CycloneDX. Equal builds give equal bytes: identifiers are
//! derived from digests, and the time is the commit's.

use std::collections::BTreeMap;

use attestations::Digest;
use serde::Serialize;
use serde_json::Value;

use super::{Fetched, Installed, Packages, Purl};

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
    /// Its packages, and those that were fetched for it.
    pub(crate) packages: &'a Packages,
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
    for (number, package) in whole.packages.installed.iter().enumerate() {
        let id = format!("SPDXRef-package-{number}");
        relationships.push(relation(IMAGE, "CONTAINS", &id));
        packages.push(SpdxPackage::installed(id, package));
    }
    for (number, file) in whole.packages.passed_by.iter().enumerate() {
        let id = format!("SPDXRef-fetched-{number}");
        relationships.push(relation(&id, "BUILD_DEPENDENCY_OF", IMAGE));
        packages.push(SpdxPackage::library(id, &file.purl, Some(file)));
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
    #[serde(skip_serializing_if = "Option::is_none")]
    source_info: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    checksums: Vec<Checksum>,
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
        Self::of(spdxid, name, Some(digest))
    }

    fn of(spdxid: String, name: &str, digest: Option<&Digest>) -> Self {
        let checksum = |digest: &Digest| Checksum { algorithm: "SHA256", checksum_value: digest.hex() };
        Self {
            spdxid,
            name: name.to_owned(),
            version_info: None,
            source_info: None,
            checksums: digest.map(checksum).into_iter().collect(),
            download_location: UNSAID.to_owned(),
            external_refs: None,
            files_analyzed: false,
            primary_package_purpose: "CONTAINER",
            copyright_text: UNSAID,
            license_concluded: UNSAID,
            license_declared: UNSAID,
        }
    }

    fn installed(spdxid: String, package: &Installed) -> Self {
        let records = package.records.iter().map(|path| format!("/{path}")).collect::<Vec<_>>().join(", ");
        let origin = package.origin.name();
        Self {
            source_info: Some(format!("found in the image by {records}; from the {origin}")),
            ..Self::library(spdxid, &package.purl, package.file.as_ref())
        }
    }

    fn library(spdxid: String, purl: &Purl, file: Option<&Fetched>) -> Self {
        let external = ExternalRef {
            reference_category: "PACKAGE-MANAGER",
            reference_type: "purl",
            reference_locator: purl.to_string(),
        };
        // Without the query, where a signed link has its secret.
        let location = file.and_then(|file| file.url.split('?').next());
        Self {
            version_info: Some(purl.version.clone()).filter(|version| !version.is_empty()),
            download_location: location.unwrap_or(UNSAID).to_owned(),
            external_refs: Some([external]),
            primary_package_purpose: "LIBRARY",
            ..Self::of(spdxid, &purl.plain_name(), file.map(|file| &file.digest))
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
    let packages = whole.packages.installed.iter().enumerate();
    let packages =
        packages.map(|(number, package)| Component::installed(format!("package-{number}"), package));
    let fetched = whole.packages.passed_by.iter().enumerate();
    let fetched = fetched.map(|(number, file)| Component::passed_by(format!("fetched-{number}"), file));
    serde_json::to_value(CycloneDx {
        bom_format: "CycloneDX",
        spec_version: "1.6",
        serial_number: format!("urn:uuid:{}", uuid_of(whole.image)),
        version: 1,
        metadata: Metadata {
            timestamp: whole.created,
            component: container("image".to_owned(), whole.name, whole.image),
        },
        components: bases.chain(packages).chain(fetched).collect(),
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
    /// `excluded` of what is not known to be in the image.
    #[serde(skip_serializing_if = "Option::is_none")]
    scope: Option<&'static str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    hashes: Vec<Hash>,
    #[serde(skip_serializing_if = "Option::is_none")]
    purl: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    properties: Vec<Property>,
    #[serde(skip_serializing_if = "Option::is_none")]
    evidence: Option<Evidence>,
}

#[derive(Serialize)]
struct Property {
    name: &'static str,
    value: String,
}

/// Where the image tells of a package.
#[derive(Serialize)]
struct Evidence {
    occurrences: Vec<Occurrence>,
}

#[derive(Serialize)]
struct Occurrence {
    location: String,
}

#[derive(Serialize)]
struct Hash {
    alg: &'static str,
    content: String,
}

impl Component {
    fn new(kind: &'static str, reference: String, name: &str, digest: &Digest) -> Self {
        Self::bare(kind, reference, name, Some(digest))
    }

    fn bare(kind: &'static str, reference: String, name: &str, digest: Option<&Digest>) -> Self {
        let hash = |digest: &Digest| Hash { alg: "SHA-256", content: digest.hex() };
        let hashes = digest.map(hash).into_iter().collect();
        let (group, version, scope, purl, evidence) = (None, None, None, None, None);
        let (name, properties) = (name.to_owned(), Vec::new());
        Self { kind, reference, group, name, version, scope, hashes, purl, properties, evidence }
    }

    fn installed(reference: String, package: &Installed) -> Self {
        let location = |path: &String| Occurrence { location: format!("/{path}") };
        let occurrences = package.records.iter().map(location).collect();
        let origin = Property { name: "countersign:from", value: package.origin.name().to_owned() };
        Self {
            properties: vec![origin],
            evidence: Some(Evidence { occurrences }),
            ..Self::of(reference, &package.purl, package.file.as_ref())
        }
    }

    /// A file that was fetched, and of which nothing in the image tells.
    fn passed_by(reference: String, file: &Fetched) -> Self {
        let fetched = Property { name: "countersign:from", value: "fetched".to_owned() };
        Self {
            scope: Some("excluded"),
            properties: vec![fetched],
            ..Self::of(reference, &file.purl, Some(file))
        }
    }

    fn of(reference: String, purl: &Purl, file: Option<&Fetched>) -> Self {
        let kind = if purl.kind == "generic" { "file" } else { "library" };
        Self {
            group: Some(purl.namespace.clone()).filter(|group| !group.is_empty()),
            version: Some(purl.version.clone()).filter(|version| !version.is_empty()),
            purl: Some(purl.to_string()),
            ..Self::bare(kind, reference, &purl.name, file.map(|file| &file.digest))
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
    use crate::packages::Origin;

    #[test]
    fn a_bill_is_the_same_for_the_same_build_and_names_every_package() {
        let file = |purl: Purl, url: &str| Fetched {
            purl,
            digest: Digest::of(b"file"),
            size: 4,
            url: url.into(),
            step: recorder::StepId::new("stage", 2),
        };
        let core = Purl::new("npm", "core", "1.0").within("@a");
        let core_file = file(core.clone(), "https://mirror.example/x?signature=secret");
        let installed = |purl, path: &str, origin, file| Installed {
            purl,
            records: [path.to_owned()].into(),
            origin,
            file,
        };
        let tool = Purl::new("generic", "tool", "").with("download_url", "https://dl.example/tool");
        let libc = Purl::new("deb", "libc6", "2.36-9").within("debian").with("arch", "amd64");
        let packages = Packages {
            installed: vec![
                installed(libc, "var/lib/dpkg/status", Origin::Base, None),
                installed(core, "app/node_modules/@a/core/package.json", Origin::Build, Some(core_file)),
            ],
            passed_by: vec![file(tool, "https://dl.example/tool")],
            unread: Vec::new(),
        };
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
        // Signed documents must not change with the implementation.
        let text = |bill: &Value| format!("{bill:#}\n").replace(TOOL, "countersign-builder-VERSION");
        let place = concat!(env!("CARGO_MANIFEST_DIR"), "/src/packages/vectors");
        for (name, bill) in [("spdx.json", &one), ("cyclonedx.json", &other)] {
            let path = format!("{place}/{name}");
            if std::env::var_os("UPDATE_SNAPSHOTS").is_some() {
                std::fs::write(&path, text(bill)).unwrap();
            }
            assert_eq!(text(bill), std::fs::read_to_string(path).unwrap(), "{name}");
        }
        let serial = other["serialNumber"].as_str().unwrap();
        assert_eq!((serial.len(), &serial[23..24]), (45, "8"), "{serial}");
    }
}
