// Consumes queues and streams of mrcon over AMQP, and prints the documents at the end (Ctrl-C).
//
//	go run . [-streams] amqp://guest:guest@localhost:5672/%2f shop.orders=relaxed ...
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"log"
	"os"
	"os/signal"
	"strings"
	"sync"
	"syscall"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
)

const (
	// Messages of a queue that may be on the way, unacknowledged.
	prefetch     = 200
	longestPause = 30 * time.Second
)

// queue is what is consumed, and what came out.
type queue struct {
	state
	format   string
	isStream bool
	// Where a stream is read next.
	next any
}

func main() {
	isStream := flag.Bool("streams", false, "the queues are streams")
	flag.Parse()
	if flag.NArg() < 2 {
		log.Fatal("usage: consumer [-streams] URI QUEUE=FORMAT ...")
	}
	stopping, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	var running sync.WaitGroup
	var queues []*queue
	for _, text := range flag.Args()[1:] {
		at := strings.LastIndex(text, "=")
		if at < 0 {
			log.Fatalf("%q is not QUEUE=FORMAT", text)
		}
		q := &queue{
			state:    state{queue: text[:at], documents: map[name]entry{}},
			format:   text[at+1:],
			isStream: *isStream,
			next:     "first",
		}
		queues = append(queues, q)
		running.Add(1)
		go func() {
			defer running.Done()
			q.consumeUntilStopped(stopping, flag.Arg(0))
		}()
	}
	running.Wait()
	for _, q := range queues {
		for its, found := range q.documents {
			if found.document != nil {
				line, _ := json.Marshal(object{"queue": q.queue, "db": its.db, "coll": its.coll, "key": its.key, "document": found.document})
				fmt.Println(string(line))
			}
		}
	}
}

func (q *queue) consumeUntilStopped(stopping context.Context, uri string) {
	pause := time.Second
	for stopping.Err() == nil {
		began := time.Now()
		if err := q.consume(stopping, uri); err != nil {
			if time.Since(began) > longestPause {
				pause = time.Second
			}
			// What was not acknowledged comes again, and what of it is applied already is ignored.
			log.Printf("%s: connection lost, next attempt in %v: %v", q.queue, pause, err)
			select {
			case <-stopping.Done():
			case <-time.After(pause):
			}
			pause = min(2*pause, longestPause)
		}
	}
}

func (q *queue) consume(stopping context.Context, uri string) error {
	connection, err := amqp.Dial(uri)
	if err != nil {
		return err
	}
	defer connection.Close()
	channel, err := connection.Channel()
	if err != nil {
		return err
	}
	if err := channel.Qos(prefetch, 0, false); err != nil {
		return err
	}
	arguments := amqp.Table{}
	if q.isStream {
		arguments["x-stream-offset"] = q.next
	}
	deliveries, err := channel.Consume(q.queue, "", false, false, false, false, arguments)
	if err != nil {
		return err
	}
	applied, repeats := 0, 0
	for {
		select {
		case <-stopping.Done():
			log.Printf("%s: %d applied, %d repeats", q.queue, applied, repeats)
			return nil
		case delivery, isOpen := <-deliveries:
			if !isOpen { // the connection is lost, or the queue deleted
				return errors.New("closed")
			}
			c, err := decode(delivery, q.format)
			if err != nil { // it stays in the queue
				log.Fatalf("%s: a message cannot be read: %v", q.queue, err)
			}
			isNew, err := q.apply(c)
			if err != nil {
				log.Fatalf("%s: %v", q.queue, err)
			}
			if isNew {
				applied++
			} else {
				repeats++
			}
			if offset, isThere := delivery.Headers["x-stream-offset"].(int64); isThere {
				q.next = offset + 1
			}
			if err := delivery.Ack(false); err != nil {
				return err
			}
		}
	}
}
