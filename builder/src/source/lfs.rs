//! Files in Git LFS: the commit has a pointer to each, with its SHA-256 and size, so that its id covers the content. They are
//! fetched by the batch API (git-lfs' `docs/api/batch.md`), only when something copies them, and checked against the pointer.
//!
//! Deliberately absent: extensions, transfers other than `basic`, and `git-lfs-authenticate` over SSH.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use attestations::{Digest, Foreign};
use errors::chain;
use futures_util::{StreamExt as _, TryStreamExt as _};
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, LOCATION};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use images::{Descriptor, Store};
use recorder::{Clients, Upstream};
use serde::Deserialize;
use url::Url;

use super::gitmodules::listing;
use super::location::Transport;
use super::{Location, SourceError, fetch};

/// The first line of a pointer.
pub(super) const POINTER: &[u8] = b"version https://git-lfs.github.com/spec/v1";
/// The LFS specification keeps pointers below this size, in bytes.
pub(super) const POINTER_LIMIT: usize = 1024;
/// The file in which a commit names its server.
const CONFIG: &str = ".lfsconfig";
const MEDIA_TYPE: &str = "application/vnd.git-lfs+json";
/// The type that files have in the store.
const FILE_TYPE: &str = "application/octet-stream";
/// The largest file, in bytes: no layer could hold a larger one.
const MAX_SIZE: u64 = 64 << 30;
/// How many files are asked for at once, as git-lfs does.
const BATCH: usize = 100;
/// How many files are fetched at the same time.
const AT_ONCE: usize = 4;
/// The most bytes of an answer that lists files.
const MAX_ANSWER: usize = 8 << 20;
/// The most redirects of one file.
const MAX_REDIRECTS: usize = 5;
/// The longest time to connect, and the longest silence in the middle of a response.
const CONNECT: Duration = Duration::from_secs(30);
const STALL: Duration = Duration::from_secs(60);

/// What a pointer stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Pointer {
    /// SHA-256 of the content.
    pub(crate) digest: Digest,
    /// Its size in bytes.
    pub(crate) size: u64,
}

impl Pointer {
    /// Parses a pointer; none for anything that is not exactly one, or that has extensions.
    pub(crate) fn parse(bytes: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(bytes).ok()?;
        let mut lines = text.strip_suffix('\n').unwrap_or(text).split('\n');
        let version = lines.next()?.as_bytes();
        let digest = lines.next()?.strip_prefix("oid sha256:")?;
        let size = lines.next()?.strip_prefix("size ")?;
        let is_number = size.bytes().all(|byte| byte.is_ascii_digit());
        let is_whole = version == POINTER && lines.next().is_none() && is_number;
        let size = size.parse().ok().filter(|size| is_whole && *size <= MAX_SIZE)?;
        Some(Self { digest: Digest::from_hex(digest).ok()?, size })
    }

    fn descriptor(self) -> Descriptor {
        Descriptor::new(FILE_TYPE, self.digest, self.size)
    }
}

/// Where the files of a repository are.
#[derive(Debug, Clone)]
pub(crate) struct LfsHome {
    location: Location,
    /// The server that the commit names itself.
    named: Option<String>,
}

impl LfsHome {
    /// That of a commit's tree.
    ///
    /// # Errors
    /// When its `.lfsconfig` is malformed.
    pub(super) fn of(
        git: &git2::Repository,
        tree: &git2::Tree<'_>,
        location: &Location,
    ) -> Result<Self, SourceError> {
        let listed = listing(git, tree, CONFIG)?;
        let url = |pair: &[u8]| Some(String::from_utf8_lossy(pair.strip_prefix(b"lfs.url\n")?).into_owned());
        let named = listed.split(|byte| *byte == 0).filter_map(url).next_back();
        Ok(Self { location: location.clone(), named })
    }

    /// The repository's name in statements.
    pub(crate) fn uri(&self) -> &str {
        self.location.uri()
    }

    /// The API's address. None where only the folder of this machine can have the files.
    fn endpoint(&self) -> Result<Option<Url>, String> {
        let transport = self.location.transport();
        let text = match (&self.named, transport) {
            (Some(named), _) => named.clone(),
            (None, Transport::File) => return Ok(None),
            (None, _) => by_default(self.location.uri()),
        };
        let shown = Foreign::new(&text);
        let mut url = Url::parse(&text).map_err(|_| format!("{shown} is no URL"))?;
        let is_allowed = match url.scheme() {
            "https" => true,
            "http" => transport == Transport::Http,
            _ => false,
        };
        if !is_allowed || url.password().is_some() {
            return Err(format!("{shown} is not asked: it has to be https, without a password"));
        }
        if let Ok(mut path) = url.path_segments_mut() {
            path.pop_if_empty().extend(["objects", "batch"]);
        }
        Ok(Some(url))
    }

