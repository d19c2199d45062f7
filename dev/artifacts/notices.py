"""The licences: the project's own files, and the notices of everything that the binary holds."""

import html
import pathlib
import re
import shutil

from . import linked, sbom
from .place import REPOSITORY, say, version

OWN = ("LICENSE-MIT", "LICENSE-APACHE")
NAME = "THIRD-PARTY-NOTICES.txt"
# A crate may bring the sources of a C library in a folder of their own, with their licence.
DEPTH = 3
IS_LICENCE = re.compile(r"(licen[cs]e|copying|copyright|notice|unlicense)", re.I)
NO_TEXT = {".rs", ".c", ".h", ".py", ".sh", ".toml", ".json", ".html", ".in", ".yml", ".yaml"}
LINE = "=" * 100 + "\n"

HEAD = """\
mrcond %s itself is under MIT OR Apache-2.0: LICENSE-MIT, LICENSE-APACHE. Its binary holds what follows: all of it
under permissive licences, which are what is chosen where there is a choice; but glibc is under the LGPL, and libgcc
under the GPL with an exception that asks nothing of programs that hold it.

glibc: you may change it and link the program with yours. For that the program's sources are there under its own
licence, and `make static` links them with the libc.a that it finds; those of glibc are Debian's source package
glibc of the version below.

"""


def release(folder):
    folder.mkdir(parents=True, exist_ok=True)
    for name in OWN:
        shutil.copyfile(REPOSITORY / name, folder / name)
    (folder / NAME).write_text(text())
    say("written to %s: licences of the project and of %d others" % (folder / NAME, len(parts())))


def parts():
    """(name, version, licence, files with texts), of crates and of what is no crate."""
    crates = [(package["name"], package["version"], package["license"] or "see its text",
               licences(pathlib.Path(package["manifest_path"]).parent))
              for package in sbom.crates() if package["source"]]
    others = [(part["name"], part["version"], part["licence"], part["texts"]) for part in linked.libraries()]
    return others + crates


def licences(folder):
    """Files of a crate whose names say that they are licences."""
    files = (file for depth in range(DEPTH) for file in folder.glob("*/" * depth + "*"))
    return sorted(file for file in files if file.is_file() and IS_LICENCE.match(file.name)
                  and file.suffix not in NO_TEXT)


def words(file):
    """What a file says, without the marks of a page."""
    content = file.read_text(encoding="utf-8", errors="replace")
    if file.suffix == ".html":
        content = re.sub(r"<title>.*?</title>|<style>.*?</style>|<[^>]*>", "", content, flags=re.S)
        content = re.sub(r"[ \t]+\n", "\n", html.unescape(content))
        content = re.sub(r"\n{3,}", "\n\n", content)
    return content.strip() + "\n"


def text():
    # The same text is many crates'.
    of_text = {}
    lines = []
    for name, number, licence, files in parts():
        lines.append("%s %s: %s\n" % (name, number, licence))
        for file in files:
            content = words(file)
            owners = of_text.setdefault(content, [])
            owner = "%s %s" % (name, number)
            if owner not in owners:
                owners.append(owner)
    written = [HEAD % version()] + lines
    for content, owners in of_text.items():
        written += ["\n", LINE, "Of %s\n" % ", ".join(owners), LINE, "\n", content]
    return "".join(written)
