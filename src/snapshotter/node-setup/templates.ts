/** Files of a node, as packages bring them and nydus-setup writes them. `packaging/` has the same texts. */

export const SERVICE = 'containerd-nydus-grpc.service'

/** The unit of the snapshotter; `program` is an absolute path. */
export function serviceUnit(program: string, config = '/etc/nydus/snapshotter.toml'): string {
  return `[Unit]
Description=Nydus snapshotter: container images that start lazily
After=network.target local-fs.target
Before=containerd.service
# However often it fails, containers are not left alone.
StartLimitIntervalSec=0

[Service]
Type=notify
ExecStart=${program} --config ${config}
Restart=always
RestartSec=300ms
# Containers read from the nydusd processes: these outlive a restart of the snapshotter.
KillMode=process
# When all of them are killed at once, the sessions of containers stay with systemd for the next start.
FileDescriptorStoreMax=4096
OOMScoreAdjust=-999
Delegate=yes
LimitNOFILE=1048576
TasksMax=infinity
TimeoutStartSec=120

[Install]
WantedBy=multi-user.target
`
}

export interface SnapshotterConfigOptions {
  readonly root: string
  readonly address: string
}

export const DEFAULT_PLACES: SnapshotterConfigOptions = {
  root: '/var/lib/containerd/io.containerd.snapshotter.v1.nydus',
  address: '/run/containerd-nydus/containerd-nydus-grpc.sock',
}

export function snapshotterConfig({ root, address }: SnapshotterConfigOptions = DEFAULT_PLACES): string {
  return `# docs/containerd-nydus-grpc.md tells every key.
version = 1
root = ${JSON.stringify(root)}
# The socket that containerd uses.
address = ${JSON.stringify(address)}
# "shared": one nydusd for all images. "dedicated": one for each.
daemon_mode = "shared"

[system]
# curl --unix-socket /run/containerd-nydus/system.sock http://localhost/api/v1/daemons
enable = true
address = "/run/containerd-nydus/system.sock"

[daemon]
nydusd_config = "/etc/nydus/nydusd-config.json"
# Containers go on reading when a nydusd dies.
recover_policy = "failover"

[metrics]
# http://127.0.0.1:9110/v1/metrics
address = "127.0.0.1:9110"
`
}

/** What nydusd is configured with; the snapshotter fills in registry, repository, login and cache. */
export const NYDUSD_CONFIG = `{
  "device": {
    "backend": {
      "type": "registry",
      "config": { "timeout": 5, "connect_timeout": 5, "retry_limit": 2 }
    },
    "cache": { "type": "blobcache" }
  },
  "mode": "direct",
  "enable_xattr": true,
  "fs_prefetch": { "enable": true, "prefetch_all": true, "threads_count": 8, "merging_size": 1048576 }
}
`
