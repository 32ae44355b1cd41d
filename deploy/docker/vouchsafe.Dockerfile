# The binary, alone. Other images take it from here: COPY --from=registry.example.com/vouchsafe:0.1.0
# docker build -f deploy/docker/vouchsafe.Dockerfile -t registry.example.com/vouchsafe:0.1.0 .
FROM rust:1.95-bookworm AS build
WORKDIR /src
COPY Cargo.toml Cargo.lock ./
COPY src src
COPY benches benches
COPY tests tests
COPY integration integration
RUN cargo rustc --locked --release --bin vouchsafe -- -C target-feature=+crt-static

FROM scratch
COPY --from=build /src/target/release/vouchsafe /usr/local/bin/vouchsafe
USER 65532:65532
ENTRYPOINT ["/usr/local/bin/vouchsafe"]
