//! Git repositories over HTTP, by git's own `http-backend`: a bridge from a request to the CGI program.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::site::{Said, SiteRequest};

/// The answer to a request for a repository below `folder`, whose path holds a segment that ends in `.git`.
pub fn answer(folder: &Path, asked: &SiteRequest) -> Option<Said> {
    let (path, query) = asked.path.split_once('?').unwrap_or((&asked.path, ""));
    if !path.split('/').any(|segment| segment.ends_with(".git")) {
        return None;
    }
    let header = |name: &str| asked.headers.get(name).map_or("", String::as_str);
    let mut backend = Command::new("git")
        .arg("http-backend")
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_PROJECT_ROOT", folder)
        .env("GIT_HTTP_EXPORT_ALL", "1")
        .env("REQUEST_METHOD", &asked.method)
        .env("PATH_INFO", path)
        .env("QUERY_STRING", query)
        .env("CONTENT_TYPE", header("content-type"))
        .env("CONTENT_LENGTH", asked.body.len().to_string())
        .env("HTTP_CONTENT_ENCODING", header("content-encoding"))
        .env("GIT_PROTOCOL", header("git-protocol"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let (mut input, body) = (backend.stdin.take().unwrap(), asked.body.clone());
    // Written from aside: the program may answer before it has read everything.
    let writer = std::thread::spawn(move || input.write_all(&body));
    let output = backend.wait_with_output().unwrap();
    // What it left unread shows in its answer.
    let _ = writer.join().unwrap();
    Some(said(&output.stdout))
}

/// What a CGI program printed (RFC 3875, section 6).
fn said(output: &[u8]) -> Said {
    let end = output.windows(4).position(|bytes| bytes == b"\r\n\r\n").expect("a head and a body");
    let (mut status, mut headers) = (200, Vec::new());
    for line in String::from_utf8_lossy(&output[..end]).split("\r\n") {
        let (name, value) = line.split_once(": ").unwrap();
        match name {
            "Status" => status = value[..3].parse().unwrap(),
            _ => headers.push((name.to_owned(), value.to_owned())),
        }
    }
    (status, headers, output[end + 4..].to_vec())
}
