// Teaches rabbitmq-stream-js-client 1.0.0 the type `long` of AMQP 1.0, which x-mrcon-seq has: it would end the program
// at the first message. To be left out once the client knows it.
"use strict";

const decoder = require("rabbitmq-stream-js-client/dist/response_decoder.js");

const LONG = 0x81;
const SMALL_LONG = 0x55;

const known = decoder.decodeFormatCode;
decoder.decodeFormatCode = (reader, code) => {
  // As text, since it takes a number that is 0 for none.
  if (code === LONG) return String(reader.readInt64());
  if (code === SMALL_LONG) return String(reader.readInt8());
  return known(reader, code);
};
