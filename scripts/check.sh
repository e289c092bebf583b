#!/bin/sh
# Everything that reads the code without running it: format, lint, types, layers, dead code.
set -e
cd -- "$(dirname -- "$0")/.."
PATH="$PWD/node_modules/.bin:$PATH"
node() { sh scripts/node.sh "$@"; }
biome ci .
oxlint --type-aware --deny-warnings .
tsc -p .
node scripts/layers.ts
node node_modules/knip/bin/knip.js --no-progress
