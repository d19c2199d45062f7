#!/usr/bin/env python3
"""Real servers without root and without Docker; see README.md beside this."""

import argparse
import contextlib
import errno
import json
import os
import re
import shlex
import signal
import sys

from servers import browser, checkers, consumers, instances, mongo, monitoring, programs, rabbit
from servers.common import Problem, say

KINDS = {"mongo": mongo, "rabbit": rabbit,
         "prometheus": monitoring.PROMETHEUS, "alertmanager": monitoring.ALERTMANAGER}

# Ports next to the usual ones, so that servers already on the machine are not disturbed.
DEVELOPMENT_MONGO = ("dev-mongo", {"mongo-0": 27117})
DEVELOPMENT_RABBIT = {
    "4.0.5": ("dev-rabbit", {"amqp": 5772, "management": 15772, "stream": 5652,
                             "prometheus": 15792, "dist": 5774, "epmd": 5776}),
    "3.10.8": ("dev-rabbit-3.10", {"amqp": 5872, "management": 15872, "stream": 5752,
                                   "prometheus": 15892, "dist": 5874, "epmd": 5876}),
}
DEVELOPMENT_NAMES = [DEVELOPMENT_MONGO[0]] + [name for name, _ in DEVELOPMENT_RABBIT.values()]

# Settings that may change between two runs of an instance; the others are in its data.
CHANGEABLE = {"extra", "cache_gb", "config"}

PROGRAMS = {
    "mongo": programs.mongodb,
    "rabbit": lambda: programs.rabbitmq("4.0.5"),
    "rabbit-3.10": lambda: programs.rabbitmq("3.10.8"),
    "prometheus": programs.prometheus,
    "alertmanager": programs.alertmanager,
    "chromium": browser.chromium,
    "rstream": programs.rstream,
    "consumers-python": consumers.python_packages,
    "node": consumers.node,
    "consumers-node": consumers.node_packages,
    "systemd-analyze": checkers.systemd_analyze,
    "lintian": checkers.lintian,
    "helm": checkers.helm,
    "kubectl": checkers.kubectl,
    "kubernetes-schemas": checkers.kubernetes_schemas,
    "npm-schemas": checkers.npm_packages,
}


# ---- commands -------------------------------------------------------------------------

def fetch(options):
    for name in options.programs or PROGRAMS:
        if name not in PROGRAMS:
            raise Problem("there is no program '%s'" % name, "choose from " + ", ".join(PROGRAMS))
        place = PROGRAMS[name]()
        say("%s is in %s" % (name, place))
        print(place, flush=True)


def up(options):
    mine = uris_from_environment()
    if mine and not is_development(mine):
        say("using your own servers, as MRCON_MONGO_URI and MRCON_RABBITMQ_URI say: "
            + ", ".join(re.sub("//.*@", "//", uri) for uri in mine.values()))
        print_variables(mine)
        return
    wanted = [("mongo", mongo.settings()) + DEVELOPMENT_MONGO,
              ("rabbit", rabbit.settings(options.rabbit)) + DEVELOPMENT_RABBIT[options.rabbit]]
    for name in ("mongo", "rabbit" if options.rabbit == "4.0.5" else "rabbit-3.10"):
        PROGRAMS[name]()
    with contextlib.ExitStack() as stack:
        # Both at once: each is slow in its own way.
        starting = [stack.enter_context(launched(kind, name, chosen, ports))
                    for kind, chosen, name, ports in wanted]
        for kind, instance in starting:
            kind.make_ready(instance)
    print_variables(development_variables(options.rabbit))


def env(options):
    mine = uris_from_environment()
    if not mine or is_development(mine):
        mine = development_variables(options.rabbit)
    print_variables(mine, "export ")


def down(_):
    for name in DEVELOPMENT_NAMES:
        with instances.locked(name) as instance:
            if instance.record and instance.alive():
                say("stopping " + name)
                instance.stop()


def status(_):
    for instance in instances.every_instance():
        record = instance.record
        pids = " ".join("%s=%d" % (role, process["pid"])
                        for role, process in record["processes"].items() if instance.is_alive(role))
        print("%-18s %-8s %-16s pids: %s; ports: %s" % (
            instance.name, state_of(instance), label(record), pids or "none",
            " ".join("%s=%d" % port for port in record["ports"].items())))


def start_mongo(options):
    chosen = {"members": options.members, "auth": options.auth,
              "cache_gb": options.cache_gb, "oplog_mb": options.oplog_mb,
              "standalone": options.standalone, "parameters": options.set_parameter,
              "options": options.option}
    start("mongo", options, chosen)


