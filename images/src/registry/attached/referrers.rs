//! The referrers API (distribution-spec), by which the registry itself lists an image's attachments.

use attestations::{Pinned, Repository};
use reqwest::header::{CONTENT_TYPE, HeaderMap, LINK};
use reqwest::{StatusCode, Url};

use super::super::client::{Client, Request};
use super::MAX_LISTED;
use crate::descriptor::{self, Descriptor};
use crate::error::{Error, Result};
use crate::image::MAX_MANIFEST;
use crate::index::Index;

const MAX_PAGES: usize = 32;

/// How registries and the proxies before them say that they do not have the API. The specification knows 404 alone.
const ABSENT: &[StatusCode] = &[
    StatusCode::NOT_FOUND,
    StatusCode::BAD_REQUEST,
    StatusCode::FORBIDDEN,
    StatusCode::METHOD_NOT_ALLOWED,
    StatusCode::NOT_ACCEPTABLE,
    StatusCode::GONE,
    StatusCode::NOT_IMPLEMENTED,
];

/// What the API says of an image.
#[derive(Debug)]
pub(super) enum Api {
    /// The registry lists these.
    Lists(Vec<Descriptor>),
    /// There is no such API.
    Absent,
}

impl Client {
    /// Asks the API. An answer that is no list, such as the page of a proxy, means that there is none: who answers so
    /// could send an empty list just as well. A list that is damaged is an error.
    pub(super) async fn referrers(&self, subject: &Pinned) -> Result<Api> {
        let place = self.lists_of(subject.repository())?;
        let mut found = Vec::new();
        let mut path = format!("referrers/{}", subject.digest());
        for page in 0..MAX_PAGES {
            let asked = self.url(&place, &path)?;
            let request =
                Request { accept: Some(descriptor::INDEX.to_owned()), ..Request::get(path.clone()) };
            let absent = if page == 0 { ABSENT } else { &[StatusCode::NOT_FOUND] };
            let Some(answer) = self.fetch_unless(&place, &request, MAX_MANIFEST, "referrers", absent).await?
            else {
                return match page {
                    0 => Ok(Api::Absent),
                    _ => Err(Error::NotFound { what: format!("a page of the referrers of {subject}") }),
                };
            };
            let index = match Index::parse(&answer.bytes) {
                Ok(Some(index)) => index,
                Ok(None) | Err(_) if page == 0 && !says_index(&answer.headers) => return Ok(Api::Absent),
                Ok(None) => return Err(Error::refused("referrers", "not an index")),
                Err(cause) => return Err(cause),
            };
            let next = next_page(&answer.headers, &asked, &place)?;
            found.extend(index.manifests().iter().cloned());
            match next {
                Some(next) if found.len() <= MAX_LISTED => path = next,
                _ => return Ok(Api::Lists(found)),
            }
        }
        Err(Error::refused(
            subject.to_string(),
            format!("its referrers go on for more than {MAX_PAGES} pages"),
        ))
    }
}

/// Whether an answer says of itself that it is an index.
pub(super) fn says_index(headers: &HeaderMap) -> bool {
    let kind = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let kind = kind.split(';').next().unwrap_or_default().trim();
    [descriptor::INDEX, descriptor::DOCKER_INDEX].iter().any(|index| kind.eq_ignore_ascii_case(index))
}
/// The path of the next page, in the same repository of the same server. A next page anywhere else may have a veto,
/// so it is an error and not the end.
fn next_page(headers: &HeaderMap, asked: &Url, repository: &Repository) -> Result<Option<String>> {
    let refused = |reason: String| Error::refused(format!("the list of referrers of {repository}"), reason);
    for value in headers.get_all(LINK) {
        let mut rest = value.to_str().map_err(|_| refused("its Link header is no text".to_owned()))?;
        while let Some((_, opened)) = rest.split_once('<') {
            let (target, after) =
                opened.split_once('>').ok_or_else(|| refused(format!("its Link header `{rest}`")))?;
            let end = after.find('<').unwrap_or(after.len());
            if is_next(&after[..end]) {
                let found = asked.join(target).ok().and_then(|url| below(&url, asked, repository));
                return found
                    .map(Some)
                    .ok_or_else(|| refused(format!("its next page `{target}` is not of this repository")));
            }
            rest = &after[end..];
        }
        if value.as_bytes().iter().all(|byte| *byte != b'<') && !value.is_empty() {
            return Err(refused("its Link header names no page".to_owned()));
        }
    }
    Ok(None)
}

fn is_next(parameters: &str) -> bool {
    parameters.split([';', ',']).filter_map(|parameter| parameter.split_once('=')).any(|(name, value)| {
        let relations = value.trim().trim_matches('"');
        name.trim().eq_ignore_ascii_case("rel")
            && relations.split_ascii_whitespace().any(|relation| relation.eq_ignore_ascii_case("next"))
    })
}

fn below(url: &Url, asked: &Url, repository: &Repository) -> Option<String> {
    let path = url.path().strip_prefix(&format!("/v2/{}/", repository.path()))?;
    let query = url.query().map(|query| format!("?{query}")).unwrap_or_default();
    (url.origin() == asked.origin()).then(|| format!("{path}{query}"))
}
