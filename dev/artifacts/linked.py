"""What a static binary holds that is no crate: Rust's own library, the C library, and the compiler's."""

import os
import pathlib
import re
import shlex
import subprocess

from .place import output

COPYRIGHTS = pathlib.Path("/usr/share/doc")
# Debian's copyright files name these instead of holding them.
COMMON = pathlib.Path("/usr/share/common-licenses")


def libraries():
    """Each as it is on this machine, which is the one that links it in."""
    compiler = shlex.split(os.environ.get("CC") or "cc")
    of_libc = package(found(compiler, "libc.a")) or {}
    of_libgcc = package(found(compiler, "libgcc.a")) or {}
    of_rust = pathlib.Path(output(["rustc", "--print", "sysroot"]).strip()) / "share/doc/rust"
    rust = re.search(r"^release: (.+)$", output(["rustc", "-vV"]), re.M).group(1)
    return [
        {"name": "glibc", "licence": "LGPL-2.1-or-later", "about": "the C library, linked in statically",
         "version": of_libc.get("version") or libc_by_itself(),
         "purl": of_libc.get("purl"), "texts": present(of_libc.get("copyright"), COMMON / "LGPL-2.1")},
        {"name": "libgcc", "licence": "GPL-3.0-or-later WITH GCC-exception-3.1",
         "about": "what GCC's and Rust's programs need while they run; the exception lets every program hold it",
         "version": of_libgcc.get("version") or output(compiler + ["-dumpfullversion"]).strip(),
         "purl": of_libgcc.get("purl"),
         "texts": present(of_libgcc.get("copyright"), of_rust / "licenses/GCC-exception-3.1.txt", COMMON / "GPL-3")},
        {"name": "rust-std", "licence": "MIT OR Apache-2.0", "about": "Rust's standard library",
         "version": rust, "purl": "pkg:generic/rust@" + rust,
         "texts": present(of_rust / "COPYRIGHT-library.html")},
    ]


def present(*files):
    """Those of the files with a licence that this machine has."""
    return [file for file in files if file and file.is_file()]


def found(compiler, library):
    """The file that the compiler links."""
    return pathlib.Path(output(compiler + ["-print-file-name=" + library]).strip())


def package(file):
    """The Debian package of a file; None where dpkg does not know."""
    # dpkg knows a file by the name that it was installed under: /usr/lib may be /lib to it.
    names = [str(file), str(file.resolve())]
    names += [name[len("/usr"):] for name in names if name.startswith("/usr/")]
    for name in names:
        owner = asked(["dpkg-query", "--search", name]).partition(": ")[0]
        if owner and "," not in owner:
            number = asked(["dpkg-query", "--show", "--showformat=${Version}", owner])
            name, _, architecture = owner.partition(":")
            qualifier = "?arch=" + architecture if architecture else ""
            text = COPYRIGHTS / name / "copyright"
            return {"version": number, "purl": "pkg:deb/debian/%s@%s%s" % (name, number, qualifier),
                    "copyright": text if text.is_file() else None}
    return None


def libc_by_itself():
    first = asked(["ldd", "--version"]).splitlines()[:1]
    return first[0].split()[-1] if first else "unknown"


def asked(command):
    """What a program prints, or nothing."""
    try:
        return subprocess.run(command, capture_output=True, text=True, env={**os.environ, "LC_ALL": "C"}).stdout.strip()
    except OSError:
        return ""
