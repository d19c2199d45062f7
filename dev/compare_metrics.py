#!/usr/bin/env python3
"""Holds what mrcond's /metrics says against counts taken from MongoDB and RabbitMQ themselves.

  compare_metrics.py HOST:PORT

Only for the demo's collection, which mrcond has watched from its first document on: of any other
nobody knows how many events there were before. MongoDB's count comes from its oplog, RabbitMQ's from
its management plugin. Orders may go on flowing: what is compared lies between two counts.

Prints a line for each check, 'ok' or 'FAIL'; exit code 1 if one failed, 2 if there is no demo.
"""

import base64
import json
import os
import re
import sys
import time
import urllib.parse
import urllib.request

from servers import mongo_wire

DATABASE, COLLECTION = "mrcon_demo", "orders"
# RabbitMQ's management plugin counts every 5 s.
PATIENCE_SECONDS = 30
OPERATIONS = {"i": ["insert"], "u": ["update", "replace"], "d": ["delete"]}


def main():
    address = sys.argv[1]
    connector = demo_connector(address)
    mongo_port = int(re.search(r"127\.0\.0\.1:(\d+)", os.environ.get("MRCON_MONGO_URI", "") or missing())[1])
    failures = 0

    def check(what, good, seen):
        nonlocal failures
        failures += not good
        print("%s %s%s" % ("ok   " if good else "FAIL ", what, "" if good else " (%s)" % seen))

    before = oplog_counts(mongo_port)
    metrics = until(lambda: scrape(address),
                    lambda seen: total(seen, "mrcon_events_confirmed_total") >= sum(before.values()))
    after = oplog_counts(mongo_port)
    for code, operations in OPERATIONS.items():
        counted = sum(total(metrics, "mrcon_events_confirmed_total", operation=operation)
                      for operation in operations)
        check("confirmed %s: %d, and MongoDB's oplog has %s" % (
            "s and ".join(operations) + "s", counted, spread(before[code], after[code])),
            before[code] <= counted <= after[code], counted)
    everything = total(metrics, "mrcon_events_confirmed_total")
    published = until(lambda: queue_publishes(connector["target"]), lambda seen: seen >= everything)
    newest = total(scrape(address), "mrcon_events_published_total")
    check("published: RabbitMQ has counted %d, mrcond %s" % (published, spread(everything, newest)),
          everything <= published <= newest, published)
    placed = total(metrics, "demo_orders_total")
    inserts = total(metrics, "mrcon_events_confirmed_total", operation="insert")
    check("business metric: %d orders placed, as many as inserts" % placed, placed == inserts, inserts)
    running, configured = total(metrics, "mrcon_running_servers_total"), total(metrics, "mrcon_configured_connectors")
    check("running connectors are the configured ones (%d)" % configured, running == configured, running)
    lag = total(metrics, "mrcon_replication_lag_seconds")
    check("lag is %.1f s while orders flow" % lag, lag < PATIENCE_SECONDS, lag)
    sys.exit(1 if failures else 0)


def missing():
    sys.exit("compare_metrics: error: MRCON_MONGO_URI is not set; run it through 'make test-metrics'")


def demo_connector(address):
    connectors = json.loads(get("http://%s/status" % address))["connectors"]
    for connector in connectors:
        if (connector["database"], connector["collection"]) == (DATABASE, COLLECTION):
            return connector
    print("note  no comparison with MongoDB and RabbitMQ: that is for 'make demo', whose orders are watched from the first one on")
    sys.exit(2)


def oplog_counts(port):
    """Entries of this incarnation of the collection, by kind."""
    listed = mongo_wire.command(port, {"listCollections": 1, "filter": {"name": COLLECTION}}, DATABASE)
    uuid = listed["cursor"]["firstBatch"][0]["info"]["uuid"]
    counts = {}
    for kind in OPERATIONS:
        reply = mongo_wire.command(port, {"count": "oplog.rs", "query": {
            "ns": "%s.%s" % (DATABASE, COLLECTION), "ui": uuid, "op": kind}}, "local")
        counts[kind] = int(reply["n"])
    return counts


def queue_publishes(queue):
    """Messages that the queue has got since it was declared."""
    url, uri = os.environ["MRCON_RABBITMQ_MANAGEMENT_URL"], urllib.parse.urlsplit(os.environ["MRCON_RABBITMQ_URI"])
    vhost = uri.path.lstrip("/") or "%2f"
    told = json.loads(get("%s/api/queues/%s/%s" % (url, vhost, urllib.parse.quote(queue, safe="")),
                          "%s:%s" % (uri.username, uri.password)))
    return told.get("message_stats", {}).get("publish", 0)


def scrape(address):
    """[(name, labels, value)]"""
    lines = get("http://%s/metrics" % address).splitlines()
    samples = [re.match(r"(\w+)(?:\{(.*)\})? (\S+)$", line) for line in lines if not line.startswith("#")]
    return [(sample[1], dict(re.findall(r'(\w+)="([^"]*)"', sample[2] or "")), float(sample[3]))
            for sample in samples]


def total(metrics, name, **labels):
    return sum(value for sample, has, value in metrics
               if sample == name and labels.items() <= has.items())


def until(look, is_good):
    deadline = time.monotonic() + PATIENCE_SECONDS
    seen = look()
    while not is_good(seen) and time.monotonic() < deadline:
        time.sleep(0.2)
        seen = look()
    return seen


def spread(low, high):
    return "%d" % low if low == high else "%d to %d" % (low, high)


def get(url, user=None):
    headers = {"Authorization": "Basic " + base64.b64encode(user.encode()).decode()} if user else {}
    with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=10) as answer:
        return answer.read().decode()


if __name__ == "__main__":
    main()
