"""Instances: one server (or replica set) each, with its folder, record, ports and owner.

All there is to know about an instance is in run/NAME/instance.json, written as soon as
something is true, so that any later process can go on from it, whatever ended before.
"""

import contextlib
import json
import os
import random
import re
import select
import shutil
import signal
import socket
import sys

from . import processes
from .common import Problem, file_lock, folder, state_root

# Below the ports that the kernel gives to outgoing connections.
PORTS = range(20000, 30000)
STOP_SECONDS = 60
SCRIPT = os.path.abspath(sys.argv[0])


class Instance:
    def __init__(self, name):
        self.name = name
        self.folder = state_root() / "run" / name
        self.file = self.folder / "instance.json"
        self.record = json.loads(self.file.read_text()) if self.file.exists() else None

    def save(self):
        part = self.folder / "instance.json.part"
        part.write_text(json.dumps(self.record, indent=2) + "\n")
        part.rename(self.file)

    def create(self, kind, settings, roles, ports=None):
        """Makes the instance with a port for each role: those given, or free ones."""
        with file_lock(folder("run") / ".ports.lock"):
            self.folder.mkdir(parents=True, exist_ok=True)
            self.record = {"kind": kind, "settings": settings,
                           "ports": ports or choose_ports(roles), "processes": {}, "watcher": None}
            self.save()

    def start_process(self, role, command, environment, log):
        self.record["processes"][role] = processes.start(command, environment, log, self.folder)
        self.save()

    def process(self, role):
        return self.record["processes"].get(role)

    def is_alive(self, role):
        return processes.is_alive(self.process(role))

    def alive(self):
        return [role for role in self.record["processes"] if self.is_alive(role)]

    def require_free_ports(self, roles):
        for role in roles:
            port = self.record["ports"][role]
            if not is_free(port):
                raise Problem("port %d, the %s port of '%s', is in use" % (port, role, self.name),
                              "stop the program that uses it (see it with 'ss -ltnp')")

    def kill_all_but(self, roles):
        """Ends what a failed start has started; `roles` were running before it."""
        started = self.record["processes"].items()
        processes.stop([process for role, process in started if role not in roles],
                       signal.SIGKILL, STOP_SECONDS)

    def stop(self, kill=False, remove=False):
        """Ends the instance's own processes, the watcher too unless it is the caller."""
        # What is removed anyway needs no orderly end.
        number = signal.SIGKILL if kill or remove else signal.SIGTERM
        servers = dict(self.record["processes"])
        # The port mapper only goes once the broker does not need it any more.
        epmd = servers.pop("epmd", None)
        watcher = self.record["watcher"]
        if watcher and watcher["pid"] != os.getpid():
            processes.stop([watcher], signal.SIGKILL, STOP_SECONDS)
        processes.stop(servers.values(), number, STOP_SECONDS)
        if epmd:
            processes.stop([epmd], signal.SIGTERM, STOP_SECONDS)
        if remove:
            shutil.rmtree(self.folder)
            with contextlib.suppress(FileNotFoundError):
                lock_path(self.name).unlink()
        else:
            self.record.update(processes={}, watcher=None)
            self.save()


def lock_path(name):
    return folder("run") / (".%s.lock" % name)


@contextlib.contextmanager
def locked(name):
    """The instance of that name, for one process at a time."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name):
        raise Problem("'%s' is not a name" % name, "use letters, digits, '.', '_' and '-'")
    with file_lock(lock_path(name), "starting or stopping '%s'" % name):
        yield Instance(name)


def every_instance():
    records = sorted((state_root() / "run").glob("*/instance.json"))
    return [Instance(record.parent.name) for record in records]


def choose_ports(roles):
    """Free ports that no other instance, running or not, has been given."""
    taken = {port for instance in every_instance() for port in instance.record["ports"].values()}
    candidates = iter(random.sample(PORTS, len(PORTS)))
    free = (port for port in candidates if port not in taken and is_free(port))
    return {role: next(free) for role in roles}


def is_free(port):
    with socket.socket() as probe:
        # As the servers do: a port whose last connections linger in TIME_WAIT is free.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


# ---- owners ---------------------------------------------------------------------------

def open_owner(pid):
    """A handle that becomes readable when the owner ends; None without an owner."""
    try:
        return pid and os.pidfd_open(pid)
    except OSError as error:
        raise Problem("there is no process %d to own the server (%s)" % (pid, error.strerror),
                      "give the id of a running process")


def start_watcher(instance, owner, ephemeral):
    """A detached process that stops the instance when the owner has ended in whatever way."""
    former = instance.record["watcher"]
    if former:
        processes.stop([former], signal.SIGKILL, STOP_SECONDS)
    command = [sys.executable, SCRIPT, "watch", "--name", instance.name, "--owner-handle", owner]
    instance.record["watcher"] = processes.start(
        command + (["--ephemeral"] if ephemeral else []),
        dict(os.environ, MRCON_SERVICES_DIR=str(state_root())),
        instance.folder / "watcher.log", instance.folder, keep_open=[owner])
    instance.save()


def watch(name, owner, ephemeral):
    """What the watcher does."""
    select.select([owner], [], [])
    with locked(name) as instance:
        watcher = instance.record and instance.record["watcher"]
        if watcher and watcher["pid"] == os.getpid():
            instance.stop(remove=ephemeral)
