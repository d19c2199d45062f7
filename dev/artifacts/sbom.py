"""What the binary is made of, as CycloneDX 1.5: what cargo says is built in, and the libraries of C and Rust."""

import datetime
import json
import re
import uuid

from . import linked
from .place import REPOSITORY, Failed, date, output, say, version

PACKAGE = "mrcond"


def release(folder):
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / ("%s-%s.cdx.json" % (PACKAGE, version()))
    file.write_text(text())
    say("written to %s" % file)


def text():
    return json.dumps(described(), indent=1) + "\n"


def crates():
    """The packages that are linked in, as cargo describes them, but for the daemon itself."""
    packages, _ = resolved()
    return by_name(package for package in packages.values() if package["name"] != PACKAGE)


def by_name(packages):
    return sorted(packages, key=lambda package: (package["name"], package["version"]))


def resolved():
    """Packages by their ids, and the ids that each depends on."""
    metadata = json.loads(output(
        ["cargo", "metadata", "--locked", "--format-version", "1", "--filter-platform", host()],
        cwd=REPOSITORY))
    wanted = built_in()
    packages = {package["id"]: package for package in metadata["packages"]
                if (package["name"], package["version"]) in wanted}
    if len(packages) != len(wanted):
        raise Failed("cargo metadata and cargo tree do not agree")
    return packages, {node["id"]: node["dependencies"] for node in metadata["resolve"]["nodes"]}


def described():
    packages, nodes = resolved()
    sums = checksums()
    own, = [package for package in packages.values() if package["name"] == PACKAGE]
    others = by_name(package for package in packages.values() if package is not own)
    libraries = [of_machine(part) for part in linked.libraries()]
    components = [component(package, sums) for package in others] + libraries
    dependencies = [{"ref": reference(package),
                     "dependsOn": sorted(reference(packages[other]) for other in nodes[package["id"]]
                                         if other in packages)}
                    for package in [own] + others]
    dependencies[0]["dependsOn"] += [part["bom-ref"] for part in libraries]
    names = "\n".join(one["bom-ref"] for one in components)
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "serialNumber": "urn:uuid:%s" % uuid.uuid5(uuid.NAMESPACE_URL, reference(own) + names),
        "version": 1,
        "metadata": {
            "timestamp": datetime.datetime.fromtimestamp(date(), datetime.timezone.utc)
                                 .strftime("%Y-%m-%dT%H:%M:%SZ"),
            "component": dict(component(own, sums), type="application"),
        },
        "components": components,
        "dependencies": dependencies,
    }


def built_in():
    """(name, version) of every package that is linked in, with the features of a release."""
    lines = output(["cargo", "tree", "--locked", "--package", PACKAGE, "--edges", "normal",
                    "--target", host(), "--prefix", "none", "--no-dedupe", "--format", "{p}"],
                   cwd=REPOSITORY).splitlines()
    found = (re.match(r"(\S+) v(\S+)", line) for line in lines)
    return {match.groups() for match in found if match}


def host():
    return re.search(r"^host: (.+)$", output(["rustc", "-vV"]), re.M).group(1)


def checksums():
    """SHA-256 of each package's source, by name and version."""
    text = (REPOSITORY / "Cargo.lock").read_text()
    pattern = r'name = "(.+)"\nversion = "(.+)"\nsource = ".+"\nchecksum = "(.+)"'
    return {(name, number): checksum for name, number, checksum in re.findall(pattern, text)}


def component(package, sums):
    described = {"type": "library", "bom-ref": reference(package), "name": package["name"],
                 "version": package["version"], "purl": reference(package)}
    checksum = sums.get((package["name"], package["version"]))
    if checksum:
        described["hashes"] = [{"alg": "SHA-256", "content": checksum}]
    if package["license"]:
        # An old way to write OR.
        described["licenses"] = [{"expression": re.sub(r"\s*/\s*", " OR ", package["license"])}]
    return described


def of_machine(part):
    """A library that is no crate."""
    reference = part["purl"] or "%s@%s" % (part["name"], part["version"])
    described = {"type": "library", "bom-ref": reference, "name": part["name"], "version": part["version"],
                 "description": part["about"], "licenses": [{"expression": part["licence"]}]}
    if part["purl"]:
        described["purl"] = part["purl"]
    return described


def reference(package):
    return "pkg:cargo/%s@%s" % (package["name"], package["version"])
