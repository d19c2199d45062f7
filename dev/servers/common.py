"""What every other module here needs: errors, progress, folders, locks, waiting."""

import contextlib
import fcntl
import os
import pathlib
import sys
import time

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
POLL_SECONDS = 0.05


class Problem(Exception):
    """An error the user can act on: what is wrong, and what to do about it."""

    def __init__(self, what, remedy):
        super().__init__("%s; %s" % (" ".join(what.split()), remedy))


def say(text):
    """A progress line. Standard output is kept for results that programs read."""
    print("services: " + text, file=sys.stderr, flush=True)


def state_root():
    root = os.environ.get("MRCON_SERVICES_DIR")
    root = pathlib.Path(root).absolute() if root else REPOSITORY / ".services"
    if any(c.isspace() for c in str(root)):
        # RabbitMQ's and Erlang's own start scripts split such a path.
        raise Problem("the path '%s' has a space in it" % root,
                      "set MRCON_SERVICES_DIR to a folder without one")
    return root


def folder(*parts):
    """A folder below the state root, made if it is missing."""
    path = state_root().joinpath(*parts)
    path.mkdir(parents=True, exist_ok=True)
    return path


@contextlib.contextmanager
def file_lock(path, waiting_for=None):
    """Holds an exclusive lock on `path`; says what it waits for if another process has it.

    The lock file may be removed by its holder (with the instance it guards),
    so a lock counts only if the file is still the one at that path.
    """
    while True:
        lock = open(path, "a")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if waiting_for:
                say("waiting for another process that is %s" % waiting_for)
            fcntl.flock(lock, fcntl.LOCK_EX)
        try:
            if os.path.samestat(os.fstat(lock.fileno()), os.stat(path)):
                break
        except FileNotFoundError:
            pass
        lock.close()
    with lock:
        yield


def wait_until(condition, seconds, what, check=lambda: None, logs=()):
    """Calls `condition` until it holds. `check` may raise to give up early."""
    deadline = time.monotonic() + seconds
    while not condition():
        check()
        if time.monotonic() > deadline:
            raise Problem("%s did not happen within %d s%s" % (what, seconds, last_lines(logs)),
                          "see the log")
        time.sleep(POLL_SECONDS)


def last_lines(logs, count=3):
    """The ends of the log files, for an error message."""
    quotes = []
    for log in logs:
        with contextlib.suppress(OSError):
            text = pathlib.Path(log).read_text(errors="replace")
            # What went wrong comes before this; pages about how Erlang ended come after it.
            text = text.partition("BOOT FAILED")[0]
            lines = [line.strip()[:300] for line in text.splitlines() if line.strip()][-count:]
            if lines:
                quotes.append(", %s ends: %s" % (log, " | ".join(lines)))
    return "".join(quotes)
