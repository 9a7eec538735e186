#!/bin/sh
# tool.sh NAME VERSION installs a program from the Rust registry below target/tools, once, and prints its path. It is
# compiled without optimisation, which takes a third of the time and is fast enough for what it does here.
set -eu
name=$1 version=$2
tools=$(dirname "$0")/../target/tools
root=$tools/$name-$version
if [ ! -x "$root/bin/$name" ]; then
  echo "installing $name $version (once)" >&2
  CARGO_PROFILE_DEV_DEBUG=0 CARGO_INCREMENTAL=0 \
    cargo install --quiet --locked --debug --root "$root" --target-dir "$tools/build" "$name@$version" >&2
  rm -rf "$tools/build"
fi
echo "$root/bin/$name"
