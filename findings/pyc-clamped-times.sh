#!/bin/sh
# pyc-clamped-times.sh: setting the times of sources back makes each .pyc useless, and can make a wrong one count.
#
# Expected: a .pyc is used while it is newer than its source, as make does; so setting old times on all files of a
#   layer is harmless. And after the source has changed, the old .pyc is not used.
# Happens: Python compares the source's time with the one inside the .pyc for being equal. A source that was made OLDER
#   counts as changed: the module is compiled at each start when the folder cannot be written. And when the times of
#   all sources are set to one value, a changed source of the same size counts as unchanged: the old code runs.
# Matters here: builders clamp the times of a layer's files to the commit's. Each .pyc with a time in it is then dead
#   weight, or worse, unless it was compiled after the clamp or carries a hash (see pyc-source-date-epoch.sh).
set -eu
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
unset SOURCE_DATE_EPOCH PYTHONDONTWRITEBYTECODE PYTHONPYCACHEPREFIX
cd "$dir"
# What Python says of its .pyc; -B stands for a folder that cannot be written.
state() {
  python3 -B -v -c 'import probe' 2>&1 | grep -E 'probe.*\.pyc matches|bytecode is stale' | grep -oE 'matches|stale'
}
python3 --version
echo 'print("old code")' > probe.py
python3 -m compileall -q probe.py
fresh=$(state)
touch -d @1600000000 probe.py
clamped="$(state) $(state)"
echo "compiled: $fresh"
echo "the source's time set back, two starts: $clamped"
rm -r __pycache__
python3 -m compileall -q probe.py
echo 'print("new code")' > probe.py
touch -d @1600000000 probe.py
ran=$(python3 -c 'import probe')
echo "the source changed, its time set back: runs the $ran"
rm -r __pycache__
python3 -m compileall -q --invalidation-mode checked-hash probe.py
touch -d @1500000000 probe.py
hashed=$(state)
echo "compiled with a hash, the source's time set back: $hashed"
if [ "$fresh $clamped $ran $hashed" != "matches stale stale old code matches" ]; then
  echo "CHANGED: when a .pyc is used" >&2
  exit 1
fi
echo "HOLDS: an older source counts as changed, and a changed source of equal time and size does not"
