#!/usr/bin/env python3
"""Reads messages with Debezium's own consumer for Python and prints its records, one JSON object a line.

A message is a line of standard input: {"destination": ..., "key": ..., "body": text}. The consumer (pydebeziumai)
takes what the Debezium engine hands to Python: objects with destination(), key() and value(). PYTHONPATH has to
have it, as 'dev/services.py fetch consumers-python' prints it.
"""

import json
import sys

from pydebeziumai.models import records_from_batch


class ChangeEvent:
    """A message in the place of the engine's event."""

    def __init__(self, message: dict):
        self.message = message

    def destination(self) -> str:
        return self.message["destination"]

    def key(self) -> str:
        return self.message["key"]

    def value(self) -> str:
        return self.message["body"]


def main() -> None:
    batch = [ChangeEvent(json.loads(line)) for line in sys.stdin]
    for record in records_from_batch(batch):
        kinds = {"create": record.is_create(), "update": record.is_update(),
                 "delete": record.is_delete(), "read": record.is_snapshot()}
        print(json.dumps({
            "kind": [kind for kind, is_it in kinds.items() if is_it],
            "destination": record.destination, "key": record.key, "ts_ms": record.ts_ms,
            "state": record.get_current_state(), "before": record.before, "after": record.after,
            "schema": record.schema and [record.schema.type, [field["field"] for field in record.schema.fields]],
        }))


if __name__ == "__main__":
    main()
