python3 - <<'END'
import io, tarfile
archive = tarfile.open("x.tar", "w", format=tarfile.PAX_FORMAT)
capability = bytes.fromhex("0100000200200000000000000000000000000000").decode("latin-1")
for name, headers in {
    "ping": {"SCHILY.xattr.security.capability": capability},
    "user": {"SCHILY.xattr.user.note": "text"},
    "time": {"mtime": "1000000000.5"},
}.items():
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode, entry.pax_headers = 1, 0o755, headers
    archive.addfile(entry, io.BytesIO(b"1"))
archive.close()
END
