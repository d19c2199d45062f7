import com.rabbitmq.stream.Environment;
import com.rabbitmq.stream.Message;
import com.rabbitmq.stream.OffsetSpecification;
import com.rabbitmq.stream.Properties;
import java.io.IOException;
import java.util.Arrays;
import java.util.HashMap;
import java.util.Map;

/**
 * Consumes streams of mrcon over RabbitMQ's stream protocol, and prints the documents at the end (Ctrl-C).
 *
 * <pre>mvn compile exec:java -Dexec.mainClass=StreamConsumer -Dexec.args="rabbitmq-stream://guest:guest@localhost:5552/%2f shop.orders=relaxed ..."</pre>
 */
public final class StreamConsumer {
  private StreamConsumer() {}

  public static void main(String[] arguments) {
    // It reconnects by itself, and goes on behind the last message that was handled.
    Environment environment = Environment.builder().uri(arguments[0]).build();
    for (String text : Arrays.asList(arguments).subList(1, arguments.length)) {
      int at = text.lastIndexOf('=');
      String stream = text.substring(0, at);
      String format = text.substring(at + 1);
      State state = new State(stream);
      Runtime.getRuntime().addShutdownHook(new Thread(state::print));
      environment.consumerBuilder()
          .stream(stream)
          // The state is in memory, so it begins anew each time. A database would store the offset with it.
          .offset(OffsetSpecification.first())
          .messageHandler((context, message) -> {
            try {
              state.take(Change.read(message(message), format));
            } catch (RuntimeException | IOException error) {
              state.tell("a message cannot be read: " + error);
              System.exit(1);
            }
          })
          .build();
    }
  }

  private static Change.Message message(Message message) {
    // Headers are application properties. Where the stream is written over AMQP (queue_type: stream), RabbitMQ makes
    // message annotations of those that begin with x-.
    Map<String, Object> headers = new HashMap<>();
    for (Map<String, Object> found :
        Arrays.asList(message.getMessageAnnotations(), message.getApplicationProperties())) {
      if (found != null) {
        headers.putAll(found);
      }
    }
    Properties properties = message.getProperties();
    return new Change.Message(
        message.getBodyAsBinary(), headers, properties.getContentType(), properties.getContentEncoding(),
        properties.getCreationTime() / 1000);
  }
}
