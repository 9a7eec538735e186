//! The location of a repository: a path of this machine, or a URL with a transport that git itself checks.

use std::fmt;
use std::path::Path;

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
        self.fetch.starts_with("file:")
    }

    pub(super) fn fetch_argument(&self) -> &str {
        &self.fetch
    }
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
