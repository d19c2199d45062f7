"""Checksums, as `sha256sum --check SHA256SUMS` reads them."""

import hashlib

from .place import say

NAME = "SHA256SUMS"


def release(folder):
    files = sorted(file for file in folder.iterdir() if file.is_file() and file.name != NAME)
    lines = ["%s  %s\n" % (hashlib.sha256(file.read_bytes()).hexdigest(), file.name) for file in files]
    (folder / NAME).write_text("".join(lines))
    say("%s: %d files" % (folder / NAME, len(lines)))