    /// The file of a pointer in a clone on this machine.
    fn in_clone(&self, pointer: Pointer) -> Option<File> {
        let hex = pointer.digest.hex();
        let inner = Path::new("lfs/objects").join(&hex[..2]).join(&hex[2..4]).join(&hex);
        let folder = self.location.folder()?;
        [folder.join(".git").join(&inner), folder.join(&inner)].iter().find_map(|path| File::open(path).ok())
    }
}

/// Where git-lfs looks when nothing else is said.
fn by_default(repository: &str) -> String {
    let repository = repository.trim_end_matches('/');
    let repository = match Url::parse(repository) {
        Ok(url) if url.scheme() == "ssh" => {
            format!("https://{}{}", url.host_str().unwrap_or_default(), url.path())
        }
        _ => repository.to_owned(),
    };
    let ending = if repository.ends_with(".git") { "" } else { ".git" };
    format!("{repository}{ending}/info/lfs")
}

/// The files that a build copies, kept in a store of their own.
pub(crate) struct LfsStore {
    store: Store,
    state_dir: PathBuf,
}

impl LfsStore {
    /// That of a state directory.
    ///
    /// # Errors
    /// When it cannot be created.
    pub(crate) fn open(state_dir: &Path) -> Result<Self, String> {
        let store = Store::open(state_dir.join("lfs")).map_err(|cause| chain::line(&cause))?;
        Ok(Self { store, state_dir: state_dir.to_owned() })
    }

    /// The content of a pointer, which is checked while it is read.
    ///
    /// # Errors
    /// When it was not fetched.
    pub(crate) fn content(&self, pointer: Pointer) -> Result<Box<dyn Read>, String> {
        match self.store.open_blob(&pointer.descriptor()) {
            Ok(content) => Ok(Box::new(content)),
            Err(cause) => Err(chain::line(&cause)),
        }
    }

    /// Fetches what is missing of these files, named by their paths.
    ///
    /// # Errors
    /// The first that cannot be had, with its path.
    pub(crate) fn fetch(
        &self,
        home: &LfsHome,
        files: &BTreeMap<Pointer, String>,
        upstream: &Upstream,
        runtime: &tokio::runtime::Handle,
    ) -> Result<(), SourceError> {
        let mut missing = Vec::new();
        for (pointer, path) in files {
            if self.store.contains(&pointer.digest) {
                continue;
            }
            let in_clone = home.in_clone(*pointer);
            if in_clone.and_then(|file| self.keep(*pointer, file).ok()).is_none() {
                missing.push((*pointer, path.clone()));
            }
        }
        let Some((_, first)) = missing.first() else { return Ok(()) };
        let of = |path: &str, why| SourceError::Lfs { path: Foreign::new(path).to_string(), why };
        let endpoint = home.endpoint().map_err(|why| of(first, why))?;
        let endpoint =
            endpoint.ok_or_else(|| of(first, "the repository's .git/lfs does not have it".to_owned()))?;
        // The server of the repository itself was chosen by whoever builds.
        let upstream = match home.location.server() {
            Some((host, _)) => upstream.clone().with_private(&host).unwrap_or_else(|_| upstream.clone()),
            None => upstream.clone(),
        };
        let clients = upstream.clients(CONNECT, STALL).map_err(|cause| of(first, chain::line(&cause)))?;
        let server = Server { clients, endpoint, store: self };
        runtime.block_on(async {
            for batch in missing.chunks(BATCH) {
                server.batch(batch).await.map_err(|(path, why)| of(&path, why))?;
            }
            Ok(())
        })
    }

    /// Keeps a content if it is that of the pointer.
    fn keep(&self, pointer: Pointer, content: impl Read) -> Result<(), String> {
        let keep = || {
            let mut writer = self.store.writer()?;
            let copied = std::io::copy(&mut content.take(pointer.size + 1), &mut writer);
            copied.map_err(|cause| images::Error::Io {
                doing: "writing",
                path: self.store.root().to_owned(),
                cause,
            })?;
            writer.commit_as(&pointer.descriptor())
        };
        keep().map(drop).map_err(|cause| chain::line(&cause))
    }
}

