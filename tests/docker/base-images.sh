#!/usr/bin/env bash
# Makes base images for the container stack on a host that reaches no registry of images, only Debian's packages:
#
#   halm-test-base/debian   what debootstrap makes, as debian:bookworm-slim
#   halm-test-base/rust     the same with gcc and this host's Rust toolchain, as rust:1.95-slim-bookworm
#   halm-test-base/nats     a static busybox and the nats-server at $NATS_SERVER, as nats:2.12-alpine
#
# An image that is there stays. Needs root, Docker, debootstrap and rustup's or another toolchain with a sysroot.
set -euo pipefail

suite=bookworm
mirror=${DEBIAN_MIRROR:-http://deb.debian.org/debian}
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

missing() { ! docker image inspect "$1" >/dev/null 2>&1; }

import() {
  local name=$1 root=$2
  shift 2
  tar -C "$root" --numeric-owner -c . | docker import "$@" - "$name" >/dev/null
  echo "made $name: $(docker image inspect --format '{{.Size}}' "$name") bytes" >&2
}

debian() {
  local root=$1 include=$2
  debootstrap --variant=minbase --include="$include" "$suite" "$root" "$mirror" >"$scratch/debootstrap.log" ||
    { tail -20 "$scratch/debootstrap.log" >&2; exit 1; }
  rm -rf "$root"/var/cache/apt/* "$root"/var/lib/apt/lists/* "$root"/usr/share/{doc,man,locale}
}

if missing halm-test-base/debian; then
  debian "$scratch/debian" ca-certificates
  import halm-test-base/debian "$scratch/debian"
fi

if missing halm-test-base/rust; then
  debian "$scratch/rust" gcc,libc6-dev,ca-certificates
  sysroot=$(rustc --print sysroot)
  mkdir -p "$scratch/rust/usr/local/rust/bin"
  cp -L "$sysroot"/bin/{cargo,rustc} "$scratch/rust/usr/local/rust/bin/"
  cp -a "$(realpath "$sysroot")/lib" "$scratch/rust/usr/local/rust/"
  # Whom this host trusts; its packages may come through somebody that Debian does not know.
  cp -L /etc/ssl/certs/ca-certificates.crt "$scratch/rust/etc/ssl/certs/ca-certificates.crt"
  import halm-test-base/rust "$scratch/rust" \
    --change 'ENV PATH=/usr/local/rust/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin' \
    --change 'ENV SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt'
fi

if missing halm-test-base/nats; then
  mkdir -p "$scratch/nats"/{bin,usr/local/bin,etc/nats,tmp,proc,sys,dev}
  (cd "$scratch" && apt-get -o APT::Sandbox::User=root download -qq busybox-static && dpkg-deb -x busybox-static_*.deb busybox)
  cp "$scratch/busybox/bin/busybox" "$scratch/nats/bin/busybox"
  for applet in sh cat chown cp head mv tr wc wget; do ln -s busybox "$scratch/nats/bin/$applet"; done
  cp "$NATS_SERVER" "$scratch/nats/usr/local/bin/nats-server"
  import halm-test-base/nats "$scratch/nats" --change 'ENV PATH=/usr/local/bin:/bin'
fi
