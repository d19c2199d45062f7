// Consumes queues of mrcon over AMQP into SQLite.
//
//     node consumer.js amqp://guest:guest@localhost:5672/%2f shop.orders=relaxed ... [--streams]
"use strict";

const amqp = require("amqplib");
const { decode } = require("./decode.js");
const { State } = require("./state.js");
const { Unreadable, options, untilStopped } = require("./options.js");

// Messages of each queue that may be on the way, unacknowledged.
const PREFETCH = 200;

const { uri, queues, streams, state: file } = options();
const state = new State(file);

async function consume(stopping, connected) {
  const connection = await amqp.connect(uri);
  let channel;
  try {
    await new Promise((resolve, reject) => {
      connection.on("error", reject);
      connection.on("close", () => reject(new Error("closed")));
      stopping.addEventListener("abort", resolve, { once: true });
      connection.createChannel().then(async (created) => {
        channel = created;
        channel.on("error", reject);
        channel.on("close", () => reject(new Error("the channel was closed")));
        await subscribe(channel, reject);
        connected();
      }).catch(reject);
    });
  } finally {
    await connection.close().catch(() => {});
  }
}

async function subscribe(channel, reject) {
  await channel.prefetch(PREFETCH);
  let last; // message that was applied last
  const commit = () => {
    state.commit();
    channel.ack(last, true);
    last = undefined;
  };
  for (const [queue, format] of queues) {
    await channel.consume(queue, (delivery) => {
      if (delivery === null) return reject(new Error(`${queue} was deleted, or moved to another node`));
      try {
        const message = messageOf(queue, delivery);
        state.take(message, decode(message, format));
      } catch (error) {
        return reject(new Unreadable(error));
      }
      // Once for all that has arrived.
      if (last === undefined) setImmediate(() => quietly(commit, reject));
      last = delivery;
    }, { arguments: streams ? { "x-stream-offset": start(queue) } : {} });
  }
}

function quietly(commit, reject) {
  try {
    commit();
  } catch (error) {
    reject(error); // the channel is gone
  }
}

function start(queue) {
  const last = state.offset(queue);
  return last === undefined ? "first" : last + 1;
}

function messageOf(queue, { content, properties }) {
  const headers = properties.headers ?? {};
  const offset = headers["x-stream-offset"];
  return {
    queue,
    body: content,
    headers,
    contentType: properties.contentType,
    contentEncoding: properties.contentEncoding,
    timestamp: Number(properties.timestamp ?? 0),
    offset: offset === undefined ? undefined : Number(offset),
  };
}

untilStopped(consume);
