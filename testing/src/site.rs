//! A web site of a test's own, reached as a plain HTTP proxy: whatever name below `.example` is asked for, it answers.
//! Other names are the real ones, and passed on.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use crate::git_server;

/// What a site is asked.
pub struct SiteRequest {
    /// The method.
    pub method: String,
    /// The host's name, with the port if there is one.
    pub host: String,
    /// The path and query.
    pub path: String,
    /// The headers, their names in small letters.
    pub headers: BTreeMap<String, String>,
    /// The body.
    pub body: Vec<u8>,
    /// How many requests there were before.
    pub number: usize,
}

/// A status, headers and a body.
pub type Said = (u16, Vec<(String, String)>, Vec<u8>);

type Say = dyn Fn(&SiteRequest) -> Said + Send + Sync;

/// The server. It ends when this is dropped.
pub struct Site {
    address: SocketAddr,
    ended: Arc<AtomicBool>,
}

impl Site {
    /// A site where `/count` differs each time, and every other path is answered with itself.
    pub fn start() -> Site {
        Site::saying(|path, number| {
            let body = if path == "/count" { format!("{path} {number}") } else { path.to_owned() };
            (200, vec![("X-Number".to_owned(), number.to_string())], body.into_bytes())
        })
    }

    /// A site with the files of a folder. Repositories in it, which end in `.git`, are served as git's own server does.
    pub fn of(folder: impl Into<PathBuf>) -> Site {
        let folder = folder.into();
        Site::answering(move |asked| {
            if let Some(said) = git_server::answer(&folder, asked) {
                return said;
            }
            let path = asked.path.split('?').next().unwrap_or_default().trim_start_matches('/');
            match std::fs::read(folder.join(path)) {
                Ok(bytes) => (200, Vec::new(), bytes),
                Err(_) => (404, Vec::new(), b"nothing here".to_vec()),
            }
        })
    }

    /// A site that says what `say` gives it for a path and query, and the how-manieth request it is.
    pub fn saying(say: impl Fn(&str, usize) -> Said + Send + Sync + 'static) -> Site {
        Site::answering(move |asked| say(&asked.path, asked.number))
    }

    /// A site that says what `say` makes of all that is asked.
    pub fn answering(say: impl Fn(&SiteRequest) -> Said + Send + Sync + 'static) -> Site {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let ended = Arc::new(AtomicBool::new(false));
        let (say, count, over): (Arc<Say>, _, _) =
            (Arc::new(say), Arc::new(AtomicUsize::new(0)), ended.clone());
        thread::spawn(move || {
            for stream in listener.incoming() {
                if over.load(Ordering::SeqCst) {
                    return;
                }
                let (say, count) = (say.clone(), count.clone());
                thread::spawn(move || stream.map(|stream| serve(&stream, &*say, &count)));
            }
        });
        Site { address, ended }
    }

    /// Its address as a proxy.
    pub fn proxy(&self) -> String {
        format!("http://{}", self.address)
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::SeqCst);
        // The listener notices with the next connection.
        drop(TcpStream::connect(self.address));
    }
}

fn serve(stream: &TcpStream, say: &Say, count: &AtomicUsize) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    while let Some(asked) = read(&mut reader, count)? {
        let mut out = stream;
        if !asked.host.split(':').next().unwrap_or_default().ends_with(".example") {
            return pass_on(&asked, out);
        }
        let (status, headers, body) = say(&asked);
        let mut head = format!("HTTP/1.1 {status} X\r\nContent-Length: {}\r\n", body.len());
        for (name, value) in headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        head.push_str("\r\n");
        out.write_all(head.as_bytes())?;
        if asked.method != "HEAD" {
            out.write_all(&body)?;
        }
    }
    Ok(())
}

/// One request, or none when the connection is over.
fn read(reader: &mut impl BufRead, count: &AtomicUsize) -> std::io::Result<Option<SiteRequest>> {
    let mut line = String::new();
    if reader.read_line(&mut line)? == 0 {
        return Ok(None);
    }
    let mut words = line.split(' ');
    let method = words.next().unwrap_or_default().to_owned();
    let target = words.next().unwrap_or_default().to_owned();
    let mut headers = BTreeMap::new();
    loop {
        let mut header = String::new();
        reader.read_line(&mut header)?;
        let Some((name, value)) = header.trim_end().split_once(':') else { break };
        headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
    }
    // Nothing that is tested sends a body of unknown length.
    assert!(!headers.contains_key("transfer-encoding"), "{method} {target}");
    let length: u64 = headers.get("content-length").map_or(0, |length| length.parse().unwrap());
    let mut body = Vec::new();
    reader.take(length).read_to_end(&mut body)?;
    // A proxy is asked in absolute form.
    let (host, path) = match target.split_once("://") {
        Some((_, rest)) => rest.split_at(rest.find('/').unwrap_or(rest.len())),
        None => (headers.get("host").map_or("", String::as_str), target.as_str()),
    };
    let path = if path.is_empty() { "/" } else { path };
    let (host, path) = (host.to_owned(), path.to_owned());
    Ok(Some(SiteRequest { method, host, path, headers, body, number: count.fetch_add(1, Ordering::SeqCst) }))
}

/// Asks the real server, and ends the connection with its answer.
fn pass_on(asked: &SiteRequest, mut out: &TcpStream) -> std::io::Result<()> {
    let address = if asked.host.contains(':') { asked.host.clone() } else { format!("{}:80", asked.host) };
    let mut server = TcpStream::connect(address)?;
    let mut head = format!("{} {} HTTP/1.1\r\n", asked.method, asked.path);
    for (name, value) in &asked.headers {
        if !matches!(name.as_str(), "connection" | "proxy-connection" | "keep-alive") {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
    }
    head.push_str("connection: close\r\n\r\n");
    server.write_all(head.as_bytes())?;
    server.write_all(&asked.body)?;
    std::io::copy(&mut server, &mut out)?;
    out.shutdown(std::net::Shutdown::Write)
}
