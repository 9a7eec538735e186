//! The options that say how registries and other servers are reached, and the file that says the same.

use std::path::{Path, PathBuf};

use errors::trusted;
use images::registry::{Mirror, Registries};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use serde::Deserialize;

use crate::capture::Upstream;
use crate::error::{Error, Kind, Result, Told};

/// The most bytes of a file of certificates, and of registries.
const FILE_LIMIT: u64 = 1 << 20;
/// The most certificates that are added to the system's.
const MAX_ROOTS: usize = 256;

/// The options of commands that reach a registry.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct Reach {
    /// Speak plain HTTP to this registry or mirror; loopback needs no mention.
    #[arg(long, value_name = "HOST")]
    insecure_registry: Vec<String>,
    /// Ask this mirror before the registry for whatever has a digest; may be given several times, in their order.
    #[arg(long = "mirror", value_name = "REGISTRY=HOST[:PORT][/PREFIX]", value_parser = super::cli::pair)]
    mirrors: Vec<(String, String)>,
    /// A file (TOML) that names mirrors and plain registries: see docs/registries.md.
    #[arg(long, env = "COUNTERSIGN_REGISTRIES", value_name = "FILE")]
    registries: Option<PathBuf>,
    #[command(flatten)]
    authorities: Authorities,
}

/// Whose certificates are believed.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct Authorities {
    /// Trust the certificates in this PEM file beside the system's, for registries and for all that a build's steps ask; may
    /// be given several times, in the environment with a colon between them.
    #[arg(long = "extra-ca", env = "COUNTERSIGN_EXTRA_CA", value_name = "FILE", value_delimiter = ':')]
    extra_cas: Vec<PathBuf>,
}

/// The file.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    insecure: Vec<String>,
    #[serde(default)]
    registry: Vec<Entry>,
}

/// One registry of it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    name: String,
    #[serde(default)]
    only: bool,
    mirror: Vec<MirrorEntry>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct MirrorEntry {
    at: String,
    #[serde(default)]
    tags: bool,
}

impl Reach {
    /// How registries are reached. Mirrors of the command line come before those of the file.
    ///
    /// # Errors
    /// When a mirror is none, or a file cannot be read.
    pub fn registries(&self) -> Result<Registries> {
        let mut all = Registries { plain: self.insecure_registry.clone(), ..Registries::default() };
        for (name, at) in &self.mirrors {
            add(&mut all, name, at, false)?;
        }
        if let Some(path) = &self.registries {
            read_into(&mut all, path)?;
        }
        all.roots = self.authorities.roots()?.iter().map(|root| root.to_vec()).collect();
        Ok(all)
    }

    /// How the servers are reached that a build's steps ask.
    ///
    /// # Errors
    /// When a file of certificates cannot be read, or holds none.
    pub fn upstream(&self) -> Result<Upstream> {
        self.authorities.upstream()
    }
}

impl Authorities {
    /// How servers are reached whose certificates these may have signed.
    ///
    /// # Errors
    /// When a file of certificates cannot be read, or holds none.
    pub fn upstream(&self) -> Result<Upstream> {
        Ok(self.roots()?.into_iter().fold(Upstream::system(), Upstream::with_root))
    }

    fn roots(&self) -> Result<Vec<CertificateDer<'static>>> {
        let mut all = Vec::new();
        for path in &self.extra_cas {
            all.extend(certificates(path)?);
        }
        match all.len() > MAX_ROOTS {
            true => Err(Error::new(Kind::Input, format!("--extra-ca: more than {MAX_ROOTS} certificates"))),
            false => Ok(all),
        }
    }
}

fn add(all: &mut Registries, name: &str, at: &str, tags: bool) -> Result<()> {
    let bad = |what: String| Error::new(Kind::Usage, what).hint("a mirror is REGISTRY=HOST[:PORT][/PREFIX]");
    let is_name = format!("{name}/x").parse().is_ok_and(|it: attestations::Repository| it.registry() == name);
    if !is_name {
        return Err(bad(format!("`{name}` is no registry's name")));
    }
    let mirror: Mirror = at.parse().map_err(|cause: images::Error| bad(cause.to_string()))?;
    all.mirrored.entry(name.to_owned()).or_default().add(mirror.believed(tags)).told()
}

