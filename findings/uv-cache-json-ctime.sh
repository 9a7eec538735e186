#!/bin/sh
# uv-cache-json-ctime.sh: uv writes a time that nobody can set into the installed package.
#
# Expected: two installs of one wheel file give equal files, at least with SOURCE_DATE_EPOCH set, without a cache, and
#   with the wheel's own time set by touch.
# Happens: beside the package uv installs a uv_cache.json with the wheel file's change time (ctime) in nanoseconds.
#   touch cannot set that one, and neither SOURCE_DATE_EPOCH nor UV_NO_CACHE=1 keeps the file away. RECORD has its
#   hash, so two files differ. UV_NO_INSTALLER_METADATA=1 leaves it out. pip, with the same wheel, installs equal files.
# Matters here: `COPY x.whl` with `RUN uv pip install ./x.whl` never gives the same layer twice by itself.
set -eu
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
unset UV_NO_INSTALLER_METADATA
export SOURCE_DATE_EPOCH=1700000000 UV_NO_CACHE=1 UV_LINK_MODE=copy PIP_DISABLE_PIP_VERSION_CHECK=1
cd "$dir"
python3 -m venv venv
venv/bin/python -m pip install -q --no-cache-dir pip==25.3 uv==0.13.9
venv/bin/pip download -q --no-cache-dir --no-deps -d . six==1.17.0
wheel=six-1.17.0-py2.py3-none-any.whl
uv_install() { venv/bin/uv pip install -q --python venv/bin/python --target "$1" "./$wheel"; }
pip_install() { venv/bin/pip install -q --no-cache-dir --no-compile --target "$1" "./$wheel"; }
again() { sleep 1 && touch -d @1600000000 "$wheel"; } # the same time for people, a new change time for the system
again && uv_install uv-1 && pip_install pip-1
again && uv_install uv-2 && pip_install pip-2
export UV_NO_INSTALLER_METADATA=1
again && uv_install bare-1
again && uv_install bare-2
venv/bin/uv --version | cut -d' ' -f1,2
venv/bin/pip --version | cut -d' ' -f1,2
differ() { diff -rq "$1-1" "$1-2" | sed 's/.*dist-info\/\([^ ]*\) differ/\1/' | tr '\n' ' '; }
echo "the wheel's time by touch: 1600000000; in uv_cache.json: $(cut -d, -f1,2 uv-2/six-*.dist-info/uv_cache.json)"
echo "files that differ: uv: $(differ uv); uv with UV_NO_INSTALLER_METADATA=1: $(differ bare); pip: $(differ pip)"
if [ "$(differ uv)" != "RECORD uv_cache.json " ] || [ -n "$(differ bare)$(differ pip)" ] ||
  grep -q 1600000000 uv-2/six-*.dist-info/uv_cache.json; then
  echo "CHANGED: which installed files differ" >&2
  exit 1
fi
echo "HOLDS: the wheel's change time is in uv's installed files"
