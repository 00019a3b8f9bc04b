#!/bin/sh
# Runs a model's training Dag for past ticks of its schedule. Needs curl (7.76 or later) and jq.
#
#     AIRFLOW_PASSWORD=... sh backfill.sh churn 2026-03-01 2026-03-07
#
# Such runs train and register like any other, but never move the champion.
set -eu
url=${AIRFLOW_URL:-http://127.0.0.1:8080}
export AIRFLOW_USER="${AIRFLOW_USER:-admin}"

login=$(jq -n '{username: env.AIRFLOW_USER, password: env.AIRFLOW_PASSWORD}' |
  curl -sS --fail -H 'Content-Type: application/json' -d @- "$url/auth/token")
token=$(echo "$login" | jq -r .access_token)
api() {
  printf 'header = "Authorization: Bearer %s"\n' "$token" |
    curl -sS --retry 4 --fail-with-body -K - -H 'Content-Type: application/json' "$@"
}

body=$(jq -n --arg dag "$1__train" --arg from "$2T00:00:00Z" --arg to "$3T23:59:59Z" \
  '{dag_id: $dag, from_date: $from, to_date: $to, max_active_runs: 1}')
answer=$(api -d "$body" "$url/api/v2/backfills") || { echo "$answer" >&2; exit 1; }
echo "$answer" | jq -r '"backfill \(.id) of \(.dag_id)"'
