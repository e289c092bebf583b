# Sourced by the launchers of this folder: runs the tool $tool of this package, installed at $home, with the Node 24 that comes with it.
# Without that one (another processor, --omit=optional) the PATH's node serves, if it is new enough.
for node in "$home"/node_modules/node-linux-*/bin/node "${home%/*}"/node-linux-*/bin/node "${home%/*/*}"/node-linux-*/bin/node; do
  [ -x "$node" ] && break
  node=
done
# What runs for a second does not live to see its best code pay: V8 makes that of what ran a hundred thousand times. Another Node's V8 may not know the option.
best=--invocation-count-for-turbofan=100000
if [ -z "$node" ]; then
  best=
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
# --use-system-ca: who gave a node the CA of its registries gave it to all programs of the node, as containerd and the original's tools see it (SSL_CERT_FILE and SSL_CERT_DIR too).
# What a builder keeps, it keeps to the end: a large nursery costs memory and saves no time.
# A snapshotter's would grow with the calls of a minute, by 60 MiB, for nothing in return.
case $tool in
  nydus-image | nydusify) tuning="--max-semi-space-size=4 $best" ;;
  containerd-nydus-grpc) tuning=--max-semi-space-size=8 ;;
  *) tuning= ;;
esac
exec "$node" --disable-warning=ExperimentalWarning --use-system-ca $tuning "$home/dist/$tool.cjs" "$@"
