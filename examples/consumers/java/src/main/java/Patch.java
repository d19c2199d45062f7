import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Map;
import org.bson.BsonArray;
import org.bson.BsonDocument;
import org.bson.BsonNull;
import org.bson.BsonValue;

/** Applies MongoDB's updateDescription to a document, in place. */
final class Patch {
  private Patch() {}

  static void apply(BsonDocument document, BsonDocument description) {
    for (BsonValue array : description.getArray("truncatedArrays", new BsonArray())) {
      BsonDocument truncated = array.asDocument();
      BsonArray found = down(document, steps(truncated.getString("field").getValue(), description)).asArray();
      found.subList(truncated.getNumber("newSize").intValue(), found.size()).clear();
    }
    BsonDocument updated = description.getDocument("updatedFields", new BsonDocument());
    for (Map.Entry<String, BsonValue> field : updated.entrySet()) {
      List<String> steps = steps(field.getKey(), description);
      String name = steps.remove(steps.size() - 1);
      BsonValue parent = down(document, steps);
      if (parent instanceof BsonArray items) {
        int index = Integer.parseInt(name);
        // MongoDB fills what is between the end and a new element with null.
        while (items.size() <= index) {
          items.add(BsonNull.VALUE);
        }
        items.set(index, field.getValue());
      } else {
        parent.asDocument().put(name, field.getValue());
      }
    }
    for (BsonValue path : description.getArray("removedFields", new BsonArray())) {
      List<String> steps = steps(path.asString().getValue(), description);
      String name = steps.remove(steps.size() - 1);
      down(document, steps).asDocument().remove(name);
    }
  }

  /** Where a name has a dot or is all digits, MongoDB tells how the path is meant. */
  private static List<String> steps(String path, BsonDocument description) {
    BsonDocument meant = description.getDocument("disambiguatedPaths", new BsonDocument());
    if (!meant.containsKey(path)) {
      return new ArrayList<>(Arrays.asList(path.split("\\.")));
    }
    List<String> steps = new ArrayList<>();
    for (BsonValue step : meant.getArray(path)) {
      steps.add(step.isString() ? step.asString().getValue() : String.valueOf(step.asNumber().intValue()));
    }
    return steps;
  }

  private static BsonValue down(BsonValue value, List<String> steps) {
    for (String step : steps) {
      value = value.isArray() ? value.asArray().get(Integer.parseInt(step)) : value.asDocument().get(step);
    }
    return value;
  }
}
