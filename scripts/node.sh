#!/bin/sh
# Runs a script with the Node 24 that the set-up brought (npm package node-linux-*), else with the PATH's node.
here=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd -P)
case $(uname -m) in x86_64) arch=x64 ;; aarch64) arch=arm64 ;; *) arch=none ;; esac
node="$here/node_modules/node-linux-$arch/bin/node"
[ -x "$node" ] || node=node
exec "$node" --disable-warning=ExperimentalWarning "$@"
