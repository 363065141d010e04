"""git: a large repository pushed in chunks and in one piece, cloned back, checked and compared."""

import os
import shutil
import sys

from system import CELLS as FOLDER
from system import expect

NEEDS = ["git"]
CELLS = {"git": {"command": f"'{sys.executable}' '{FOLDER / 'git_cell.py'}'"}}
MIB = 1 << 20
FILES, SMALL = 25, 500


def run(system):
    environment = {
        "PATH": os.environ["PATH"], "HOME": str(system.work), "GIT_CONFIG_GLOBAL": "/dev/null", "GIT_TERMINAL_PROMPT": "0",
        **{f"GIT_{who}_{what}": value for who in ("AUTHOR", "COMMITTER") for what, value in (("NAME", "A"), ("EMAIL", "a@localhost"))},
    }
    source, made = system.work / "repository", False
    # What is small is asked for in one request with a length; the rest goes as it is packed, in chunks.
    for buffer, how in ((MIB, "in chunks"), (512 * MIB, "in one piece")):
        for way in system.ways("git"):
            with system.check("git", f"push of {8 * FILES} MiB {how}, clone, fsck", way) as check:
                def git(*words, at=source):
                    return check.sh("git", "-C", at, *words, env=environment, timeout=240)
                if not made:
                    make(source, git)
                    made = True
                url = f"{way.url}/{buffer}-{way.via}-{way.asleep}.git"
                git("-c", f"http.postBuffer={buffer}", "push", "--quiet", url, "HEAD:refs/heads/main")
                back = system.work / "clone"
                shutil.rmtree(back, ignore_errors=True)
                git("clone", "--quiet", "--branch", "main", url, back, at=system.work)
                git("fsck", "--full", "--strict", at=back)
                check.same(git("rev-parse", "HEAD^{tree}", at=back), git("rev-parse", "HEAD^{tree}"))
                expect(git("status", "--porcelain", at=back) == "", "the working tree differs")


def make(folder, git):
    """A repository of files that do not compress, and many small ones."""
    folder.mkdir()
    git("init", "--quiet")
    for name, value in (("core.compression", "0"), ("core.bigFileThreshold", "1m"), ("gc.auto", "0")):
        git("config", name, value)
    for number in range(FILES):
        (folder / f"large-{number}").write_bytes(os.urandom(8 * MIB))
    for number in range(SMALL):
        (folder / f"small-{number}").write_text(f"{number}\n" * number)
    git("add", ".")
    git("commit", "--quiet", "-m", "all of it")
