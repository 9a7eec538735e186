//! The request head, checked byte by byte before the HTTP library sees it.
//!
//! HTTP libraries repair what is ambiguous (a length beside a transfer coding, a bare line feed). Here what is
//! ambiguous is refused, so that the proxy and the server can never disagree about where a request ends.

use super::log::Spent;

/// Most bytes of a head, with its last empty line.
pub(super) const MAX_HEAD: usize = 32 * 1024;
/// Most header lines.
const MAX_LINES: usize = 64;

/// Why a request was refused. The text is shown to the container and kept in the run's record.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Refusal {
    #[error("this run has no server to talk to")]
    NoUpstream,
    #[error("this run may make no requests")]
    NothingListed,
    #[error("the node's own list does not have it: {0}")]
    BeyondCeiling(Box<Refusal>),
    #[error("this path is not on the list of allowed requests")]
    PathNotListed,
    #[error("this method is not allowed on this path")]
    MethodNotListed,
    #[error("the query key {0:?} is not allowed on this path")]
    QueryKeyNotListed(String),
    #[error("the query key {0:?} appears twice")]
    QueryKeyTwice(String),
    #[error("the query is not in its normal spelling")]
    QueryEncoding,
    #[error("the request's target is too long")]
    TargetTooLong,
    #[error("only paths are accepted: no absolute addresses, no CONNECT, no `*`")]
    NotOriginForm,
    #[error("the path has a dot segment")]
    DotSegment,
    #[error("the path has an empty segment")]
    EmptySegment,
    #[error("the path has an encoded slash")]
    EncodedSlash,
    #[error("the path is percent-encoded")]
    EncodedPath,
    #[error("the path has a character that no allowed path has")]
    PathCharacter,
    #[error("the request's head is malformed: {0}")]
    Malformed(&'static str),
    #[error("the request's head is over {MAX_HEAD} bytes or {MAX_LINES} lines")]
    HeadTooLarge,
    #[error("the request's head took too long")]
    HeadTooSlow,
    #[error("the request has no Host or more than one")]
    Host,
    #[error("the request has both a length and a transfer coding, or one of them twice")]
    AmbiguousLength,
    #[error("only the transfer coding `chunked` is accepted")]
    TransferCoding,
    #[error("upgrades are not accepted")]
    Upgrade,
    #[error("a request with this method may not have a body")]
    UnexpectedBody,
    #[error("the request's body is over {0} bytes")]
    RequestTooLarge(u64),
    #[error("the request's body came too slowly")]
    RequestTooSlow,
    #[error("the request's body is malformed or incomplete")]
    RequestBroken,
    #[error("the response's body is over {0} bytes")]
    ResponseTooLarge(u64),
    #[error("the run's budget of {1} {0} is spent")]
    Spent(Spent, u64),
    #[error("more than {0} connections at the same time")]
    TooManyConnections(usize),
}

/// What the gate needs to know of a head that passed.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Head<'a> {
    pub(super) method: &'a str,
    pub(super) target: &'a str,
    pub(super) body: DeclaredBody,
}

/// How the request says its body ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum DeclaredBody {
    Empty,
    Length(u64),
    Chunked,
}

/// Where the head in `bytes` ends, when it is complete.
pub(super) fn end(bytes: &[u8]) -> Option<usize> {
    bytes.windows(4).position(|window| window == b"\r\n\r\n").map(|at| at + 4)
}

/// Best effort at naming a request for the log, also when it is refused.
pub(super) fn first_words(bytes: &[u8]) -> (String, String) {
    let line = bytes.split(|b| *b == b'\r' || *b == b'\n').next().unwrap_or_default();
    let line = String::from_utf8_lossy(&line[..line.len().min(512)]).into_owned();
    let mut words = line.split(' ');
    (words.next().unwrap_or_default().to_owned(), words.next().unwrap_or_default().to_owned())
}

/// Checks a complete head, the last empty line included.
pub(super) fn check(bytes: &[u8]) -> Result<Head<'_>, Refusal> {
    let text = std::str::from_utf8(bytes).map_err(|_| Refusal::Malformed("it is not ASCII"))?;
    let text = text.strip_suffix("\r\n\r\n").ok_or(Refusal::Malformed("it does not end"))?;
    if text.bytes().any(|b| !(b == b'\t' || b == b'\r' || b == b'\n' || (0x20..0x7f).contains(&b))) {
        return Err(Refusal::Malformed("it has bytes that are not visible ASCII"));
    }
    let mut lines = text.split("\r\n");
    let (method, target) = request_line(lines.next().unwrap_or_default())?;
    let mut seen = Seen::default();
    for (count, line) in lines.enumerate() {
        if count >= MAX_LINES {
            return Err(Refusal::HeadTooLarge);
        }
        seen.line(line)?;
    }
    Ok(Head { method, target, body: seen.finish()? })
}

