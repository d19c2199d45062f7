#!/usr/bin/env python3
"""What is released, made from a static binary: checked, as a Debian package, with licences, an SBOM and checksums."""

import argparse
import pathlib
import sys

from artifacts import binary, debian, notices, sbom, sums, tag
from artifacts.place import Failed


def parser():
    top = argparse.ArgumentParser(description=__doc__)
    commands = top.add_subparsers(metavar="COMMAND", required=True)

    def command(name, function, text):
        added = commands.add_parser(name, help=text, description=text)
        added.set_defaults(function=function)
        return added

    added = command("binary", lambda options: binary.release(options.binary, options.output),
                    "check that a binary is static, small, and runs where nothing else is; put it to the others")
    added.add_argument("binary", type=pathlib.Path)
    added.add_argument("--output", type=pathlib.Path, required=True, metavar="FOLDER")

    added = command("deb", debian.release, "make the Debian package")
    added.add_argument("binary", type=pathlib.Path)
    added.add_argument("--output", type=pathlib.Path, required=True, metavar="FOLDER")
    added.add_argument("--documented-by", type=pathlib.Path, metavar="BINARY",
                       help="the mrcond that is asked for its man page and completions, if it is another one")
    added.add_argument("--compression", default="xz", choices=["xz", "none"])

    added = command("sbom", lambda options: sbom.release(options.output),
                    "list what the binary is made of, as CycloneDX")
    added.add_argument("--output", type=pathlib.Path, required=True, metavar="FOLDER")

    added = command("notices", lambda options: notices.release(options.output),
                    "put the licences there, and the notices of everything that the binary holds")
    added.add_argument("--output", type=pathlib.Path, required=True, metavar="FOLDER")

    added = command("tag", lambda options: tag.check(options.tag),
                    "check that a tag, and what is to be released, are of one version")
    added.add_argument("tag", nargs="?", help="[default: the one that git has for this commit, if it has one]")

    added = command("sums", lambda options: sums.release(options.output),
                    "write SHA256SUMS of everything in a folder")
    added.add_argument("--output", type=pathlib.Path, required=True, metavar="FOLDER")
    return top


def main():
    options = parser().parse_args()
    try:
        options.function(options)
    except (Failed, OSError) as error:
        sys.exit("release: error: %s" % error)


if __name__ == "__main__":
    main()
