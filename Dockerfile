# Three images: `engine` (the last, so the default), `proxy` (HAProxy and its agent) and `database` (MariaDB, set up as
# ProxyRoute wants it). No secret is in any of them: they come as files when a container starts.

FROM debian:bookworm-slim AS base
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates python3 \
    && rm -rf /var/lib/apt/lists/*
# Numbers that stay: volumes remember them.
RUN groupadd --gid 10001 proxyroute \
    && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /var/lib/proxyroute --shell /usr/sbin/nologin proxyroute \
    && install -d -o proxyroute -g proxyroute -m 0700 /var/lib/proxyroute /var/lib/proxyroute-agent \
    && install -d -o proxyroute -g proxyroute -m 0750 /mnt/routes /etc/proxyroute
ENV PYTHONUNBUFFERED=1

FROM base AS build
RUN apt-get update && apt-get install -y --no-install-recommends python3-venv
COPY pyproject.toml README.md LICENSE /src/
COPY proxyroute /src/proxyroute
COPY templates /src/templates
RUN python3 -m venv /opt/proxyroute && /opt/proxyroute/bin/pip install --no-cache-dir /src
COPY containers/haproxy.yml containers/maxscale.sql /src/
RUN /opt/proxyroute/bin/proxyroute --config /src/haproxy.yml grants --version-of 10.11.6 --json > /src/grants.json \
    && python3 -c 'import json; print(*(s + ";" for s in json.load(open("/src/grants.json"))["statements"]), sep="\n")' > /src/grants.sql \
    && cat /src/maxscale.sql >> /src/grants.sql

FROM base AS program
COPY --from=build /opt/proxyroute /opt/proxyroute
COPY containers/proxyroute /usr/local/bin/
COPY containers/secrets containers/is-ready /usr/local/lib/proxyroute/

FROM mariadb:10.11 AS database
COPY --from=build /src/grants.sql /usr/local/share/proxyroute/
COPY containers/database containers/database-is-well /usr/local/lib/proxyroute/
COPY containers/database.cnf /etc/proxyroute/
ENTRYPOINT ["/usr/local/lib/proxyroute/database"]
CMD []
HEALTHCHECK --interval=3s --timeout=5s --start-period=60s --retries=2 CMD ["/usr/local/lib/proxyroute/database-is-well"]
STOPSIGNAL SIGTERM
EXPOSE 3306

FROM program AS proxy
RUN apt-get update \
    && apt-get install -y --no-install-recommends haproxy \
    && rm -rf /var/lib/apt/lists/*
COPY containers/proxy containers/proxy-is-well scripts/keepalived/check /usr/local/lib/proxyroute/
ENTRYPOINT ["/usr/local/lib/proxyroute/secrets", "/usr/local/lib/proxyroute/proxy"]
HEALTHCHECK --interval=3s --timeout=5s --start-period=60s --retries=2 CMD ["/usr/local/lib/proxyroute/proxy-is-well"]
EXPOSE 3306 3307 8404

FROM program AS engine
COPY containers/engine /usr/local/lib/proxyroute/
ENTRYPOINT ["/usr/local/lib/proxyroute/secrets", "/usr/local/lib/proxyroute/engine"]
HEALTHCHECK --interval=3s --timeout=5s --start-period=60s --retries=2 CMD ["/usr/local/lib/proxyroute/is-ready"]
EXPOSE 8480
