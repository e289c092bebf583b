#!/bin/sh
# Runs a script with the Node 24 that the set-up brought (npm package node-linux-*), else with the PATH's node.
here=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd -P)
case $(uname -m) in x86_64) arch=x64 ;; aarch64) arch=arm64 ;; *) arch=none ;; esac
node="$here/node_modules/node-linux-$arch/bin/node"
if [ ! -x "$node" ]; then
  node=node
  "$node" -e 'process.exit(Number.parseInt(process.versions.node) < 24 ? 1 : 0)' 2>/dev/null || {
    echo "node.sh: Node 24 is needed; it comes with the npm packages: run \"npm run setup\" (this machine's processor: $(uname -m))" >&2
    exit 1
  }
fi
exec "$node" --disable-warning=ExperimentalWarning "$@"
