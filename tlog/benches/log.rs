//! The time of an append, a proof, and a check of the whole log, by its size, up to a million entries; beside it the time that
//! SQLite takes to commit a row with the same bytes. In memory (`/dev/shm`), where a sync costs nothing, and on the disk.
//!
//! `ENTRIES=1000000` is the size of the largest log.

#![allow(missing_docs, clippy::unwrap_used, clippy::panic)]

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use attestations::{Algorithm, Signer};
use tlog::{Error, Log};

/// Appends, rows and proofs in one figure.
const ROUNDS: usize = 501;
/// The bytes of an entry: about what the end of a run takes.
const ENTRY: usize = 1500;

fn main() {
    let most: u64 = std::env::var("ENTRIES").ok().map_or(1_000_000, |text| text.parse().unwrap());
    let keys = tempfile::tempdir().unwrap();
    let path = keys.path().join("key.pem");
    signers::generate(&path, Algorithm::Ed25519, &signers::Protection::Unprotected).unwrap();
    let signer: Arc<dyn Signer> = Arc::from(signers::load(&path, &mut || panic!("no password")).unwrap());

    println!("| entries | append, µs | SQLite, µs | proof, µs | hashes | earlier state, µs | opening, µs |");
    println!("|---|---|---|---|---|---|---|");
    let memory = tempfile::tempdir_in("/dev/shm").unwrap();
    let mut log = Log::open(&memory.path().join("log"), "bench.example", Arc::clone(&signer)).unwrap();
    let table = Table::open(memory.path());
    let mut size = 0;
    for target in [1_000, 10_000, 100_000, 1_000_000].into_iter().filter(|target| *target <= most) {
        while size < target - ROUNDS as u64 {
            log.append(&entry(size)).unwrap();
            size += 1;
        }
        row(&mut log, &table, &mut size, &memory.path().join("log"), &signer);
    }
    let begun = Instant::now();
    let checked = log.reader().unwrap().check::<Error>(&[], |_, _| Ok(())).unwrap();
    println!(
        "\nchecking all {} entries and hashes takes {:.2} s",
        checked.entries,
        begun.elapsed().as_secs_f64()
    );

    let disk = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let mut log = Log::open(&disk.path().join("log"), "bench.example", signer).unwrap();
    let table = Table::open(disk.path());
    let (ours, theirs): (Vec<f64>, Vec<f64>) = (0..ROUNDS as u64)
        .map(|index| {
            let bytes = entry(index);
            (micros(|| drop(log.append(&bytes).unwrap())), micros(|| table.insert(&bytes)))
        })
        .unzip();
    println!("on the disk, synced: append {:.0} µs, SQLite {:.0} µs", median(ours), median(theirs));
}

fn row(log: &mut Log, table: &Table, size: &mut u64, folder: &Path, signer: &Arc<dyn Signer>) {
    let (mut appends, mut inserts) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let bytes = entry(*size);
        appends.push(micros(|| drop(log.append(&bytes).unwrap())));
        inserts.push(micros(|| table.insert(&bytes)));
        *size += 1;
    }
    let (mut proofs, mut earlier, mut hashes) = (Vec::new(), Vec::new(), 0);
    for round in 0..ROUNDS as u64 {
        let index = round.wrapping_mul(0x9e37_79b9_7f4a_7c15) % *size;
        // A new reader each time: nothing is in its memory.
        let reader = log.reader().unwrap();
        proofs.push(micros(|| hashes = reader.prove(index).unwrap().hashes.len()));
        let reader = log.reader().unwrap();
        earlier.push(micros(|| drop(reader.prove_since(index.max(1)).unwrap())));
    }
    let opening =
        (0..51).map(|_| micros(|| drop(Log::open(folder, "bench.example", Arc::clone(signer)).unwrap())));
    println!(
        "| {size} | {:.0} | {:.0} | {:.0} | {hashes} | {:.0} | {:.0} |",
        median(appends),
        median(inserts),
        median(proofs),
        median(earlier),
        median(opening.collect())
    );
}

/// What anybody would use to keep rows: one table, a transaction for each row, synced.
struct Table(rusqlite::Connection);

impl Table {
    fn open(folder: &Path) -> Self {
        let connection = rusqlite::Connection::open(folder.join("rows.db")).unwrap();
        let set = "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; CREATE TABLE entry (id INTEGER PRIMARY KEY, bytes BLOB)";
        connection.execute_batch(set).unwrap();
        Self(connection)
    }

    fn insert(&self, bytes: &[u8]) {
        self.0.prepare_cached("INSERT INTO entry (bytes) VALUES (?1)").unwrap().execute([bytes]).unwrap();
    }
}

fn entry(index: u64) -> Vec<u8> {
    index.to_be_bytes().iter().copied().cycle().take(ENTRY).collect()
}

fn micros(act: impl FnOnce()) -> f64 {
    let begun = Instant::now();
    act();
    begun.elapsed().as_secs_f64() * 1e6
}

fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}
