#!/bin/sh
# pyc-source-date-epoch.sh: SOURCE_DATE_EPOCH makes Python write another kind of .pyc, and its value is not used.
#
# Expected: as elsewhere, the variable's value takes the place of a time, here of the source's time in the header.
# Happens: when it is set (and not empty), compileall and py_compile leave out the time and write a hash of the source;
#   each value gives the same bytes. `import` ignores the variable: in one environment both kinds are written,
#   by whichever part of Python came to a file first.
# Matters here: a build with the variable and one without differ in each .pyc, not in a time only, and a step that
#   imports a module before it is compiled still leaves a time.
set -eu
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
unset SOURCE_DATE_EPOCH PYTHONDONTWRITEBYTECODE PYTHONPYCACHEPREFIX
cd "$dir"
echo 'x = 1' > probe.py
touch -d @1600000000 probe.py
# The header after the magic number: 4 bytes of flags, then a time and a size, or a hash.
header() {
  python3 - <<'PY'
import glob
data = open(glob.glob("__pycache__/probe.*.pyc")[0], "rb").read(16)
flags = int.from_bytes(data[4:8], "little")
print(f"hash {data[8:16].hex()}" if flags else f"time {int.from_bytes(data[8:12], 'little')}")
PY
  rm -r __pycache__
}
python3 --version
python3 -m compileall -q probe.py && unset_=$(header)
SOURCE_DATE_EPOCH='' python3 -m compileall -q probe.py && empty=$(header)
SOURCE_DATE_EPOCH=1 python3 -m compileall -q probe.py && one=$(header)
SOURCE_DATE_EPOCH=1700000000 python3 -m compileall -q probe.py && large=$(header)
SOURCE_DATE_EPOCH=1700000000 python3 -c 'import probe' && imported=$(header)
echo "compileall, not set:               $unset_"
echo "compileall, set to the empty text: $empty"
echo "compileall, set to 1:              $one"
echo "compileall, set to 1700000000:     $large"
echo "import, set to 1700000000:         $imported"
plain="time 1600000000"
if [ "$unset_" != "$plain" ] || [ "$empty" != "$plain" ] || [ "$imported" != "$plain" ] ||
  [ "$one" != "$large" ] || [ "${one%% *}" != hash ]; then
  echo "CHANGED: what the header of a .pyc has" >&2
  exit 1
fi
echo "HOLDS: the variable switches the kind of .pyc, for compileall and not for import"
