# Doorbuster on Debian 12. One image holds the server, setup and verify. Alone it runs its own private Redis (spawn mode); with
# docker-compose.yml the Redis is a service of its own.
#
#   docker build -t doorbuster .
#   docker run --rm -p 8080:8080 -v doorbuster-data:/data --name doorbuster doorbuster
#   docker exec doorbuster doorbuster-setup --scenario v1_stress

FROM debian:12-slim AS build
RUN apt-get update \
 && apt-get install --yes --no-install-recommends gcc libc6-dev cmake ninja-build pkg-config libmicrohttpd-dev libgnutls28-dev libhiredis-dev \
    libuv1-dev libsqlite3-dev libpq-dev libcjson-dev libsodium-dev \
 && rm -rf /var/lib/apt/lists/*
WORKDIR /source
# What the build reads, and no more: a changed README or load test does not start it again.
COPY CMakeLists.txt ./
COPY cmake cmake
COPY include include
COPY src src
COPY web web
RUN cmake -S . -B /build -G Ninja -DCMAKE_BUILD_TYPE=Release -DDOORBUSTER_TESTS=OFF -DCMAKE_INSTALL_PREFIX=/usr/local \
 && cmake --build /build \
 && cmake --install /build --prefix /install --component programs --strip

FROM debian:12-slim
RUN apt-get update \
 && apt-get install --yes --no-install-recommends libmicrohttpd12 libgnutls30 libhiredis0.14 libuv1 libsqlite3-0 libpq5 libcjson1 libsodium23 \
    redis-server \
 && rm -rf /var/lib/apt/lists/* \
 && useradd --system --uid 10001 --user-group --no-create-home --home-dir /data --shell /usr/sbin/nologin doorbuster \
 && install -d -m 0700 -o doorbuster -g doorbuster /data
COPY --from=build /install/bin/ /usr/local/bin/

# The numeric id, so that an orchestrator can see that it is not root.
USER 10001:10001
ENV DOORBUSTER_DATA=/data
VOLUME /data
EXPOSE 8080
STOPSIGNAL SIGTERM
# bash talks TCP itself, so the image needs no curl.
HEALTHCHECK --interval=5s --timeout=3s --start-period=10s --retries=3 CMD ["bash", "-c", "exec 3<>/dev/tcp/127.0.0.1/8080 && printf 'GET /health HTTP/1.1\\r\\nHost: localhost\\r\\nConnection: close\\r\\n\\r\\n' >&3 && grep -q healthy <&3"]
ENTRYPOINT ["doorbuster-server"]
