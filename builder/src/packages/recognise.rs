//! Recognises a package by the shape of its URL. The host is not considered, since mirrors and private indexes have
//! other names.

use attestations::Digest;
use url::Url;

use super::Purl;
use super::archive::{at_version, is_word, stem};

/// The facts about an exchange that recognition uses.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Seen<'a> {
    /// The request's method.
    pub(crate) method: &'a str,
    /// The URL.
    pub(crate) url: &'a str,
    /// The response's status code.
    pub(crate) status: u16,
    /// The response's media type.
    pub(crate) content_type: Option<&'a str>,
    /// SHA-256 of the response's body.
    pub(crate) digest: &'a Digest,
}

/// Longer URLs are never recognised.
const MAX_URL: usize = 4096;

/// The package in a response, if it is one.
pub(crate) fn recognise(seen: &Seen<'_>) -> Option<Purl> {
    if seen.status != 200 || seen.url.len() > MAX_URL {
        return None;
    }
    let url = Url::parse(seen.url).ok()?;
    let path: Vec<String> = url.path_segments()?.map(decoded).collect::<Option<_>>()?;
    let path: Vec<&str> = path.iter().map(String::as_str).collect();
    if seen.method == "POST" {
        return git_pack(&url, &path, seen);
    }
    if seen.method != "GET" {
        return None;
    }
    let shapes = [debian, python, conda, cran, npm, cargo, go, apk, rpm, maven];
    let found = shapes.iter().find_map(|shape| shape(&path));
    let words = |purl: &Purl| is_word(&purl.name) && (purl.version.is_empty() || is_word(&purl.version));
    found.filter(words).or_else(|| plain_file(&url, &path, seen))
}

/// A segment without percent-encoding; none when it is no text or holds what no segment may.
fn decoded(segment: &str) -> Option<String> {
    // What is no encoding would stay as it is: here it is a name that no server of packages gives.
    let is_hex = |at: usize| segment.as_bytes().get(at).is_some_and(u8::is_ascii_hexdigit);
    let is_encoded = segment.match_indices('%').all(|(at, _)| is_hex(at + 1) && is_hex(at + 2));
    let text = percent_encoding::percent_decode_str(segment).decode_utf8().ok().filter(|_| is_encoded)?;
    (!text.chars().any(|c| c.is_control() || c == '/')).then(|| text.into_owned())
}

/// `…/pool/main/c/curl/curl_7.88.1-10_amd64.deb`
fn debian(path: &[&str]) -> Option<Purl> {
    let file = path.last()?.strip_suffix(".deb")?;
    let mut parts = file.split('_');
    let (name, version, architecture) = (parts.next()?, parts.next()?, parts.next()?);
    let whole = parts.next().is_none() && [name, version, architecture].iter().all(|part| is_word(part));
    let pool = path.iter().position(|segment| *segment == "pool");
    let vendor = pool.and_then(|at| path.get(at.checked_sub(1)?)).copied().unwrap_or_default();
    let vendor = if vendor.starts_with("ubuntu") { "ubuntu" } else { "debian" };
    whole.then(|| Purl::new("deb", name, version).within(vendor).with("arch", architecture))
}

/// A wheel (PEP 427) or a source distribution (PEP 625) below the folders of hashes, or of names, that indexes use.
fn python(path: &[&str]) -> Option<Purl> {
    let (file, folders) = path.split_last()?;
    if let Some(stem) = file.strip_suffix(".whl") {
        let parts: Vec<&str> = stem.split('-').collect();
        let tags = matches!(parts.len(), 5 | 6);
        return tags.then(|| Purl::new("pypi", parts[0], parts[1]).with("file_name", *file));
    }
    let at_index = folders.iter().any(|folder| matches!(*folder, "packages" | "simple" | "pypi"));
    let (name, version) = at_version(stem(file).filter(|_| at_index)?)?;
    Some(Purl::new("pypi", name, version).with("file_name", *file))
}

