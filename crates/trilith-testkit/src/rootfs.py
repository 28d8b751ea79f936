"""Packs a directory, or only its changes, as a layer's tar file.

    rootfs.py DIR OUT [WHITEOUT...]

Entries are sorted, owned by root and dated 2024-03-05; WHITEOUTs are paths that the layer removes.
"""

import io
import pathlib
import sys
import tarfile

TIME = 1709618828


def main():
    root, out, *whiteouts = sys.argv[1:]

    def clean(entry):
        entry.uid = entry.gid = 0
        entry.uname = entry.gname = ""
        entry.mtime = TIME
        return entry

    with tarfile.open(out, "w", format=tarfile.PAX_FORMAT) as tar:
        for path in sorted(pathlib.Path(root).rglob("*")):
            tar.add(path, str(path.relative_to(root)), recursive=False, filter=clean)
        for path in whiteouts:
            directory, _, name = path.rpartition("/")
            tar.addfile(clean(tarfile.TarInfo(f"{directory}/.wh.{name}")), io.BytesIO())


main()
