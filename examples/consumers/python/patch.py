"""Applies MongoDB's updateDescription to a document in JSON."""

import copy


def patched(document: dict, description: dict) -> dict:
    document = copy.deepcopy(document)
    # Where a name has a dot or is all digits, MongoDB tells how the path is meant.
    meant = description.get("disambiguatedPaths") or {}
    for array in description.get("truncatedArrays") or []:
        *way, name = steps(array["field"], meant)
        del down(document, way)[name][number(array["newSize"]):]
    for path, value in (description.get("updatedFields") or {}).items():
        *way, name = steps(path, meant)
        put(down(document, way), name, value)
    for path in description.get("removedFields") or []:
        *way, name = steps(path, meant)
        down(document, way).pop(name, None)
    return document


def steps(path: str, meant: dict) -> list:
    return [step if isinstance(step, str) else number(step) for step in meant.get(path) or path.split(".")]


def number(value) -> int:
    """A number of relaxed or canonical Extended JSON."""
    return int(next(iter(value.values()))) if isinstance(value, dict) else value


def down(value, way: list):
    for step in way:
        value = value[int(step) if isinstance(value, list) else step]
    return value


def put(target, name, value) -> None:
    if not isinstance(target, list):
        target[name] = value
    elif int(name) < len(target):
        target[int(name)] = value
    else:
        # MongoDB fills what is between with null.
        target.extend([None] * (int(name) - len(target)) + [value])
