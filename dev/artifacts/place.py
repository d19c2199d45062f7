"""What all artifacts have in common: the repository, its version and date, running programs."""

import os
import pathlib
import re
import subprocess
import time

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]


class Failed(Exception):
    """What is wrong, for the person who makes the release."""


def say(text):
    print("release: " + text, flush=True)


def version():
    text = (REPOSITORY / "Cargo.toml").read_text()
    return re.search(r'^version = "(.+)"$', text, re.M).group(1)


def date():
    """Seconds since 1970: of the last commit, so that the same sources give the same files."""
    given = os.environ.get("SOURCE_DATE_EPOCH")
    if not given:
        found = subprocess.run(["git", "log", "-1", "--format=%ct"], cwd=REPOSITORY,
                               capture_output=True, text=True)
        given = found.stdout.strip() if found.returncode == 0 else ""
    return int(given or time.time())


def output(command, **options):
    """What a program prints; it must not fail."""
    result = subprocess.run([str(part) for part in command], stdin=subprocess.DEVNULL,
                            capture_output=True, text=True, **options)
    if result.returncode != 0:
        raise Failed("%s: %s" % (" ".join(map(str, command)),
                                 (result.stderr or result.stdout).strip() or result.returncode))
    return result.stdout
