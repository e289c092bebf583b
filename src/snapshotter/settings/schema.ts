/** The keys of the configuration: types, bounds and defaults. A message of an issue is what is wanted. Source: docs/containerd-nydus-grpc.md, "Configuration". */
import { totalmem } from 'node:os'
import * as v from 'valibot'
import { parseDuration, parseListenAddress, parseMemoryLimit } from './values.ts'

export const DAEMON_MODES = ['shared', 'dedicated', 'multiple', 'none'] as const
export const FS_DRIVERS = ['fusedev', 'fscache', 'blockdev', 'nodev', 'proxy'] as const
export const RECOVER_POLICIES = ['none', 'restart', 'failover'] as const
const FAILOVER_POLICIES = ['none', 'resend', 'flush'] as const
export const LOG_LEVELS = ['trace', 'debug', 'info', 'warn', 'error'] as const
const EXPORT_MODES = [
  '',
  'none',
  'layer_verity_only',
  'image_verity_only',
  'layer_block',
  'image_block',
  'layer_block_with_verity',
  'image_block_with_verity',
] as const

export const DEFAULT_ROOT = '/var/lib/containerd/io.containerd.snapshotter.v1.nydus'
export const DEFAULT_ADDRESS = '/run/containerd-nydus/containerd-nydus-grpc.sock'
export const DEFAULT_SYSTEM_ADDRESS = '/run/containerd-nydus/system.sock'
export const DEFAULT_CONTAINERD_ADDRESS = '/run/containerd/containerd.sock'
export const DEFAULT_NYDUSD_CONFIG = '/etc/nydus/nydusd-config.json'

/** The root must leave room for the names of sockets below it. */
const MAX_ROOT_BYTES = 70
/** `sun_path` has 108 bytes, the last one NUL. */
const MAX_SOCKET_BYTES = 107
const MAX_PATH_BYTES = 4095
const MAX_ID = 2 ** 32 - 2

const optional = <S extends v.GenericSchema>(schema: S, fallback: v.InferInput<S>) =>
  v.optional(schema, fallback as never)

const flag = (fallback: boolean) => v.optional(v.boolean('true or false'), fallback)

const whole = (from: number, to: number, fallback: number) => {
  const wanted = to === Number.MAX_SAFE_INTEGER ? `a whole number from ${from}` : `a whole number from ${from} to ${to}`
  return v.optional(
    v.pipe(v.number(wanted), v.integer(wanted), v.minValue(from, wanted), v.maxValue(to, wanted)),
    fallback,
  )
}

const word = <const W extends readonly string[]>(words: W, fallback: W[number]) =>
  optional(v.picklist(words, `one of ${words.map((one) => JSON.stringify(one)).join(', ')}`), fallback)

const duration = (fallback: string) => {
  const wanted = 'a duration such as "24h", "1m30s" or "500ms", or whole nanoseconds, of 24 days at most'
  return v.optional(
    v.pipe(
      v.union([v.string(), v.number()], wanted),
      v.check((value) => parseDuration(value) !== undefined, wanted),
      v.transform((value) => parseDuration(value) ?? 0),
    ),
    fallback,
  )
}

const isPath = (text: string, mayBeEmpty: boolean, most: number): boolean =>
  text === '' ? mayBeEmpty : text.startsWith('/') && !text.includes('\0') && Buffer.byteLength(text) <= most

/** An absolute path. */
const path = (fallback: string, most = MAX_PATH_BYTES) => {
  const wanted = most === MAX_PATH_BYTES ? 'an absolute path' : `an absolute path of ${most} bytes at most`
  const mayBeEmpty = fallback === ''
  return v.optional(
    v.pipe(
      v.string(wanted),
      v.check((text) => isPath(text, mayBeEmpty, most), wanted),
    ),
    fallback,
  )
}

const text = (fallback: string, wanted: string) =>
  v.optional(
    v.pipe(
      v.string(wanted),
      v.check((value) => !value.includes('\0'), wanted),
    ),
    fallback,
  )

const listen = () => {
  const wanted = 'a host and a port to listen on, such as "127.0.0.1:9110" or ":9110", or "" for none'
  return v.optional(
    v.pipe(
      v.string(wanted),
      v.check((value) => value === '' || parseListenAddress(value) !== undefined, wanted),
    ),
    '',
  )
}

const size = () => {
  const wanted = 'bytes such as "53687091200", "50GiB" or "50Gi", or "" for no limit'
  // without a part: of what disk it would be is not known here
  const bytes = (value: string): number | undefined => (value.endsWith('%') ? undefined : parseMemoryLimit(value, 0))
  return v.optional(
    v.pipe(
      v.union([v.string(), v.number()], wanted),
      v.transform(String),
      v.check((value) => bytes(value) !== undefined, wanted),
      v.transform((value) => bytes(value) ?? Number.POSITIVE_INFINITY),
    ),
    '',
  )
}

