//! What an algorithm may ask the node's server: methods, path patterns and query keys. What is not listed is refused; an
//! empty list allows nothing.

use std::fmt;

use serde::{Deserialize, Serialize, Serializer};

/// A list of requests that may pass.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct AllowedRequests(Vec<AllowedRequest>);

/// One line of the list.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "RequestText")]
pub struct AllowedRequest {
    methods: Vec<Method>,
    path: Vec<Segment>,
    query: Vec<String>,
}

/// A line that cannot be understood; nothing is allowed by a line that is half understood.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the request {path:?} is not usable: {reason}")]
pub struct RequestError {
    /// The path pattern as written.
    pub path: String,
    /// What is wrong with the line.
    pub reason: &'static str,
}

/// Why no line lists a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NotListed {
    /// None has its path.
    Path,
    /// None with its path has its method.
    Method,
    /// None with its path and method has this query key.
    QueryKey(String),
}

/// The methods that a line can name. `CONNECT`, `TRACE` and inventions cannot be listed at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Method {
    /// Reading, without a body.
    Get,
    /// Reading the head, without a body.
    Head,
    /// Sending, with a body.
    Post,
    /// Replacing, with a body.
    Put,
    /// Changing, with a body.
    Patch,
    /// Removing, without a body.
    Delete,
}

