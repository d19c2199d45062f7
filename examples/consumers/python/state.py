"""What a consumer has: the documents of each queue, in SQLite, and which change of each came last.

    python3 state.py FILE     prints the documents, one on a line
"""

import json
import logging
import sqlite3
import sys

from decode import Change, Message
from patch import patched

TABLES = """
CREATE TABLE IF NOT EXISTS documents (
    queue TEXT, db TEXT, coll TEXT, key TEXT,
    timestamp INTEGER, seq INTEGER,
    document TEXT,  -- JSON; NULL once it is deleted: the position stays, or a repeat would bring it back
    PRIMARY KEY (queue, db, coll, key)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS offsets (queue TEXT PRIMARY KEY, offset INTEGER);
"""


class State:
    def __init__(self, file: str):
        self.connection = sqlite3.connect(file)
        self.connection.executescript(TABLES)
        self.counts = {}  # of each queue, since the start
        self.untold = set()  # queues with something new since the last commit

    def take(self, message: Message, change: Change) -> None:
        """Applies a change, unless it or a later one of its document has been applied."""
        applied = self.apply(message.queue, change)
        if message.offset is not None:
            self.connection.execute(
                "INSERT OR REPLACE INTO offsets VALUES (?, ?)", (message.queue, message.offset))
        counts = self.counts.setdefault(
            message.queue, {"queue": message.queue, "seq": 0, "applied": 0, "repeats": 0, "gaps": 0})
        counts["seq"] = change.position[1]
        counts["gaps" if change.operation == "gap" else "applied" if applied else "repeats"] += 1
        self.untold.add(message.queue)

    def apply(self, queue: str, change: Change) -> bool:
        if change.operation == "gap":
            gap = change.event["gap"]
            logging.warning("%s: changes are missing here: %s (%s)", queue, gap["cause"], gap["detail"])
            return True
        if change.key is None:
            return self.apply_to_collection(queue, change)
        name = (queue, change.db, change.coll, change.key)
        found = self.connection.execute(
            "SELECT timestamp, seq, document FROM documents"
            " WHERE queue = ? AND db = ? AND coll = ? AND key = ?", name).fetchone()
        last, text = (found[:2], found[2]) if found else (None, None)
        if last is not None and change.position <= last:
            return False
        if last is not None and change.position[1] <= last[1]:
            logging.warning("%s: the connector's numbers have begun anew", queue)
        document = self.after(queue, change, text and json.loads(text))
        self.connection.execute(
            "INSERT OR REPLACE INTO documents VALUES (?, ?, ?, ?, ?, ?, ?)",
            name + change.position + (None if document is None else json.dumps(document),))
        return True

    def after(self, queue: str, change: Change, before):
        """The document after the change."""
        if change.operation == "delete":
            return None
        if change.document is not None:
            return change.document
        if change.patch is not None and before is not None:
            return patched(before, change.patch)
        if change.operation != "update":
            # Too large for a message (x-mrcon-stripped): to be fetched from MongoDB.
            logging.warning("%s: %s of %s without the document", queue, change.operation, change.key)
        elif before is None:
            # Consumption began in the middle: a snapshot (watched.snapshot: initial) brings the rest.
            logging.warning("%s: update of %s, which is not here", queue, change.key)
        return before

    def apply_to_collection(self, queue: str, change: Change) -> bool:
        """What happens to all documents of a collection happens to those whose last change is older."""
        older = " WHERE queue = ? AND db = ? AND (timestamp, seq) < (?, ?)"
        drop = "UPDATE documents SET timestamp = ?, seq = ?, document = NULL" + older
        which = (queue, change.db) + change.position
        if change.operation == "dropDatabase":
            self.connection.execute(drop, change.position + which)
        elif change.operation == "drop":
            self.connection.execute(drop + " AND coll = ?", change.position + which + (change.coll,))
        elif change.operation == "rename":
            to = (change.event["to"]["db"], change.event["to"]["coll"])
            self.connection.execute(
                drop + " AND coll = ?", change.position + (queue, to[0]) + change.position + (to[1],))
            self.connection.execute(
                "INSERT OR REPLACE INTO documents SELECT queue, ?, ?, key, ?, ?, document FROM documents"
                + older + " AND coll = ? AND document IS NOT NULL",
                to + change.position + which + (change.coll,))
            self.connection.execute(drop + " AND coll = ?", change.position + which + (change.coll,))
        return True

    def offset(self, queue: str):
        """The offset of the last message of a stream that was applied."""
        found = self.connection.execute(
            "SELECT offset FROM offsets WHERE queue = ?", (queue,)).fetchone()
        return found and found[0]

    def commit(self) -> None:
        """What has been applied is on disk after this, and may be acknowledged."""
        self.connection.commit()
        for queue in self.untold:
            print(json.dumps(self.counts[queue]), flush=True)
        self.untold.clear()

    def documents(self):
        return self.connection.execute(
            "SELECT queue, db, coll, key, document FROM documents"
            " WHERE document IS NOT NULL ORDER BY queue, db, coll, key")


if __name__ == "__main__":
    for queue, db, coll, key, document in State(sys.argv[1]).documents():
        print(json.dumps({"queue": queue, "db": db, "coll": coll,
                          "key": json.loads(key), "document": json.loads(document)}))
