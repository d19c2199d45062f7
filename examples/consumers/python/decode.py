"""What a message of mrcon says: a `Change`, whatever the format of its body."""

import base64
import gzip
import json
from dataclasses import dataclass
from typing import Any, Optional

import bson
import zstandard
from bson import json_util
from bson.codec_options import CodecOptions, DatetimeConversion

# Dates that Python's datetime has no room for stay numbers.
BSON = CodecOptions(datetime_conversion=DatetimeConversion.DATETIME_AUTO)


@dataclass
class Message:
    """A message as both protocols carry it."""

    queue: str
    body: bytes
    headers: dict
    content_type: Optional[str]
    content_encoding: Optional[str]
    timestamp: int  # of the change, in seconds since 1970; 0 for a gap record
    offset: Optional[int] = None  # of a stream


@dataclass
class Change:
    operation: str
    db: Optional[str]
    coll: Optional[str]
    # Equal keys have equal text, whatever the format. None: the change is about more than one document.
    key: Optional[str]
    # Tells which of two changes came first, see README.md.
    position: tuple
    # The whole document after the change, if the message has it.
    document: Any = None
    # Else what an update changed in it: MongoDB's updateDescription.
    patch: Optional[dict] = None
    # The change event of a gap record, a drop or a rename.
    event: Optional[dict] = None


def decode(message: Message, format: str) -> Change:
    headers = message.headers
    change = Change(
        operation=headers["x-mrcon-op"],
        db=headers.get("x-mrcon-db"),
        coll=headers.get("x-mrcon-coll"),
        key=headers.get("x-mrcon-key"),
        position=(message.timestamp, headers["x-mrcon-seq"]),
    )
    content = parse(decompress(message), message.content_type)
    if (message.content_type or "").startswith("application/cloudevents"):
        content = content["data"]  # in binary mode the body is the data, and the attributes are headers
    if change.operation == "gap":
        change.event = content
    else:
        DECODERS[format](change, content, message)
    if change.key is None and change.event and "documentKey" in change.event:
        # The header is left out above 64 KiB; then it is so for each change of this document.
        change.key = json.dumps(change.event["documentKey"])
    return change


def decompress(message: Message) -> bytes:
    if message.content_encoding == "gzip":
        return gzip.decompress(message.body)
    if message.content_encoding == "zstd":
        return zstandard.ZstdDecompressor().decompressobj().decompress(message.body)
    return message.body


def parse(body: bytes, content_type: Optional[str]) -> Any:
    """JSON as it is, BSON as canonical Extended JSON, text as text, and other bytes as base64."""
    kind = (content_type or "").partition(";")[0].strip().lower()
    if kind == "application/json" or kind.endswith("+json"):
        return json.loads(body)
    if kind == "application/bson":
        document = bson.decode(body, BSON)
        return json.loads(json_util.dumps(document, json_options=json_util.CANONICAL_JSON_OPTIONS))
    if kind.startswith("text/"):
        return body.decode()
    return base64.b64encode(body).decode()


def from_event(change: Change, event: dict, _) -> None:
    change.event = event
    change.document = event.get("fullDocument")
    change.patch = event.get("updateDescription")


def from_document(change: Change, content: dict, message: Message) -> None:
    if change.operation in ("insert", "update", "replace", "read"):
        # Where the document was gone when MongoDB looked for it, or is too large, the body is the key.
        absent = [message.headers.get(name, "") for name in ("x-mrcon-image-missing", "x-mrcon-stripped")]
        if "fullDocument" not in ",".join(absent).split(","):
            change.document = content
    elif change.operation != "delete":
        change.event = content


def from_debezium(change: Change, value: dict, _) -> None:
    payload = value.get("payload", value)  # with schemas: {schema, payload}
    if payload.get("after") is not None:
        change.document = json.loads(payload["after"])
    description = payload.get("updateDescription")
    if description:
        change.patch = {
            "updatedFields": json.loads(description.get("updatedFields") or "{}"),
            "removedFields": description.get("removedFields") or [],
            "truncatedArrays": [
                {"field": array["array"], "newSize": array["size"]}
                for array in description.get("truncatedArrays") or []
            ],
        }


def from_outbox(change: Change, payload: Any, _) -> None:
    change.document = payload


DECODERS = {
    "relaxed": from_event,
    "canonical": from_event,
    "bson": from_event,
    "document": from_document,
    "cloudevents": from_event,
    "cloudevents-document": from_document,  # cloudevents.data: document
    "debezium": from_debezium,
    "outbox": from_outbox,
}
