python3 - <<'END'
import io, tarfile
archive = tarfile.open("x.tar", "w")
for name in ["/etc/a", "./b//c", "d/../e"]:
    entry = tarfile.TarInfo(name)
    entry.size = 1
    archive.addfile(entry, io.BytesIO(b"1"))
archive.close()
END
