#!/bin/sh
# Announces new data of a model over REST, like an upstream Dag does. Needs curl (7.76 or later) and jq.
#
#     AIRFLOW_PASSWORD=... sh announce_data.sh churn '{"rows": 1200}'
#
# The spec says `retrain: {on: [data]}`. In Airflow the user needs the role `op` or `admin`.
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

# Airflow knows assets by number: find it by its URI.
uri=x-evergreen://data/$1
found=$(api -G --data-urlencode "uri_pattern=$uri" "$url/api/v2/assets")
asset=$(echo "$found" | jq --arg uri "$uri" '.assets[] | select(.uri == $uri) | .id')
[ -n "$asset" ] || { echo "$1: no Dag listens to $uri" >&2; exit 1; }

body=$(jq -n --argjson asset "$asset" --argjson extra "${2:-null}" \
  '{asset_id: $asset, extra: ($extra // {})}')
event=$(api -d "$body" "$url/api/v2/assets/events") || { echo "$event" >&2; exit 1; }
echo "$event" | jq -r '"event \(.id) at \(.timestamp)"'