fn request_line(line: &str) -> Result<(&str, &str), Refusal> {
    let parts: Vec<&str> = line.split(' ').collect();
    let [method, target, version] = parts[..] else {
        return Err(Refusal::Malformed("the request line is not three words"));
    };
    if line.contains(['\r', '\n', '\t'])
        || method.is_empty()
        || !method.bytes().all(|b| b.is_ascii_uppercase())
    {
        return Err(Refusal::Malformed("the method is not a word of capital letters"));
    }
    match version {
        _ if method == "CONNECT" => Err(Refusal::NotOriginForm),
        "HTTP/1.1" => Ok((method, target)),
        _ => Err(Refusal::Malformed("only HTTP/1.1 is spoken")),
    }
}

#[derive(Default)]
struct Seen {
    hosts: usize,
    length: Option<u64>,
    chunked: bool,
}

impl Seen {
    fn line(&mut self, line: &str) -> Result<(), Refusal> {
        if line.contains(['\r', '\n']) {
            return Err(Refusal::Malformed("a line ends without both carriage return and line feed"));
        }
        if line.starts_with([' ', '\t']) {
            return Err(Refusal::Malformed("a header line is folded"));
        }
        let (name, value) = line.split_once(':').ok_or(Refusal::Malformed("a header line has no colon"))?;
        if name.is_empty()
            || !name.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b))
        {
            return Err(Refusal::Malformed("a header name has a character that names cannot have"));
        }
        self.header(&name.to_ascii_lowercase(), value.trim_matches([' ', '\t']))
    }

    fn header(&mut self, name: &str, value: &str) -> Result<(), Refusal> {
        match name {
            "host" => self.hosts += 1,
            "content-length" => {
                let digits =
                    !value.is_empty() && value.len() <= 18 && value.bytes().all(|b| b.is_ascii_digit());
                let length = value.parse().ok().filter(|_| digits);
                let length = length.ok_or(Refusal::Malformed("the length is not a plain number"))?;
                if self.length.replace(length).is_some() {
                    return Err(Refusal::AmbiguousLength);
                }
            }
            "transfer-encoding" if self.chunked => return Err(Refusal::AmbiguousLength),
            "transfer-encoding" if value.eq_ignore_ascii_case("chunked") => self.chunked = true,
            "transfer-encoding" => return Err(Refusal::TransferCoding),
            "upgrade" | "http2-settings" => return Err(Refusal::Upgrade),
            "connection" if value.to_ascii_lowercase().contains("upgrade") => return Err(Refusal::Upgrade),
            _ => {}
        }
        Ok(())
    }

    fn finish(self) -> Result<DeclaredBody, Refusal> {
        match (self.hosts, self.length, self.chunked) {
            (1, Some(_), true) => Err(Refusal::AmbiguousLength),
            (1, None, true) => Ok(DeclaredBody::Chunked),
            (1, Some(0) | None, false) => Ok(DeclaredBody::Empty),
            (1, Some(length), false) => Ok(DeclaredBody::Length(length)),
            _ => Err(Refusal::Host),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn with(lines: &str) -> Result<DeclaredBody, Refusal> {
        check(format!("POST /task HTTP/1.1\r\nHost: a\r\n{lines}\r\n").as_bytes()).map(|head| head.body)
    }

    #[test]
    fn an_ordinary_head_passes() {
        assert_eq!(with("Content-Length: 12\r\nAccept: */*\r\n"), Ok(DeclaredBody::Length(12)));
        assert_eq!(with("transfer-encoding: Chunked\r\n"), Ok(DeclaredBody::Chunked));
        assert_eq!(with(""), Ok(DeclaredBody::Empty));
    }

    #[test]
    fn heads_that_two_servers_could_read_differently_are_refused() {
        for (lines, why) in [
            ("Content-Length: 3\r\nTransfer-Encoding: chunked\r\n", Refusal::AmbiguousLength),
            ("Content-Length: 3\r\nContent-Length: 3\r\n", Refusal::AmbiguousLength),
            ("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", Refusal::AmbiguousLength),
            ("Transfer-Encoding: gzip, chunked\r\n", Refusal::TransferCoding),
            ("Transfer-Encoding: xchunked\r\n", Refusal::TransferCoding),
            ("Host: b\r\n", Refusal::Host),
            ("Upgrade: websocket\r\n", Refusal::Upgrade),
            ("Connection: keep-alive, Upgrade\r\n", Refusal::Upgrade),
        ] {
            assert_eq!(with(lines), Err(why), "{lines}");
        }
        for lines in [
            "Content-Length: +3\r\n",
            "Content-Length: 3, 3\r\n",
            "Content-Length: \r\n",
            "Transfer-Encoding : chunked\r\n",
            "X: a\nTransfer-Encoding: chunked\r\n",
            "X: a\r\n folded\r\n",
            "X\r\n",
            ": x\r\n",
            "X: a\0b\r\n",
            "X: \u{e9}\r\n",
        ] {
            assert!(matches!(with(lines), Err(Refusal::Malformed(_))), "{lines}");
        }
        assert_eq!(check(b"GET / HTTP/1.1\r\nA: b\r\n\r\n"), Err(Refusal::Host));
        assert_eq!(check(b"CONNECT a:443 HTTP/1.1\r\nHost: a\r\n\r\n"), Err(Refusal::NotOriginForm));
        assert!(check(b"GET / HTTP/1.0\r\nHost: a\r\n\r\n").is_err());
        assert!(check(b"GET  / HTTP/1.1\r\nHost: a\r\n\r\n").is_err());
    }
}