/// `…/CHANNEL/linux-64/name-version-build.conda`
fn conda(path: &[&str]) -> Option<Purl> {
    let (file, folders) = path.split_last()?;
    let (stem, ending) = match (file.strip_suffix(".conda"), file.strip_suffix(".tar.bz2")) {
        (Some(stem), _) => (stem, "conda"),
        (_, Some(stem)) => (stem, "tar.bz2"),
        _ => return None,
    };
    let (subdir, above) = folders.split_last()?;
    let known = ["linux-", "osx-", "win-", "noarch", "emscripten-", "wasi-"];
    if !known.iter().any(|beginning| subdir.starts_with(beginning)) {
        return None;
    }
    let mut parts = stem.rsplitn(3, '-');
    let (build, version, name) = (parts.next()?, parts.next()?, parts.next()?);
    let channel = above.last().copied().unwrap_or_default();
    let purl = Purl::new("conda", name, version).with("build", build);
    Some(purl.with("channel", channel).with("subdir", *subdir).with("type", ending))
}

/// `…/src/contrib/Name_1.0-2.tar.gz`, also below `Archive/Name`, and binaries below `bin`.
fn cran(path: &[&str]) -> Option<Purl> {
    let (file, folders) = path.split_last()?;
    if !folders.contains(&"contrib") {
        return None;
    }
    let (name, version) = stem(file)?.split_once('_')?;
    Some(Purl::new("cran", name, version.split("_R_").next()?))
}

/// `…/name/-/name-1.0.0.tgz`, `…/@scope/name/-/name-1.0.0.tgz`
fn npm(path: &[&str]) -> Option<Purl> {
    let [above @ .., name, "-", file] = path else { return None };
    let version = file.strip_suffix(".tgz")?.strip_prefix(name)?.strip_prefix('-')?;
    let scope = above.last().filter(|scope| scope.starts_with('@')).copied().unwrap_or_default();
    Some(Purl::new("npm", *name, version).within(scope))
}

/// `…/crates/name/1.0.0/download` and `…/crates/name/name-1.0.0.crate`
fn cargo(path: &[&str]) -> Option<Purl> {
    if let [.., "crates", name, version, "download"] = path {
        return Some(Purl::new("cargo", *name, *version));
    }
    let [.., name, file] = path else { return None };
    let version = file.strip_suffix(".crate")?.strip_prefix(name)?.strip_prefix('-')?;
    Some(Purl::new("cargo", *name, version))
}

/// `…/example.com/Module/@v/v1.0.0.zip`, capitals written as `!` and the small letter.
fn go(path: &[&str]) -> Option<Purl> {
    let [module @ .., "@v", file] = path else { return None };
    let version = go_path(file.strip_suffix(".zip")?)?;
    // A proxy may lie below a path of its own; a module begins with a domain.
    let start = module.iter().position(|segment| segment.contains('.'))?;
    let (name, namespace) = module[start..].split_last()?;
    let namespace = go_path(&namespace.join("/"))?;
    Some(Purl::new("golang", go_path(name)?, version).within(namespace))
}

fn go_path(escaped: &str) -> Option<String> {
    let mut out = String::with_capacity(escaped.len());
    let mut rest = escaped.chars();
    while let Some(c) = rest.next() {
        out.push(if c == '!' { rest.next()?.to_ascii_uppercase() } else { c });
    }
    Some(out)
}

/// `…/v3.20/main/x86_64/curl-8.9.0-r0.apk`
fn apk(path: &[&str]) -> Option<Purl> {
    let [.., architecture, file] = path else { return None };
    let stem = file.strip_suffix(".apk")?;
    let (front, release) = stem.rsplit_once("-r")?;
    let (name, version) = front.rsplit_once('-')?;
    let whole = release.bytes().all(|byte| byte.is_ascii_digit()) && !release.is_empty();
    whole.then(|| {
        Purl::new("apk", name, format!("{version}-r{release}")).within("alpine").with("arch", *architecture)
    })
}

