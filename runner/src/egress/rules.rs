//! The allow list: methods, path patterns and query keys. What is not listed is refused; an empty list allows nothing.

use serde::Deserialize;

use super::{Error, head::Refusal, target::Target};

/// A typed allow list, read from TOML or one of the built-in sets.
///
/// ```toml
/// [[rule]]
/// methods = ["GET"]
/// path = "/task/{id}/status"     # `{id}` stands for one segment of 1 to 18 digits
/// query = ["page"]               # keys that may appear, each at most once
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(try_from = "RawRules")]
pub struct Rules {
    rules: Vec<Rule>,
}

/// One line of the allow list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    methods: Vec<Method>,
    path: Vec<Segment>,
    query: Vec<String>,
}

/// The methods that a rule can name. `CONNECT`, `TRACE` and inventions cannot be listed at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
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

    /// Whether a request of this method may carry a body through the proxy.
    pub fn carries_body(self) -> bool {
        matches!(self, Method::Post | Method::Put | Method::Patch)
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Segment {
    Literal(String),
    Id,
}

impl Rules {
    /// The calls of an unmodified vantage6 v4 algorithm, central functions included, and nothing else.
    pub fn vantage6() -> Rules {
        use Method::{Get, Post};
        use Segment::Id;
        let word = |text: &str| Segment::Literal(text.to_owned());
        let rule = |method, path: Vec<Segment>, query: &[&str]| Rule {
            methods: vec![method],
            path,
            query: query.iter().map(|key| (*key).to_owned()).collect(),
        };
        let pages = ["task_id", "page", "per_page"];
        Rules {
            rules: vec![
                rule(Get, vec![word("organization")], &["collaboration_id", "study_id", "page", "per_page"]),
                rule(Get, vec![word("organization"), Id], &[]),
                rule(Get, vec![word("collaboration"), Id], &[]),
                rule(Get, vec![word("study")], &["collaboration_id", "page", "per_page"]),
                rule(Get, vec![word("blobstream"), word("status")], &[]),
                rule(Post, vec![word("task")], &[]),
                rule(Get, vec![word("task"), Id], &[]),
                rule(Get, vec![word("task"), Id, word("status")], &[]),
                rule(Get, vec![word("run")], &pages),
                rule(Get, vec![word("run"), Id], &[]),
                rule(Get, vec![word("result")], &pages),
                rule(Get, vec![word("result"), Id], &[]),
            ],
        }
    }

    /// Builds a list from rules made with [`Rule::new`].
    pub fn new(rules: Vec<Rule>) -> Rules {
        Rules { rules }
    }

    /// The method of the rule that lists this request, or why none does.
    pub(super) fn permit(&self, method: &str, target: &Target<'_>) -> Result<Method, Refusal> {
        let on_path: Vec<&Rule> = self.rules.iter().filter(|rule| rule.matches(&target.segments)).collect();
        if on_path.is_empty() {
            return Err(Refusal::PathNotListed);
        }
        let named = |rule: &&Rule| rule.methods.iter().copied().find(|listed| listed.as_str() == method);
        let mut unlisted_key = None;
        for rule in &on_path {
            let Some(method) = named(rule) else { continue };
            match target.query.iter().find(|(key, _)| !rule.query.iter().any(|listed| listed == key)) {
                None => return Ok(method),
                Some((key, _)) => unlisted_key = Some((*key).to_owned()),
            }
        }
        Err(unlisted_key.map_or(Refusal::MethodNotListed, Refusal::QueryKeyNotListed))
    }
}

impl Rule {
    /// Reads one rule.
    ///
    /// # Errors
    /// When no method is named, the path is not absolute, or a segment is neither plain text nor `{id}`.
    pub fn new(methods: &[Method], path: &str, query: &[&str]) -> Result<Rule, Error> {
        let fail = |reason| Error::Rule { path: path.to_owned(), reason };
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
        Ok(Rule {
            methods: methods.to_vec(),
            path: segments.collect::<Result<_, _>>()?,
            query: query.iter().map(|key| (*key).to_owned()).collect(),
        })
    }

    fn matches(&self, segments: &[&str]) -> bool {
        self.path.len() == segments.len()
            && self.path.iter().zip(segments).all(|(pattern, found)| match pattern {
                Segment::Literal(text) => text == found,
                Segment::Id => (1..=18).contains(&found.len()) && found.bytes().all(|b| b.is_ascii_digit()),
            })
    }
}

fn plain(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._~".contains(&b))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawRules {
    #[serde(default)]
    rule: Vec<RawRule>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawRule {
    methods: Vec<Method>,
    path: String,
    #[serde(default)]
    query: Vec<String>,
}

impl TryFrom<RawRules> for Rules {
    type Error = Error;

    fn try_from(raw: RawRules) -> Result<Rules, Error> {
        let read = |rule: &RawRule| {
            let query: Vec<&str> = rule.query.iter().map(String::as_str).collect();
            Rule::new(&rule.methods, &rule.path, &query)
        };
        Ok(Rules { rules: raw.rule.iter().map(read).collect::<Result<_, _>>()? })
    }
}
