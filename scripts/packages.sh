#!/bin/sh
# packages.sh NAME... installs those of Debian's packages that are missing. Quiet when there is nothing to do.
set -eu
missing=""
for name in "$@"; do
  [ "$(dpkg-query -W -f='${db:Status-Status}' "$name" 2>/dev/null || true)" = installed ] || missing="$missing $name"
done
[ -n "$missing" ] || exit 0
if [ "$(id -u)" != 0 ]; then
  echo "packages.sh: missing$missing; run as root, or: sudo apt-get install$missing" >&2
  exit 8
fi
echo "installing Debian's packages:$missing" >&2
log=$(mktemp)
trap 'rm -f "$log"' EXIT
# A service must not start by being installed: the tests and the demo start their own, on ports of their own.
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
  printf '#!/bin/sh\nexit 101\n' > "$policy" && chmod +x "$policy"
  trap 'rm -f "$log" "$policy"' EXIT
fi
export DEBIAN_FRONTEND=noninteractive
# shellcheck disable=SC2086 # a list of names
if ! { apt-get install -y -q --no-install-recommends $missing || { apt-get update -q && apt-get install -y -q --no-install-recommends $missing; }; } >"$log" 2>&1; then
  tail -n 20 "$log" >&2
  echo "packages.sh: apt-get could not install$missing" >&2
  exit 8
fi
