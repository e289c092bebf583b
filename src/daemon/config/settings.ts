import type { ImageCacheForm } from '../../engine/index.ts'
import { DaemonError } from '../errors.ts'
import type { RecordedOfFiles } from '../file-counters.ts'
import type { Config, HttpProxyConfig, OssConfig, RegistryConfig, S3Config } from './schema.ts'

/** Directories of the host, on one file system: what was changed, and the place where it is made. */
export interface OverlaySettings {
  readonly upper: string
  readonly work: string
}

/** Owners `inside` to `inside + count - 1` are shown as `outside` and the following ones; others as they are. */
export interface OwnerMapping {
  readonly inside: number
  readonly outside: number
  readonly count: number
}

/** What a mount does with its configuration; everything that this version cannot do has been refused. */
export interface MountSettings {
  readonly source:
    | { readonly kind: 'localfs'; readonly blobFile: string; readonly dir: string; readonly altDirs: readonly string[] }
    | { readonly kind: 'registry'; readonly registry: RegistryConfig }
    | { readonly kind: 'http-proxy'; readonly httpProxy: HttpProxyConfig }
    | { readonly kind: 'oss'; readonly oss: OssConfig }
    | { readonly kind: 's3'; readonly s3: S3Config }
    | { readonly kind: 'localdisk'; readonly devicePath: string; readonly isWhole: boolean }
  /** Where verified chunks are kept; undefined = in memory only. */
  readonly cacheDirectory: string | undefined
  readonly cacheForm: ImageCacheForm
  /** What the cache directory may take, bytes; 0 = no limit. */
  readonly cacheBytes: number
  readonly amplifyBytes: number
  readonly prefetch: {
    readonly enabled: boolean
    readonly everything: boolean
    /** Everything in the order of the blobs, in the place of all lists. */
    readonly isStream: boolean
    readonly requests: number
    /** Bytes a second, 0 = no limit. */
    readonly bandwidth: number
  }
  /** What is recorded of each file. */
  readonly recorded: RecordedOfFiles
  /** undefined = owners are shown as they are in the image. */
  readonly owners: OwnerMapping | undefined
  /** A read gives up after this. */
  readonly readDeadlineMs: number
  /** Where changes of the image go; undefined = it cannot be changed. */
  readonly overlay: OverlaySettings | undefined
  /** Keys that are accepted and have no effect here, for the log. */
  readonly ignored: readonly string[]
}

/** Tries of one read of a registry when `retry_limit` is 0 or missing. */
export const DEFAULT_RETRIES = 3
const MAX_DEADLINE_MS = 120_000
const LOCAL_DEADLINE_MS = 30_000
const MAX_PREFETCH_REQUESTS = 32
/** The number after it means "no id" in calls. */
const MAX_ID = 0xffff_fffe
/** Of AES-128-XTS: two keys. */
const KEY_BYTES = 32

/** Turns a document into settings. Throws DaemonError 'UNSUPPORTED' or 'BAD_CONFIG' naming the key. */
export function settingsOf(config: Config): MountSettings {
  const { cache, rafs } = config
  const source = blobSourceOf(config)
  if (cache === null) throw wrong('cache', 'no configuration information for cache')
  if (rafs === null) throw wrong('rafs', 'no configuration information for rafs')
  const { prefetch } = rafs
  return {
    source,
    cacheDirectory: cacheDirectoryOf(cache),
    cacheForm: cacheFormOf(cache),
    cacheBytes: cache.filecache?.size_limit ?? 0,
    amplifyBytes: rafs.batch_size,
    prefetch: {
      enabled: prefetch.enable,
      everything: prefetch.prefetch_all || prefetch.stream_prefetch,
      isStream: prefetch.stream_prefetch,
      requests: Math.max(1, Math.min(prefetch.threads, MAX_PREFETCH_REQUESTS)),
      bandwidth: prefetch.bandwidth_limit,
    },
    recorded: { counts: rafs.iostats_files, pattern: rafs.access_pattern, latest: rafs.latest_read_files },
    owners: ownersOf(config),
    readDeadlineMs: deadlineOf(networkOf(config)),
    overlay: overlayOf(config),
    ignored: ignoredKeys(config),
  }
}

