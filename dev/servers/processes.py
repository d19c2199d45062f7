"""Starting detached processes, recognising them again later, and stopping them.

A process is known by its id together with its start time, so that an id which the
kernel has given to another program since is never signalled.
"""

import contextlib
import os
import pathlib
import resource
import select
import signal
import subprocess
import time

from .common import Problem, last_lines, wait_until

OPEN_FILES = 65536


def start(command, environment, log, cwd, keep_open=()):
    """Starts a process in a session of its own: it outlives this script and its terminal.

    `log` takes what this run of it prints; servers keep lasting logs of their own.
    """
    allow_many_open_files()
    with open(log, "wb") as output:
        child = subprocess.Popen([str(part) for part in command], env=environment, cwd=cwd,
                                 stdin=subprocess.DEVNULL, stdout=output,
                                 stderr=subprocess.STDOUT, start_new_session=True,
                                 pass_fds=keep_open)
    return {"pid": child.pid, "started": start_time(child.pid)}


def allow_many_open_files():
    """Servers want many; Erlang gets slow where the limit is 'infinity'."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    soft = OPEN_FILES if hard == resource.RLIM_INFINITY else min(OPEN_FILES, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def start_time(pid):
    """When the process started, in clock ticks since boot; None if it has ended."""
    try:
        stat = pathlib.Path("/proc/%d/stat" % pid).read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    # The name in parentheses may hold anything; the fields after it are plain.
    fields = stat.rpartition(")")[2].split()
    state, ticks = fields[0], int(fields[19])
    return None if state in "ZX" else ticks


def is_alive(process):
    return bool(process) and start_time(process["pid"]) == process["started"]


def stop(processes, first_signal, seconds):
    """Ends processes and waits for their end; SIGKILL for those still there after `seconds`."""
    with contextlib.ExitStack() as stack:
        handles = []
        for process in processes:
            with contextlib.suppress(ProcessLookupError):
                handle = os.pidfd_open(process["pid"])
                stack.callback(os.close, handle)
                if is_alive(process):
                    handles.append(handle)
        send(handles, first_signal)
        remaining = wait_for_end(handles, seconds)
        send(remaining, signal.SIGKILL)
        if wait_for_end(remaining, 10):
            raise Problem("a process does not end, not even by SIGKILL",
                          "look at it with 'ps -ef'")


def send(handles, number):
    for handle in handles:
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(handle, number)


def wait_for_end(handles, seconds):
    """Waits until the processes behind the pidfds have ended; returns those that have not."""
    deadline = time.monotonic() + seconds
    remaining, ended = list(handles), True
    while remaining and ended:
        ended = select.select(remaining, [], [], max(0, deadline - time.monotonic()))[0]
        remaining = [handle for handle in remaining if handle not in ended]
    return remaining


def wait_until_ready(condition, processes, what, seconds, logs):
    """Waits until servers are usable, and gives up at once if one of them ends."""
    def check():
        if not all(is_alive(process) for process in processes):
            raise Problem("%s ended while starting%s" % (what, last_lines(logs)), "see the log")
    wait_until(condition, seconds, "the start of %s" % what, check, logs)
