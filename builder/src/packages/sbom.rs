//! Bills of materials: what entered an image's build, in the two forms that other tools read. The same build gives the
//! same bytes: identifiers are made of digests, and the time is the commit's.

use std::collections::BTreeMap;

use attestations::Digest;
use serde_cyclonedx::cyclonedx::v_1_6 as cyclonedx;
use serde_json::Value;
use serde_spdx::spdx::v_2_3 as spdx;

use super::Package;

/// The predicate type of an SPDX document.
pub(crate) const SPDX_PREDICATE: &str = "https://spdx.dev/Document/v2.3";
/// The predicate type of a CycloneDX document.
pub(crate) const CYCLONEDX_PREDICATE: &str = "https://cyclonedx.org/bom/v1.6";

const TOOL: &str = concat!("countersign-builder-", env!("CARGO_PKG_VERSION"));

/// What a bill is of.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Whole<'a> {
    /// The image's name, for people.
    pub(crate) name: &'a str,
    /// The digest of its manifest.
    pub(crate) image: &'a Digest,
    /// Its bases, by name.
    pub(crate) bases: &'a BTreeMap<String, Digest>,
    /// What entered its build.
    pub(crate) packages: &'a [Package],
    /// A time, as RFC 3339 in whole seconds.
    pub(crate) created: &'a str,
}

/// The bill as SPDX 2.3.
///
/// # Errors
/// Never for what can be made here; the serialiser's own error otherwise.
pub(crate) fn spdx(whole: &Whole<'_>) -> serde_json::Result<Value> {
    const IMAGE: &str = "SPDXRef-image";
    let mut packages = vec![spdx_package(IMAGE.to_owned(), whole.name, None, whole.image, None, "CONTAINER")];
    let mut relations = vec![relation("SPDXRef-DOCUMENT", "DESCRIBES", IMAGE)];
    for (number, (name, digest)) in whole.bases.iter().enumerate() {
        let id = format!("SPDXRef-base-{number}");
        relations.push(relation(IMAGE, "DESCENDANT_OF", &id));
        packages.push(spdx_package(id, name, None, digest, None, "CONTAINER"));
    }
    for (number, package) in whole.packages.iter().enumerate() {
        let id = format!("SPDXRef-package-{number}");
        relations.push(relation(&id, "BUILD_DEPENDENCY_OF", IMAGE));
        let name = package.purl.plain_name();
        let version = Some(package.purl.version.as_str()).filter(|version| !version.is_empty());
        packages.push(spdx_package(id, &name, version, &package.digest, Some(package), "LIBRARY"));
    }
    let document = spdx::Spdx {
        spdxid: "SPDXRef-DOCUMENT".to_owned(),
        annotations: None,
        comment: None,
        creation_info: spdx::SpdxCreationInfo {
            comment: None,
            created: whole.created.to_owned(),
            creators: vec![format!("Tool: {TOOL}")],
            license_list_version: None,
        },
        data_license: "CC0-1.0".to_owned(),
        document_describes: None,
        document_namespace: format!("https://countersign.dev/spdx/{}", whole.image.hex()),
        external_document_refs: None,
        files: None,
        has_extracted_licensing_infos: None,
        name: whole.name.to_owned(),
        packages: Some(packages),
        relationships: Some(relations),
        revieweds: None,
        snippets: None,
        spdx_version: "SPDX-2.3".to_owned(),
    };
    serde_json::to_value(document)
}

fn relation(from: &str, kind: &str, to: &str) -> spdx::SpdxItemRelationships {
    spdx::SpdxItemRelationships {
        comment: None,
        related_spdx_element: to.to_owned(),
        relationship_type: kind.to_owned(),
        spdx_element_id: from.to_owned(),
    }
}

