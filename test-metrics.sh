#!/usr/bin/env bash
# Checks the metrics of a running mrcond as a user would: with curl.
#
#   ./test-metrics.sh [HOST:PORT]     default 127.0.0.1:3000; `make demo` or `make run` starts one
#
# Prints one line for each check and ends with 'N passed, N failed'; exit code 1 if any failed.
set -u

address=${1:-127.0.0.1:3000}
passed=0
failed=0

ok() { passed=$((passed + 1)); printf 'ok    %s\n' "$1"; }
bad() { failed=$((failed + 1)); printf 'FAIL  %s\n' "$1"; }
check() { # check WHAT COMMAND...: passes when the command does
    local what=$1
    shift
    if "$@" >/dev/null 2>&1; then ok "$what"; else bad "$what"; fi
}
has() { grep -Eq -- "$1" <<<"$metrics"; }
# The sum of all series whose line begins with the expression.
value() { awk -v name="$1" '$0 ~ "^" name "([{ ]|$)" { sum += $NF; found = 1 } END { if (found) print sum; else print "absent" }' <<<"$metrics"; }

if ! metrics=$(curl -fsS --max-time 5 "http://$address/metrics"); then
    echo "no mrcond answers at http://$address/metrics; start one with: make run" >&2
    exit 1
fi

metric() { # metric NAME TYPE: HELP and TYPE lines and at least one series
    check "$1 is a $2 with help and series" eval "has '^# HELP $1 .' && has '^# TYPE $1 $2\$' && has '^$1(_bucket)?[{ ]'"
}
# The whole catalogue, from its page: rows are | `name` | type | labels | unit | meaning | example query |.
while IFS='|' read -r _ name type _ _ meaning _; do
    name=$(tr -d ' \140' <<<"$name") type=$(tr -d ' ' <<<"$type")
    # Metrics whose meaning says when they are absent may be, if nothing of them is there.
    if [[ $meaning == *absent* ]] && ! has "^# TYPE $name "; then continue; fi
    metric "$name" "$type"
done < <(sed -n '/^| name /,/^$/p' "$(dirname "$0")/METRICS.md" | grep '^| `')

for reason in mongo_connection_failed rabbitmq_connection_failed publish_rejected publish_unroutable \
    history_lost invalidated task_panic unhandled_error; do
    check "restarts have the reason $reason from the start" has "^mrcon_task_restarts_total\{.*reason=\"$reason\"\} [0-9]+$"
done
for error_type in mongo_error rabbitmq_error checkpoint_error encode_error task_panic unknown_error; do
    check "failures have the type $error_type from the start" has "^mrcon_task_failures_total\{.*error_type=\"$error_type\"\} [0-9]+$"
done

running=$(value mrcon_running_servers_total)
configured=$(value mrcon_configured_connectors)
check "running servers ($running) are the configured ones ($configured)" test "$running" = "$configured"
check "running servers are the sum over collections" test "$running" = "$(value mrcon_collection_servers)"
check "tasks started are at least the running ones" test "$(value mrcon_tasks_started_total)" -ge "$running"
check "no more is confirmed than was published" \
    test "$(value mrcon_events_confirmed_total)" -le "$(value mrcon_events_published_total)"
check "no duplicate series" eval '[ -z "$(grep -v "^#" <<<"$metrics" | sed "s/ [^ ]*$//" | sort | uniq -d)" ]'

for path in health livez readyz; do
    check "/$path answers 200" curl -fsS --max-time 5 "http://$address/$path"
done
check "/health says OK" eval '[ "$(curl -fsS --max-time 5 "http://$address/health")" = OK ]'

if command -v promtool >/dev/null; then
    complaints=$(promtool check metrics <<<"$metrics" 2>&1 | grep -v 'mrcon_running_servers_total' | grep .)
    check "promtool finds nothing but the name that is fixed ${complaints:+($complaints)}" test -z "$complaints"
fi

# Against MongoDB's and RabbitMQ's own counts, where that can be done (see the script).
while read -r verdict text; do
    case $verdict in
    ok) ok "$text" ;;
    FAIL) bad "$text" ;;
    *) printf '%s  %s\n' "$verdict" "$text" ;;
    esac
done < <(python3 "$(dirname "$0")/dev/compare_metrics.py" "$address" || [ $? -eq 2 ] || echo "FAIL the comparison with MongoDB and RabbitMQ")

printf '%s passed, %s failed\n' "$passed" "$failed"
[ "$failed" -eq 0 ]
