#!/bin/sh
# zstd-one-worker.sh: zstd with one worker thread does not write the bytes of zstd with none.
#
# Expected: the bytes depend on the level, and perhaps on the number of threads; no workers and one worker are the same
#   work in another thread, so the same bytes.
# Happens: one, two and four workers give equal bytes, none gives others: a worker cuts the input into jobs even when it
#   is alone. So "the number of threads does not matter" is true for all numbers but the default, 0.
# Matters here: a layer compressed in the background (`multithread(1)`) gets another digest than before, with the same
#   level and the same library.
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
zstd = { version = "=0.13.3", default-features = false, features = ["zstdmt"] }
zstd-safe = { version = "=7.4.1", default-features = false }
zstd-sys = { version = "=2.1.3", default-features = false }
TOML
cat > "$dir/src/main.rs" <<'RUST'
use std::io::Write;

fn main() {
    let mut state: u64 = 42;
    let mut data = Vec::new();
    while data.len() < 8_000_000 {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        data.extend_from_slice(format!("word{} ", (state >> 33) % 3000).as_bytes());
    }
    for workers in [0, 1, 2, 4] {
        let file = std::fs::File::create(format!("workers-{workers}")).unwrap();
        let mut encoder = zstd::stream::write::Encoder::new(file, 3).unwrap();
        encoder.multithread(workers).unwrap();
        encoder.write_all(&data).unwrap();
        encoder.finish().unwrap();
    }
}
RUST
cd "$dir"
CARGO_TARGET_DIR=$dir/target cargo run -q
echo "zstd 0.13.3 (zstd-sys 2.1.3, libzstd 1.5.7), level 3, one input of 8 MB"
for workers in 0 1 2 4; do
  echo "$workers workers: $(wc -c < workers-$workers) bytes, sha256 $(sha256sum < workers-$workers | cut -c1-16)"
done
if cmp -s workers-0 workers-1 || ! cmp -s workers-1 workers-2 || ! cmp -s workers-1 workers-4; then
  echo "CHANGED: which numbers of workers give equal bytes" >&2
  exit 1
fi
echo "HOLDS: 1, 2 and 4 workers write equal bytes, 0 workers writes others"
