import java.util.HashMap;
import java.util.Map;
import java.util.function.Predicate;
import org.bson.BsonDocument;
import org.bson.BsonString;
import org.bson.BsonValue;

/**
 * What the consumer has of one queue: its documents, and which change of each came last.
 *
 * <p>It is in memory, to keep the example short. A database would store a document and its position together.
 */
final class State {
  private record Name(String db, String coll, String key) {}

  /** The document is null once it is deleted: the position stays, or a repeat would bring it back. */
  private record Entry(Change.Position position, BsonValue document) {}

  private final String queue;
  private final Map<Name, Entry> documents = new HashMap<>();
  private long applied;
  private long repeats;

  State(String queue) {
    this.queue = queue;
  }

  /** Applies a change, unless it or a later one of its document has been applied. */
  synchronized void take(Change change) {
    if (apply(change)) {
      applied++;
    } else {
      repeats++;
    }
  }

  private boolean apply(Change change) {
    if (change.operation().equals("gap")) {
      tell("changes are missing here: " + change.event().getDocument("gap").toJson());
      return true;
    }
    if (change.key() == null) {
      applyToCollection(change);
      return true;
    }
    Name name = new Name(change.db(), change.coll(), change.key());
    Entry last = documents.get(name);
    if (last != null && change.position().compareTo(last.position()) <= 0) {
      return false;
    }
    if (last != null && change.position().seq() <= last.position().seq()) {
      tell("the connector's numbers have begun anew");
    }
    documents.put(name, new Entry(change.position(), after(change, last == null ? null : last.document())));
    return true;
  }

  private BsonValue after(Change change, BsonValue before) {
    if (change.operation().equals("delete")) {
      return null;
    }
    if (change.document() != null) {
      return change.document();
    }
    if (change.patch() != null && before != null) {
      Patch.apply(before.asDocument(), change.patch());
    } else {
      // Too large for a message (x-mrcon-stripped), or consumption began in the middle: a snapshot
      // (watched.snapshot: initial) brings the rest.
      tell(change.operation() + " of " + change.key() + " without the document");
    }
    return before;
  }

  /** What happens to all documents of a collection happens to those whose last change is older. */
  private void applyToCollection(Change change) {
    Predicate<Name> here = name -> name.db().equals(change.db()) && name.coll().equals(change.coll());
    switch (change.operation()) {
      case "drop" -> remove(change.position(), here);
      case "dropDatabase" -> remove(change.position(), name -> name.db().equals(change.db()));
      case "rename" -> {
        BsonDocument to = change.event().getDocument("to");
        String db = to.getString("db").getValue();
        String coll = to.getString("coll").getValue();
        remove(change.position(), name -> name.db().equals(db) && name.coll().equals(coll));
        remove(change.position(), here)
            .forEach((key, document) ->
                documents.put(new Name(db, coll, key), new Entry(change.position(), document)));
      }
      default -> {}
    }
  }

  /** Takes older documents out and returns them by key. */
  private Map<String, BsonValue> remove(Change.Position position, Predicate<Name> which) {
    Map<String, BsonValue> removed = new HashMap<>();
    documents.replaceAll((name, entry) -> {
      if (!which.test(name) || entry.position().compareTo(position) >= 0) {
        return entry;
      }
      if (entry.document() != null) {
        removed.put(name.key(), entry.document());
      }
      return new Entry(position, null);
    });
    return removed;
  }

  /** Prints the documents, one on a line. */
  synchronized void print() {
    tell(applied + " applied, " + repeats + " repeats");
    documents.forEach((name, entry) -> {
      if (entry.document() != null) {
        BsonDocument line = new BsonDocument("queue", new BsonString(queue))
            .append("db", new BsonString(name.db()))
            .append("coll", new BsonString(name.coll()))
            .append("key", new BsonString(name.key()))
            .append("document", entry.document());
        System.out.println(line.toJson());
      }
    });
  }

  void tell(String what) {
    System.err.println(queue + ": " + what);
  }
}