/// An answer of the batch API.
#[derive(Deserialize)]
struct Answer {
    #[serde(default)]
    transfer: Option<String>,
    objects: Vec<Object>,
}

#[derive(Deserialize)]
struct Object {
    oid: String,
    #[serde(default)]
    actions: Option<Actions>,
    #[serde(default)]
    error: Option<ObjectError>,
}

#[derive(Deserialize)]
struct Actions {
    download: Option<Action>,
}

#[derive(Deserialize)]
struct Action {
    href: String,
    #[serde(default)]
    header: BTreeMap<String, String>,
}

#[derive(Deserialize)]
struct ObjectError {
    code: u32,
    message: String,
}

struct Server<'a> {
    clients: Clients,
    endpoint: Url,
    store: &'a LfsStore,
}

/// A file's path, and why it cannot be had.
type Refused = (String, String);

impl Server<'_> {
    async fn batch(&self, files: &[(Pointer, String)]) -> Result<(), Refused> {
        let Some((_, first)) = files.first() else { return Ok(()) };
        let answer = self.ask(files).await.map_err(|why| (first.clone(), why))?;
        if answer.transfer.as_deref().is_some_and(|transfer| transfer != "basic") {
            return Err((first.clone(), "its server offers no basic transfer".to_owned()));
        }
        let mut objects: BTreeMap<String, Object> =
            answer.objects.into_iter().map(|object| (object.oid.clone(), object)).collect();
        let each = files.iter().map(|(pointer, path)| {
            let object = objects.remove(&pointer.digest.hex());
            async move { self.one(*pointer, object).await.map_err(|why| (path.clone(), why)) }
        });
        futures_util::stream::iter(each).buffer_unordered(AT_ONCE).try_collect::<Vec<()>>().await.map(drop)
    }

    /// Asks where the files are; with the user's credentials if it has to be.
    async fn ask(&self, files: &[(Pointer, String)]) -> Result<Answer, String> {
        let objects: Vec<_> = files
            .iter()
            .map(|(pointer, _)| serde_json::json!({ "oid": pointer.digest.hex(), "size": pointer.size }))
            .collect();
        let body = serde_json::json!({
            "operation": "download", "transfers": ["basic"], "hash_algo": "sha256", "objects": objects,
        });
        let mut headers = fetch::extra_headers(&self.store.state_dir, &self.endpoint);
        for attempt in 0.. {
            let mut request = reqwest::Request::new(Method::POST, self.endpoint.clone());
            *request.headers_mut() = headers.clone();
            for name in [ACCEPT, CONTENT_TYPE] {
                request.headers_mut().insert(name, HeaderValue::from_static(MEDIA_TYPE));
            }
            *request.body_mut() = Some(body.to_string().into());
            let answer = self.send(request).await?;
            match answer.status() {
                StatusCode::OK => return read(answer).await,
                StatusCode::UNAUTHORIZED if attempt == 0 => {
                    let credential = fetch::credential(&self.store.state_dir, &self.endpoint);
                    let credential =
                        credential.ok_or("its server wants credentials, and git has none for it")?;
                    headers.insert(AUTHORIZATION, credential);
                }
                status => return Err(format!("{} was answered with {status}", shown(&self.endpoint))),
            }
        }
        Err("its server was asked too often".to_owned())
    }

    async fn one(&self, pointer: Pointer, object: Option<Object>) -> Result<(), String> {
        let object = object.ok_or("its server does not speak of it")?;
        if let Some(ObjectError { code, message }) = object.error {
            return Err(format!("its server says {code}: {}", Foreign::new(&message)));
        }
        let action = object.actions.and_then(|actions| actions.download);
        let action = action.ok_or("its server does not say where it is")?;
        let mut headers = HeaderMap::new();
        for (name, value) in &action.header {
            let pair = HeaderName::try_from(name).ok().zip(HeaderValue::try_from(value).ok());
            let (name, value) = pair.ok_or("its server names a header that is none")?;
            headers.insert(name, value);
        }
        let mut url = self.allowed(&action.href)?;
        for _ in 0..MAX_REDIRECTS {
            let mut request = reqwest::Request::new(Method::GET, url.clone());
            *request.headers_mut() = headers.clone();
            let answer = self.send(request).await?;
            let status = answer.status();
            if !status.is_redirection() {
                return match status {
                    StatusCode::OK => self.keep(pointer, answer).await,
                    _ => Err(format!("{} was answered with {status}", shown(&url))),
                };
            }
            let target = answer.headers().get(LOCATION).and_then(|target| target.to_str().ok());
            let target =
                target.and_then(|target| url.join(target).ok()).ok_or("it is redirected to nowhere")?;
            let next = self.allowed(target.as_str())?;
            if next.host_str() != url.host_str() {
                headers.remove(AUTHORIZATION);
            }
            url = next;
        }
        Err("it is redirected once more".to_owned())
    }

    /// A URL that is no weaker than the API's.
    fn allowed(&self, text: &str) -> Result<Url, String> {
        let url = Url::parse(text).map_err(|_| format!("{} is no URL", Foreign::new(text)))?;
        match url.scheme() == "https" || url.scheme() == self.endpoint.scheme() {
            true => Ok(url),
            false => Err(format!("{} is not fetched by https", shown(&url))),
        }
    }

    async fn send(&self, request: reqwest::Request) -> Result<reqwest::Response, String> {
        self.clients.execute(request, false).await.map_err(|cause| chain::line(&cause.without_url()))
    }

    async fn keep(&self, pointer: Pointer, mut answer: reqwest::Response) -> Result<(), String> {
        let failed = |cause: reqwest::Error| chain::line(&cause.without_url());
        let mut writer = self.store.store.writer().map_err(|cause| chain::line(&cause))?;
        while let Some(piece) = answer.chunk().await.map_err(failed)? {
            if writer.size() + piece.len() as u64 > pointer.size {
                return Err(format!("its server gives more than the {} bytes of the pointer", pointer.size));
            }
            writer.write_all(&piece).map_err(|cause| chain::line(&cause))?;
        }
        writer.commit_as(&pointer.descriptor()).map(drop).map_err(|cause| chain::line(&cause))
    }
}

