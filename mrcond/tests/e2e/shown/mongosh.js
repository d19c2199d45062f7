#!/usr/bin/env node
// As much of mongosh as pages use, the same on each machine: what is typed is run by MongoDB itself.
"use strict";

const { execFileSync } = require("node:child_process");
const { readFileSync } = require("node:fs");

// A command to a database, by the driver for Python, which the consumers need anyway.
const BRIDGE = `
import sys, pymongo
from bson import json_util
uri, database, command = sys.argv[1:]
exact = json_util.CANONICAL_JSON_OPTIONS
reply = pymongo.MongoClient(uri)[database].command(json_util.loads(command, json_options=exact))
print(json_util.dumps(reply, json_options=exact))
`;

const [uri, option, text] = process.argv.slice(2);
const run = (database, command) =>
  JSON.parse(execFileSync("python3", ["-c", BRIDGE, uri, database, JSON.stringify(command)], { encoding: "utf8" }));

const collection = (database, name) => ({
  findOne: (filter) => run(database, { find: name, filter, limit: 1 }).cursor.firstBatch[0] ?? null,
  replaceOne: (q, u, options) => run(database, { update: name, updates: [{ q, u, ...options }] }),
});
const database = (name) =>
  new Proxy(
    {
      runCommand: (command) => run(name, command),
      adminCommand: (command) => run("admin", command),
      hello: () => run(name, { hello: 1 }),
      getSiblingDB: database,
    },
    { get: (methods, key) => methods[key] ?? collection(name, key) },
  );
globalThis.db = database("test");
globalThis.rs = { status: () => run("admin", { replSetGetStatus: 1 }) };

const code = option === "--eval" ? text : readFileSync(0, "utf8");
const result = (0, eval)(code);
console.log(typeof result === "string" ? result : JSON.stringify(result));
