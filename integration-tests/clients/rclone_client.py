"""rclone over WebDAV: a tree of many small and a few large files, up and down, compared byte by byte."""

import os
import shutil

from system import expect

NEEDS = ["rclone"]
CELLS = {
    "dav": {
        "command": 'rclone serve webdav --config /dev/null --cache-dir "$CELL_DATA/../rclone-cache" --addr "$CELL_LISTEN" --baseurl /dav "$CELL_DATA"',
        "entry": {"paths": ["/dav"], "ready_path": "/dav/"},
    },
}
MIB = 1 << 20


def run(system):
    source, back = system.work / "tree", system.work / "tree-back"
    make(source)
    for way in system.ways("dav"):
        remote = [f":webdav:{way.via}-{way.asleep}", "--webdav-url", f"http://localhost:{way.port}/dav", "--config", "/dev/null"]
        with system.check("rclone", "sync up of 300 small and 3 large files, check --download", way) as check:
            check.sh("rclone", "mkdir", *remote)
            check.sh("rclone", "sync", source, *remote, "--transfers", "8")
            check.sh("rclone", "check", source, *remote, "--download")
        with system.check("rclone", "sync down, the trees are equal", way) as check:
            shutil.rmtree(back, ignore_errors=True)
            check.sh("rclone", "sync", *remote, back, "--transfers", "8")
            check.sh("diff", "--recursive", source, back)
        with system.check("rclone", "move and delete on the far side", way) as check:
            check.sh("rclone", "moveto", remote[0] + "/folder-1/file-1", remote[0] + "/moved ü", *remote[1:])
            expect("moved ü" in check.sh("rclone", "lsf", *remote), "the file was not moved")
            check.sh("rclone", "purge", *remote)


def make(folder):
    for number in range(300):
        inner = folder / f"folder-{number % 10}"
        inner.mkdir(parents=True, exist_ok=True)
        (inner / f"file-{number}").write_bytes(os.urandom(number * 37))
    for number, size in enumerate((5, 20, 40)):
        (folder / f"large {number} ü").write_bytes(os.urandom(size * MIB))