/** As the snapshotter writes it for containers in a user namespace. */
function ownersOf({ rafs, overlay }: Config): OwnerMapping | undefined {
  const [inside, outside, count] = rafs?.id_mapping ?? [0, 0, 0]
  if (count === 0) return undefined
  if (Math.max(inside, outside) + count > MAX_ID)
    throw wrong('rafs.id_mapping', `it goes past the largest id, ${MAX_ID}`)
  if (overlay !== null) throw unsupported('rafs.id_mapping together with overlay', 'leave one of them out')
  return { inside, outside, count }
}

function overlayOf({ overlay }: Config): OverlaySettings | undefined {
  if (overlay === null) return undefined
  const { upper_dir: upper, work_dir: work } = overlay
  if (upper === '' || work === '')
    throw new DaemonError('BAD_CONFIG', 'cannot use the configuration: "overlay" needs "upper_dir" and "work_dir"', {
      wire: 'invalid argument `workdir and upperdir must be specified for overlayfs`',
    })
  return { upper, work }
}

/** Where blobs come from, of a document that need not describe a mount. Throws as `settingsOf` does. */
export function blobSourceOf({ backend }: Config): MountSettings['source'] {
  if (backend === null) throw wrong('backend', 'no configuration information for backend')
  switch (backend.type) {
    case 'localfs': {
      if (backend.localfs === null) throw wrong('backend.localfs', 'the table is missing')
      const { blob_file: blobFile, dir, alt_dirs: altDirs } = backend.localfs
      if (blobFile === '' && dir === '') throw wrong('backend.localfs', 'give "dir" or "blob_file"')
      return { kind: 'localfs', blobFile, dir, altDirs }
    }
    case 'registry': {
      if (backend.registry === null) throw wrong('backend.registry', 'the table is missing')
      return { kind: 'registry', registry: backend.registry }
    }
    case 'http-proxy': {
      const httpProxy = backend['http-proxy']
      if (httpProxy === null) throw wrong('backend.http-proxy', 'the table is missing')
      return { kind: 'http-proxy', httpProxy }
    }
    case 'localdisk': {
      if (backend.localdisk === null) throw wrong('backend.localdisk', 'the table is missing')
      const { device_path: devicePath, disable_gpt: isWhole } = backend.localdisk
      if (devicePath === '') throw wrong('backend.localdisk.device_path', 'it is empty')
      return { kind: 'localdisk', devicePath, isWhole }
    }
    case 'oss':
      if (backend.oss === null) throw wrong('backend.oss', 'the table is missing')
      return { kind: 'oss', oss: backend.oss }
    case 's3':
      if (backend.s3 === null) throw wrong('backend.s3', 'the table is missing')
      return { kind: 's3', s3: backend.s3 }
    default:
      return backend.type satisfies never
  }
}

function cacheDirectoryOf(cache: NonNullable<Config['cache']>): string | undefined {
  switch (cache.type) {
    case '':
    case 'dummycache':
      return undefined
    case 'fscache':
      throw unsupported('cache.type = "fscache"', 'use blobcache')
    case 'blobcache':
    case 'filecache': {
      if (cache.filecache === null) throw wrong('cache.filecache', 'the table is missing')
      if (cache.filecache.work_dir === '') throw wrong('cache.filecache.work_dir', 'it is empty')
      return cache.filecache.work_dir
    }
    default:
      return cache.type satisfies never
  }
}

function cacheFormOf({ compressed, validate, filecache }: NonNullable<Config['cache']>): ImageCacheForm {
  if (filecache?.enable_encryption !== true) return { compressed, validate, encryption: undefined }
  if (compressed)
    throw wrong(
      'cache.compressed',
      'what is kept as it is stored is not encrypted: leave it, or "cache.filecache.enable_encryption", false',
    )
  const { encryption_key: hex, enable_convergent_encryption: convergent } = filecache
  const name = 'cache.filecache.encryption_key'
  if (!/^([0-9a-f]{2})*$/i.test(hex))
    throw wrong(name, 'invalid cache file encryption key: write 64 hexadecimal digits')
  const key = Buffer.from(hex, 'hex')
  if (key.length !== KEY_BYTES)
    throw wrong(name, `invalid key length ${key.length} for Aes128Xts encryption: write 64 hexadecimal digits`)
  if (key.subarray(0, KEY_BYTES / 2).equals(key.subarray(KEY_BYTES / 2)))
    throw wrong(name, 'invalid symmetry key for encryption: its halves must differ')
  return { compressed, validate, encryption: { key, convergent } }
}

