//! The options for reaching registries and other servers, and the file with the same settings.

use std::path::{Path, PathBuf};

use errors::trusted;
use images::registry::config::{CertificateError, MirrorEntry, read_certificates};
use images::registry::{Registries, RegistryConfig};
use rustls::pki_types::CertificateDer;

use crate::error::{Error, Kind, Result};
use recorder::Upstream;

/// The most bytes of a registries file.
const FILE_LIMIT: u64 = 1 << 20;

/// The options of commands that reach a registry.
#[derive(Debug, Clone, Default, clap::Args)]
#[command(next_help_heading = "Registries and servers")]
pub(crate) struct Reach {
    /// Use plain HTTP for this registry or mirror; loopback addresses need no mention.
    #[arg(long, value_name = "HOST")]
    insecure_registry: Vec<String>,
    /// Mirror to ask before the registry, for content that is known by digest; several are tried in the order given.
    #[arg(long = "mirror", value_name = "REGISTRY=HOST[:PORT][/PREFIX]", value_parser = super::build::pair)]
    mirrors: Vec<(String, String)>,
    /// TOML file that lists mirrors and plain-HTTP registries; see docs/registries.md.
    #[arg(long, env = "COUNTERSIGN_REGISTRIES", value_name = "FILE")]
    registries: Option<PathBuf>,
    #[command(flatten)]
    authorities: Authorities,
}

/// Whose certificates are believed.
#[derive(Debug, Clone, Default, clap::Args)]
#[command(next_help_heading = "Registries and servers")]
pub(crate) struct Authorities {
    /// PEM file of CA certificates to trust besides the system's, for registries and for what build steps fetch; may
    /// be given several times, or separated by colons.
    #[arg(long = "extra-ca", env = "COUNTERSIGN_EXTRA_CA", value_name = "FILE", value_delimiter = ':')]
    extra_cas: Vec<PathBuf>,
}

/// Which servers may be asked that are not of the public Internet.
#[derive(Debug, Clone, Default, clap::Args)]
#[command(next_help_heading = "Registries and servers")]
pub(crate) struct PrivateHosts {
    /// Let build steps fetch from this host although it has a private address, such as a package mirror of your own
    /// network; `*` permits every host; may be given several times, or with commas.
    #[arg(
        long = "allow-private",
        value_name = "NAME",
        value_delimiter = ',',
        env = "COUNTERSIGN_ALLOW_PRIVATE",
        hide_env_values = true
    )]
    allow_private: Vec<String>,
}

impl PrivateHosts {
    /// Adds them to how servers are reached.
    ///
    /// # Errors
    /// When one is no host's name.
    pub(crate) fn permit(&self, upstream: Upstream) -> Result<Upstream> {
        self.allow_private.iter().try_fold(upstream, |upstream, name| {
            upstream.with_private(name).map_err(|cause| {
                Error::new(Kind::Usage, format!("--allow-private: {cause}"))
                    .hint("give the name that the Dockerfile's URLs have, without scheme and port")
            })
        })
    }
}

impl Reach {
    /// How to reach registries. Mirrors of the command line come before those of the file.
    ///
    /// # Errors
    /// When a mirror is not valid, or a file cannot be read.
    pub(crate) fn registries(&self) -> Result<Registries> {
        let mut all = Registries { plain: self.insecure_registry.clone(), ..Registries::default() };
        for (name, at) in &self.mirrors {
            let mirror = MirrorEntry { at: at.clone(), tags: false };
            all.add_mirror(name, &mirror).map_err(|cause| {
                Error::new(Kind::Usage, cause.to_string()).hint("a mirror is REGISTRY=HOST[:PORT][/PREFIX]")
            })?;
        }
        if let Some(path) = &self.registries {
            read_into(&mut all, path)?;
        }
        all.roots = self.authorities.roots()?;
        Ok(all)
    }

    /// How to reach the servers that a build's steps use.
    ///
    /// # Errors
    /// When a file of certificates cannot be read, or has none.
    pub(crate) fn upstream(&self) -> Result<Upstream> {
        self.authorities.upstream()
    }
}

impl Authorities {
    /// How to reach servers whose certificates these authorities may have signed.
    ///
    /// # Errors
    /// When a file of certificates cannot be read, or has none.
    pub(crate) fn upstream(&self) -> Result<Upstream> {
        let roots = self.roots()?.into_iter().map(CertificateDer::from);
        Ok(roots.fold(Upstream::system(), Upstream::with_root))
    }

    fn roots(&self) -> Result<Vec<Vec<u8>>> {
        read_certificates(&self.extra_cas).map_err(|error| match error {
            CertificateError::Read(error) => error,
            CertificateError::TooMany => Error::new(Kind::Input, format!("--extra-ca: {error}")),
            CertificateError::Malformed { .. } => Error::new(Kind::Input, format!("--extra-ca {error}"))
                .hint(
                    "give the authority's certificate as PEM, between BEGIN CERTIFICATE and END CERTIFICATE",
                ),
        })
    }
}

fn read_into(all: &mut Registries, path: &Path) -> Result<()> {
    let bad = |cause: String| Error::new(Kind::Input, format!("{}: {cause}", path.display()));
    let bytes = trusted::read(path, FILE_LIMIT)?;
    let text = str::from_utf8(&bytes).map_err(|cause| bad(cause.to_string()))?;
    let config: RegistryConfig = toml::from_str(text).map_err(|cause| bad(cause.to_string()))?;
    all.add(&config).map_err(|cause| bad(cause.to_string()))
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