def start_rabbit(options):
    start("rabbit", options, {"version": options.version, "extra": options.set})


def start_prometheus(options):
    start("prometheus", options, monitoring.PROMETHEUS.settings(options.config))


def start_alertmanager(options):
    start("alertmanager", options, monitoring.ALERTMANAGER.settings(options.config))


def start(kind, options, given):
    if options.name in DEVELOPMENT_NAMES:
        raise Problem("'%s' is a development server" % options.name,
                      "use 'up' for it, or another name")
    if options.ephemeral and not options.owner_pid:
        raise Problem("--ephemeral needs an owner", "give --owner-pid too")
    given = {key: value for key, value in given.items() if value is not None}
    with launched(kind, options.name, given, owner_pid=options.owner_pid,
                  ephemeral=options.ephemeral) as (server, instance):
        server.make_ready(instance)
        print(json.dumps(server.describe(instance)))


def stop(options):
    with instances.locked(options.name) as instance:
        if instance.record is None:
            raise Problem("there is no instance '%s'" % options.name, "see 'status'")
        instance.stop(options.kill, options.remove)


def watch(options):
    instances.watch(options.name, options.owner_handle, options.ephemeral)


# ---- starting -------------------------------------------------------------------------

@contextlib.contextmanager
def launched(kind, name, given, ports=None, owner_pid=None, ephemeral=False):
    """A started instance; stopped again if it does not get ready inside the `with`."""
    server = KINDS[kind]
    owner = instances.open_owner(owner_pid)
    with instances.locked(name) as instance:
        if instance.record is None:
            server.create(instance, server.settings(**given), ports)
        else:
            adopt_settings(instance, kind, given)
        running_before = instance.alive()
        if state_of(instance) == "running":
            say("%s is running already" % name)
        try:
            # First of all, so that nothing is left if the owner ends while this starts.
            if owner is not None:
                instances.start_watcher(instance, owner, ephemeral)
            server.launch(instance)
            yield server, instance
        except BaseException:
            instance.kill_all_but(running_before)
            raise


def adopt_settings(instance, kind, given):
    """Settings given for an instance that exists: the same ones, or ones that may change."""
    record = instance.record
    if record["kind"] != kind:
        raise Problem("'%s' is a %s instance" % (instance.name, record["kind"]),
                      "choose another name")
    was = record["settings"]
    # What an older version knew nothing of was not set.
    changed = {key for key, value in given.items()
               if (was[key] != value if key in was else value)}
    if changed - CHANGEABLE or changed and instance.alive():
        raise Problem("'%s' exists with another setting of %s"
                      % (instance.name, ", ".join(sorted(changed))),
                      "stop it first (with --remove to make it anew)")
    record["settings"].update(given)
    instance.save()


# ---- what is printed ------------------------------------------------------------------

def uris_from_environment():
    """The servers the user has named, if both of them are."""
    names = ("MRCON_MONGO_URI", "MRCON_RABBITMQ_URI", "MRCON_RABBITMQ_STREAM_URI")
    uris = {name: os.environ[name] for name in names if os.environ.get(name)}
    return uris if {"MRCON_MONGO_URI", "MRCON_RABBITMQ_URI"} <= set(uris) else None


def is_development(uris):
    """After 'eval' of what 'env' prints, the servers named are the ones here."""
    mongo_port = DEVELOPMENT_MONGO[1]["mongo-0"]
    rabbit_ports = [ports["amqp"] for _, ports in DEVELOPMENT_RABBIT.values()]
    return ("127.0.0.1:%d" % mongo_port in uris["MRCON_MONGO_URI"]
            and any("127.0.0.1:%d" % port in uris["MRCON_RABBITMQ_URI"] for port in rabbit_ports))


def development_variables(version):
    """The variables for the development servers that run; any RabbitMQ if `version` is None."""
    versions = [version] if version else list(DEVELOPMENT_RABBIT)
    databases = running([DEVELOPMENT_MONGO[0]])
    brokers = running([DEVELOPMENT_RABBIT[version][0] for version in versions])
    if not databases or not brokers:
        raise Problem("the development servers are not up", "run 'dev/services.py up'")
    return {"MRCON_MONGO_URI": mongo.uri(databases[0]),
            "MRCON_RABBITMQ_URI": rabbit.uri(brokers[0]),
            "MRCON_RABBITMQ_STREAM_URI": rabbit.stream_uri(brokers[0]),
            "MRCON_RABBITMQ_MANAGEMENT_URL": rabbit.management_url(brokers[0])}


