#!/bin/sh
# Brings everything that a command of the README needs, and nothing twice.
#   setup.sh [demo|test|bench]
# 1. the locked npm packages (Node 24 is one of them); 2. for tests and benchmarks, Debian packages that are missing (root only); 3. the build in dist/.
set -e
cd -- "$(dirname -- "$0")/.."
mode=${1:-}
say() { printf 'setup: %s\n' "$*" >&2; }
sum() { sha256sum | cut -d' ' -f1; }

# A stamp in .setup/ describes what was made and from what: what was removed, half made or changed since then has another one.
packages_stamp() {
  { cat package-lock.json && uname -m && ls -d node_modules/*/package.json node_modules/@*/*/package.json; } 2>/dev/null | sum
}
build_stamp() {
  { find src scripts/build.ts scripts/notices.ts test/script-arguments.ts package.json package-lock.json tsconfig.json -type f \( -name '*.ts' -o -name '*.json' \) ! -name '*.test.ts' -exec sha256sum {} + | LC_ALL=C sort &&
    sha256sum dist/*; } 2>/dev/null | sum
}
is_made() { [ "$(cat ".setup/$1" 2>/dev/null)" = "$2" ]; } # is_made NAME STAMP
made() { # made NAME STAMP
  mkdir -p .setup
  printf '%s' "$2" >".setup/$1"
}
may_write() {
  [ -w . ] && return
  say "$1 is needed, and $(id -un 2>/dev/null || id -u) may not write to $PWD: run \"npm run setup\" once as its owner, or use a clone of your own"
  exit 1
}

# Two commands at once in one checkout: the second one waits.
if command -v flock >/dev/null 2>&1 && exec 9<. && ! flock -n 9; then
  say 'another set-up is at work here: waiting for it'
  flock 9
fi

if ! is_made npm "$(packages_stamp)"; then
  may_write 'an installation of the npm packages'
  say 'installing the locked npm packages (among them Node 24)'
  rm -f .setup/npm
  npm ci --ignore-scripts --no-audit --no-fund --loglevel=error >&2 || {
    say 'npm could not install the packages; its last lines tell why. Nothing else was changed: run the command again when that is repaired'
    exit 1
  }
  made npm "$(packages_stamp)"
fi

missing=''
need() { # need COMMAND PACKAGE WHY
  command -v "$1" >/dev/null 2>&1 || [ -x "/usr/sbin/$1" ] || [ -x "/usr/bin/$1" ] || {
    say "missing: Debian package $2 ($3)"
    missing="$missing $2"
  }
}
install_missing() {
  # shellcheck disable=SC2086
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing >/dev/null 2>&1
}
if [ "$mode" = test ] || [ "$mode" = bench ]; then
  need docker-registry docker-registry 'the end-to-end tests push to it and pull from it'
  need fsck.erofs erofs-utils 'checks that the RAFS v6 images are valid EROFS'
  need containerd containerd 'a private one runs containers from our images'
  need runc runc 'runs these containers'
fi
if [ -n "$missing" ]; then
  if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
    say "installing the Debian packages$missing"
    if install_missing || { apt-get update -qq >/dev/null 2>&1 && install_missing; }; then
      # Debian starts a registry and containerd as services; the tests start their own.
      for service in docker-registry containerd; do
        case $missing in *" $service"*) systemctl disable --now "$service" >/dev/null 2>&1 || true ;; esac
      done
    else
      say "could not install$missing: what needs them is skipped"
    fi
  else
    say "not root, so not installed: what needs them is skipped (as root: apt-get install$missing)"
  fi
fi

if ! is_made build "$(build_stamp)"; then
  may_write 'a build of dist/'
  say 'building dist/'
  rm -f .setup/build
  sh scripts/node.sh scripts/build.ts || {
    say 'the build failed: the tools in bin/ do not run until it succeeds ("npm run build" repeats it)'
    exit 1
  }
  made build "$(build_stamp)"
fi
