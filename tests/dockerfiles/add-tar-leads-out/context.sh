python3 - <<'END'
import tarfile
archive = tarfile.open("x.tar", "w")
def add(name, kind=tarfile.REGTYPE, link=""):
    entry = tarfile.TarInfo(name)
    entry.type, entry.linkname, entry.devmajor, entry.devminor = kind, link, 1, 3
    archive.addfile(entry)
add("before")
add("../../etc/evil")
archive.close()
END
