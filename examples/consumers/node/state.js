// What a consumer has: the documents of each queue, in SQLite, and which change of each came last.
//
//     node state.js FILE     prints the documents, one on a line
"use strict";

const { DatabaseSync } = require("node:sqlite");
const { patched } = require("./patch.js");

// A document is NULL once it is deleted: the position stays, or a repeat would bring it back.
const TABLES = `
CREATE TABLE IF NOT EXISTS documents (
    queue TEXT, db TEXT, coll TEXT, key TEXT, timestamp INTEGER, seq INTEGER, document TEXT,
    PRIMARY KEY (queue, db, coll, key)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS offsets (queue TEXT PRIMARY KEY, offset INTEGER);
`;
const OLDER = "WHERE queue = ? AND db = ? AND (timestamp, seq) < (?, ?)";

class State {
  constructor(file) {
    this.database = new DatabaseSync(file);
    this.database.exec(TABLES);
    this.statements = new Map();
    this.counts = new Map(); // of each queue, since the start
    this.untold = new Set(); // queues with something new since the last commit
  }

  // Applies a change, unless it or a later one of its document has been applied.
  take({ queue, offset }, change) {
    if (!this.database.isTransaction) this.database.exec("BEGIN");
    const applied = this.apply(queue, change);
    if (offset !== undefined) this.sql("INSERT OR REPLACE INTO offsets VALUES (?, ?)").run(queue, offset);
    const counts = this.counts.get(queue) ?? { queue, seq: 0, applied: 0, repeats: 0, gaps: 0 };
    counts.seq = change.position.seq;
    counts[change.operation === "gap" ? "gaps" : applied ? "applied" : "repeats"] += 1;
    this.counts.set(queue, counts);
    this.untold.add(queue);
  }

  apply(queue, change) {
    if (change.operation === "gap") {
      const { cause, detail } = change.event.gap;
      console.error(`${queue}: changes are missing here: ${cause} (${detail})`);
      return true;
    }
    if (change.key === undefined) return this.applyToCollection(queue, change);
    const { db, coll, key, position } = change;
    const last = this.sql(
      "SELECT timestamp, seq, document FROM documents WHERE queue = ? AND db = ? AND coll = ? AND key = ?",
    ).get(queue, db, coll, key);
    if (last && !isAfter(position, last)) return false;
    if (last && position.seq <= last.seq) console.error(`${queue}: the connector's numbers have begun anew`);
    const document = after(queue, change, last?.document && JSON.parse(last.document));
    this.sql("INSERT OR REPLACE INTO documents VALUES (?, ?, ?, ?, ?, ?, ?)").run(
      queue, db, coll, key, position.timestamp, position.seq,
      document == null ? null : JSON.stringify(document),
    );
    return true;
  }

  // What happens to all documents of a collection happens to those whose last change is older.
  applyToCollection(queue, { operation, db, coll, position: { timestamp, seq }, event }) {
    const drop = `UPDATE documents SET timestamp = ?, seq = ?, document = NULL ${OLDER}`;
    const dropCollection = (db, coll) =>
      this.sql(`${drop} AND coll = ?`).run(timestamp, seq, queue, db, timestamp, seq, coll);
    if (operation === "dropDatabase") {
      this.sql(drop).run(timestamp, seq, queue, db, timestamp, seq);
    } else if (operation === "drop") {
      dropCollection(db, coll);
    } else if (operation === "rename") {
      const { to } = event;
      dropCollection(to.db, to.coll);
      this.sql(
        `INSERT OR REPLACE INTO documents SELECT queue, ?, ?, key, ?, ?, document FROM documents
         ${OLDER} AND coll = ? AND document IS NOT NULL`,
      ).run(to.db, to.coll, timestamp, seq, queue, db, timestamp, seq, coll);
      dropCollection(db, coll);
    }
    return true;
  }

  // The offset of the last message of a stream that was applied.
  offset(queue) {
    return this.sql("SELECT offset FROM offsets WHERE queue = ?").get(queue)?.offset;
  }

  // What has been applied is on disk after this, and may be acknowledged.
  commit() {
    if (this.database.isTransaction) this.database.exec("COMMIT");
    for (const queue of this.untold) console.log(JSON.stringify(this.counts.get(queue)));
    this.untold.clear();
  }

  documents() {
    return this.sql(
      "SELECT queue, db, coll, key, document FROM documents WHERE document IS NOT NULL ORDER BY queue, db, coll, key",
    ).all();
  }

  sql(text) {
    if (!this.statements.has(text)) this.statements.set(text, this.database.prepare(text));
    return this.statements.get(text);
  }
}

function isAfter(position, last) {
  return position.timestamp === last.timestamp ? position.seq > last.seq : position.timestamp > last.timestamp;
}

// The document after the change.
function after(queue, { operation, key, document, patch }, before) {
  if (operation === "delete") return null;
  if (document != null) return document;
  if (patch && before) return patched(before, patch);
  if (operation !== "update") {
    // Too large for a message (x-mrcon-stripped): to be fetched from MongoDB.
    console.error(`${queue}: ${operation} of ${key} without the document`);
  } else if (!before) {
    // Consumption began in the middle: a snapshot (watched.snapshot: initial) brings the rest.
    console.error(`${queue}: update of ${key}, which is not here`);
  }
  return before;
}

module.exports = { State };

if (require.main === module) {
  for (const { key, document, ...where } of new State(process.argv[2]).documents()) {
    console.log(JSON.stringify({ ...where, key: JSON.parse(key), document: JSON.parse(document) }));
  }
}
