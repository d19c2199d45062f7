"""The Debian package, put together by dpkg-deb from the files of deploy/."""

import email.utils
import gzip
import hashlib
import pathlib
import tempfile

from . import notices, sbom
from .place import REPOSITORY, date, output, say, version

DEPLOY = REPOSITORY / "deploy"
DEBIAN = DEPLOY / "debian"
# The first package of a version; raise it when only the packaging changes.
REVISION = 1
COMPLETIONS = {
    "bash": "usr/share/bash-completion/completions/mrcond",
    "zsh": "usr/share/zsh/vendor-completions/_mrcond",
    "fish": "usr/share/fish/vendor_completions.d/mrcond.fish",
}


def release(options):
    with tempfile.TemporaryDirectory() as folder:
        tree = Tree(pathlib.Path(folder) / "mrcond")
        fill(tree, options.binary, options.documented_by or options.binary)
        control(tree)
        options.output.mkdir(parents=True, exist_ok=True)
        target = options.output / ("mrcond_%s_%s.deb" % (debian_version(), architecture()))
        output(["dpkg-deb", "--root-owner-group", "-Z" + options.compression, "--build", tree.root, target],
               env={"SOURCE_DATE_EPOCH": str(date()), "PATH": "/usr/bin:/bin:/usr/sbin:/sbin"})
    say("written to %s" % target)


class Tree:
    """The files of the package, with the modes that they are to have."""

    def __init__(self, root):
        self.root = root
        self.folder("", 0o755)

    def folder(self, path, mode):
        place = self.root / path
        for missing in [place] + list(place.parents):
            if missing == self.root.parent:
                break
            if not missing.exists():
                missing.mkdir(parents=True)
                missing.chmod(0o755)
        place.chmod(mode)

    def write(self, path, content, mode=0o644):
        self.folder(str(pathlib.PurePath(path).parent), 0o755)
        (self.root / path).write_bytes(content)
        (self.root / path).chmod(mode)

    def copy(self, source, path, mode=0o644):
        self.write(path, source.read_bytes(), mode)

    def compressed(self, path, text):
        # Without its time, so that the same text is the same file.
        self.write(path + ".gz", gzip.compress(text.encode(), 9, mtime=0))


def fill(tree, binary, documented_by):
    tree.copy(binary, "usr/bin/mrcond", 0o755)
    tree.copy(DEPLOY / "systemd/mrcond.service", "usr/lib/systemd/system/mrcond.service")
    tree.copy(DEPLOY / "systemd/mrcond.sysusers", "usr/lib/sysusers.d/mrcond.conf")
    tree.copy(REPOSITORY / "config.yaml", "etc/mrcond/config.yaml")
    # For root alone: systemd reads what is in it for the service.
    tree.folder("etc/mrcond/credentials", 0o700)
    tree.copy(DEBIAN / "default", "etc/default/mrcond")
    documents = "usr/share/doc/mrcond/"
    tree.copy(DEBIAN / "copyright", documents + "copyright")
    tree.compressed(documents + "changelog", (REPOSITORY / "CHANGELOG.md").read_text())
    tree.compressed(documents + "changelog.Debian", changelog())
    tree.compressed(documents + "README", (DEPLOY / "README.md").read_text())
    tree.compressed(documents + "sbom.cdx.json", sbom.text())
    tree.compressed(documents + notices.NAME, notices.text())
    tree.copy(DEBIAN / "lintian-overrides", "usr/share/lintian/overrides/mrcond")
    with tempfile.TemporaryDirectory() as pages:
        output([documented_by, "man", "--output", pages])
        for page in pathlib.Path(pages).iterdir():
            tree.compressed("usr/share/man/man1/" + page.name, page.read_text())
    for shell, path in COMPLETIONS.items():
        tree.write(path, output([documented_by, "completions", shell]).encode())


def control(tree):
    files = sorted(file for file in tree.root.rglob("*") if file.is_file())
    size = sum(file.stat().st_size for file in files)
    sums = ["%s  %s\n" % (hashlib.md5(file.read_bytes()).hexdigest(), file.relative_to(tree.root))
            for file in files if file.relative_to(tree.root).parts[0] != "etc"]
    text = (DEBIAN / "control").read_text()
    for name, value in (("VERSION", debian_version()), ("ARCHITECTURE", architecture()),
                        ("SIZE", str(-(-size // 1024)))):
        text = text.replace("@%s@" % name, value)
    tree.write("DEBIAN/control", text.encode())
    tree.write("DEBIAN/md5sums", "".join(sums).encode())
    tree.copy(DEBIAN / "conffiles", "DEBIAN/conffiles")
    for script in ("postinst", "prerm", "postrm"):
        tree.copy(DEBIAN / script, "DEBIAN/" + script, 0o755)


def debian_version():
    return "%s-%d" % (version(), REVISION)


def architecture():
    return output(["dpkg", "--print-architecture"]).strip()


def changelog():
    maintainer = next(line.partition(": ")[2] for line in (DEBIAN / "control").read_text().splitlines()
                      if line.startswith("Maintainer: "))
    return ("mrcond (%s) unstable; urgency=medium\n\n  * Version %s; changelog.gz tells what is new.\n\n"
            " -- %s  %s\n" % (debian_version(), version(), maintainer, email.utils.formatdate(date())))