async fn read(mut answer: reqwest::Response) -> Result<Answer, String> {
    let mut bytes = Vec::new();
    while let Some(piece) = answer.chunk().await.map_err(|cause| chain::line(&cause.without_url()))? {
        if bytes.len() + piece.len() > MAX_ANSWER {
            return Err("its server's answer is too large".to_owned());
        }
        bytes.extend_from_slice(&piece);
    }
    serde_json::from_slice(&bytes).map_err(|_| "its server's answer is none of the batch API".to_owned())
}

/// A URL without its query, where signed links have their secret.
fn shown(url: &Url) -> String {
    let mut url = url.clone();
    url.set_query(None);
    url.to_string()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn pointers_are_read_exactly() {
        let digest = Digest::of(b"x");
        let text = |rest: &str| {
            format!("version https://git-lfs.github.com/spec/v1\noid sha256:{}\n{rest}", digest.hex())
        };
        assert_eq!(Pointer::parse(text("size 12\n").as_bytes()), Some(Pointer { digest, size: 12 }));
        for bad in [
            text("size 12\nmore 1\n"),
            text("size +12\n"),
            text("size 12345678901234567890\n"),
            text("size \n"),
            text("size 12\n").replace("/v1", "/v2"),
            text("size 12\n").replace("oid", "ext-0-x sha256:00\noid"),
            text("size 12\n").replace(&digest.hex()[..2], ""),
            String::new(),
        ] {
            assert_eq!(Pointer::parse(bad.as_bytes()), None, "{bad}");
        }
    }

    #[test]
    fn servers_are_where_git_lfs_looks_for_them() {
        let home = |location: &str, named: Option<&str>| LfsHome {
            location: Location::parse(location).unwrap(),
            named: named.map(str::to_owned),
        };
        let found = |location: &str, named| home(location, named).endpoint().unwrap().unwrap().to_string();
        let batch = "https://h.example/a/x.git/info/lfs/objects/batch";
        for location in ["https://h.example/a/x.git", "https://h.example/a/x/", "ssh://git@h.example:22/a/x"]
        {
            assert_eq!(found(location, None), batch, "{location}");
        }
        let named = found("https://h.example/a/x.git", Some("https://lfs.example/team/"));
        assert_eq!(named, "https://lfs.example/team/objects/batch");
        assert_eq!(found("http://h.example/x", None), "http://h.example/x.git/info/lfs/objects/batch");
        for named in
            ["http://lfs.example/", "file:///srv", "ssh://lfs.example/", "https://u:p@lfs.example/", "x"]
        {
            assert!(home("https://h.example/x", Some(named)).endpoint().is_err(), "{named}");
        }
        let folder = tempfile::tempdir().unwrap();
        assert!(home(folder.path().to_str().unwrap(), None).endpoint().unwrap().is_none());
    }
}
