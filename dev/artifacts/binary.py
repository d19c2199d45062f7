"""The static binary: what it promises, checked."""

import os
import pathlib
import platform
import re
import shutil
import subprocess
import tempfile
import time

from .place import REPOSITORY, Failed, output, say, version

PATH = "/usr/sbin:/usr/bin:/sbin:/bin"
MOST_BYTES = 20_000_000
# How long it may take until it says that a server does not answer.
PATIENCE = 30

# Nobody listens on port 1, so this is what a name that was found ends in.
FOUND = "onnection refused"
TRAP = "__attribute__((constructor)) static void loaded(void) { __builtin_trap(); }\n"
CONFIG = """\
server: {listen: "127.0.0.1:%d"}
collections:
  - watched: {db_name: shop, coll_name: orders}
    rabbitmq: {stream_name: orders}
"""


def release(binary, folder):
    # It is run where no other folder is near.
    binary = binary.resolve()
    size = binary.stat().st_size
    linked = subprocess.run(["ldd", str(binary)], capture_output=True, text=True)
    linked = (linked.stdout + linked.stderr).strip()
    say("%s: %.1f MB, ldd: %s" % (binary, size / 1e6, linked.splitlines()[0].strip()))
    if "statically linked" not in linked and "not a dynamic executable" not in linked:
        raise Failed("%s needs libraries: %s" % (binary, linked))
    if size >= MOST_BYTES:
        raise Failed("%s has %d bytes, %d are allowed" % (binary, size, MOST_BYTES))
    in_empty_environment(binary)
    with tempfile.TemporaryDirectory() as root:
        in_empty_root(binary, pathlib.Path(root))
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / ("mrcond-%s-%s-linux" % (version(), platform.machine()))
    shutil.copy2(binary, target)
    say("written to %s" % target)


def in_empty_environment(binary):
    told = output([binary, "--version"], env={}, cwd="/")
    if not told.startswith("mrcond %s " % version()):
        raise Failed("--version says %s" % told)
    checked = output([binary, "check", "--offline", "-c", REPOSITORY / "config.yaml"], env={}, cwd="/")
    say("in an empty environment: %s%s" % (told, checked.strip()))


def in_empty_root(binary, root):
    """Where there is no file but its own."""
    enter = entrance(root)
    if enter is None:
        say("not tried in an empty root: this user may neither chroot nor unshare")
        return
    (root / "etc").mkdir()
    shutil.copy2(binary, root / "mrcond")
    (root / "config.yaml").write_text(CONFIG % 0)
    told = output(enter + ["/mrcond", "check", "--offline", "-c", "/config.yaml"], env={"PATH": PATH})
    say("in an empty root: " + told.strip())
    (root / "etc/hosts").write_text("127.0.0.1 names-are-found\n")
    set_trap(root)
    for order in (None, "hosts: files dns", "hosts: trap [!UNAVAIL=return] files dns"):
        if order:
            (root / "etc/nsswitch.conf").write_text(order + "\n")
        complaint = says_of_a_name(enter)
        if FOUND not in complaint:
            raise Failed("with %s it does not find a name that /etc/hosts has: %s"
                         % (order or "no nsswitch.conf", complaint or "it ends"))
    say("in an empty root: names are found, and no library is loaded for it, whatever nsswitch.conf says")


def set_trap(root):
    """A library such as a machine has for names, that ends the process that loads it."""
    (root / "lib").mkdir()
    source = root / "trap.c"
    source.write_text(TRAP)
    output([os.environ.get("CC", "cc"), "-shared", "-fPIC", "-nostdlib", "-o", root / "lib/libnss_trap.so.2",
            source])


def entrance(root):
    """A command that makes `root` the root of another one, with /dev in it, as this user may.

    Random numbers come from /dev/urandom, which every container and service has: whether the kernel can
    be asked for them is looked up in a shared library, which a static binary has none of.
    """
    (root / "dev").mkdir()
    enter = ["--mount", "sh", "-c", 'mount --rbind /dev "$0/dev" && exec chroot "$0" "$@"', str(root)]
    program = shutil.which("unshare", path=PATH)
    for as_root in ([], ["--user", "--map-root-user"]) if program else ():
        command = [program] + as_root + enter
        tried = subprocess.run(command + ["/nothing"], capture_output=True, text=True,
                               env={"LC_ALL": "C", "PATH": PATH})
        # It came as far as to look for the program.
        if "/nothing" in tried.stderr:
            return command
    return None


def says_of_a_name(enter):
    """What it logs first of a server that has a name and does not answer."""
    variables = {"PATH": PATH, "MRCON_MONGO_URI": "mongodb://names-are-found:1/?serverSelectionTimeoutMS=2000",
                 "MRCON_RABBITMQ_URI": "amqp://names-are-found:1"}
    with tempfile.TemporaryFile("w+") as log, subprocess.Popen(
            enter + ["/mrcond", "-c", "/config.yaml"], env=variables,
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=log) as process:
        deadline = time.monotonic() + PATIENCE
        while not re.search(r"\b(WARN|ERROR)\b.*names-are-found", read(log)):
            if time.monotonic() > deadline or process.poll() is not None:
                break
            time.sleep(0.05)
        process.kill()
        return read(log)


def read(file):
    file.seek(0)
    return file.read()
