//! The location of a repository: a path of this machine, or a URL with a transport that git itself checks.

use std::fmt;
use std::path::{Path, PathBuf};

use attestations::Foreign;

use super::SourceError;

const SCHEMES: [&str; 4] = ["https", "http", "ssh", "file"];

/// A repository's location. Paths are absolute, so that the name stays valid.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Location {
    /// The argument for `git fetch`.
    fetch: String,
    /// The repository's name in reviews and provenance.
    uri: String,
}

impl Location {
    /// Parses a path or URL from the user.
    ///
    /// # Errors
    /// [`SourceError::Location`] for an unknown transport, an embedded password, or a path that does not exist.
    pub(crate) fn parse(text: &str) -> Result<Self, SourceError> {
        let refuse = |reason: String| SourceError::Location { location: text.to_owned(), reason };
        if text.is_empty() || text.starts_with('-') || text.contains(['\0', '\n', '\r']) {
            return Err(refuse("it is empty, looks like an option, or holds control characters".to_owned()));
        }
        if text.contains("::") && !text.contains("://") {
            return Err(refuse("transport helpers run programs".to_owned()));
        }
        if text.contains("://") {
            return Self::url(text).map_err(refuse);
        }
        if let Some((host, path)) = scp_form(text) {
            return Ok(Self {
                fetch: text.to_owned(),
                uri: format!("ssh://{host}/{}", path.trim_start_matches('/')),
            });
        }
        let path = std::fs::canonicalize(Path::new(text)).map_err(|error| refuse(error.to_string()))?;
        let path = path.to_str().ok_or_else(|| refuse("the path is not UTF-8".to_owned()))?;
        let uri =
            url::Url::from_file_path(path).map_err(|()| refuse("it is not an absolute path".to_owned()))?;
        Ok(Self { fetch: uri.to_string(), uri: uri.to_string() })
    }

    fn url(text: &str) -> Result<Self, String> {
        let parsed =
            url::Url::parse(text.strip_prefix("git+").unwrap_or(text)).map_err(|error| error.to_string())?;
        if !SCHEMES.contains(&parsed.scheme()) {
            return Err(format!("the transport {} is not one of https, http, ssh, file", parsed.scheme()));
        }
        if parsed.password().is_some() {
            return Err(
                "a password in a location would end up in signed statements; use git's credential helpers"
                    .to_owned(),
            );
        }
        Ok(Self { fetch: parsed.to_string(), uri: parsed.to_string() })
    }

    /// The same location for fetching, but with the name `uri`: for a mirror. The commit's id ensures the same
    /// content.
    #[must_use]
    pub(crate) fn standing_for(self, uri: &str) -> Self {
        Self { uri: uri.to_owned(), ..self }
    }

    /// The name used in statements: a URL without the `git+` prefix.
    pub(crate) fn uri(&self) -> &str {
        &self.uri
    }

    /// Whether it is a folder of this machine.
    pub(super) fn is_local(&self) -> bool {
        self.transport() == Transport::File
    }

    /// The folder, if it is one of this machine.
    pub(super) fn folder(&self) -> Option<PathBuf> {
        self.is_local().then(|| url::Url::parse(&self.fetch).ok()?.to_file_path().ok())?
    }

    /// How it is fetched.
    pub(super) fn transport(&self) -> Transport {
        match self.fetch.split_once("://").map(|(scheme, _)| scheme) {
            Some("https") => Transport::Https,
            Some("http") => Transport::Http,
            Some("file") => Transport::File,
            // `user@host:path` has no scheme.
            _ => Transport::Ssh,
        }
    }

    /// The server that it is fetched from, and the port where one is named.
    pub(super) fn server(&self) -> Option<(String, Option<u16>)> {
        match self.fetch.contains("://") {
            true => {
                let url = url::Url::parse(&self.fetch).ok()?;
                Some((url.host_str()?.to_owned(), url.port()))
            }
            false => {
                let (server, _) = self.fetch.split_once(':')?;
                Some((server.rsplit('@').next().unwrap_or(server).to_owned(), None))
            }
        }
    }

    /// What a repository there calls `written`: a location, or a path (`./`, `../`) from its own, as git takes it.
    ///
    /// # Errors
    /// Why it is none, or must not be fetched for that repository.
    pub(super) fn of_submodule(&self, written: &str) -> Result<Self, String> {
        let shown = Foreign::new(written).to_string();
        let refused = |error: SourceError| match error {
            SourceError::Location { reason, .. } => format!("{shown}: {reason}"),
            other => other.to_string(),
        };
        let found = match written.starts_with("./") || written.starts_with("../") {
            true => {
                let fetch = relative(&self.fetch, written).map_err(|why| format!("{shown} {why}"))?;
                let uri = relative(&self.uri, written).map_err(|why| format!("{shown} {why}"))?;
                Self::parse(&fetch).map_err(refused)?.standing_for(&uri)
            }
            false => Self::parse(written).map_err(refused)?,
        };
        let is_allowed = match found.transport() {
            Transport::Https | Transport::Ssh => true,
            // No weaker than what is fetched already.
            Transport::Http => matches!(self.transport(), Transport::Http | Transport::File),
            Transport::File => self.is_local(),
        };
        match is_allowed {
            true => Ok(found),
            false => Err(format!("{shown} is not fetched by https or ssh")),
        }
    }

