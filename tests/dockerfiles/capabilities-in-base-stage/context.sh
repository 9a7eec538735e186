python3 - <<'END'
import io, tarfile
archive = tarfile.open("x.tar", "w", format=tarfile.PAX_FORMAT)
capability = bytes.fromhex("0100000200200000000000000000000000000000").decode("latin-1")
for name in ["ping", "lost", "sub/ping"]:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = 1, 0o755
    entry.pax_headers = {"SCHILY.xattr.security.capability": capability}
    archive.addfile(entry, io.BytesIO(b"1"))
archive.close()
END