impl Method {
    /// The method's name on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Method::Get => "GET",
            Method::Head => "HEAD",
            Method::Post => "POST",
            Method::Put => "PUT",
            Method::Patch => "PATCH",
            Method::Delete => "DELETE",
        }
    }

    /// Whether a request of this method may carry a body.
    pub fn carries_body(self) -> bool {
        matches!(self, Method::Post | Method::Put | Method::Patch)
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Segment {
    Literal(String),
    Id,
}

impl AllowedRequests {
    /// A list of these lines.
    pub fn new(lines: Vec<AllowedRequest>) -> Self {
        Self(lines)
    }

    /// Whether nothing is listed.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The requests that both list: each pair of lines gives at most one that both of them list.
    pub(crate) fn and(&self, other: &Self) -> Self {
        let mut both = Vec::new();
        for line in self.0.iter().flat_map(|one| other.0.iter().filter_map(|other| one.and(other))) {
            if !both.contains(&line) {
                both.push(line);
            }
        }
        Self(both)
    }

    /// The calls by which an unmodified algorithm of vantage6 v4 reads: organisations, and the state and the results of
    /// tasks.
    pub fn vantage6_read() -> Self {
        use Segment::Id;
        let word = |text: &str| Segment::Literal(text.to_owned());
        let get = |path: Vec<Segment>, query: &[&str]| AllowedRequest {
            methods: vec![Method::Get],
            path,
            query: query.iter().map(|key| (*key).to_owned()).collect(),
        };
        let pages = ["task_id", "page", "per_page"];
        Self(vec![
            get(vec![word("organization")], &["collaboration_id", "study_id", "page", "per_page"]),
            get(vec![word("organization"), Id], &[]),
            get(vec![word("collaboration"), Id], &[]),
            get(vec![word("study")], &["collaboration_id", "page", "per_page"]),
            get(vec![word("blobstream"), word("status")], &[]),
            get(vec![word("task"), Id], &[]),
            get(vec![word("task"), Id, word("status")], &[]),
            get(vec![word("run")], &pages),
            get(vec![word("run"), Id], &[]),
            get(vec![word("result")], &pages),
            get(vec![word("result"), Id], &[]),
        ])
    }

    /// The calls of a central function of vantage6 v4: the reading ones, and the one that makes tasks for other nodes.
    pub fn vantage6_central() -> Self {
        let Self(mut lines) = Self::vantage6_read();
        let path = vec![Segment::Literal("task".to_owned())];
        lines.push(AllowedRequest { methods: vec![Method::Post], path, query: Vec::new() });
        Self(lines)
    }

    /// The method of the line that lists this request.
    ///
    /// # Errors
    /// When none does, with what lacks.
    pub fn permit(&self, method: &str, path: &[&str], query: &[(&str, &str)]) -> Result<Method, NotListed> {
        let on_path: Vec<&AllowedRequest> = self.0.iter().filter(|line| line.matches(path)).collect();
        if on_path.is_empty() {
            return Err(NotListed::Path);
        }
        let mut unlisted_key = None;
        for line in on_path {
            let named = line.methods.iter().copied().find(|listed| listed.as_str() == method);
            let Some(method) = named else { continue };
            match query.iter().find(|(key, _)| !line.query.iter().any(|listed| listed == key)) {
                None => return Ok(method),
                Some((key, _)) => unlisted_key = Some((*key).to_owned()),
            }
        }
        Err(unlisted_key.map_or(NotListed::Method, NotListed::QueryKey))
    }
}

impl AllowedRequest {
    /// Reads one line.
    ///
    /// # Errors
    /// When no method is named, the path is not absolute, or a segment is neither plain text nor `{id}`.
    pub fn new(methods: &[Method], path: &str, query: &[&str]) -> Result<Self, RequestError> {
        let fail = |reason| RequestError { path: path.to_owned(), reason };
        if methods.is_empty() {
            return Err(fail("it names no method"));
        }
        if !query.iter().all(|key| plain(key)) {
            return Err(fail("a query key is not plain text"));
        }
        let rest = path.strip_prefix('/').ok_or_else(|| fail("the path must begin with a slash"))?;
        let segments = rest.split('/').map(|part| match part {
            "{id}" => Ok(Segment::Id),
            "." | ".." => Err(fail("dot segments are never passed")),
            _ if plain(part) => Ok(Segment::Literal(part.to_owned())),
            _ => Err(fail("a segment is letters, digits, `-._~`, or the whole of `{id}`")),
        });
        Ok(Self {
            methods: methods.to_vec(),
            path: segments.collect::<Result<_, _>>()?,
            query: query.iter().map(|key| (*key).to_owned()).collect(),
        })
    }

    /// What both list, if there is anything.
    fn and(&self, other: &Self) -> Option<Self> {
        let methods: Vec<Method> =
            self.methods.iter().copied().filter(|method| other.methods.contains(method)).collect();
        if methods.is_empty() || self.path.len() != other.path.len() {
            return None;
        }
        let path = self.path.iter().zip(&other.path).map(|(one, other)| one.and(other));
        let query = self.query.iter().filter(|key| other.query.contains(key)).cloned().collect();
        Some(Self { methods, path: path.collect::<Option<_>>()?, query })
    }

    fn matches(&self, path: &[&str]) -> bool {
        self.path.len() == path.len()
            && self.path.iter().zip(path).all(|(pattern, found)| match pattern {
                Segment::Literal(text) => text == found,
                Segment::Id => is_id(found),
            })
    }

    fn path(&self) -> String {
        let segments = self.path.iter().map(|segment| match segment {
            Segment::Literal(text) => text.as_str(),
            Segment::Id => "{id}",
        });
        segments.fold(String::new(), |path, segment| format!("{path}/{segment}"))
    }
}

impl Segment {
    /// What both stand for, if there is anything.
    fn and(&self, other: &Self) -> Option<Self> {
        match (self, other) {
            (Self::Id, Self::Literal(text)) | (Self::Literal(text), Self::Id) => {
                is_id(text).then(|| Self::Literal(text.clone()))
            }
            (one, other) => (one == other).then(|| one.clone()),
        }
    }
}

fn is_id(text: &str) -> bool {
    (1..=18).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit())
}

fn plain(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._~".contains(&b))
}

/// As it is written, in a policy and in a node's configuration.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RequestText {
    methods: Vec<Method>,
    path: String,
    #[serde(default)]
    query: Vec<String>,
}

impl TryFrom<RequestText> for AllowedRequest {
    type Error = RequestError;

    fn try_from(text: RequestText) -> Result<Self, RequestError> {
        let query: Vec<&str> = text.query.iter().map(String::as_str).collect();
        Self::new(&text.methods, &text.path, &query)
    }
}

/// As it is written.
impl Serialize for AllowedRequest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use serde::ser::SerializeStruct as _;
        let mut fields = serializer.serialize_struct("AllowedRequest", 3)?;
        fields.serialize_field("methods", &self.methods)?;
        fields.serialize_field("path", &self.path())?;
        fields.serialize_field("query", &self.query)?;
        fields.end()
    }
}

impl fmt::Display for AllowedRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let methods: Vec<&str> = self.methods.iter().map(|method| method.as_str()).collect();
        write!(f, "{} {}", methods.join(","), self.path())
    }
}
