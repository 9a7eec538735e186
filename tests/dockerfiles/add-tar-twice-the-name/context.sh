python3 - <<'END'
import io, tarfile
archive = tarfile.open("x.tar", "w")
def add(name, kind=tarfile.REGTYPE, text=b"", link="", mode=0o644):
    entry = tarfile.TarInfo(name)
    entry.type, entry.size, entry.linkname, entry.mode = kind, len(text), link, mode
    archive.addfile(entry, io.BytesIO(text))
add("a", text=b"1")
add("a", text=b"2")
add("b", tarfile.DIRTYPE, mode=0o700)
add("b/c", text=b"3")
add("b", tarfile.DIRTYPE, mode=0o711)
add("d", tarfile.DIRTYPE, mode=0o755)
add("d/e", text=b"4")
add("d", text=b"5")
add("f", tarfile.SYMTYPE, link="b")
add("f/g", text=b"6")
add("h", tarfile.LNKTYPE, link="a")
archive.close()
END
