#!/usr/bin/env python3
"""Consumes queues of mrcon over AMQP into SQLite.

    python3 consumer.py amqp://guest:guest@localhost:5672/%2f shop.orders=relaxed ...
"""

import argparse
import functools
import logging
import signal
import time

import pika
import pika.exceptions

from decode import Message, decode
from state import State

# Messages of each queue that may be on the way, unacknowledged.
PREFETCH = 200
LONGEST_PAUSE_SECONDS = 30


class Consumer:
    def __init__(self, options):
        self.options = options
        self.state = State(options.state)
        self.stopping = False

    def run(self) -> None:
        pause = 1
        while not self.stopping:
            try:
                with pika.BlockingConnection(pika.URLParameters(self.options.uri)) as connection:
                    channel = self.subscribe(connection)
                    pause = 1
                    self.consume(connection, channel)
            except (pika.exceptions.AMQPError, OSError) as error:
                # What was not acknowledged comes again, and what of it is applied already is ignored.
                logging.warning("connection lost, next attempt in %d s: %r", pause, error)
                time.sleep(pause)
                pause = min(2 * pause, LONGEST_PAUSE_SECONDS)

    def subscribe(self, connection):
        self.last = None  # delivery tag of what was applied last
        channel = connection.channel()
        channel.basic_qos(prefetch_count=PREFETCH)
        channel.add_on_cancel_callback(cancelled)
        for queue, format in self.options.queues:
            channel.basic_consume(queue, functools.partial(self.on_message, queue, format),
                                  arguments=self.arguments(queue))
        return channel

    def arguments(self, queue: str):
        if not self.options.streams:
            return None
        last = self.state.offset(queue)
        return {"x-stream-offset": "first" if last is None else last + 1}

    def consume(self, connection, channel) -> None:
        while not self.stopping:
            connection.process_data_events(time_limit=0.5)  # applies all that has arrived
            if self.last is not None:
                self.state.commit()
                channel.basic_ack(self.last, multiple=True)
                self.last = None

    def on_message(self, queue, format, _, method, properties, body) -> None:
        message = Message(
            queue=queue, body=body, headers=properties.headers or {},
            content_type=properties.content_type, content_encoding=properties.content_encoding,
            timestamp=properties.timestamp or 0,
            offset=(properties.headers or {}).get("x-stream-offset"))
        # One that cannot be read ends the program, and stays in the queue.
        self.state.take(message, decode(message, format))
        self.last = method.delivery_tag


def cancelled(_) -> None:
    raise pika.exceptions.ConsumerCancelled()  # the queue was deleted, or moved to another node


def queue_and_format(text: str):
    queue, _, format = text.rpartition("=")
    return queue, format


def parser(about: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("uri")
    parser.add_argument("queues", nargs="+", metavar="QUEUE=FORMAT", type=queue_and_format)
    parser.add_argument("--state", metavar="FILE", default="state.db", help="where the documents are kept")
    return parser


def main() -> None:
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(message)s")
    options = parser(__doc__)
    options.add_argument("--streams", action="store_true", help="the queues are streams")
    consumer = Consumer(options.parse_args())

    def stop(*_) -> None:
        consumer.stopping = True

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    consumer.run()


if __name__ == "__main__":
    main()
