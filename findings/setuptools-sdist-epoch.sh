#!/bin/sh
# setuptools-sdist-epoch.sh: setuptools follows SOURCE_DATE_EPOCH for a wheel and ignores it for a source archive.
#
# Expected: one backend, one environment: both of a project's artifacts can be built again to the same bytes.
# Happens: the wheel is equal each time. The source archive (.tar.gz) has the time of the build in the entries that
#   setuptools makes and in gzip's header, and the other files' own times.
# Matters here: an image whose build makes a source archive, or a hash pinned on one that was built locally, differs at
#   each build; pinning setuptools and setting the variable is not enough.
set -eu
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
export SOURCE_DATE_EPOCH=1700000000 PIP_DISABLE_PIP_VERSION_CHECK=1
cd "$dir"
python3 -m venv venv
venv/bin/python -m pip install -q --no-cache-dir setuptools==80.9.0
for run in first second; do
  mkdir "$run"
  printf '[project]\nname = "probe"\nversion = "1.0"\n' > "$run/pyproject.toml"
  printf '[tool.setuptools]\npy-modules = ["probe"]\n' >> "$run/pyproject.toml"
  echo 'x = 1' > "$run/probe.py"
  touch -d @1600000000 "$run/pyproject.toml" "$run/probe.py"
  for kind in wheel sdist; do
    (cd "$run" && ../venv/bin/python -c "import setuptools.build_meta as m; m.build_$kind('dist')" > ../log 2>&1) ||
      { cat log >&2; exit 2; }
  done
  sleep 1
done
venv/bin/python -c 'import setuptools; print("setuptools", setuptools.__version__)'
python3 --version
sha256sum first/dist/* second/dist/* | sed 's/^\(.\{16\}\)[0-9a-f]*/\1/'
echo "the time in gzip's header, and those in the first source archive:"
date -u -d "@$(od -An -tu4 -j4 -N4 first/dist/probe-1.0.tar.gz | tr -d ' ')" '+%F %R'
TZ=UTC tar tvzf first/dist/probe-1.0.tar.gz | awk '{print $4, $5, $6}'
if ! cmp -s first/dist/probe-1.0-py3-none-any.whl second/dist/probe-1.0-py3-none-any.whl ||
  cmp -s first/dist/probe-1.0.tar.gz second/dist/probe-1.0.tar.gz; then
  echo "CHANGED: which of the two artifacts is the same each time" >&2
  exit 1
fi
echo "HOLDS: equal wheels, different source archives"
