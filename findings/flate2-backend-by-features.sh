#!/bin/sh
# flate2-backend-by-features.sh: another crate's feature silently replaces flate2's compressor, and so the bytes.
#
# Expected: a crate that asks for flate2 without defaults, with `zlib-rs` alone, pinned with "=", compresses with
#   zlib-rs, whatever else is in the build.
# Happens: cargo unifies features over the build, and flate2 prefers C zlib when both are on. One more package that asks
#   for `zlib` changes the bytes of code that did not change, with no warning. Built alone (`cargo build -p`), the same
#   package of the same workspace has the old bytes again: they depend on the packages named on the command line.
# Matters here: a digest over compressed bytes is not fixed by pinning the compressor. A dependency, or `cargo build` of
#   the workspace in place of one package, can change it.
set -eu
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
mkdir -p "$dir/ours/src" "$dir/other/src"
printf '[workspace]\nresolver = "2"\nmembers = ["ours", "other"]\n' > "$dir/Cargo.toml"
cat > "$dir/ours/Cargo.toml" <<'TOML'
[package]
name = "ours"
version = "0.0.0"
edition = "2021"

[dependencies]
flate2 = { version = "=1.1.11", default-features = false, features = ["zlib-rs"] }
zlib-rs = { version = "=0.6.8", default-features = false }
TOML
cat > "$dir/other/Cargo.toml" <<'TOML'
[package]
name = "other"
version = "0.0.0"
edition = "2021"

[dependencies]
flate2 = { version = "=1.1.11", default-features = false, features = ["zlib"] }
libz-sys = "=1.1.33"
TOML
echo 'fn main() {}' > "$dir/other/src/main.rs"
cat > "$dir/ours/src/main.rs" <<'RUST'
use std::io::Write;

use flate2::{write::DeflateEncoder, Compression};

fn main() {
    let mut state: u64 = 42;
    let mut data = Vec::new();
    while data.len() < 1_000_000 {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        data.extend_from_slice(format!("word{} ", (state >> 33) % 3000).as_bytes());
    }
    let mut encoder = DeflateEncoder::new(std::io::stdout().lock(), Compression::new(6));
    encoder.write_all(&data).unwrap();
    drop(encoder.finish().unwrap());
}
RUST
cd "$dir"
export LIBZ_SYS_STATIC=1 CARGO_TARGET_DIR="$dir/target"
cargo build -q -p ours && target/debug/ours > alone
cargo build -q --workspace && target/debug/ours > workspace
cargo build -q -p ours && target/debug/ours > again
echo "flate2 1.1.11, zlib-rs 0.6.8, libz-sys 1.1.33; $(cargo --version)"
echo "what one program writes for one input, built alone, with the workspace, and alone again:"
for name in alone workspace again; do
  echo "$name: $(wc -c < $name) bytes, sha256 $(sha256sum < $name | cut -c1-16)"
done
if cmp -s alone workspace || ! cmp -s alone again; then
  echo "CHANGED: the other package no longer changes the bytes" >&2
  exit 1
fi
echo "HOLDS: building the other package beside it changes what the unchanged package writes"
