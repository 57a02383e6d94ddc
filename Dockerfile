# A static binary alone in its image:
#   docker run -p 8180:8180 -v chantal:/var/lib/chantal chantal
FROM golang:1.26-bookworm AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY . .
RUN CGO_ENABLED=0 go build -trimpath -ldflags='-s -w' -o /out/chantal ./cmd/chantal
# Folders cannot be made in an empty image; this one comes with its owner.
RUN mkdir -p /out/data

FROM scratch
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/
COPY --from=build /out/chantal /usr/bin/chantal
COPY --from=build --chown=65532:65532 /out/data /var/lib/chantal
USER 65532:65532
ENV CHANTAL_DATA=/var/lib/chantal
VOLUME /var/lib/chantal
EXPOSE 8180
ENTRYPOINT ["/usr/bin/chantal", "serve", "--listen", "0.0.0.0:8180"]
