#!/usr/bin/env python3
"""Consumes streams of mrcon over RabbitMQ's stream protocol into SQLite.

    python3 stream_consumer.py rabbitmq-stream://guest:guest@localhost:5552/%2f shop.orders=relaxed ...
"""

import asyncio
import contextlib
import logging
import signal
import urllib.parse

from rstream import Consumer, ConsumerOffsetSpecification, OffsetType, amqp_decoder
from rstream.exceptions import ClientError, ServerError

from consumer import LONGEST_PAUSE_SECONDS, parser
from decode import Message, decode
from state import State

COMMIT_SECONDS = 0.2
CLOSE_SECONDS = 5


async def run(options, stopping: asyncio.Event) -> None:
    state = State(options.state)
    pause = 1
    while not stopping.is_set():
        try:
            await consume(options, state, stopping)
        except (OSError, asyncio.TimeoutError, ClientError, ServerError) as error:
            logging.warning("connection lost, next attempt in %d s: %r", pause, error)
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(stopping.wait(), pause)
            pause = min(2 * pause, LONGEST_PAUSE_SECONDS)


async def consume(options, state: State, stopping: asyncio.Event) -> None:
    ended = asyncio.get_running_loop().create_future()

    def end(error: Exception) -> None:
        if not ended.done():
            ended.set_exception(error)

    def reader(format: str):
        def on_message(found, context) -> None:
            if ended.done():
                return
            try:
                message = message_of(found, context)
                state.take(message, decode(message, format))
            except Exception as error:  # the client would only log it
                end(error)

        return on_message

    consumer = connect(options.uri, lambda closed: end(ConnectionError(closed.reason)))
    try:
        for stream, format in options.queues:
            await consumer.subscribe(stream, reader(format), decoder=amqp_decoder,
                                     offset_specification=start(state.offset(stream)))
        while not stopping.is_set():
            await asyncio.wait({ended}, timeout=COMMIT_SECONDS)
            # The offset is committed with what the message did, so nothing is lost or done twice here.
            state.commit()
            if ended.done():
                ended.result()
    finally:
        with contextlib.suppress(Exception):
            await asyncio.wait_for(consumer.close(), CLOSE_SECONDS)


def start(last) -> ConsumerOffsetSpecification:
    if last is None:
        return ConsumerOffsetSpecification(OffsetType.FIRST, None)
    return ConsumerOffsetSpecification(OffsetType.OFFSET, last + 1)


def connect(uri: str, on_closed) -> Consumer:
    parts, plain = urllib.parse.urlsplit(uri), urllib.parse.unquote
    return Consumer(host=parts.hostname, port=parts.port or 5552,
                    username=plain(parts.username or "guest"), password=plain(parts.password or "guest"),
                    vhost=plain(parts.path[1:]) or "/", on_close_handler=on_closed)


def message_of(found, context) -> Message:
    properties = found.properties
    # Headers are application properties. Where the stream is written over AMQP (queue_type: stream), RabbitMQ
    # makes message annotations of those that begin with x-.
    headers = {**(found.message_annotations or {}), **(found.application_properties or {})}
    return Message(
        queue=context.stream, body=found.body,
        headers={plain(name): plain(value) for name, value in headers.items()},
        content_type=plain(properties.content_type), content_encoding=plain(properties.content_encoding),
        timestamp=(properties.creation_time or 0) // 1000, offset=context.offset)


def plain(value):
    return value.decode() if isinstance(value, bytes) else value


async def main() -> None:
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(message)s")
    options = parser(__doc__).parse_args()
    stopping = asyncio.Event()
    for name in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(name, stopping.set)
    await run(options, stopping)


if __name__ == "__main__":
    asyncio.run(main())
