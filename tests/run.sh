#!/bin/sh
# Runs all tests, in two halves side by side: the end-to-end tests mostly wait for a real stack, the others mostly
# compute. Arguments go to both; the output of the end-to-end half follows that of the other.
set -u
cd "$(dirname "$0")/.." || exit 1

log=$(mktemp)
.venv/bin/python -m pytest tests/e2e "$@" >"$log" 2>&1 &
e2e=$!
trap 'kill "$e2e" 2>/dev/null; wait "$e2e"; rm -f "$log"; exit 130' INT TERM
.venv/bin/python -m pytest tests/unit tests/airflow tests/integration "$@"
rest=$?
[ $rest = 0 ] || [ $rest = 5 ] || echo "Failures above. The end-to-end tests go on."
wait "$e2e"
ended=$?
cat "$log"
rm -f "$log"

# 5: the arguments selected none of this half's tests; of both, that is a failure.
[ $rest = 5 ] && [ $ended = 5 ] && exit 5
for status in $rest $ended; do
    [ "$status" = 0 ] || [ "$status" = 5 ] || exit "$status"
done
