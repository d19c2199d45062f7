import com.rabbitmq.client.AMQP;
import com.rabbitmq.client.Channel;
import com.rabbitmq.client.Connection;
import com.rabbitmq.client.ConnectionFactory;
import com.rabbitmq.client.DefaultConsumer;
import com.rabbitmq.client.Envelope;
import com.rabbitmq.client.ShutdownSignalException;
import java.io.IOException;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.CountDownLatch;

/**
 * Consumes queues and streams of mrcon over AMQP, and prints the documents at the end (Ctrl-C).
 *
 * <pre>mvn compile exec:java -Dexec.args="amqp://guest:guest@localhost:5672/%2f shop.orders=relaxed ... [--streams]"</pre>
 */
public final class Consumer {
  /** Messages of a queue that may be on the way, unacknowledged. */
  private static final int PREFETCH = 200;
  private static final int LONGEST_PAUSE_SECONDS = 30;

  private final String queue;
  private final String format;
  private final boolean isStream;
  private final State state;
  /** Where a stream is read next. */
  private volatile Object next = "first";

  private Consumer(String queue, String format, boolean isStream) {
    this.queue = queue;
    this.format = format;
    this.isStream = isStream;
    this.state = new State(queue);
  }

  public static void main(String[] arguments) throws Exception {
    List<String> queues = new ArrayList<>(List.of(arguments));
    boolean isStream = queues.remove("--streams");
    ConnectionFactory factory = new ConnectionFactory();
    factory.setUri(queues.remove(0));
    factory.setAutomaticRecoveryEnabled(false); // done here, so that it goes on where it was
    for (String text : queues) {
      int at = text.lastIndexOf('=');
      Consumer consumer = new Consumer(text.substring(0, at), text.substring(at + 1), isStream);
      Runtime.getRuntime().addShutdownHook(new Thread(consumer.state::print));
      new Thread(() -> consumer.run(factory)).start();
    }
  }

  private void run(ConnectionFactory factory) {
    int pause = 1;
    while (true) {
      try (Connection connection = factory.newConnection()) {
        pause = 1;
        consume(connection.createChannel());
        state.tell("connection lost");
      } catch (Exception error) {
        state.tell("connection lost, next attempt in " + pause + " s: " + error);
      }
      try {
        Thread.sleep(1000L * pause);
      } catch (InterruptedException interrupted) {
        return;
      }
      pause = Math.min(2 * pause, LONGEST_PAUSE_SECONDS);
    }
  }

  /** Returns when the consumer has ended. What was not acknowledged comes again. */
  private void consume(Channel channel) throws Exception {
    channel.basicQos(PREFETCH);
    Map<String, Object> arguments = new HashMap<>();
    if (isStream) {
      arguments.put("x-stream-offset", next);
    }
    CountDownLatch ended = new CountDownLatch(1);
    channel.basicConsume(queue, false, arguments, new DefaultConsumer(channel) {
      @Override
      public void handleDelivery(String tag, Envelope envelope, AMQP.BasicProperties properties, byte[] body)
          throws IOException {
        try {
          state.take(Change.read(message(properties, body), format));
        } catch (RuntimeException | IOException error) {
          // It stays in the queue.
          state.tell("a message cannot be read: " + error);
          System.exit(1);
        }
        if (isStream) {
          next = (Long) properties.getHeaders().get("x-stream-offset") + 1;
        }
        channel.basicAck(envelope.getDeliveryTag(), false);
      }

      @Override
      public void handleCancel(String tag) { // the queue was deleted, or moved to another node
        ended.countDown();
      }

      @Override
      public void handleShutdownSignal(String tag, ShutdownSignalException signal) {
        ended.countDown();
      }
    });
    ended.await();
  }

  private static Change.Message message(AMQP.BasicProperties properties, byte[] body) {
    long seconds = properties.getTimestamp() == null ? 0 : properties.getTimestamp().getTime() / 1000;
    Map<String, Object> headers = properties.getHeaders() == null ? Map.of() : properties.getHeaders();
    return new Change.Message(
        body, headers, properties.getContentType(), properties.getContentEncoding(), seconds);
  }
}
