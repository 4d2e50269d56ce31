# One small image that runs as nobody in particular: docker build -t farebox . && docker run --stop-timeout 260 -p 4020:4020 \
#   -v farebox:/var/lib/farebox -v ./config.toml:/etc/farebox/config.toml:ro --env-file secrets.env farebox
# docker stop kills after 10 seconds unless told otherwise, and answers may take limits.wall_clock_seconds. Its --restart starts
# again after every exit code, also after 78, which no start mends: look at its log.
# In config.toml: bind = "0.0.0.0:4020", public_url, data_dir = "/var/lib/farebox".
FROM rust:1.90-slim-bookworm AS build
RUN apt-get update && apt-get install -y --no-install-recommends build-essential && rm -rf /var/lib/apt/lists/*
WORKDIR /farebox
COPY . .
RUN cargo build --release --locked

FROM debian:bookworm-slim
RUN useradd --system --uid 10402 --user-group --home-dir /var/lib/farebox --no-create-home --shell /usr/sbin/nologin farebox \
    && install -d -m 0700 -o farebox -g farebox /var/lib/farebox \
    && install -d -m 0755 /etc/farebox
COPY --from=build /farebox/target/release/farebox /usr/local/bin/farebox
USER 10402:10402
VOLUME /var/lib/farebox
EXPOSE 4020
# It ends in good order by itself, and starts no other program, so that it needs no init.
STOPSIGNAL SIGTERM
ENTRYPOINT ["/usr/local/bin/farebox", "--config", "/etc/farebox/config.toml"]
CMD ["serve"]
