//! Remote sources of `ADD`: a file at a URL, or a git repository. They are distinguished as in BuildKit, once all
//! variables are expanded. Sources that need a password, an agent or a key of this machine are refused, since no
//! other builder has them.

use attestations::Commit;
use sha2::digest::DynDigest;
use url::Url;

use super::Problem;

/// The most bytes of a URL; the recorder does not forward longer ones.
const MAX_URL: usize = 8192;
/// The schemes that a URL or repository is fetched by.
const HTTP: [&str; 2] = ["http://", "https://"];
/// Other transports that BuildKit supports for repositories; they cannot be recorded.
const OTHER_GIT: [&str; 3] = ["git://", "ssh://", "git@"];

/// A remote source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Remote {
    /// A file.
    File(RemoteFile),
    /// The files of a commit.
    Git(RemoteGit),
}

/// A file behind a URL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RemoteFile {
    /// The URL, without its fragment.
    pub(crate) url: Url,
    /// Its name in a folder, if the URL's path has one.
    pub(crate) name: Option<String>,
    /// The required checksum.
    pub(crate) checksum: Option<Checksum>,
}

/// Files of a git repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RemoteGit {
    /// The repository's URL.
    pub(crate) url: Url,
    /// The branch, tag, reference or commit; the repository's `HEAD` by default.
    pub(crate) reference: Option<String>,
    /// The folder to take; "" is the whole repository.
    pub(crate) folder: String,
    /// The required commit.
    pub(crate) commit: Option<Commit>,
}

/// `--checksum` of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Checksum {
    algorithm: &'static str,
    hex: String,
}

impl Checksum {
    /// Parses `sha256:…`, `sha384:…` or `sha512:…`.
    fn parse(text: &str) -> Result<Self, Problem> {
        let wrong = || {
            let text: String = text.chars().take(160).collect();
            Problem::syntax(format!(
                "ADD --checksum={text} is not sha256:, sha384: or sha512: and that many hexadecimal digits"
            ))
        };
        let (name, hex) = text.split_once(':').ok_or_else(wrong)?;
        let (algorithm, digits) = match name {
            "sha256" => ("sha256", 64),
            "sha384" => ("sha384", 96),
            "sha512" => ("sha512", 128),
            _ => return Err(wrong()),
        };
        let is_hex = hex.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        match hex.len() == digits && is_hex {
            true => Ok(Self { algorithm, hex: hex.to_owned() }),
            false => Err(wrong()),
        }
    }

    /// A hasher for its algorithm.
    pub(crate) fn hasher(&self) -> Box<dyn DynDigest> {
        match self.algorithm {
            "sha384" => Box::new(sha2::Sha384::default()),
            "sha512" => Box::new(sha2::Sha512::default()),
            _ => Box::new(sha2::Sha256::default()),
        }
    }

    /// The actual checksum, if it is another.
    pub(crate) fn differs(&self, hasher: Box<dyn DynDigest>) -> Option<String> {
        let found = hex::encode(hasher.finalize());
        (found != self.hex).then(|| format!("{}:{found}", self.algorithm))
    }
}

impl std::fmt::Display for Checksum {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "{}:{}", self.algorithm, self.hex)
    }
}

/// Whether a source is remote, as far as that is known before its variables are expanded.
pub(crate) fn is_remote(source: &str) -> bool {
    HTTP.iter().chain(&OTHER_GIT).any(|scheme| source.starts_with(scheme))
}

/// Whether a remote source is a repository.
pub(crate) fn is_git(source: &str) -> bool {
    let path = source.split(['#', '?']).next().unwrap_or_default();
    is_remote(source) && (path.ends_with(".git") || OTHER_GIT.iter().any(|it| source.starts_with(it)))
}

impl Remote {
    /// Parses an expanded source of `ADD`; none when it is a path of the repository.
    ///
    /// # Errors
    /// A URL that cannot be fetched, and a checksum that is not allowed for it.
    pub(crate) fn parse(source: &str, checksum: Option<&str>) -> Result<Option<Self>, Problem> {
        if OTHER_GIT.iter().any(|it| source.starts_with(it)) {
            return Err(Problem::unsupported(
                format!("ADD {}", shown(source)),
                "its transport cannot be recorded: give the repository's https URL, which ends in .git",
            ));
        }
        if !HTTP.iter().any(|it| source.starts_with(it)) {
            return Ok(None);
        }
        let url = url(source)?;
        Ok(Some(match url.path().ends_with(".git") {
            true => Self::Git(RemoteGit::of(url, checksum)?),
            false => Self::File(RemoteFile::of(url, checksum)?),
        }))
    }
}

