// Consumes streams of mrcon over RabbitMQ's stream protocol into SQLite.
//
//     node stream-consumer.js rabbitmq-stream://guest:guest@localhost:5552/%2f shop.orders=relaxed ...
"use strict";

require("./amqp-long.js");
const { Offset, connect } = require("rabbitmq-stream-js-client");
const { decode } = require("./decode.js");
const { State } = require("./state.js");
const { Unreadable, options, untilStopped, within } = require("./options.js");

const COMMIT_MS = 200;
const CONNECT_MS = 10_000;
const CLOSE_MS = 2_000;

const { uri, queues, state: file } = options();
const state = new State(file);

async function consume(stopping, connected) {
  let lost;
  const ended = new Promise((_, reject) => (lost = reject));
  ended.catch(() => {}); // looked at below
  const closed = () => lost(new Error("closed"));
  const connecting = connect({ ...address(uri), listeners: { connection_closed: closed } });
  const client = await within(CONNECT_MS, "connect", connecting);
  // The offset is committed with what the message did, so nothing is lost or done twice here.
  const commits = setInterval(() => state.commit(), COMMIT_MS);
  try {
    for (const [stream, format] of queues) {
      const declared = client.declareConsumer(
        { stream, offset: start(stream), connectionClosedListener: closed },
        (found) => {
          if (stopping.aborted) return;
          try {
            const message = messageOf(stream, found);
            state.take(message, decode(message, format));
          } catch (error) {
            lost(new Unreadable(error));
          }
        },
      );
      await within(CONNECT_MS, "subscribe", declared);
    }
    connected();
    const stopped = new Promise((resolve) => stopping.addEventListener("abort", resolve, { once: true }));
    await Promise.race([stopped, ended]);
  } finally {
    clearInterval(commits);
    state.commit();
    await within(CLOSE_MS, "close", client.close()).catch(() => {});
  }
}

function start(stream) {
  const last = state.offset(stream);
  return last === undefined ? Offset.first() : Offset.offset(BigInt(last) + 1n);
}

function address(uri) {
  const { hostname, port, username, password, pathname } = new URL(uri);
  const plain = decodeURIComponent;
  return {
    hostname, port: Number(port || 5552), username: plain(username || "guest"), password: plain(password || "guest"),
    vhost: plain(pathname.slice(1)) || "/",
  };
}

// Headers are application properties. Where the stream is written over AMQP (queue_type: stream), RabbitMQ makes
// message annotations of those that begin with x-.
function messageOf(queue, { content, messageProperties, messageAnnotations, applicationProperties, offset }) {
  return {
    queue,
    body: content,
    headers: { ...messageAnnotations, ...applicationProperties },
    contentType: messageProperties?.contentType,
    contentEncoding: messageProperties?.contentEncoding,
    timestamp: Math.floor((messageProperties?.creationTime?.getTime() ?? 0) / 1000),
    offset: Number(offset),
  };
}

// What a lost connection left behind keeps Node from ending by itself.
untilStopped(consume).then(() => process.exit(0));