/** Addresses in the table are checked when the backend is made. A table of any backend but those has no proxy. */
export function proxyOf(config: Config): NetworkConfig['proxy'] | undefined {
  return networkOf(config)?.proxy
}

type NetworkConfig = RegistryConfig | HttpProxyConfig | OssConfig | S3Config

/** The keys of the chosen backend that say how patient it is; null for what is on this machine. */
function networkOf({ backend }: Config): NetworkConfig | null {
  if (backend === null || backend.type === 'localfs' || backend.type === 'localdisk') return null
  return backend[backend.type]
}

/** All tries of one read and some time for what waits before it; a time-out of 0 (none) must not mean a reader that hangs for ever. */
function deadlineOf(network: NetworkConfig | null): number {
  if (network === null) return LOCAL_DEADLINE_MS
  if (network.timeout === 0) return MAX_DEADLINE_MS
  const tries = 1 + (network.retry_limit === 0 ? DEFAULT_RETRIES : network.retry_limit)
  return Math.min(MAX_DEADLINE_MS, (network.timeout + network.connect_timeout) * 1000 * tries + 10_000)
}

function ignoredKeys(config: Config): string[] {
  const { cache } = config
  return [
    ...(cache?.filecache?.enable_convergent_encryption === true && !cache.filecache.enable_encryption
      ? ['cache.filecache.enable_convergent_encryption']
      : []),
    ...(cache?.filecache?.disable_indexed_map === true ? ['cache.filecache.disable_indexed_map'] : []),
  ]
}

function wrong(key: string, what: string): DaemonError {
  return new DaemonError('BAD_CONFIG', `cannot use the configuration: "${key}": ${what}`, {
    wire: 'RAFS failed to handle request, Failed to load config: failed to parse configuration information`',
  })
}

function unsupported(key: string, instead: string): DaemonError {
  const message = `cannot use the configuration: this version does not do ${key}; ${instead}`
  return new DaemonError('UNSUPPORTED', message, {
    wire: `RAFS failed to handle request, Failed to configure device: ${message}\``,
  })
}

/** The document as the API may show it: without logins. */
export function withoutSecrets(config: Config): Config {
  const { backend } = config
  if (backend === null) return config
  const bucket = { access_key_id: '', access_key_secret: '', session_token: '' }
  const proxied = <T extends { readonly proxy: { readonly url: string; readonly ping_url: string } }>(of: T): T => ({
    ...of,
    proxy: { ...of.proxy, url: withoutLogin(of.proxy.url), ping_url: withoutLogin(of.proxy.ping_url) },
  })
  return {
    ...config,
    cache:
      config.cache?.filecache == null
        ? config.cache
        : { ...config.cache, filecache: { ...config.cache.filecache, encryption_key: '' } },
    external_backends: config.external_backends.map(({ type }) => ({ type, config: {}, patch: {} })),
    backend: {
      ...backend,
      oss: backend.oss === null ? null : { ...proxied(backend.oss), ...bucket },
      s3: backend.s3 === null ? null : { ...proxied(backend.s3), ...bucket },
      registry: backend.registry === null ? null : registryWithoutSecrets(proxied(backend.registry)),
      'http-proxy': backend['http-proxy'] === null ? null : httpProxyWithoutSecrets(proxied(backend['http-proxy'])),
    },
  }
}

function httpProxyWithoutSecrets(of: HttpProxyConfig): HttpProxyConfig {
  return { ...of, addr: withoutLogin(of.addr) }
}

function registryWithoutSecrets(of: RegistryConfig): RegistryConfig {
  const { mirrors, scheme = 'https', ...rest } = of
  return {
    scheme,
    ...rest,
    auth: null,
    registry_token: null,
    ...(mirrors === undefined
      ? {}
      : { mirrors: mirrors.map((mirror) => ({ ...mirror, host: withoutLogin(mirror.host), headers: {} })) }),
  }
}

/** A login ends at the last @ before the path: passwords may have one too. */
function withoutLogin(url: string): string {
  return url.replace(/^([a-z]+:\/\/)[^/?#]*@/i, '$1')
}