/// `…/Packages/c/curl-8.0.1-1.fc39.x86_64.rpm`
fn rpm(path: &[&str]) -> Option<Purl> {
    let (front, architecture) = path.last()?.strip_suffix(".rpm")?.rsplit_once('.')?;
    let mut parts = front.rsplitn(3, '-');
    let (release, version, name) = (parts.next()?, parts.next()?, parts.next()?);
    let vendor = match release.rsplit('.').next() {
        Some(tag) if tag.starts_with("fc") => "fedora",
        Some(tag) if tag.starts_with("el") => "redhat",
        _ => "rpm",
    };
    Some(Purl::new("rpm", name, format!("{version}-{release}")).within(vendor).with("arch", architecture))
}

/// `…/org/example/name/1.0/name-1.0[-classifier].jar`
fn maven(path: &[&str]) -> Option<Purl> {
    let [above @ .., name, version, file] = path else { return None };
    let rest = file.strip_prefix(name)?.strip_prefix('-')?.strip_prefix(version)?;
    let (classifier, ending) = match rest.strip_prefix('-') {
        Some(rest) => rest.split_once('.')?,
        None => ("", rest.strip_prefix('.')?),
    };
    if !matches!(ending, "jar" | "pom" | "war" | "aar" | "zip" | "tar.gz" | "module" | "ear" | "xml") {
        return None;
    }
    // Groups are domains turned round; what comes before, such as `maven2`, is the repository's own path.
    const TOP: [&str; 20] = [
        "com", "org", "net", "io", "de", "fr", "uk", "eu", "edu", "gov", "dev", "ch", "nl", "info", "me",
        "cn", "jp", "it", "se", "app",
    ];
    let start = above.iter().position(|segment| TOP.contains(segment));
    let group = match start {
        Some(start) => above[start..].join("."),
        None => (*above.last()?).to_owned(),
    };
    let purl = Purl::new("maven", *name, *version).within(group).with("classifier", classifier);
    Some(if ending == "jar" { purl } else { purl.with("type", ending) })
}

/// A pack of a git repository. The exchange does not tell the commit; the digest is the pack's.
fn git_pack(url: &Url, path: &[&str], seen: &Seen<'_>) -> Option<Purl> {
    let [.., repository, "git-upload-pack"] = path else { return None };
    if seen.content_type != Some("application/x-git-upload-pack-result") {
        return None;
    }
    let name = repository.strip_suffix(".git").unwrap_or(repository);
    let whole = url.as_str().strip_suffix("/git-upload-pack")?;
    is_word(name).then(|| Purl::new("generic", name, "").with("vcs_url", format!("git+{whole}")))
}

/// Names of package indexes, which are archives but not packages.
const INDEXES: [&str; 8] =
    ["packages", "sources", "contents-", "translation-", "release", "inrelease", "repodata", "apkindex"];

/// An archive or program of no known ecosystem.
fn plain_file(url: &Url, path: &[&str], seen: &Seen<'_>) -> Option<Purl> {
    let file = path.last()?;
    let lower = file.to_ascii_lowercase();
    let is_index = INDEXES.iter().any(|index| lower.starts_with(index)) || path.contains(&"by-hash");
    let binary = ["application/octet-stream", "application/zip", "application/gzip", "application/x-"];
    let is_binary =
        seen.content_type.is_some_and(|kind| binary.iter().any(|beginning| kind.starts_with(beginning)));
    let is_file = file.contains('.') && is_binary || stem(file).is_some();
    // What a package needs (PEP 658) is asked for before it is fetched.
    let is_description = [".json", ".xml", ".whl.metadata"].iter().any(|ending| lower.ends_with(ending));
    if is_index || !is_file || is_description {
        return None;
    }
    // Signed links have secrets in the query, which does not identify the file.
    let mut plain = url.clone();
    plain.set_query(None);
    plain.set_fragment(None);
    let purl = Purl::new("generic", *file, "").with("download_url", plain.as_str());
    Some(purl.with("checksum", format!("sha256:{}", seen.digest.hex())))
}

#[cfg(test)]
#[path = "recognise_tests.rs"]
mod tests;
