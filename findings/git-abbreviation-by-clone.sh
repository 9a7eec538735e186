#!/bin/sh
# git-abbreviation-by-clone.sh: `git archive` of one commit gives other bytes in a shallow clone.
#
# Expected: an archive of one commit id is fixed by that commit: its files and its time.
# Happens: with `export-subst`, $Format:%h$ in a file becomes the short id, and its length is guessed from the number of
#   objects that the clone has. A shallow clone has fewer, so the file and the archive differ. `git rev-parse --short`
#   and `git describe --always` differ in the same way, and with them a version number made of one of them.
#   core.abbrev=40 (or %H) makes the archives equal.
# Matters here: a source fetched with and without its history is the same commit, and a build that asks git for a short
#   id, or starts from an archive, still gets other bytes.
set -eu
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
export GIT_CONFIG_GLOBAL=/dev/null GIT_CONFIG_NOSYSTEM=1
cd "$dir"
git init -q --bare -b main full
# A first commit with 20,000 files, a second with the two that remain.
awk 'BEGIN {
  who = "committer A <a@example.org> 1700000000 +0000\n"
  printf "commit refs/heads/main\nmark :1\n%sdata 6\nlarge\n\n", who
  for (i = 0; i < 20000; i++) { s = i ""; printf "M 100644 inline data/%d\ndata %d\n%s\n", i, length(s), s }
  printf "\ncommit refs/heads/main\n%sdata 6\nsmall\n\nfrom :1\ndeleteall\n", who
  printf "M 100644 inline version\ndata 12\n$Format:%%h$\n\n"
  printf "M 100644 inline .gitattributes\ndata 21\nversion export-subst\n\n"
}' | git -C full fast-import --quiet
git clone -q --bare --depth 1 "file://$dir/full" shallow
git --version
for clone in full shallow; do
  objects=$(git -C $clone count-objects -v | sed -n 's/^in-pack: //p')
  git -C $clone archive main > $clone.tar
  git -C $clone -c core.abbrev=40 archive main > $clone-40.tar
  echo "$clone: $objects objects, commit $(git -C $clone rev-parse main)"
  echo "  short id $(git -C $clone rev-parse --short main), describe $(git -C $clone describe --always main)," \
    "in the archive $(tar xOf $clone.tar version), archive sha256 $(sha256sum < $clone.tar | cut -c1-16)"
done
if [ "$(git -C full rev-parse main)" != "$(git -C shallow rev-parse main)" ] || cmp -s full.tar shallow.tar ||
  ! cmp -s full-40.tar shallow-40.tar; then
  echo "CHANGED: whether the archives of one commit are equal" >&2
  exit 1
fi
echo "HOLDS: one commit, two archives; with core.abbrev=40 one"
