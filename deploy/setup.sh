#!/usr/bin/env bash
# Makes a fresh clone ready: Debian packages (as root, where apt is), npm packages, the build. Idempotent,
# and quick when there is nothing to do.
#   deploy/setup.sh build   npm packages and the build only
#   deploy/setup.sh demo    and what a real engine needs (docker.io nftables iproute2 conntrack busybox-static)
#   deploy/setup.sh test    and what the lab and Docker's clients in it need; missing root or apt is no error: the tests say what they skip
# Says what is missing and what to type when it can't go on.
set -euo pipefail
cd "$(dirname "$0")/.."
purpose=${1:-build}

say() { printf '%s\n' "$*" >&2; }

need_node() {
  command -v node >/dev/null || { say "Node.js is missing. Install Node 20.19 or newer, then run this again."; exit 1; }
  node -e 'const [a, b] = process.versions.node.split(".").map(Number); process.exit(a > 20 || (a === 20 && b >= 19) ? 0 : 1)' ||
    { say "Node $(node --version) is too old: Shoal needs 20.19 or newer."; exit 1; }
}

# program:package pairs whose program, or file when it begins with a slash, is not there
missing_packages() {
  local pair program
  for pair in "$@"; do
    program=${pair%%:*}
    [ -e "/${program#/}" ] && [ "${program#/}" != "$program" ] && continue
    PATH=$PATH:/usr/sbin:/sbin command -v "$program" >/dev/null || printf '%s ' "${pair##*:}"
  done
}

install_packages() {
  local strict=$1 missing
  shift
  missing=$(missing_packages "$@")
  [ -n "$missing" ] || return 0
  if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
    [ "$strict" = strict ] || return 0
    say "Missing: $missing"
    if command -v apt-get >/dev/null; then say "Type: sudo apt-get install -y $missing"
    else say "Install them with this system's package manager (their names are Debian's)."; fi
    say "Or see it with simulated containers, without root: npm run demo -- --simulate"
    exit 1
  fi
  say "installing $missing"
  # A package that starts a service by itself would leave an engine running that nobody asked for.
  local policy=/usr/sbin/policy-rc.d made=
  if [ ! -e "$policy" ]; then printf '#!/bin/sh\nexit 101\n' >"$policy"; chmod +x "$policy"; made=1; fi
  # shellcheck disable=SC2086
  { DEBIAN_FRONTEND=noninteractive apt-get -q update && DEBIAN_FRONTEND=noninteractive apt-get -q install -y --no-install-recommends $missing; } \
    >/tmp/shoal-apt.log 2>&1 || { [ -z "$made" ] || rm -f "$policy"; say "apt-get failed:"; tail -5 /tmp/shoal-apt.log >&2; exit 1; }
  [ -z "$made" ] || rm -f "$policy"
}

need_modules() {
  # A link leads to the modules of another checkout, which npm ci would take away from under it.
  if [ -L node_modules ]; then
    [ -e node_modules/.package-lock.json ] || { say "node_modules is a link to a folder without packages: run npm ci there, or remove the link."; exit 1; }
    return 0
  fi
  if [ ! -e node_modules/.package-lock.json ] || [ package-lock.json -nt node_modules/.package-lock.json ]; then
    say "installing npm packages"
    npm ci --no-audit --no-fund --loglevel=error >&2
    touch node_modules/.package-lock.json
  fi
}

need_node
client_packages="/usr/lib/python3/dist-packages/docker/__init__.py:python3-docker"
engine_packages="dockerd:docker.io docker:docker.io containerd:containerd runc:runc nft:nftables iptables:iptables ip:iproute2 conntrack:conntrack busybox:busybox-static curl:curl"
# shellcheck disable=SC2086
case $purpose in
  build) ;;
  demo) install_packages strict $engine_packages ;;
  test) install_packages lenient $engine_packages faketime:faketime losetup:mount mkfs.ext4:e2fsprogs wg:wireguard-tools wireguard-go:wireguard-go tcpdump:tcpdump $client_packages ;;
  *) say "usage: deploy/setup.sh build|demo|test"; exit 2 ;;
esac
need_modules
npm run -s build >&2
