"""mongod as a replica set: change streams need one, if only of one member. Or by itself, which must be told."""

import base64
import os

from . import mongo_wire, processes
from .common import Problem
from .programs import mongodb, mongodb_environment

SET_NAME = "rs0"
USER, PASSWORD = "root", "secret"
START_SECONDS = 90
# A smaller log than mongod takes by default, so that instances stay small.
OPLOG_MB = 990
CACHE_GB = 0.25
# Failover within seconds instead of ten, so that tests of it are quick.
ELECTION_TIMEOUT_MILLIS = 2000
# For how long a primary that is told to end waits for the others; 15 s by default.
SHUTDOWN_MILLIS = 1000

ALREADY_INITIALIZED = 23
USER_ALREADY_THERE = (13, 51003)  # the first is what is said once only users may ask


def settings(members=1, auth=False, cache_gb=CACHE_GB, oplog_mb=OPLOG_MB, standalone=False,
             parameters=(), options=()):
    return {"members": members, "auth": auth, "cache_gb": cache_gb, "oplog_mb": oplog_mb,
            "standalone": standalone, "parameters": list(parameters), "options": list(options)}


def is_standalone(instance):
    return instance.record["settings"].get("standalone", False)


def roles(chosen):
    return ["mongo-%d" % member for member in range(chosen["members"])]


def launch(instance):
    """Starts the members that do not run."""
    program = mongodb()
    dead = [role for role in instance.record["ports"] if not instance.is_alive(role)]
    instance.require_free_ports(dead)
    for role in dead:
        start_member(instance, program, role)


def make_ready(instance):
    """Makes a replica set of the members, if they are none yet, and waits for its primary."""
    members = list(instance.record["ports"])
    wait(instance, "an answer of every member", lambda: all(hello(instance, m) for m in members))
    if not instance.record.get("initiated") and not is_standalone(instance):
        initiate(instance)
    wait(instance, "a primary and its secondaries", lambda: is_complete(instance))
    if instance.record["settings"]["auth"] and not instance.record.get("user_created"):
        create_user(instance)


def start_member(instance, program, role):
    chosen = instance.record["settings"]
    data = instance.folder / role
    data.mkdir(exist_ok=True)
    command = [
        program / "bin/mongod", "--dbpath", data,
        "--bind_ip", "127.0.0.1", "--port", instance.record["ports"][role],
        "--nounixsocket", "--logpath", log(instance, role), "--logappend",
        "--wiredTigerCacheSizeGB", chosen["cache_gb"],
        "--setParameter", "enableTestCommands=1",
        "--setParameter", "diagnosticDataCollectionEnabled=false",
        "--setParameter", "shutdownTimeoutMillisForSignaledShutdown=%d" % SHUTDOWN_MILLIS,
    ]
    if chosen["oplog_mb"] < OPLOG_MB:
        # Nothing leaves an oplog that the last checkpoint may need, and there is one a minute by default.
        command += ["--syncdelay", 1]
    for parameter in chosen.get("parameters", ()):
        command += ["--setParameter", parameter]
    for option in chosen.get("options", ()):
        name, _, value = option.partition("=")
        command += ["--" + name] + [value] * bool(value)
    if not is_standalone(instance):
        command += ["--replSet", SET_NAME, "--oplogSize", chosen["oplog_mb"]]
    if chosen["auth"]:
        command += ["--keyFile", key_file(instance)]
    instance.start_process(role, command, mongodb_environment(program), output(instance, role))


def key_file(instance):
    """The members' shared secret, which also turns authentication on."""
    file = instance.folder / "keyfile"
    if not file.exists():
        with open(os.open(file, os.O_WRONLY | os.O_CREAT, 0o600), "wb") as key:
            key.write(base64.b64encode(os.urandom(96)))
    return file


def initiate(instance):
    ports = instance.record["ports"].values()
    config = {
        "_id": SET_NAME,
        "members": [{"_id": number, "host": "127.0.0.1:%d" % port}
                    for number, port in enumerate(ports)],
        "settings": {"electionTimeoutMillis": ELECTION_TIMEOUT_MILLIS},
    }
    try:
        mongo_wire.command(next(iter(ports)), {"replSetInitiate": config})
    except mongo_wire.CommandError as error:
        if error.code != ALREADY_INITIALIZED:
            raise Problem("the replica set cannot be initiated: %s" % error, "see the log")
    instance.record["initiated"] = True
    instance.save()


def create_user(instance):
    """While there is no user, mongod lets a local connection make the first."""
    primary = next(role for role in instance.record["ports"] if is_primary(instance, role))
    try:
        mongo_wire.command(instance.record["ports"][primary],
                           {"createUser": USER, "pwd": PASSWORD, "roles": ["root"]})
    except mongo_wire.CommandError as error:
        if error.code not in USER_ALREADY_THERE:
            raise Problem("the user cannot be created: %s" % error, "see the log")
    instance.record["user_created"] = True
    instance.save()


def is_complete(instance):
    states = [hello(instance, role) for role in instance.record["ports"]]
    serving = [s for s in states if s and (s["isWritablePrimary"] or s.get("secondary"))]
    return len(serving) == len(states) and any(s["isWritablePrimary"] for s in serving)


def is_primary(instance, role):
    state = hello(instance, role)
    return bool(state) and state["isWritablePrimary"]


def hello(instance, role):
    try:
        return mongo_wire.command(instance.record["ports"][role], {"hello": 1})
    except (OSError, mongo_wire.CommandError):
        return None


def wait(instance, what, condition):
    members = list(instance.record["ports"])
    processes.wait_until_ready(
        condition, [instance.process(role) for role in members],
        "'%s' (%s)" % (instance.name, what), START_SECONDS,
        [file(instance, role) for role in members for file in (output, log)])


def log(instance, role):
    return instance.folder / (role + ".log")


def output(instance, role):
    """Where mongod writes what it says before it opens its log."""
    return instance.folder / (role + ".out")


def uri(instance):
    hosts = ",".join("127.0.0.1:%d" % port for port in instance.record["ports"].values())
    user, source = "", ""
    if instance.record["settings"]["auth"]:
        user, source = "%s:%s@" % (USER, PASSWORD), "&authSource=admin"
    if is_standalone(instance):
        return "mongodb://%s%s/" % (user, hosts)
    return "mongodb://%s%s/?replicaSet=%s%s" % (user, hosts, SET_NAME, source)


def describe(instance):
    """What a test needs to know of the instance."""
    members = list(instance.record["ports"])
    pids = [instance.process(role)["pid"] for role in members]
    return {"name": instance.name, "uri": uri(instance), "pid": pids[0], "pids": pids,
            "ports": instance.record["ports"], "dir": str(instance.folder),
            "log": str(log(instance, members[0])),
            "logs": [str(log(instance, role)) for role in members]}


def create(instance, chosen, ports=None):
    instance.create("mongo", chosen, roles(chosen), ports)
