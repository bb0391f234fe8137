# A static binary in an empty image. Build the binary first:
#   rustup target add x86_64-unknown-linux-musl
#   cargo build --release --locked --target x86_64-unknown-linux-musl
FROM scratch
COPY target/x86_64-unknown-linux-musl/release/ebbtide /ebbtide
USER 65532:65532
EXPOSE 7070 7071
ENTRYPOINT ["/ebbtide"]
CMD ["run"]
