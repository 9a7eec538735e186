//! A web site of a test's own, reached as a plain HTTP proxy: whatever name is asked for, it answers.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

/// What a site says to a path and query, for the how-manieth request: status, headers, body.
type Say = dyn Fn(&str, usize) -> (u16, Vec<(String, String)>, Vec<u8>) + Send + Sync;

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

    /// A site with the files of a folder.
    pub fn of(folder: &std::path::Path) -> Site {
        let folder = folder.to_path_buf();
        Site::saying(move |path, _| {
            let path = path.split('?').next().unwrap_or_default().trim_start_matches('/');
            match std::fs::read(folder.join(path)) {
                Ok(bytes) => (200, Vec::new(), bytes),
                Err(_) => (404, Vec::new(), b"nothing here".to_vec()),
            }
        })
    }

    /// A site that says what `say` gives it.
    pub fn saying(
        say: impl Fn(&str, usize) -> (u16, Vec<(String, String)>, Vec<u8>) + Send + Sync + 'static,
    ) -> Site {
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
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 {
            return Ok(());
        }
        let target = line.split(' ').nth(1).unwrap_or_default().to_owned();
        let is_head = line.starts_with("HEAD ");
        let mut length = 0;
        loop {
            let mut header = String::new();
            reader.read_line(&mut header)?;
            if header.trim().is_empty() {
                break;
            }
            if let Some(value) = header.to_ascii_lowercase().strip_prefix("content-length:") {
                length = value.trim().parse().unwrap_or(0);
            }
        }
        std::io::copy(&mut reader.by_ref().take(length), &mut std::io::sink())?;
        // A proxy is asked in absolute form.
        let path = match target.split_once("://") {
            Some((_, rest)) => rest.find('/').map_or("/", |at| &rest[at..]).to_owned(),
            None => target,
        };
        let (status, headers, body) = say(&path, count.fetch_add(1, Ordering::SeqCst));
        let mut head = format!("HTTP/1.1 {status} X\r\nContent-Length: {}\r\n", body.len());
        for (name, value) in headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        head.push_str("\r\n");
        let mut out = stream;
        out.write_all(head.as_bytes())?;
        if !is_head {
            out.write_all(&body)?;
        }
    }
}
