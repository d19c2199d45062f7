import com.github.luben.zstd.ZstdInputStream;
import java.io.ByteArrayInputStream;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.util.Base64;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.zip.GZIPInputStream;
import org.bson.BsonArray;
import org.bson.BsonBinaryReader;
import org.bson.BsonDocument;
import org.bson.BsonString;
import org.bson.BsonValue;
import org.bson.ByteBufNIO;
import org.bson.codecs.BsonDocumentCodec;
import org.bson.codecs.DecoderContext;
import org.bson.io.ByteBufferBsonInput;

/**
 * What a message of mrcon says, whatever the format of its body.
 *
 * @param key equal keys have equal text, whatever the format; null: it is about more than one document
 * @param document the whole document after the change, or null if the message does not have it
 * @param patch else what an update changed in it: MongoDB's updateDescription
 * @param event the change event of a gap record, a drop or a rename
 */
record Change(
    String operation,
    String db,
    String coll,
    String key,
    Position position,
    BsonValue document,
    BsonDocument patch,
    BsonDocument event) {

  /** Tells which of two changes came first, see README.md: seconds since 1970, then x-mrcon-seq. */
  record Position(long seconds, long seq) implements Comparable<Position> {
    @Override
    public int compareTo(Position other) {
      int bySeconds = Long.compare(seconds, other.seconds);
      return bySeconds != 0 ? bySeconds : Long.compare(seq, other.seq);
    }
  }

  /** A message as both protocols carry it; a gap record has 0 seconds. */
  record Message(
      byte[] body, Map<String, Object> headers, String contentType, String contentEncoding, long seconds) {

    String text(String name) {
      // The AMQP client has its own class for long texts.
      Object value = headers.get(name);
      return value == null ? null : value.toString();
    }
  }

  static Change read(Message message, String format) throws IOException {
    String type = message.contentType() == null ? "" : message.contentType();
    BsonValue content = parse(decompress(message), type.split(";")[0].trim().toLowerCase());
    String operation = message.text("x-mrcon-op");
    BsonValue document = null;
    BsonDocument patch = null;
    BsonDocument event = null;
    if (type.startsWith("application/cloudevents")) {
      // In binary mode the body is the data, and the attributes are headers.
      content = content.asDocument().get("data");
    }
    switch (operation.equals("gap") ? "gap" : format) {
      case "gap" -> event = content.asDocument();
      case "relaxed", "canonical", "bson", "cloudevents" -> {
        event = content.asDocument();
        document = present(event.get("fullDocument"));
        patch = event.getDocument("updateDescription", null);
      }
      case "document", "cloudevents-document" -> { // cloudevents.data: document
        String absent = message.text("x-mrcon-image-missing") + "," + message.text("x-mrcon-stripped");
        boolean isGone = List.of(absent.split(",")).contains("fullDocument");
        if (Set.of("insert", "update", "replace", "read").contains(operation)) {
          // Where the document was gone when MongoDB looked for it, or is too large, the body is the key.
          document = isGone ? null : content;
        } else if (!operation.equals("delete")) {
          event = content.asDocument();
        }
      }
      case "debezium" -> {
        BsonDocument value = content.asDocument();
        BsonDocument payload = value.getDocument("payload", value); // with schemas: {schema, payload}
        BsonValue after = present(payload.get("after"));
        document = after == null ? null : BsonDocument.parse(after.asString().getValue());
        BsonValue description = present(payload.get("updateDescription"));
        patch = description == null ? null : patch(description.asDocument());
      }
      case "outbox" -> document = content;
      default -> throw new IllegalArgumentException("no format " + format);
    }
    String key = message.text("x-mrcon-key");
    if (key == null && event != null && event.containsKey("documentKey")) {
      // The header is left out above 64 KiB; then it is so for each change of this document.
      key = event.getDocument("documentKey").toJson();
    }
    Position position = new Position(message.seconds(), Long.parseLong(message.text("x-mrcon-seq")));
    return new Change(
        operation, message.text("x-mrcon-db"), message.text("x-mrcon-coll"), key, position, document, patch, event);
  }

  /** Debezium's description of an update as MongoDB has it. */
  private static BsonDocument patch(BsonDocument description) {
    BsonDocument patch = new BsonDocument();
    if (present(description.get("updatedFields")) instanceof BsonString updated) {
      patch.put("updatedFields", BsonDocument.parse(updated.getValue()));
    }
    if (present(description.get("removedFields")) instanceof BsonArray removed) {
      patch.put("removedFields", removed);
    }
    if (present(description.get("truncatedArrays")) instanceof BsonArray truncated) {
      BsonArray arrays = new BsonArray();
      for (BsonValue array : truncated) {
        BsonDocument found = array.asDocument();
        arrays.add(new BsonDocument("field", found.get("array")).append("newSize", found.get("size")));
      }
      patch.put("truncatedArrays", arrays);
    }
    return patch;
  }

  private static BsonValue present(BsonValue value) {
    return value == null || value.isNull() ? null : value;
  }

  private static byte[] decompress(Message message) throws IOException {
    String encoding = message.contentEncoding() == null ? "" : message.contentEncoding();
    ByteArrayInputStream body = new ByteArrayInputStream(message.body());
    return switch (encoding) {
      case "gzip" -> new GZIPInputStream(body).readAllBytes();
      case "zstd" -> new ZstdInputStream(body).readAllBytes();
      default -> message.body();
    };
  }

  /** JSON and BSON as they are, text as text, and other bytes as base64. */
  private static BsonValue parse(byte[] body, String type) {
    if (type.equals("application/bson")) {
      var input = new ByteBufferBsonInput(new ByteBufNIO(ByteBuffer.wrap(body)));
      return new BsonDocumentCodec().decode(new BsonBinaryReader(input), DecoderContext.builder().build());
    }
    String text = new String(body, StandardCharsets.UTF_8);
    if (type.equals("application/json") || type.endsWith("+json")) {
      // Any value, not only a document.
      return BsonDocument.parse("{\"value\": " + text + "}").get("value");
    }
    return new BsonString(type.startsWith("text/") ? text : Base64.getEncoder().encodeToString(body));
  }
}
