#!/bin/sh
# Brings everything that a command of the README needs, and nothing twice.
#   setup.sh [demo|test|bench]
# 1. the locked npm packages (Node 24 is one of them); 2. for tests, Debian packages that are missing (root only); 3. the build in dist/.
set -e
cd -- "$(dirname -- "$0")/.."
mode=${1:-}
say() { printf 'setup: %s\n' "$*" >&2; }

wanted=$(sha256sum package-lock.json | cut -d' ' -f1)
if [ ! -d node_modules ] || [ "$(cat .setup/npm 2>/dev/null)" != "$wanted" ]; then
  say "installing the locked npm packages (among them Node 24)"
  npm ci --ignore-scripts --no-audit --no-fund --loglevel=error
  mkdir -p .setup
  printf '%s' "$wanted" >.setup/npm
fi

missing=''
need() { # need COMMAND PACKAGE WHY
  command -v "$1" >/dev/null 2>&1 || [ -x "/usr/sbin/$1" ] || { say "missing: $2 ($3)"; missing="$missing $2"; }
}
if [ "$mode" = test ] || [ "$mode" = bench ]; then
  need docker-registry docker-registry 'the end-to-end tests push to it and pull from it'
  need fsck.erofs erofs-utils 'checks that the RAFS v6 images are valid EROFS'
fi
if [ -n "$missing" ]; then
  if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
    say "installing the Debian packages$missing"
    export DEBIAN_FRONTEND=noninteractive
    # Debian starts a registry service on installation; the tests start their own on a free port.
    # shellcheck disable=SC2086
    { apt-get install -y -qq --no-install-recommends $missing >/dev/null 2>&1 ||
      { apt-get update -qq >/dev/null 2>&1 && apt-get install -y -qq --no-install-recommends $missing >/dev/null 2>&1; }; } ||
      say "could not install$missing: what needs them is skipped"
  else
    say "not root, so not installed: what needs them is skipped (as root: apt-get install$missing)"
  fi
fi

source_stamp=$(find src scripts/build.ts package-lock.json -type f \( -name '*.ts' -o -name '*.json' \) ! -name '*.test.ts' -exec sha256sum {} + | LC_ALL=C sort | sha256sum | cut -d' ' -f1)
if [ "$(cat .setup/build 2>/dev/null)" != "$source_stamp" ] || [ ! -d dist ]; then
  say 'building dist/'
  sh scripts/node.sh scripts/build.ts
  mkdir -p .setup
  printf '%s' "$source_stamp" >.setup/build
fi
