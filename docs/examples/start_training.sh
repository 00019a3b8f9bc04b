#!/bin/sh
# Starts a training run over REST, waits, and prints what came of it. Needs curl (7.76 or later) and jq.
#
#     AIRFLOW_PASSWORD=... sh start_training.sh churn 2026-03-01
#
# The run's id is made from the model and the batch: started twice, the same batch is one run.
set -eu
url=${AIRFLOW_URL:-http://127.0.0.1:8080}
export AIRFLOW_USER="${AIRFLOW_USER:-admin}"
dag=$1__train run=$1-$2

# Password and token go through pipes: arguments of programs can be seen by everybody on the machine.
login=$(jq -n '{username: env.AIRFLOW_USER, password: env.AIRFLOW_PASSWORD}' |
  curl -sS --fail -H 'Content-Type: application/json' -d @- "$url/auth/token")
token=$(echo "$login" | jq -r .access_token)
api() {
  printf 'header = "Authorization: Bearer %s"\n' "$token" |
    curl -sS --retry 4 --fail-with-body -K - -H 'Content-Type: application/json' "$@"
}
runs=$url/api/v2/dags/$dag/dagRuns

# Start it. 409 says that there is a run of this id: as good.
body=$(jq -n --arg run "$run" --arg reason "${REASON:-batch $2}" \
  '{dag_run_id: $run, logical_date: null, conf: {trigger: "api", reason: $reason}}')
answer=$(api -d "$body" -w '\n%{http_code}' "$runs") || case $answer in
  *409) echo "$run was started before" >&2 ;;
  *) echo "$answer" >&2; exit 1 ;;
esac

# Wait until it has ended.
state=queued
while [ "$state" != success ] && [ "$state" != failed ]; do
  sleep 2
  answer=$(api "$runs/$run") || { echo "$answer" >&2; exit 1; }
  state=$(echo "$answer" | jq -r .state)
done

# The result. A task that was skipped, or not reached, has none.
xcom() {
  api "$runs/$run/taskInstances/$1/xcomEntries/$2" 2> /dev/null | jq -r ".value${3:-} // empty" || true
}
verdict=$(xcom evaluate return_value .verdict)
version=$(xcom register return_value .version)
reason=$(xcom evaluate return_value .reason)
if [ -z "$verdict" ]; then # nothing was trained; where that was a decision, its task says why
  reason=$(xcom admit skip_reason)$(xcom ingest skip_reason)
  verdict=${reason:+SKIP}
fi
echo "$run $state${verdict:+ $verdict${version:+ version $version}: $reason}"
[ "$state" = success ]