fn read_into(all: &mut Registries, path: &Path) -> Result<()> {
    let bad = |cause: String| Error::new(Kind::Input, format!("{}: {cause}", path.display()));
    let bytes = trusted::read(path, FILE_LIMIT)?;
    let text = str::from_utf8(&bytes).map_err(|cause| bad(cause.to_string()))?;
    let file: File = toml::from_str(text).map_err(|cause| bad(cause.to_string()))?;
    all.plain.extend(file.insecure);
    for entry in file.registry {
        if entry.mirror.is_empty() {
            return Err(bad(format!("{} has no mirror", entry.name)));
        }
        for mirror in &entry.mirror {
            add(all, &entry.name, &mirror.at, mirror.tags).map_err(|error| bad(error.to_string()))?;
        }
        all.mirrored.entry(entry.name).or_default().only |= entry.only;
    }
    Ok(())
}

/// The certificates of a PEM file, each of which can be a root.
fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>> {
    let bad = |what: String| {
        Error::new(Kind::Input, format!("--extra-ca {}: {what}", path.display()))
            .hint("give the authority's certificate as PEM, between BEGIN CERTIFICATE and END CERTIFICATE")
    };
    let bytes = trusted::read(path, FILE_LIMIT)?;
    let found = CertificateDer::pem_slice_iter(&bytes).collect::<std::result::Result<Vec<_>, _>>();
    let found = found.map_err(|cause| bad(format!("it cannot be read as PEM: {cause:?}")))?;
    if found.is_empty() {
        return Err(bad("it holds no certificate".to_owned()));
    }
    let mut store = rustls::RootCertStore::empty();
    for root in &found {
        store.add(root.clone()).map_err(|cause| bad(format!("a certificate in it is none: {cause}")))?;
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(text: &str) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        file
    }

    fn of_file(text: &str) -> Result<Registries> {
        let file = file(text);
        Reach { registries: Some(file.path().to_owned()), ..Reach::default() }.registries()
    }

    #[test]
    fn options_come_before_the_file() {
        let file = file(
            "insecure = [\"two.example:5000\"]\n[[registry]]\nname = \"registry.example\"\nonly = true\n\
             [[registry.mirror]]\nat = \"two.example:5000/hub\"\ntags = true\n",
        );
        let reach = Reach {
            insecure_registry: vec!["plain.example".into()],
            mirrors: vec![("registry.example".into(), "one.example".into())],
            registries: Some(file.path().to_owned()),
            ..Reach::default()
        };
        let all = reach.registries().unwrap();
        assert_eq!(all.plain, ["plain.example", "two.example:5000"]);
        let mirrored = &all.mirrored["registry.example"];
        let list: Vec<_> = mirrored.mirrors.iter().map(|mirror| (mirror.host(), mirror.tags)).collect();
        assert_eq!((mirrored.only, list), (true, vec![("one.example", false), ("two.example:5000", true)]));
    }

    #[test]
    fn what_is_wrong_in_the_file_is_told_with_its_path() {
        for (text, words) in [
            ("insecur = []", "insecur"),
            ("[[registry]]\nname = \"a.example\"\nmirror = []", "no mirror"),
            ("[[registry]]\nname = \"a.example/b\"\n[[registry.mirror]]\nat = \"m.example\"", "a.example/b"),
            (
                "[[registry]]\nname = \"a.example\"\n[[registry.mirror]]\nat = \"https://m.example\"",
                "https://m.example",
            ),
            ("[[registry]]\nname = \"a.example\"\n[[registry.mirror]]\nat = \"m.example\"\ntag = 1", "tag"),
        ] {
            let error = of_file(text).unwrap_err().to_string();
            assert!(error.starts_with('/') && error.contains(words), "{text}: {error}");
        }
        let many = "[[registry.mirror]]\nat = \"m.example\"\n".repeat(17);
        assert!(of_file(&format!("[[registry]]\nname = \"a.example\"\n{many}")).is_err());
    }

    #[test]
    fn a_file_without_a_certificate_is_an_error() {
        let made = rcgen::generate_simple_self_signed(vec!["a.example".to_owned()]).unwrap();
        let pem = made.cert.pem();
        let roots = |text: &str| {
            let file = file(text);
            Authorities { extra_cas: vec![file.path().to_owned()] }.roots()
        };
        assert_eq!(roots(&format!("a comment\n{pem}{pem}")).unwrap().len(), 2);
        let key = made.signing_key.serialize_pem();
        let cut = pem.replace("MII", "MIII");
        for (text, words) in [("", "no certificate"), (&key, "no certificate"), (&cut, "--extra-ca")] {
            let error = roots(text).unwrap_err().to_string();
            assert!(error.contains(words), "{error}");
        }
        assert!(roots(&pem.repeat(2000)).is_err(), "files are bounded");
    }
}