impl RemoteFile {
    fn of(mut url: Url, checksum: Option<&str>) -> Result<Self, Problem> {
        url.set_fragment(None);
        let name = name(&url);
        Ok(Self { url, name, checksum: checksum.map(Checksum::parse).transpose()? })
    }
}

impl RemoteGit {
    fn of(mut url: Url, checksum: Option<&str>) -> Result<Self, Problem> {
        if url.query().is_some() {
            return Err(Problem::unsupported(
                format!("ADD {}", shown(url.as_str())),
                "a repository's URL has no query here: name the branch, tag or commit, and the folder, as #REF:FOLDER",
            ));
        }
        let fragment = url.fragment().unwrap_or_default().to_owned();
        url.set_fragment(None);
        let (reference, folder) = fragment.split_once(':').unwrap_or((&fragment, ""));
        if !reference.is_empty() && !is_reference(reference) {
            return Err(Problem::syntax(format!("{} cannot be a branch, tag or commit", shown(reference))));
        }
        let parts: Vec<&str> = folder.split('/').filter(|part| !matches!(*part, "" | ".")).collect();
        if parts.contains(&"..") {
            return Err(Problem::syntax(format!("the folder {} leads out of the repository", shown(folder))));
        }
        let commit = checksum.map(|text| {
            text.parse::<Commit>().map_err(|_| {
                let text = shown(text);
                Problem::syntax(format!("ADD --checksum={text} of a repository is the full id of a commit"))
            })
        });
        Ok(Self {
            url,
            reference: (!reference.is_empty()).then(|| reference.to_owned()),
            folder: parts.join("/"),
            commit: commit.transpose()?,
        })
    }
}

fn url(source: &str) -> Result<Url, Problem> {
    let wrong = |why: &str| Problem::syntax(format!("ADD {}: {why}", shown(source)));
    if source.len() > MAX_URL {
        return Err(wrong("the URL is longer than 8192 bytes"));
    }
    let url = Url::parse(source).map_err(|cause| wrong(&cause.to_string()))?;
    if !url.username().is_empty() || url.password().is_some() {
        let mut bare = url;
        // URLs of these schemes can always have both.
        let _ = bare.set_username("").and_then(|()| bare.set_password(None));
        return Err(Problem::unsupported(
            format!("ADD {} with a user or password", shown(bare.as_str())),
            "they would stand in the provenance, for everybody to read: fetch it in a RUN --mount=type=secret",
        ));
    }
    Ok(url)
}

/// The last non-empty part of the URL's path, decoded. None if there is none that can be a file name.
fn name(url: &Url) -> Option<String> {
    let part = url.path_segments()?.rfind(|part| !part.is_empty())?;
    let text = String::from_utf8(decoded(part)).ok()?;
    let name = text.rsplit('/').find(|part| !part.is_empty())?;
    let fits = !matches!(name, "." | "..") && name.len() <= 255 && !name.contains(char::is_control);
    fits.then(|| name.to_owned())
}

/// Decodes percent-encoding; everything else stays.
pub(crate) fn decoded(text: &str) -> Vec<u8> {
    percent_encoding::percent_decode_str(text).collect()
}

fn is_reference(text: &str) -> bool {
    !text.starts_with('-') && git2::Reference::is_valid_name(&format!("refs/heads/{text}"))
}

