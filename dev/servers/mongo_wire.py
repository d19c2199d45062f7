"""A MongoDB client for the few commands that starting a replica set needs.

One command over one connection: OP_MSG with one BSON document each way.
https://www.mongodb.com/docs/manual/reference/mongodb-wire-protocol/ and https://bsonspec.org
"""

import collections
import socket
import struct

OP_MSG = 2013
TIMEOUT_SECONDS = 30


Binary = collections.namedtuple("Binary", "subtype data")


class CommandError(Exception):
    def __init__(self, reply):
        super().__init__(reply.get("errmsg", "no message"))
        self.code = reply.get("code")


def command(port, document, database="admin"):
    """Runs a command on 127.0.0.1 and returns the reply. OSError if there is no server."""
    body = encode(dict(document, **{"$db": database}))
    message = struct.pack("<IB", 0, 0) + body
    with socket.create_connection(("127.0.0.1", port), TIMEOUT_SECONDS) as connection:
        connection.sendall(struct.pack("<iiii", 16 + len(message), 1, 0, OP_MSG) + message)
        length = struct.unpack("<i", receive(connection, 4))[0]
        reply = decode(receive(connection, length - 4)[12 + 5:])
    if reply.get("ok") != 1:
        raise CommandError(reply)
    return reply


def receive(connection, count):
    received = b""
    while len(received) < count:
        part = connection.recv(count - len(received))
        if not part:
            raise ConnectionError("the server closed the connection")
        received += part
    return received


def encode(document):
    elements = b"".join(encode_element(name, value) for name, value in document.items())
    return struct.pack("<i", len(elements) + 5) + elements + b"\0"


def encode_element(name, value):
    kind, data = encode_value(value)
    return bytes([kind]) + name.encode() + b"\0" + data


def encode_value(value):
    if isinstance(value, bool):
        return 0x08, bytes([value])
    if isinstance(value, int):
        return 0x10, struct.pack("<i", value)
    if isinstance(value, str):
        text = value.encode() + b"\0"
        return 0x02, struct.pack("<i", len(text)) + text
    if isinstance(value, dict):
        return 0x03, encode(value)
    if isinstance(value, Binary):
        return 0x05, struct.pack("<iB", len(value.data), value.subtype) + value.data
    if isinstance(value, list):
        return 0x04, encode({str(index): item for index, item in enumerate(value)})
    raise TypeError("no BSON for %r" % (value,))


def decode(data):
    """The fields of a document; values of types that no answer here needs are None."""
    document, at = {}, 4
    while data[at] != 0:
        kind = data[at]
        end = data.index(b"\0", at + 1)
        name = data[at + 1:end].decode()
        document[name], at = decode_value(kind, data, end + 1)
    return document


def decode_value(kind, data, at):
    """A value and where the next element begins."""
    if kind == 0x01:
        return struct.unpack_from("<d", data, at)[0], at + 8
    if kind == 0x08:
        return data[at] == 1, at + 1
    if kind == 0x10:
        return struct.unpack_from("<i", data, at)[0], at + 4
    if kind == 0x12:
        return struct.unpack_from("<q", data, at)[0], at + 8
    length = struct.unpack_from("<i", data, at)[0] if at + 4 <= len(data) else 0
    if kind == 0x02:
        return data[at + 4:at + 3 + length].decode(), at + 4 + length
    if kind == 0x03:
        return decode(data[at:at + length]), at + length
    if kind == 0x04:
        return list(decode(data[at:at + length]).values()), at + length
    if kind == 0x05:
        return Binary(data[at + 4], data[at + 5:at + 5 + length]), at + 5 + length
    sizes = {0x07: 12, 0x09: 8, 0x0A: 0, 0x11: 8}  # object id, date, null, timestamp
    return None, at + sizes[kind]