def running(names):
    found = [instances.Instance(name) for name in names]
    return [instance for instance in found if instance.record and state_of(instance) == "running"]


def state_of(instance):
    started = instance.record["processes"]
    alive = instance.alive()
    if not alive:
        return "stopped"
    return "running" if len(alive) == len(started) else "partly"


def label(record):
    kind, chosen = record["kind"], record["settings"]
    if kind == "mongo":
        return "mongo %s x%d" % (programs.MONGODB_VERSION, chosen["members"])
    return "rabbit " + chosen["version"] if kind == "rabbit" else kind


def print_variables(variables, prefix=""):
    for name, value in variables.items():
        print("%s%s=%s" % (prefix, name, shlex.quote(value) if prefix else value))


# ---- command line ---------------------------------------------------------------------

def parser():
    top = argparse.ArgumentParser(description=__doc__)
    commands = top.add_subparsers(metavar="COMMAND", required=True)

    def command(group, name, function, text=None):
        # Without a text it is not listed: it is for this program's own use.
        added = group.add_parser(name, **({"help": text, "description": text} if text else {}))
        added.set_defaults(function=function)
        return added

    added = command(commands, "fetch", fetch, "download and unpack servers, print their folders, start nothing")
    added.add_argument("programs", nargs="*", metavar="|".join(PROGRAMS))
    added = command(commands, "up", up, "start the development servers and print their URIs")
    added.add_argument("--rabbit", choices=DEVELOPMENT_RABBIT, default="4.0.5")
    added = command(commands, "env", env, "print the URIs of the development servers for 'eval'")
    added.add_argument("--rabbit", choices=DEVELOPMENT_RABBIT)
    command(commands, "down", down, "stop the development servers")
    command(commands, "status", status, "print one line for each instance")

    kinds = commands.add_parser("start", help="start a private instance, print JSON")
    kinds = kinds.add_subparsers(metavar="|".join(KINDS), required=True)
    added = command(kinds, "mongo", start_mongo, "start a MongoDB replica set")
    common_arguments(added)
    added.add_argument("--members", type=int, choices=range(1, 8), metavar="N")
    added.add_argument("--auth", action="store_const", const=True,
                       help="ask for a password: user root, password secret")
    added.add_argument("--standalone", action="store_const", const=True,
                       help="no replica set, so no change streams")
    added.add_argument("--set-parameter", action="append", metavar="NAME=VALUE",
                       help="a parameter of mongod; may be repeated")
    added.add_argument("--option", action="append", metavar="NAME[=VALUE]",
                       help="an option of mongod, such as tlsMode=preferTLS; may be repeated")
    added.add_argument("--cache-gb", type=float, help="WiredTiger's cache, by default %s" % mongo.CACHE_GB)
    added.add_argument("--oplog-mb", type=int, help="by default %s" % mongo.OPLOG_MB)
    added = command(kinds, "rabbit", start_rabbit, "start a RabbitMQ broker")
    common_arguments(added)
    added.add_argument("--version", choices=DEVELOPMENT_RABBIT)
    added.add_argument("--set", action="append", metavar="KEY=VALUE",
                       help="a line for rabbitmq.conf; may be repeated")

    for kind, function in (("prometheus", start_prometheus), ("alertmanager", start_alertmanager)):
        added = command(kinds, kind, function, "start " + kind.capitalize())
        common_arguments(added)
        added.add_argument("--config", required=True, metavar="FILE", help="its configuration file")

    added = command(commands, "stop", stop, "stop an instance")
    added.add_argument("--name", required=True)
    added.add_argument("--kill", action="store_true", help="with SIGKILL")
    added.add_argument("--remove", action="store_true", help="its data and logs too")
    added = command(commands, "watch", watch)
    added.add_argument("--name", required=True)
    added.add_argument("--owner-handle", type=int, required=True)
    added.add_argument("--ephemeral", action="store_true")
    return top


def common_arguments(added):
    added.add_argument("--name", required=True, help="the same name again is the same data and ports")
    added.add_argument("--owner-pid", type=int, help="stop the instance when this process ends")
    added.add_argument("--ephemeral", action="store_true", help="and remove its folder then")


def main():
    # So that a start that is told to end stops what it has started.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    options = parser().parse_args()
    try:
        options.function(options)
    except Problem as problem:
        sys.exit("services: error: %s" % problem)
    except OSError as error:
        remedy = ("free some disk space" if error.errno == errno.ENOSPC
                  else "see whether the file is there and yours")
        sys.exit("services: error: %s; %s" % (error, remedy))
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