fn shown(text: &str) -> String {
    text.chars().take(160).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use super::*;

    #[test]
    fn what_is_no_encoding_stays() {
        for (text, bytes) in
            [("a%20b", &b"a b"[..]), ("%2541", b"%41"), ("%", b"%"), ("%2", b"%2"), ("%zz%ff", b"%zz\xff")]
        {
            assert_eq!(decoded(text), bytes, "{text}");
        }
    }

    fn file(source: &str) -> RemoteFile {
        match Remote::parse(source, None).unwrap().unwrap() {
            Remote::File(file) => file,
            other => panic!("{other:?}"),
        }
    }

    fn git(source: &str) -> RemoteGit {
        match Remote::parse(source, None).unwrap().unwrap() {
            Remote::Git(git) => git,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn files_have_the_name_of_the_last_part_of_their_path() {
        for (source, name) in [
            ("https://a.example/x.tar.gz", Some("x.tar.gz")),
            ("https://a.example/b/c/?v=1#x", Some("c")),
            ("https://a.example/a%20b", Some("a b")),
            ("https://a.example/x%2Fy", Some("y")),
            ("https://a.example/x.git/y", Some("y")),
            ("https://a.example", None),
            ("https://a.example/?x=y", None),
            ("https://a.example/%2e%2E%2F", None),
            ("https://a.example/a%00b", None),
        ] {
            let file = file(source);
            assert_eq!(file.name.as_deref(), name, "{source}");
            assert_eq!(file.url.fragment(), None);
        }
        assert_eq!(Remote::parse("dir/https://x", None), Ok(None));
        assert_eq!(Remote::parse("ftp://a.example/x", None), Ok(None));
    }

    #[test]
    fn repositories_have_a_reference_and_a_folder() {
        let of = |source: &str| {
            let git = git(source);
            (git.url.to_string(), git.reference.unwrap_or_default(), git.folder)
        };
        let url = "https://a.example/x.git".to_owned();
        assert_eq!(of("https://a.example/x.git"), (url.clone(), String::new(), String::new()));
        assert_eq!(of("https://a.example/x.git#v1:/a//b/"), (url.clone(), "v1".into(), "a/b".into()));
        assert_eq!(of("https://a.example/x.git#:b"), (url.clone(), String::new(), "b".into()));
        assert_eq!(
            of("https://a.example/x.git#refs/pull/1/head"),
            (url, "refs/pull/1/head".into(), "".into())
        );
        assert!(
            is_git("https://a.example/x.git#v1")
                && is_git("git@a.example:x")
                && !is_git("https://a.example/x")
        );
    }

    #[test]
    fn what_cannot_be_fetched_is_refused_by_name() {
        for (source, words) in [
            ("git@a.example:x.git", "cannot be recorded"),
            ("git://a.example/x.git", "cannot be recorded"),
            ("ssh://git@a.example/x.git", "cannot be recorded"),
            ("https://user:s3cret@a.example/x", "stand in the provenance"),
            ("https://user@a.example/x.git", "stand in the provenance"),
            ("https://a.example/x.git?ref=v1", "#REF:FOLDER"),
            ("https://a.example/x.git#--upload-pack=x", "cannot be a branch"),
            ("https://a.example/x.git#a..b", "cannot be a branch"),
            ("https://a.example/x.git#v1:../..", "leads out"),
            ("https://", "ADD https://"),
        ] {
            let error = Remote::parse(source, None).unwrap_err().to_string();
            assert!(error.contains(words) && !error.contains("s3cret"), "{source}: {error}");
        }
    }

    #[test]
    fn checksums() {
        let sum = |text: &str| Remote::parse("https://a.example/x", Some(text));
        for (name, digits) in [("sha256", 64), ("sha384", 96), ("sha512", 128)] {
            let text = format!("{name}:{}", "0".repeat(digits));
            let Some(Remote::File(RemoteFile { checksum: Some(checksum), .. })) = sum(&text).unwrap() else {
                panic!()
            };
            assert_eq!(checksum.to_string(), text);
            let mut hasher = checksum.hasher();
            hasher.update(b"x");
            assert!(checksum.differs(hasher).unwrap().starts_with(&format!("{name}:")));
        }
        for text in ["sha256:00", "md5:00", "0", &format!("sha256:{}", "A".repeat(64))] {
            assert!(sum(text).is_err(), "{text}");
        }
        let commit = "0123456789012345678901234567890123456789";
        let git = |text| Remote::parse("https://a.example/x.git", Some(text));
        assert!(matches!(git(commit), Ok(Some(Remote::Git(RemoteGit { commit: Some(_), .. })))));
        for text in ["01234567", "sha256:00", &commit.to_uppercase().replace('0', "g")] {
            assert!(git(text).is_err(), "{text}");
        }
    }
}
