"""Prometheus and Alertmanager: one process each, with a configuration file of the caller's."""

import http.client
import os

from . import processes, programs

START_SECONDS = 60


class Monitor:
    """One of the two; what is different between them is given to it."""

    def __init__(self, kind, command):
        self.kind = kind
        self.command = command

    def settings(self, config):
        # The instance runs in its own folder, whatever folder the path was meant from.
        return {"config": os.path.abspath(config)}

    def create(self, instance, chosen, ports=None):
        instance.create(self.kind, chosen, ("http",), ports)

    def launch(self, instance):
        """Starts it if it does not run."""
        if not instance.is_alive(self.kind):
            instance.require_free_ports(["http"])
            command = self.command(instance.record["settings"]["config"], address(instance),
                                   instance.folder / "data")
            instance.start_process(self.kind, command, {"PATH": "/usr/bin:/bin", "LC_ALL": "C"}, log(instance))

    def make_ready(self, instance):
        """Waits until it answers questions."""
        processes.wait_until_ready(
            lambda: is_ready(instance), [instance.process(self.kind)],
            "'%s'" % instance.name, START_SECONDS, [log(instance)])

    def describe(self, instance):
        """What a test needs to know of the instance."""
        return {"name": instance.name, "url": "http://" + address(instance),
                "pid": instance.process(self.kind)["pid"], "ports": instance.record["ports"],
                "dir": str(instance.folder), "log": str(log(instance))}


def prometheus_command(config, listen, data):
    return [programs.prometheus() / "prometheus", "--config.file=" + config,
            "--web.listen-address=" + listen, "--storage.tsdb.path=%s" % data]


def alertmanager_command(config, listen, data):
    folder = programs.alertmanager()
    # Without an address to listen on for others of its kind, it looks for none.
    return ["env", "--chdir=%s" % folder, programs.alertmanager_program(folder),
            "--config.file=" + config,
            "--web.listen-address=" + listen, "--storage.path=%s" % data, "--cluster.listen-address="]


PROMETHEUS = Monitor("prometheus", prometheus_command)
ALERTMANAGER = Monitor("alertmanager", alertmanager_command)


def is_ready(instance):
    connection = http.client.HTTPConnection(address(instance), timeout=5)
    try:
        connection.request("GET", "/-/ready")
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def address(instance):
    return "127.0.0.1:%d" % instance.record["ports"]["http"]


def log(instance):
    return instance.folder / "output.log"