    pub(super) fn fetch_argument(&self) -> &str {
        &self.fetch
    }
}

/// How a repository is fetched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Transport {
    Https,
    Http,
    Ssh,
    File,
}

/// A path from a location: parts are taken away from its end, but nothing of its server.
fn relative(location: &str, written: &str) -> Result<String, &'static str> {
    let server = location.find("://").map_or(0, |at| at + 3);
    let mut base = location.trim_end_matches('/');
    let mut separator = '/';
    let mut rest = written;
    loop {
        if let Some(up) = rest.strip_prefix("../") {
            rest = up;
            let cut = base[server..].rfind(if server == 0 { &['/', ':'][..] } else { &['/'][..] });
            let cut = server + cut.ok_or("leads out of the server")?;
            separator = base[cut..].chars().next().unwrap_or('/');
            base = &base[..cut];
        } else if let Some(here) = rest.strip_prefix("./") {
            rest = here;
        } else {
            break;
        }
    }
    Ok(format!("{base}{separator}{}", rest.trim_end_matches('/')))
}

impl fmt::Display for Location {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.uri)
    }
}

/// `user@host:path`, unless a file of that name exists or a slash precedes the colon, as git decides it.
fn scp_form(text: &str) -> Option<(&str, &str)> {
    let (host, path) = text.split_once(':')?;
    let plain = !host.is_empty() && !host.contains('/') && !path.is_empty() && !Path::new(text).exists();
    plain.then_some((host, path))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn urls_and_paths() {
        assert_eq!(Location::parse("https://git.example/a.git").unwrap().uri(), "https://git.example/a.git");
        assert_eq!(Location::parse("git+https://git.example/a").unwrap().uri(), "https://git.example/a");
        assert_eq!(
            Location::parse("git@git.example:team/a.git").unwrap().uri(),
            "ssh://git@git.example/team/a.git"
        );
        let folder = tempfile::tempdir().unwrap();
        let location = Location::parse(folder.path().to_str().unwrap()).unwrap();
        assert!(location.uri().starts_with("file:///"), "{location}");
    }

    #[test]
    fn submodules_are_where_git_would_look_for_them() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["x", "y"] {
            std::fs::create_dir(folder.path().join(name)).unwrap();
        }
        let local = folder.path().join("x").to_str().unwrap().to_owned();
        let beside = url::Url::from_file_path(folder.path().join("y")).unwrap().to_string();
        for (outer, written, uri) in [
            ("https://h.example/a/x.git", "../y.git", "https://h.example/a/y.git"),
            ("https://h.example/a/x.git/", "../../b/y.git/", "https://h.example/b/y.git"),
            ("https://h.example/a/x.git", "./y.git", "https://h.example/a/x.git/y.git"),
            ("https://h.example/a/x.git", "https://o.example/y.git", "https://o.example/y.git"),
            ("https://h.example/a/x.git", "git@o.example:y.git", "ssh://git@o.example/y.git"),
            ("git@h.example:team/x.git", "../y.git", "ssh://git@h.example/team/y.git"),
            ("git@h.example:x.git", "../y.git", "ssh://git@h.example/y.git"),
            ("ssh://git@h.example:2222/a/x", "../y", "ssh://git@h.example:2222/a/y"),
            ("http://h.example/x.git", "http://o.example/y.git", "http://o.example/y.git"),
            (&local, "../y", &beside),
        ] {
            let found = Location::parse(outer).unwrap().of_submodule(written);
            assert_eq!(found.as_ref().map(Location::uri), Ok(uri), "{outer}: {written}");
        }
        let scp = Location::parse("git@h.example:x.git").unwrap().of_submodule("../y.git").unwrap();
        assert_eq!(
            (scp.fetch.as_str(), scp.server()),
            ("git@h.example:y.git", Some(("h.example".into(), None)))
        );
        for (outer, written, words) in [
            ("https://h.example/a/x.git", "../../../y", "leads out"),
            ("https://h.example/a/x.git", "http://h.example/y", "not fetched by https"),
            ("https://h.example/a/x.git", "file:///srv/y", "not fetched by https"),
            ("https://h.example/a/x.git", &local, "not fetched by https"),
            ("https://h.example/a/x.git", "ext::sh -c id", "transport helpers"),
            ("https://h.example/a/x.git", "git://h.example/y", "the transport git"),
            ("https://h.example/a/x.git", "https://user:secret@h.example/y", "password"),
            ("https://h.example/a/x.git", "--upload-pack=id", "like an option"),
            ("https://h.example/a/x.git", "../\n", "control"),
            ("https://h.example/a/x.git", "", "empty"),
        ] {
            let why = Location::parse(outer).unwrap().of_submodule(written).unwrap_err();
            assert!(why.contains(words), "{written}: {why}");
        }
    }

    #[test]
    fn dangerous_locations_are_refused() {
        for text in [
            "ext::sh -c id",
            "--upload-pack=id",
            "",
            "ext://x",
            "git://git.example/a",
            "https://user:secret@git.example/a",
            "/no/such/repository",
            "https://git.example/a\nb",
        ] {
            assert!(matches!(Location::parse(text), Err(SourceError::Location { .. })), "{text}");
        }
    }
}
