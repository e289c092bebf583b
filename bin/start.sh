# Sourced by the launchers of this folder: runs the tool $tool of this package, installed at $home, with the Node 24 that comes with it.
# Without that one (another processor, --omit=optional) the PATH's node serves, if it is new enough.
for node in "$home"/node_modules/node-linux-*/bin/node "${home%/*}"/node-linux-*/bin/node "${home%/*/*}"/node-linux-*/bin/node; do
  [ -x "$node" ] && break
  node=
done
# What a builder keeps, it keeps to the end: a large nursery costs memory and saves no time. It runs for seconds: what it does some thousand times is not worth the best code that V8 can make of it,
# which takes longer than it saves.
tuning='--max-semi-space-size=4 --invocation-count-for-turbofan=30000'
if [ -z "$node" ]; then
  # Another V8 may not know the second.
  tuning=--max-semi-space-size=4
  node=$(command -v node) || node=/usr/bin/node
  if ! "$node" -e 'process.exit(Number.parseInt(process.versions.node) < 24 ? 1 : 0)' 2>/dev/null; then
    echo "$tool: needs Node 24 or newer, and $node is not; install this package with its optional dependencies (npm ci), which bring it" >&2
    exit 1
  fi
fi
if [ ! -f "$home/dist/$tool.cjs" ]; then
  echo "$tool: $home/dist/$tool.cjs is missing; run \"npm run setup\" in $home" >&2
  exit 1
fi
export UV_THREADPOOL_SIZE="${UV_THREADPOOL_SIZE:-16}" MALLOC_ARENA_MAX="${MALLOC_ARENA_MAX:-2}" NODE_COMPILE_CACHE="$home/dist/.cache"
case $tool in nydus-image | nydusify) ;; *) tuning= ;; esac
exec "$node" --disable-warning=ExperimentalWarning $tuning "$home/dist/$tool.cjs" "$@"
