#!/bin/sh
# Prepares what a service needs from its environment, then becomes it.
set -eu
umask 077
if [ -n "${EVERGREEN_ADMIN_PASSWORD:-}" ]; then
    mkdir -p "$AIRFLOW_HOME"
    file="$AIRFLOW_HOME/passwords.json"
    printf '{"admin": "%s"}\n' "$EVERGREEN_ADMIN_PASSWORD" >"$file.$$"
    mv "$file.$$" "$file"
    export AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE="$file"
    unset EVERGREEN_ADMIN_PASSWORD
fi
exec "$@"
