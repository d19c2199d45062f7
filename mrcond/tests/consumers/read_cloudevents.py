#!/usr/bin/env python3
"""Reads messages with CloudEvents' own SDK and prints the events, one JSON object a line.

A message is a line of standard input: {"content_type": ..., "headers": {...}, "body": text}. The SDK checks each
event against the specification. PYTHONPATH has to have it, as 'dev/services.py fetch consumers-python' prints it.
"""

import json
import sys

from cloudevents.core.bindings.amqp import AMQPMessage, from_amqp_event


def main() -> None:
    for line in sys.stdin:
        message = json.loads(line)
        event = from_amqp_event(AMQPMessage(
            properties={"content-type": message["content_type"]},
            application_properties=message["headers"],
            application_data=message["body"].encode()))
        attributes = {name: str(value) for name, value in event.get_attributes().items()}
        attributes["time"] = event.get_time().timestamp()
        print(json.dumps({"attributes": attributes, "data": event.get_data()}))


if __name__ == "__main__":
    main()
