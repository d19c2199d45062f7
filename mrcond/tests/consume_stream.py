#!/usr/bin/env python3
"""Prints every message of RabbitMQ streams, from the first up to a mark, one JSON object a line.

    consume_stream.py URI MARK STREAM ...

It is an oracle of the tests: the client (rstream) is RabbitMQ's own for Python and shares no code
with mrcon. MARK is the message id of the last message of each stream, which is not printed.
PYTHONPATH has to have rstream, as 'dev/services.py fetch rstream' prints it.
"""

import asyncio
import json
import sys
import types
import urllib.parse

# Publishers to super streams hash with it; a consumer does not, and it comes in a form for each
# Python version.
sys.modules.setdefault("mmh3", types.ModuleType("mmh3"))

from rstream import Consumer, ConsumerOffsetSpecification, OffsetType, amqp_decoder  # noqa: E402


def plain(value):
    return value.decode() if isinstance(value, (bytes, bytearray)) else value


def pairs(section):
    return {plain(name): plain(value) for name, value in (section or {}).items()}


def facts(message, context):
    properties = message.properties
    header = message.header
    return {
        "stream": context.stream,
        "offset": context.offset,
        "id": plain(properties.message_id),
        "body": message.body.decode(),
        "content_type": plain(properties.content_type),
        "durable": header.durable if header else None,
        "created": properties.creation_time,
        "app_id": plain(properties.group_id),
        "kind": pairs(message.message_annotations).get("x-basic-type"),
        "headers": pairs(message.application_properties),
    }


async def read(consumer, stream, mark):
    ended = asyncio.get_running_loop().create_future()

    async def on_message(message, context):
        if ended.done():
            return
        try:
            if message.properties is not None and plain(message.properties.message_id) == mark:
                ended.set_result(None)
            else:
                print(json.dumps(facts(message, context)))
        except Exception as error:  # the client would only log it
            ended.set_exception(error)

    first = ConsumerOffsetSpecification(OffsetType.FIRST, None)
    await consumer.subscribe(stream, on_message, decoder=amqp_decoder,
                             offset_specification=first)
    await ended


async def main(uri, mark, streams):
    parts = urllib.parse.urlsplit(uri)
    unquote = urllib.parse.unquote
    consumer = Consumer(host=parts.hostname, port=parts.port or 5552,
                        username=unquote(parts.username), password=unquote(parts.password),
                        vhost=unquote(parts.path[1:]) or "/")
    await consumer.start()
    await asyncio.gather(*(read(consumer, stream, mark) for stream in streams))
    await consumer.close()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], sys.argv[3:]))
