#!/bin/sh
# Everything that reads the code without running it: format, lint, types, layers, dead code. All of it runs; the last line names what failed.
cd -- "$(dirname -- "$0")/.." || exit 1
PATH="$PWD/node_modules/.bin:$PATH"
failed=''
step() { # step NAME HOW-TO-REPAIR COMMAND…
  name=$1 repair=$2
  shift 2
  printf '\n== %s\n' "$name"
  "$@" || failed="$failed
  $name: $repair"
}
step format 'npm run format' biome ci .
step lint 'see the findings above' oxlint --type-aware --deny-warnings .
step types 'see the errors above' tsc -p .
step layers 'import from lower rooms, through their doors (ARCHITECTURE.md, "Rooms")' sh scripts/node.sh scripts/layers.ts
step 'dead code' 'delete what nobody uses, or name what starts by name in knip.json' sh scripts/node.sh node_modules/knip/bin/knip.js --no-progress
if [ -n "$failed" ]; then
  printf '\ncheck: failed:%s\n' "$failed" >&2
  exit 1
fi
printf '\ncheck: all in order\n'
