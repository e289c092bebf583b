import { join } from 'node:path'
import type { Document } from './schema.ts'

/** Everything that the snapshotter does by its configuration: defaults, overridden by the file, overridden by flags. Paths are absolute, times in milliseconds. */
export interface Settings {
  readonly root: string
  /** The socket that containerd uses. */
  readonly address: string
  /** Owner of that socket. */
  readonly uid: number
  readonly gid: number
  /** `multiple` is `dedicated` here. */
  readonly daemonMode: 'shared' | 'dedicated' | 'none'
  readonly cleanupOnClose: boolean
  readonly system: {
    readonly enable: boolean
    readonly address: string
    readonly uid: number
    readonly gid: number
    /** How long a nydusd's use of processors is measured from its start; 0 = not at all. */
    readonly cpuProfileSeconds: number
    /** `host:port`; '' = none. */
    readonly pprofAddress: string
  }
  readonly metrics: {
    /** `host:port`; '' = no metrics are served. */
    readonly address: string
    readonly hungIoIntervalMs: number
    readonly collectIntervalMs: number
  }
  readonly daemon: {
    /** A path, a name in $PATH, or '' = look for it: {@link findProgram}. */
    readonly nydusdPath: string
    readonly nydusImagePath: string
    /** The template of what a nydusd is configured with. */
    readonly configPath: string
    readonly fsDriver: Document['daemon']['fs_driver']
    readonly recoverPolicy: Document['daemon']['recover_policy']
    /** 0 = as nydusd likes. */
    readonly threads: number
    readonly logRotationMib: number
    readonly failoverPolicy: Document['daemon']['failover_policy']
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
  readonly log: {
    readonly toStdout: boolean
    readonly level: Document['log']['level']
    readonly dir: string
    /** 0 = never put aside by size. */
    readonly maxSizeMib: number
    /** 0 = all are kept. */
    readonly maxBackups: number
    /** 0 = for ever. */
    readonly maxAgeDays: number
    readonly localTime: boolean
    readonly compress: boolean
  }
  readonly remote: {
    readonly skipSslVerify: boolean
    /** Directory of `hosts.toml` files; '' = none. */
    readonly mirrorsDir: string
    readonly auth: {
      readonly kubeconfig: { readonly enable: boolean; readonly path: string }
      readonly cri: { readonly enable: boolean; readonly imageServiceAddress: string }
      readonly kubelet: { readonly enable: boolean; readonly config: string; readonly binDir: string }
      /** 0 = credentials are not renewed. */
      readonly renewalIntervalMs: number
    }
  }
  readonly snapshot: {
    readonly nydusOverlayfs: boolean
    /** What follows `fuse.` in the type of a mount. */
    readonly nydusOverlayfsPath: string
    readonly kataVolume: boolean
    readonly syncRemove: boolean
    /** Whether the kernel shows images whose data is all in the cache: `alike` where containers cannot tell, `possible` where it can at all. */
    readonly erofsForCached: 'never' | 'alike' | 'possible'
    readonly volatile: boolean
  }
  readonly cache: {
    readonly dir: string
    readonly gc: boolean
    readonly gcPeriodMs: number
    /** What the cache may take on the disk; Infinity = all. */
    readonly quotaBytes: number
  }
  readonly image: { readonly publicKeyFile: string; readonly validateSignature: boolean }
  readonly stargz: boolean
  readonly referrerDetect: boolean
  readonly indexDetect: boolean
  readonly tarfs: {
    readonly enable: boolean
    readonly mountOnHost: boolean
    readonly hint: boolean
    /** 0 = as many as is good. */
    readonly concurrency: number
    /** undefined = nothing is exported. */
    readonly exportMode: Exclude<Document['experimental']['tarfs']['export_mode'], '' | 'none'> | undefined
  }
  /** What a person should know of this configuration; a line each. */
  readonly warnings: readonly string[]
}

const HELPER = 'nydus-overlayfs'

/** A checked document in the words of the code. */
export function settingsOf(of: Document, containerdAddress: string, warnings: readonly string[]): Settings {
  const { system, metrics, cgroup, image, experimental } = of
  return {
    root: of.root,
    address: of.address,
    uid: of.uid,
    gid: of.gid,
    daemonMode: modeOf(of),
    cleanupOnClose: of.cleanup_on_close,
    system: {
      enable: system.enable,
      address: system.address,
      uid: system.uid,
      gid: system.gid,
      cpuProfileSeconds: system.debug.daemon_cpu_profile_duration_secs,
      pprofAddress: system.debug.pprof_address,
    },
    metrics: {
      address: metrics.address,
      hungIoIntervalMs: metrics.hung_io_interval,
      collectIntervalMs: metrics.collect_interval,
    },
    daemon: daemonOf(of.daemon),
    cgroup: { enable: cgroup.enable, memoryLimitBytes: cgroup.memory_limit },
    log: logOf(of),
    remote: remoteOf(of.remote, containerdAddress),
    snapshot: snapshotOf(of.snapshot),
    cache: {
      dir: of.cache_manager.cache_dir || join(of.root, 'cache'),
      gc: !of.cache_manager.disable,
      gcPeriodMs: of.cache_manager.gc_period,
      quotaBytes: of.cache_manager.quota,
    },
    image: { publicKeyFile: image.public_key_file, validateSignature: image.validate_signature },
    stargz: experimental.enable_stargz,
    referrerDetect: experimental.enable_referrer_detect,
    indexDetect: experimental.enable_index_detect,
    tarfs: tarfsOf(experimental.tarfs),
    warnings,
  }
}

/** The kernel's fscache has one user: its driver knows no other mode. */
function modeOf({ daemon_mode: mode, daemon }: Document): Settings['daemonMode'] {
  if (daemon.fs_driver === 'fscache') return 'shared'
  return mode === 'multiple' ? 'dedicated' : mode
}

function daemonOf(of: Document['daemon']): Settings['daemon'] {
  return {
    nydusdPath: of.nydusd_path,
    nydusImagePath: of.nydusimage_path,
    configPath: of.nydusd_config,
    fsDriver: of.fs_driver,
    recoverPolicy: of.recover_policy,
    threads: of.threads_number,
    logRotationMib: of.log_rotation_size,
    failoverPolicy: of.failover_policy,
    startupTimeoutMs: of.startup_timeout,
    hangTimeoutMs: of.hang_timeout,
  }
}

function logOf({ log, root }: Document): Settings['log'] {
  return {
    toStdout: log.log_to_stdout,
    level: log.level,
    dir: log.dir || join(root, 'logs'),
    maxSizeMib: log.log_rotation_max_size,
    maxBackups: log.log_rotation_max_backups,
    maxAgeDays: log.log_rotation_max_age,
    localTime: log.log_rotation_local_time,
    compress: log.log_rotation_compress,
  }
}

function remoteOf({ auth, ...of }: Document['remote'], containerdAddress: string): Settings['remote'] {
  return {
    skipSslVerify: of.skip_ssl_verify,
    mirrorsDir: of.mirrors_config.dir,
    auth: {
      kubeconfig: { enable: auth.enable_kubeconfig_keychain, path: auth.kubeconfig_path },
      cri: { enable: auth.enable_cri_keychain, imageServiceAddress: auth.image_service_address || containerdAddress },
      kubelet: {
        enable: auth.enable_kubelet_credential_providers,
        config: auth.credential_provider_config,
        binDir: auth.credential_provider_bin_dir,
      },
      renewalIntervalMs: auth.credential_renewal_interval,
    },
  }
}

function snapshotOf(of: Document['snapshot']): Settings['snapshot'] {
  return {
    nydusOverlayfs: of.enable_nydus_overlayfs,
    nydusOverlayfsPath: of.nydus_overlayfs_path || HELPER,
    kataVolume: of.enable_kata_volume,
    syncRemove: of.sync_remove,
    erofsForCached: erofsWish(of.enable_erofs_for_cached),
    volatile: of.enable_overlayfs_volatile,
  }
}

function erofsWish(value: boolean | undefined): Settings['snapshot']['erofsForCached'] {
  if (value === undefined) return 'alike'
  return value ? 'possible' : 'never'
}

function tarfsOf(of: Document['experimental']['tarfs']): Settings['tarfs'] {
  return {
    enable: of.enable_tarfs,
    mountOnHost: of.mount_tarfs_on_host,
    hint: of.tarfs_hint,
    concurrency: of.max_concurrent_proc,
    exportMode: of.export_mode === '' || of.export_mode === 'none' ? undefined : of.export_mode,
  }
}
