/** Configuration documents of version 2: keys, types and defaults. Source: docs/configuration.md. */
import * as v from 'valibot'

const text = (fallback: string) => v.optional(v.string(), fallback)
const flag = (fallback: boolean) => v.optional(v.boolean(), fallback)
const count = (fallback: number) => v.optional(v.pipe(v.number(), v.safeInteger(), v.minValue(0)), fallback)
const maybeText = v.optional(v.nullable(v.string()), null)
const texts = v.optional(v.array(v.string()), [])
/** A table that may be missing or null; JSON answers show null. */
const maybe = <T extends v.GenericSchema>(schema: T) => v.optional(v.nullable(schema), null)

const Proxy = v.object({
  url: text(''),
  ping_url: text(''),
  fallback: flag(true),
  check_interval: count(5),
  check_pause_elapsed: count(300),
  use_http: flag(false),
  dragonfly_scheduler_endpoint: text(''),
})

const network = {
  skip_verify: flag(false),
  ca_cert_files: texts,
  timeout: count(5),
  connect_timeout: count(5),
  retry_limit: count(0),
  proxy: v.optional(Proxy, {}),
}

const Mirror = v.object({
  host: v.pipe(v.string(), v.regex(/^https?:\/\//)),
  headers: v.optional(v.record(v.string(), v.string()), {}),
  failure_limit: count(5),
  health_check_interval: count(5),
  ping_url: text(''),
})

const bucket = {
  bucket_name: v.string(),
  object_prefix: text(''),
  access_key_id: text(''),
  access_key_secret: text(''),
  session_token: text(''),
}

/** A sub-table a backend type. */
export const BACKENDS = {
  localdisk: v.object({ device_path: text(''), disable_gpt: flag(false) }),
  localfs: v.object({ blob_file: text(''), dir: text(''), alt_dirs: texts }),
  oss: v.object({ scheme: text('https'), endpoint: v.string(), ...bucket, ...network }),
  s3: v.object({ scheme: text('https'), endpoint: v.string(), region: v.string(), ...bucket, ...network }),
  registry: v.object({
    scheme: v.optional(v.string()),
    host: v.pipe(v.string(), v.nonEmpty()),
    repo: v.pipe(v.string(), v.nonEmpty()),
    auth: maybeText,
    registry_token: maybeText,
    blob_url_scheme: text(''),
    blob_redirected_host: text(''),
    mirrors: v.optional(v.array(Mirror)),
    ...network,
  }),
  'http-proxy': v.object({ addr: v.string(), path: text(''), ...network }),
} as const

/** The tables of a document that has none of them yet. */
export const NO_BACKENDS = { localdisk: null, localfs: null, oss: null, s3: null, registry: null, 'http-proxy': null }

export const FileCache = v.object({
  work_dir: text('.'),
  disable_indexed_map: flag(false),
  enable_encryption: flag(false),
  enable_convergent_encryption: flag(false),
  encryption_key: text(''),
  /** Bytes; not a key of the original's. */
  size_limit: v.optional(v.pipe(v.number(), v.safeInteger(), v.minValue(0))),
})
export const FsCache = v.object({ work_dir: text('.') })

const MAX_BATCH = 0x1000_0000
/** `enable` is required when the table is there; without the table nothing is fetched ahead. */
const Prefetch = v.object({
  enable: v.boolean(),
  threads: count(8),
  batch_size: v.optional(v.pipe(v.number(), v.safeInteger(), v.minValue(0), v.maxValue(MAX_BATCH)), 1 << 20),
  bandwidth_limit: count(0),
  prefetch_all: flag(false),
  stream_prefetch: flag(false),
})
export const NO_PREFETCH = {
  enable: false,
  threads: 0,
  batch_size: 0,
  bandwidth_limit: 0,
  prefetch_all: false,
  stream_prefetch: false,
} as const

const Cache = v.object({
  type: v.optional(v.picklist(['', 'dummycache', 'blobcache', 'filecache', 'fscache']), ''),
  compressed: flag(false),
  validate: flag(false),
  prefetch: v.optional(Prefetch, NO_PREFETCH),
  filecache: maybe(FileCache),
  fscache: maybe(FsCache),
})

const id = v.pipe(v.number(), v.integer(), v.minValue(0), v.maxValue(0xffff_ffff))
/** Owners from the first number on are shown from the second one on; the third one says how many. */
export const IdMapping = v.optional(v.nullable(v.tuple([id, id, id])))

const Rafs = v.object({
  mode: v.optional(v.picklist(['direct', 'cached']), 'direct'),
  batch_size: v.optional(v.pipe(v.number(), v.safeInteger(), v.minValue(0), v.maxValue(MAX_BATCH)), 1 << 20),
  validate: flag(false),
  enable_xattr: flag(false),
  iostats_files: flag(false),
  access_pattern: flag(false),
  latest_read_files: flag(false),
  id_mapping: IdMapping,
  prefetch: v.optional(Prefetch, NO_PREFETCH),
})

const ExternalBackend = v.object({
  patch: v.record(v.string(), v.string()),
  type: v.string(),
  config: v.record(v.string(), v.string()),
})
export const ExternalBackends = v.optional(v.array(ExternalBackend), [])

const Backend = v.object({
  type: v.picklist(['localdisk', 'localfs', 'oss', 's3', 'registry', 'http-proxy']),
  localdisk: maybe(BACKENDS.localdisk),
  localfs: maybe(BACKENDS.localfs),
  oss: maybe(BACKENDS.oss),
  s3: maybe(BACKENDS.s3),
  registry: maybe(BACKENDS.registry),
  'http-proxy': maybe(BACKENDS['http-proxy']),
})

/** A whole document of version 2. */
export const ConfigV2 = v.object({
  version: v.literal(2),
  id: text(''),
  backend: maybe(Backend),
  external_backends: ExternalBackends,
  cache: maybe(Cache),
  rafs: maybe(Rafs),
  overlay: maybe(v.object({ upper_dir: v.string(), work_dir: v.string() })),
})
/** What all documents become; also the form in which the API shows it. */
export type Config = v.InferOutput<typeof ConfigV2>
export type RegistryConfig = v.InferOutput<(typeof BACKENDS)['registry']>
export type OssConfig = v.InferOutput<(typeof BACKENDS)['oss']>
export type S3Config = v.InferOutput<(typeof BACKENDS)['s3']>
export type HttpProxyConfig = v.InferOutput<(typeof BACKENDS)['http-proxy']>
