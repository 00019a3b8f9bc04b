#!/bin/sh
# Writes .env with fresh passwords for docker-compose.yaml. Never overwrites: a database keeps its old password.
set -eu
cd "$(dirname "$0")/.."
mkdir -p .evergreen/data  # mounted by the compose file; Docker would make it as root
if [ -e .env ]; then
    echo ".env is there already; delete it and the volumes to start over." >&2
    exit 0
fi
random() { od -An -N24 -tx1 /dev/urandom | tr -d ' \n'; }
# Fernet asks for 32 bytes in URL-safe base64.
fernet() { head -c 32 /dev/urandom | base64 | tr '+/' '-_'; }
umask 077
{
    for name in POSTGRES AIRFLOW_DB MLFLOW_DB OPTUNA_DB EVERGREEN_DB REDIS AIRFLOW_ADMIN; do
        echo "${name}_PASSWORD=$(random)"
    done
    echo "AIRFLOW_JWT_SECRET=$(random)"
    echo "AIRFLOW_SECRET_KEY=$(random)"
    echo "SERVING_KEY=$(random)"
    echo "AIRFLOW_FERNET_KEY=$(fernet)"
} >".env.$$"
mv ".env.$$" .env
echo "Wrote .env (mode 600). Airflow's user is admin; its password is AIRFLOW_ADMIN_PASSWORD in there."
