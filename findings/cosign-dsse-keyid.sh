#!/bin/sh
# cosign-dsse-keyid.sh: an optional, unsigned label makes cosign pass over a valid signature.
#
# Expected: DSSE's `keyid` is optional and authenticates nothing (its protocol says so), so a bundle verifies by the key
#   that is given, whatever the label; all the more as a Sigstore bundle names its key beside the envelope.
# Happens: a signature whose keyid is not the verifier's own name of the key, OpenSSH's SHA256:..., is not tried at all:
#   "accepted signatures do not match threshold, Found: 0, Expected 1". Neither the hint of the bundle nor the hex of
#   the key's SHA-256, as in-toto has it, will do. Without keyid, or with an empty one, the same signature verifies.
# Matters here: who labels signatures helpfully is verified by nobody who stands on this library.
set -eu
dir=$(mktemp -d)
trap 'chmod -R u+w "$dir"; rm -rf "$dir"' EXIT
cd "$dir"
GOBIN=$dir go install github.com/sigstore/cosign/v3/cmd/cosign@v3.1.3 2> go.log || { tail -5 go.log >&2; exit 2; }
./cosign version 2>&1 | grep GitVersion
openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out key.pem
openssl pkey -in key.pem -pubout -out key.pub
openssl pkey -in key.pem -pubout -outform DER -out key.der
echo "some bytes" > file
cat > bundle.py <<'PY'
import base64, hashlib, json, subprocess, sys
kind = "application/vnd.in-toto+json"
digest = hashlib.sha256(open("file", "rb").read()).hexdigest()
payload = json.dumps({"_type": "https://in-toto.io/Statement/v1", "subject": [{"name": "file", "digest": {"sha256": digest}}],
    "predicateType": "https://example.org/p", "predicate": {}}).encode()
message = b"DSSEv1 %d %s %d %s" % (len(kind), kind.encode(), len(payload), payload)
sign = ["openssl", "dgst", "-sha256", "-sign", "key.pem"]
signature = {"sig": base64.b64encode(subprocess.run(sign, input=message, capture_output=True, check=True).stdout).decode()}
spki = open("key.der", "rb").read()
point = b"".join(len(it).to_bytes(4, "big") + it for it in (b"ecdsa-sha2-nistp256", b"nistp256", spki[-65:]))
names = {
    "none": None,
    "empty": "",
    "ssh": "SHA256:" + base64.b64encode(hashlib.sha256(point).digest()).decode().rstrip("="),
    "hint": base64.b64encode(hashlib.sha256(spki).digest()).decode(),
    "hex": hashlib.sha256(spki).hexdigest(),
}
for name, keyid in names.items():
    signed = signature if keyid is None else {**signature, "keyid": keyid}
    bundle = {"mediaType": "application/vnd.dev.sigstore.bundle.v0.3+json",
        "verificationMaterial": {"publicKey": {"hint": names["hint"]}},
        "dsseEnvelope": {"payload": base64.b64encode(payload).decode(), "payloadType": kind, "signatures": [signed]}}
    json.dump(bundle, open(name + ".json", "w"))
PY
python3 bundle.py
seen=""
for name in none empty ssh hint hex; do
  if HOME=$dir ./cosign verify-blob-attestation --key key.pub --bundle $name.json --type https://example.org/p \
    --insecure-ignore-tlog=true file > said 2>&1; then answer=verified; else answer=refused; fi
  echo "keyid $name: $answer ($(tail -1 said | cut -c1-110))"
  seen="$seen $name=$answer"
done
if [ "$seen" != " none=verified empty=verified ssh=verified hint=refused hex=refused" ]; then
  echo "CHANGED: which keyid cosign passes over:$seen" >&2
  exit 1
fi
echo "HOLDS: a keyid of another making hides a valid signature"
