/** What this part needs to know of the configuration; times in milliseconds. The whole is in docs/containerd-nydus-grpc.md. */
export interface DaemonSettings {
  /** Real path of the snapshotter's directory. */
  readonly root: string
  readonly daemonMode: 'shared' | 'dedicated' | 'none'
  readonly cleanupOnClose: boolean
  /** 0 = a daemon's use of processors at its start is not measured. */
  readonly system: { readonly cpuProfileSeconds: number }
  readonly daemon: {
    /** A path, or a name in $PATH. */
    readonly nydusdPath: string
    /** The template of what a nydusd is configured with. */
    readonly configPath: string
    readonly recoverPolicy: 'none' | 'restart' | 'failover'
    /** 0 = as nydusd likes. */
    readonly threads: number
    readonly logRotationMib: number
    readonly failoverPolicy: 'none' | 'resend' | 'flush'
    /** How long a nydusd may take until files can be read. */
    readonly startupTimeoutMs: number
    /** How long a nydusd may not answer before it is taken for one that hangs; 0 = for ever. */
    readonly hangTimeoutMs: number
  }
  readonly cgroup: {
    readonly enable: boolean
    /** Infinity = no limit. */
    readonly memoryLimitBytes: number
  }
  readonly log: { readonly toStdout: boolean; readonly level: string; readonly dir: string }
  readonly cache: {
    readonly dir: string
    /** What the cache may take on the disk; Infinity = all. nydusd keeps to it. */
    readonly quotaBytes: number
  }
  readonly image: { readonly publicKeyFile: string; readonly validateSignature: boolean }
}

/** Where lines for people go. */
export interface DaemonLog {
  error(message: string): void
  warn(message: string): void
  info(message: string): void
  debug(message: string): void
}
