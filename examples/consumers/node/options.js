// The command line, and attempts to connect, which both consumers have.
"use strict";

const { parseArgs } = require("node:util");

const LONGEST_PAUSE_MS = 30_000;

function options() {
  const { values, positionals } = parseArgs({
    allowPositionals: true,
    options: { state: { type: "string", default: "state.db" }, streams: { type: "boolean", default: false } },
  });
  const [uri, ...queues] = positionals;
  if (queues.length === 0) {
    console.error("usage: consumer.js URI QUEUE=FORMAT ... [--state FILE] [--streams]");
    process.exit(64);
  }
  const split = (text) => [text.slice(0, text.lastIndexOf("=")), text.slice(text.lastIndexOf("=") + 1)];
  return { uri, queues: queues.map(split), state: values.state, streams: values.streams };
}

// Calls `consume`, which resolves when it was stopped and rejects when it lost its connection.
async function untilStopped(consume) {
  const stopping = new AbortController();
  for (const name of ["SIGTERM", "SIGINT"]) process.once(name, () => stopping.abort());
  let pause = 1000;
  const connected = () => (pause = 1000);
  // Node ends when nothing is left that could happen, as after a client's connection has gone without a word.
  const alive = setInterval(() => {}, LONGEST_PAUSE_MS);
  while (!stopping.signal.aborted) {
    try {
      await consume(stopping.signal, connected);
    } catch (error) {
      if (error instanceof Unreadable) throw error.cause;
      // What was not acknowledged comes again, and what of it is applied already is ignored.
      console.error(`connection lost, next attempt in ${pause} ms: ${error.message}`);
      await new Promise((resolve) => {
        const timer = setTimeout(resolve, pause);
        stopping.signal.addEventListener("abort", () => (clearTimeout(timer), resolve()), { once: true });
      });
      pause = Math.min(2 * pause, LONGEST_PAUSE_MS);
    }
  }
  clearInterval(alive);
}

// A promise, for so long at most: clients may wait for a broker that is gone for ever.
function within(milliseconds, what, promise) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`${what}: no answer within ${milliseconds} ms`)), milliseconds);
  });
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
}

// A message that cannot be read ends the program, and stays in the queue.
class Unreadable extends Error {
  constructor(cause) {
    super("a message cannot be read", { cause });
  }
}

module.exports = { Unreadable, options, untilStopped, within };