fn spdx_package(
    id: String,
    name: &str,
    version: Option<&str>,
    digest: &Digest,
    package: Option<&Package>,
    purpose: &str,
) -> spdx::SpdxItemPackages {
    let refs = package.map(|package| {
        vec![spdx::SpdxItemPackagesItemExternalRefs {
            comment: None,
            reference_category: "PACKAGE-MANAGER".to_owned(),
            reference_locator: package.purl.to_string(),
            reference_type: "purl".to_owned(),
        }]
    });
    let unsaid = || Some("NOASSERTION".to_owned());
    spdx::SpdxItemPackages {
        spdxid: id,
        annotations: None,
        attribution_texts: None,
        built_date: None,
        checksums: Some(vec![spdx::SpdxItemPackagesItemChecksums {
            algorithm: "SHA256".to_owned(),
            checksum_value: digest.hex(),
        }]),
        comment: None,
        copyright_text: unsaid(),
        description: None,
        download_location: package.map_or_else(|| "NOASSERTION".to_owned(), location),
        external_refs: refs,
        files_analyzed: Some(false),
        has_files: None,
        homepage: None,
        license_comments: None,
        license_concluded: unsaid(),
        license_declared: unsaid(),
        license_info_from_files: None,
        name: name.to_owned(),
        originator: None,
        package_file_name: None,
        package_verification_code: None,
        primary_package_purpose: Some(purpose.to_owned()),
        release_date: None,
        source_info: None,
        summary: None,
        supplier: None,
        valid_until_date: None,
        version_info: version.map(str::to_owned),
    }
}

/// Where a package came from, without the query: a signed link's secret stands there.
fn location(package: &Package) -> String {
    package.url.split('?').next().unwrap_or_default().to_owned()
}

/// The bill as CycloneDX 1.6.
///
/// # Errors
/// Never for what can be made here; the serialiser's own error otherwise.
pub(crate) fn cyclonedx(whole: &Whole<'_>) -> serde_json::Result<Value> {
    let image = component("container", "image", whole.name, whole.image)?;
    let mut components = Vec::new();
    for (number, (name, digest)) in whole.bases.iter().enumerate() {
        components.push(component("container", &format!("base-{number}"), name, digest)?);
    }
    for (number, package) in whole.packages.iter().enumerate() {
        let kind = if package.purl.kind == "generic" { "file" } else { "library" };
        let name = format!("package-{number}");
        let mut found = component(kind, &name, &package.purl.name, &package.digest)?;
        found.group = Some(package.purl.namespace.clone()).filter(|group| !group.is_empty());
        found.version = Some(package.purl.version.clone()).filter(|version| !version.is_empty());
        found.purl = Some(package.purl.to_string());
        components.push(found);
    }
    let metadata = cyclonedx::Metadata {
        timestamp: Some(whole.created.to_owned()),
        component: Some(image),
        ..Default::default()
    };
    let bill = cyclonedx::CycloneDxBuilder::default()
        .bom_format("CycloneDX")
        .spec_version("1.6")
        .serial_number(format!("urn:uuid:{}", uuid_of(whole.image)))
        .version(1)
        .metadata(metadata)
        .components(components)
        .build()
        .map_err(serde::ser::Error::custom)?;
    serde_json::to_value(bill)
}

fn component(
    kind: &str,
    reference: &str,
    name: &str,
    digest: &Digest,
) -> serde_json::Result<cyclonedx::Component> {
    let hash = cyclonedx::Hash { alg: cyclonedx::HashAlg::Sha256, content: digest.hex() };
    cyclonedx::ComponentBuilder::default()
        .type_(kind)
        .bom_ref(reference)
        .name(name)
        .hashes(vec![hash])
        .build()
        .map_err(serde::ser::Error::custom)
}

/// A UUID made of a digest's first bytes, of the version for such (RFC 9562, section 5.8).
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
        let package = |purl: Purl| Package {
            purl,
            digest: Digest::of(b"file"),
            size: 4,
            url: "https://mirror.example/x".into(),
            step: "line 2".into(),
        };
        let packages = [
            package(Purl::new("npm", "core", "1.0").within("@a")),
            package(Purl::new("generic", "tool", "").with("download_url", "https://dl.example/tool")),
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
        let serial = other["serialNumber"].as_str().unwrap();
        assert_eq!((serial.len(), &serial[23..24]), (45, "8"), "{serial}");
    }
}
