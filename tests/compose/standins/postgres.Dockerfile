# Stands in for postgres:16 where no registry can be reached: Debian's server behind the parts of the
# official image's contract that docker-compose.yaml leans on.
ARG BASE_IMAGE
FROM ${BASE_IMAGE}
RUN apt-get update -qq && apt-get install -y -qq --no-install-recommends postgresql postgresql-client >/dev/null \
 && rm -rf /var/lib/apt/lists/* /var/lib/postgresql/*/main
COPY postgres-entrypoint.sh /usr/local/bin/entrypoint.sh
ENV PGDATA=/var/lib/postgresql/data
ENTRYPOINT ["/usr/local/bin/entrypoint.sh"]
