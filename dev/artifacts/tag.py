"""Whether what is to be released is what its tag says."""

import re
import subprocess

from .place import REPOSITORY, Failed, say, version


def check(given):
    tags = [given] if given else tags_here()
    if not tags:
        say("no tag here: what is made is called %s, and is no release" % version())
        return
    wanted = "v" + version()
    if wanted not in tags:
        raise Failed("the tag is %s, Cargo.toml says %s: it should be %s" % (", ".join(tags), version(), wanted))
    changelog = (REPOSITORY / "CHANGELOG.md").read_text()
    if not re.search(r"^## \[%s\]" % re.escape(version()), changelog, re.M):
        raise Failed("CHANGELOG.md has no section [%s]" % version())
    changed = git("status", "--porcelain")
    if changed:
        raise Failed("what is here is not what was committed:\n" + changed)
    say("the tag %s is of this version" % wanted)


def tags_here():
    """Those that look like versions, of this very commit."""
    return [tag for tag in git("tag", "--points-at", "HEAD").split() if re.match(r"v\d", tag)]


def git(*arguments):
    done = subprocess.run(["git", *arguments], cwd=REPOSITORY, capture_output=True, text=True)
    if done.returncode != 0:
        raise Failed("git %s: %s" % (arguments[0], done.stderr.strip()))
    return done.stdout.strip()
