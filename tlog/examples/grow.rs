//! Makes a log of some entries in a new folder, exports it, and leaves a proof: `grow FOLDER ENTRIES` prints the log's key.
//! For `scripts/log-interop`, which reads both with another implementation.

#![allow(clippy::unwrap_used, reason = "a program for tests fails by panicking")]

use std::path::PathBuf;
use std::sync::Arc;

use attestations::Algorithm;
use tlog::Log;

fn main() {
    let mut arguments = std::env::args().skip(1);
    let folder = PathBuf::from(arguments.next().unwrap());
    let entries: u64 = arguments.next().unwrap().parse().unwrap();
    let key = folder.join("key.pem");
    signers::generate(&key, Algorithm::Ed25519, &signers::Protection::Unprotected).unwrap();
    let signer = signers::load(&key, &mut || unreachable!("the key is not encrypted")).unwrap();
    let mut log = Log::open(&folder.join("log"), "interop.example/log", Arc::from(signer)).unwrap();
    for index in 0..entries {
        log.append(format!("entry {index}").as_bytes()).unwrap();
    }
    let reader = log.reader().unwrap();
    reader.export(&folder.join("export")).unwrap();
    std::fs::write(folder.join("proof"), reader.prove(entries / 3).unwrap().to_string()).unwrap();
    println!("{}", log.key());
}
