# One image for every Evergreen service: Airflow's components, MLflow and serving.
# BASE_IMAGE is any Debian-like image with Python 3.11 to 3.13 and its venv module.
ARG BASE_IMAGE=python:3.12-slim-bookworm
FROM ${BASE_IMAGE}

RUN useradd --uid 50000 --create-home --home-dir /home/evergreen evergreen \
 && install -d -o evergreen -g evergreen /state /state/airflow /state/airflow/logs /store /mlflow

# The libraries change seldom: their layer comes before the code's.
COPY requirements.txt /tmp/requirements.txt
RUN python3 -m venv /opt/venv \
 && /opt/venv/bin/python -m pip install --no-cache-dir uv \
 && VIRTUAL_ENV=/opt/venv /opt/venv/bin/uv pip install --no-cache --compile-bytecode -r /tmp/requirements.txt

# Editable, so that the code stays where the Dags, plugins and specs lie.
COPY . /opt/evergreen
RUN VIRTUAL_ENV=/opt/venv /opt/venv/bin/uv pip install --no-cache --no-deps -e /opt/evergreen \
 && /opt/venv/bin/python -m compileall -q /opt/evergreen/include /opt/evergreen/plugins

# Where the code came from: an image holds no repository to ask.
ARG GIT_COMMIT=""
ENV PATH=/opt/venv/bin:$PATH \
    PYTHONPATH=/opt/evergreen:/opt/evergreen/plugins \
    PYTHONUNBUFFERED=1 \
    EVERGREEN_GIT_COMMIT=${GIT_COMMIT} \
    EVERGREEN_HOME=/state \
    EVERGREEN_STORE=/store \
    AIRFLOW_HOME=/state/airflow \
    AIRFLOW__CORE__DAGS_FOLDER=/opt/evergreen/dags \
    AIRFLOW__CORE__PLUGINS_FOLDER=/opt/evergreen/plugins
WORKDIR /opt/evergreen
USER evergreen
ENTRYPOINT ["/opt/evergreen/deploy/entrypoint.sh"]
