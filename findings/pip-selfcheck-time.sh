#!/bin/sh
# pip-selfcheck-time.sh: a quiet install of a pinned package leaves the time of day in pip's cache.
#
# Expected: installing one pinned wheel twice leaves the same files, at least with SOURCE_DATE_EPOCH set.
# Happens: the installed files are equal, but pip looks up its own newest version, also with -q, and writes the
#   second of that look-up into a file of its cache. The file also says which pip is newest that day.
#   SOURCE_DATE_EPOCH does not reach it; PIP_DISABLE_PIP_VERSION_CHECK=1 stops it.
# Matters here: `RUN pip install` without --no-cache-dir puts this file into the layer, and two builds of one image
#   differ though all they install is pinned.
set -eu
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
unset PIP_NO_CACHE_DIR PIP_CACHE_DIR
export SOURCE_DATE_EPOCH=1700000000
export PIP_DISABLE_PIP_VERSION_CHECK=0 # pip's default, whatever its configuration says
cd "$dir"
python3 -m venv venv
PIP_DISABLE_PIP_VERSION_CHECK=1 venv/bin/python -m pip install -q --no-cache-dir pip==25.3
install() {
  venv/bin/pip install -q --no-compile --cache-dir "$dir/cache-$1" --target "$1" six==1.17.0 2>notice ||
    { cat notice >&2; exit 2; }
}
install first
sleep 1
install second
export PIP_DISABLE_PIP_VERSION_CHECK=1
install third
venv/bin/pip --version | cut -d' ' -f1,2
python3 --version
echo "installed files: $(diff -r first second && diff -r first third && echo equal)"
for run in first second third; do
  [ -d "cache-$run/selfcheck" ] || { echo "$run run: no selfcheck"; continue; }
  echo "$run run: $(sed 's/.*"last_check"/"last_check"/' "cache-$run"/selfcheck/*)"
done
if ! diff -r first second > /dev/null || diff -r cache-first/selfcheck cache-second/selfcheck > /dev/null ||
  [ -e cache-third/selfcheck ]; then
  echo "CHANGED: what pip leaves in its cache" >&2
  exit 1
fi
echo "HOLDS: equal installs, and a time in the cache, but for PIP_DISABLE_PIP_VERSION_CHECK=1"
