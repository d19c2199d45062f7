"""A RabbitMQ broker with its own Erlang, port mapper (epmd), ports and folder."""

import shlex
import socket

from . import processes
from .programs import RABBITMQ_VERSION, erlang, rabbitmq, rabbitmq_scripts

ROLES = ("amqp", "management", "stream", "prometheus", "dist", "epmd")
NODE = "rabbit@localhost"
PLUGINS = ("rabbitmq_management", "rabbitmq_prometheus", "rabbitmq_stream",
           "rabbitmq_stream_management", "rabbitmq_consistent_hash_exchange", "rabbitmq_sharding",
           # Does nothing until auth_mechanisms names EXTERNAL.
           "rabbitmq_auth_mechanism_ssl")
START_SECONDS = 90

CONFIG = """\
listeners.tcp.1 = 127.0.0.1:{amqp}
management.tcp.ip = 127.0.0.1
management.tcp.port = {management}
prometheus.tcp.ip = 127.0.0.1
prometheus.tcp.port = {prometheus}
stream.listeners.tcp.1 = 127.0.0.1:{stream}
stream.advertised_host = 127.0.0.1
stream.advertised_port = {stream}
vm_memory_high_watermark.absolute = 2GB
disk_free_limit.absolute = 50MB
log.console = false
log.file = rabbit.log
log.file.level = info
"""

# Without its port mapper running, rabbitmqctl would start one that nothing stops.
CONTROL = """\
#!/bin/sh
# rabbitmqctl for the broker '{name}'
{exports}
epmd -names >/dev/null 2>&1 || {{ echo "'{name}' is not running" >&2; exit 69; }}
exec {ctl} "$@"
"""

AMQP_0_9_1_HEADER = b"AMQP\x00\x00\x09\x01"
METHOD_FRAME = 1


def settings(version=RABBITMQ_VERSION, extra=()):
    return {"version": version, "extra": list(extra)}


def create(instance, chosen, ports=None):
    instance.create("rabbit", chosen, ROLES, ports)


def launch(instance):
    """Starts the broker if it does not run."""
    program = rabbitmq(instance.record["settings"]["version"])
    if not instance.is_alive("rabbit"):
        start_broker(instance, program)


def make_ready(instance):
    """Waits until the broker serves all its protocols."""
    processes.wait_until_ready(
        lambda: is_serving(instance.record["ports"]), [instance.process("rabbit")],
        "'%s'" % instance.name, START_SECONDS, [output(instance), log(instance)])


def start_broker(instance, program):
    variables = environment(instance, program)
    write_files(instance, program, variables)
    own = [role for role in ROLES if role != "epmd" or not instance.is_alive("epmd")]
    instance.require_free_ports(own)
    if "epmd" in own:
        instance.start_process("epmd", [erlang(program) / "epmd"], variables,
                               instance.folder / "epmd.out")
    version = instance.record["settings"]["version"]
    instance.start_process("rabbit", [rabbitmq_scripts(program, version) / "rabbitmq-server"],
                           # Makes the script become the broker, so its pid is the broker's.
                           dict(variables, RUNNING_UNDER_SYSTEMD="true"), output(instance))


def write_files(instance, program, variables):
    chosen = instance.record["settings"]
    config = CONFIG.format(**instance.record["ports"])
    (instance.folder / "rabbitmq.conf").write_text("\n".join([config.rstrip()] + chosen["extra"] + [""]))
    (instance.folder / "enabled_plugins").write_text("[%s].\n" % ",".join(PLUGINS))
    ctl = rabbitmq_scripts(program, chosen["version"]) / "rabbitmqctl"
    exports = ["export %s=%s" % (name, shlex.quote(value)) for name, value in variables.items()]
    control(instance).write_text(CONTROL.format(
        exports="\n".join(exports), name=instance.name, ctl=ctl))
    control(instance).chmod(0o755)


def environment(instance, program):
    """Complete: nothing of the caller's settings reaches the broker."""
    ports, at = instance.record["ports"], instance.folder
    return {
        "PATH": "%s:/usr/local/bin:/usr/bin:/bin" % erlang(program),
        "HOME": str(at),  # the Erlang cookie goes there
        "LC_ALL": "C.UTF-8",
        "ERL_EPMD_PORT": str(ports["epmd"]),
        "ERL_EPMD_ADDRESS": "127.0.0.1",
        "RABBITMQ_NODENAME": NODE,
        "RABBITMQ_DIST_PORT": str(ports["dist"]),
        "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-kernel inet_dist_use_interface {127,0,0,1}",
        "RABBITMQ_CONFIG_FILE": str(at / "rabbitmq.conf"),
        "RABBITMQ_CONF_ENV_FILE": "/dev/null",
        "RABBITMQ_ENABLED_PLUGINS_FILE": str(at / "enabled_plugins"),
        "RABBITMQ_MNESIA_BASE": str(at / "data"),
        "RABBITMQ_LOG_BASE": str(at / "log"),
        "RABBITMQ_PID_FILE": str(at / "rabbit.pid"),
    }


def is_serving(ports):
    """The AMQP listener comes last; once it offers a connection, the others are there."""
    try:
        with socket.create_connection(("127.0.0.1", ports["amqp"]), 5) as connection:
            connection.sendall(AMQP_0_9_1_HEADER)
            if connection.recv(1) != bytes([METHOD_FRAME]):
                return False
        for role in ("management", "stream", "prometheus"):
            socket.create_connection(("127.0.0.1", ports[role]), 5).close()
    except OSError:
        return False
    return True


def log(instance):
    return instance.folder / "log/rabbit.log"


def output(instance):
    return instance.folder / "rabbit.out"


def control(instance):
    return instance.folder / "rabbitmqctl"


def uri(instance):
    return "amqp://guest:guest@127.0.0.1:%d/%%2f" % instance.record["ports"]["amqp"]


def stream_uri(instance):
    return "rabbitmq-stream://guest:guest@127.0.0.1:%d/%%2f" % instance.record["ports"]["stream"]


def management_url(instance):
    return "http://127.0.0.1:%d" % instance.record["ports"]["management"]


def describe(instance):
    """What a test needs to know of the instance."""
    return {"name": instance.name, "uri": uri(instance), "stream_uri": stream_uri(instance),
            "management_url": management_url(instance), "pid": instance.process("rabbit")["pid"],
            "ports": instance.record["ports"], "dir": str(instance.folder),
            "ctl": str(control(instance)), "log": str(log(instance))}
