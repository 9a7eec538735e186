#!/bin/sh
# tar-deterministic-mode.sh: the tar crate's HeaderMode::Deterministic leaves the order of entries to the file system.
#
# Expected: in a mode of this name, adding one folder gives one archive: sorted names, and time 0.
# Happens: only the headers are fixed. The entries come in the order in which the file system lists the folder (turned
#   round), and each entry's time is a day of July 2006.
# Matters here: two machines, or two copies of one folder, give archives with other digests. Layers need an order of
#   their own, and a time that is set on purpose.
set -eu
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
mkdir "$dir/src"
cat > "$dir/Cargo.toml" <<'TOML'
[package]
name = "probe"
version = "0.0.0"
edition = "2021"

[dependencies]
tar = { version = "=0.4.44", default-features = false }
TOML
cat > "$dir/src/main.rs" <<'RUST'
fn main() {
    std::fs::create_dir("folder").unwrap();
    // Made in neither order of the names.
    for number in 0..50 {
        std::fs::write(format!("folder/{:02}", number * 7 % 50), "").unwrap();
    }
    let listed = std::fs::read_dir("folder").unwrap();
    let mut listed: Vec<_> = listed.map(|entry| format!("folder/{}", entry.unwrap().file_name().display())).collect();
    listed.reverse();

    let mut builder = tar::Builder::new(Vec::new());
    builder.mode(tar::HeaderMode::Deterministic);
    builder.append_dir_all("folder", "folder").unwrap();
    let archive = builder.into_inner().unwrap();

    let mut names = Vec::new();
    let mut times = Vec::new();
    for entry in tar::Archive::new(archive.as_slice()).entries().unwrap() {
        let entry = entry.unwrap();
        times.push(entry.header().mtime().unwrap());
        names.push(entry.path().unwrap().display().to_string());
    }
    names.remove(0); // the folder itself
    times.dedup();
    println!("first names: {}", names[..6].join(" "));
    println!("sorted: {}", names.is_sorted());
    println!("as the file system lists them, turned round: {}", names == listed);
    println!("times: {times:?}");
}
RUST
cd "$dir"
echo "tar 0.4.44, Builder::append_dir_all with HeaderMode::Deterministic"
CARGO_TARGET_DIR=$dir/target cargo run -q > out.txt
cat out.txt
if ! grep -qx 'sorted: false' out.txt || ! grep -qx 'as the file system.*: true' out.txt ||
  ! grep -qx 'times: \[1153704088\]' out.txt; then
  echo "CHANGED: the order or the time of the entries" >&2
  exit 1
fi
echo "HOLDS: the order is the file system's, and the time is $(date -u -d @1153704088 +%F)"