const memory = () => {
  const wanted =
    'bytes such as "209715200", "200MiB" or "200Mi", a part of the memory such as "10%", or "" for no limit'
  return v.optional(
    v.pipe(
      v.union([v.string(), v.number()], wanted),
      v.transform(String),
      v.check((value) => parseMemoryLimit(value, totalmem()) !== undefined, wanted),
      v.transform((value) => parseMemoryLimit(value, totalmem()) ?? Number.POSITIVE_INFINITY),
    ),
    '',
  )
}

const PROGRAM = 'the path of a program, or its name in $PATH'

/** A table that may be missing. */
const table = <E extends v.ObjectEntries>(entries: E) => v.optional(v.object(entries, 'a table'), {} as never)

export const Document = v.object({
  version: v.literal(1, '1'),
  root: v.pipe(
    path(DEFAULT_ROOT, MAX_ROOT_BYTES),
    // options of overlayfs are divided by these
    v.check(
      (text) => !/[:,\\]/.test(text),
      'a path without ":", "," and "\\", which overlayfs cannot have in its options',
    ),
  ),
  address: path(DEFAULT_ADDRESS, MAX_SOCKET_BYTES),
  uid: whole(0, MAX_ID, 0),
  gid: whole(0, MAX_ID, 0),
  daemon_mode: word(DAEMON_MODES, 'shared'),
  cleanup_on_close: flag(false),
  system: table({
    enable: flag(false),
    address: path(DEFAULT_SYSTEM_ADDRESS, MAX_SOCKET_BYTES),
    uid: whole(0, MAX_ID, 0),
    gid: whole(0, MAX_ID, 0),
    debug: table({
      daemon_cpu_profile_duration_secs: whole(0, 3600, 0),
      pprof_address: listen(),
    }),
  }),
  metrics: table({
    address: listen(),
    hung_io_interval: duration('10s'),
    collect_interval: duration('1m'),
  }),
  daemon: table({
    nydusd_path: text('', PROGRAM),
    nydusimage_path: text('', PROGRAM),
    nydusd_config: path(DEFAULT_NYDUSD_CONFIG),
    fs_driver: word(FS_DRIVERS, 'fusedev'),
    recover_policy: word(RECOVER_POLICIES, 'restart'),
    threads_number: whole(0, 1024, 0),
    log_rotation_size: whole(0, 1 << 20, 100),
    failover_policy: word(FAILOVER_POLICIES, 'resend'),
    startup_timeout: duration('30s'),
    hang_timeout: duration('1m'),
  }),
  cgroup: table({ enable: flag(false), memory_limit: memory() }),
  log: table({
    log_to_stdout: flag(false),
    level: word(LOG_LEVELS, 'info'),
    dir: path(''),
    log_rotation_max_size: whole(0, 1 << 20, 200),
    log_rotation_max_backups: whole(0, 10_000, 5),
    log_rotation_max_age: whole(0, 36_500, 0),
    log_rotation_local_time: flag(true),
    log_rotation_compress: flag(true),
  }),
  remote: table({
    convert_vpc_registry: flag(false),
    skip_ssl_verify: flag(false),
    mirrors_config: table({ dir: path('') }),
    auth: table({
      enable_kubeconfig_keychain: flag(false),
      kubeconfig_path: path(''),
      enable_cri_keychain: flag(false),
      image_service_address: path('', MAX_SOCKET_BYTES),
      enable_kubelet_credential_providers: flag(false),
      credential_provider_config: path(''),
      credential_provider_bin_dir: path(''),
      credential_renewal_interval: duration('0s'),
    }),
  }),
  snapshot: table({
    enable_nydus_overlayfs: flag(false),
    nydus_overlayfs_path: text('', PROGRAM),
    enable_kata_volume: flag(false),
    sync_remove: flag(false),
    enable_overlayfs_volatile: flag(false),
    // without a value: only where no container can tell the difference
    enable_erofs_for_cached: v.optional(v.boolean('true or false')),
  }),
  cache_manager: table({ disable: flag(false), gc_period: duration('24h'), cache_dir: path(''), quota: size() }),
  image: table({ public_key_file: path(''), validate_signature: flag(false) }),
  experimental: table({
    enable_stargz: flag(false),
    enable_referrer_detect: flag(false),
    enable_index_detect: flag(false),
    enable_backend_source: flag(false),
    tarfs: table({
      enable_tarfs: flag(false),
      mount_tarfs_on_host: flag(false),
      tarfs_hint: flag(false),
      max_concurrent_proc: whole(0, 1024, 0),
      export_mode: word(EXPORT_MODES, ''),
    }),
  }),
})

export type Document = v.InferOutput<typeof Document>
