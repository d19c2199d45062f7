#!/usr/bin/env python3
"""As much of curl as pages and test-metrics.sh use: -f, -s, -S, -N, --max-time, and a URL."""

import argparse
import sys
import urllib.error
import urllib.request

parser = argparse.ArgumentParser(prog="curl")
for letter in "fsSN":
    parser.add_argument("-" + letter, action="store_true")
parser.add_argument("--max-time", type=float, default=600)
parser.add_argument("url")
options = parser.parse_args()
try:
    answer = urllib.request.urlopen(options.url, timeout=options.max_time)
except urllib.error.HTTPError as error:
    if options.f:
        sys.exit(22)
    answer = error
except OSError as error:
    sys.exit("curl: %s" % error)
for line in answer:
    sys.stdout.buffer.write(line)
    sys.stdout.buffer.flush()
