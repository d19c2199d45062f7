"""A headless Chromium and its driver, for the tests of the status page."""

import json
import os
import pathlib
import shutil
import subprocess

from .common import Problem, say
from .packages import Apt, install

SUITE = "bookworm"

# Libraries of packages that only programs need which are not started here.
NOT_NEEDED = ("libc6_", "libperl", "libpython", "libllvm", "libgl1-mesa-dri_", "libsystemd-shared_",
              "libgtk-3-common_", "libx11-data_")

# Fonts of its own, so that a page looks the same on every machine.
FONTS = """<?xml version="1.0"?>
<!DOCTYPE fontconfig SYSTEM "fonts.dtd">
<fontconfig>
  <dir>%s</dir>
  <cachedir prefix="xdg">fontconfig</cachedir>
  <alias><family>system-ui</family><prefer><family>Inter</family></prefer></alias>
  <alias><family>sans-serif</family><prefer><family>Inter</family></prefer></alias>
</fontconfig>
"""


def chromium():
    """JSON with the paths of browser and driver and the variables that both need."""
    mine = shutil.which("chromium"), shutil.which("chromedriver")
    if all(mine):
        return describe(*mine, {})
    program = install("chromium-" + SUITE, build)
    return describe(program / "chromium/chromium", program / "chromium/chromedriver",
                    environment(program))


def describe(browser, driver, variables):
    return json.dumps({"browser": str(browser), "driver": str(driver), "environment": variables})


def environment(program):
    return {"LD_LIBRARY_PATH": str(program / "lib"), "FONTCONFIG_FILE": str(program / "fonts.conf")}


def build(work, final):
    apt = Apt(SUITE)
    apt.download("chromium-driver", "fonts-inter")
    say("unpacking Chromium")
    tree = work / "debian"
    apt.unpack(is_wanted, tree)
    # The browser looks for its own files beside itself.
    (tree / "usr/lib/chromium").rename(work / "chromium")
    (tree / "usr/bin/chromedriver").rename(work / "chromium/chromedriver")
    (tree / "usr/share/fonts").rename(work / "fonts")
    (work / "fonts.conf").write_text(FONTS % (final / "fonts"))
    (work / "lib").mkdir()
    # The last one is NSS's own: it loads its parts from beside itself.
    for folder in ("lib/x86_64-linux-gnu", "usr/lib/x86_64-linux-gnu",
                   "usr/lib/x86_64-linux-gnu/pulseaudio", "usr/lib/x86_64-linux-gnu/nss"):
        for library in (tree / folder).glob("*.so*"):
            library.rename(work / "lib" / library.name)
    shutil.rmtree(tree)
    for program in ("chromium", "chromedriver"):
        check(work, work / "chromium" / program)


def is_wanted(name):
    return (name.startswith(("chromium", "lib", "zlib1g_", "fonts-inter_"))
            # The C library stays the machine's own, as the program loader is.
            and not name.startswith(NOT_NEEDED))


def check(work, program):
    variables = dict(os.environ, **environment(work))
    result = subprocess.run([str(program), "--version"], capture_output=True, text=True, env=variables)
    if result.returncode != 0:
        lines = result.stderr.strip().splitlines() or ["status %d" % result.returncode]
        raise Problem("%s does not run on this machine: %s" % (pathlib.Path(program).name, lines[-1]),
                      "install chromium and chromium-driver, so that they are on PATH")
