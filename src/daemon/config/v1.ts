/** Configuration documents of version 1 (JSON), turned into version 2. Source: docs/configuration.md, "Version 1". */
import * as v from 'valibot'
import {
  BACKENDS,
  type Config,
  ExternalBackends,
  FileCache,
  FsCache,
  IdMapping,
  NO_BACKENDS,
  NO_PREFETCH,
} from './schema.ts'

const number = (fallback: number) => v.optional(v.pipe(v.number(), v.safeInteger(), v.minValue(0)), fallback)
const flag = (fallback: boolean) => v.optional(v.boolean(), fallback)
const MAX_BATCH = 0x1000_0000

const FsPrefetch = v.object({
  enable: flag(false),
  threads_count: number(8),
  merging_size: v.optional(v.pipe(v.number(), v.safeInteger(), v.minValue(0), v.maxValue(MAX_BATCH)), 1 << 20),
  bandwidth_rate: number(0),
  prefetch_all: flag(true),
  stream_prefetch: flag(false),
})

const backendOf = <N extends 'localdisk' | 'localfs' | 'oss' | 's3' | 'registry'>(name: N) =>
  v.object({ type: v.literal(name), config: BACKENDS[name] })

const NoCache = v.object({
  type: v.optional(v.picklist(['', 'dummycache']), ''),
  compressed: flag(false),
  validate: flag(false),
  config: v.optional(v.unknown()),
})
const filesOf = v.object({
  type: v.picklist(['blobcache', 'filecache']),
  compressed: flag(false),
  validate: flag(false),
  config: FileCache,
})
const fscacheOf = v.object({
  type: v.literal('fscache'),
  compressed: flag(false),
  validate: flag(false),
  config: FsCache,
})

export const ConfigV1 = v.object({
  device: v.object({
    id: v.optional(v.string(), ''),
    backend: v.variant('type', [
      backendOf('localdisk'),
      backendOf('localfs'),
      backendOf('oss'),
      backendOf('s3'),
      backendOf('registry'),
    ]),
    external_backends: ExternalBackends,
    cache: v.optional(v.union([filesOf, fscacheOf, NoCache]), {}),
  }),
  mode: v.picklist(['direct', 'cached']),
  digest_validate: flag(false),
  iostats_files: flag(false),
  enable_xattr: flag(false),
  access_pattern: flag(false),
  latest_read_files: flag(false),
  amplify_io: v.optional(v.pipe(v.number(), v.safeInteger(), v.minValue(0), v.maxValue(MAX_BATCH)), 1 << 20),
  fs_prefetch: v.optional(FsPrefetch, {}),
  id_mapping: IdMapping,
})

/** The same settings as a document of version 2. `prefetch_all` is on by default here, and one prefetch table stands for both. */
export function fromV1(of: v.InferOutput<typeof ConfigV1>): Config {
  const { backend, cache } = of.device
  const { fs_prefetch: ahead } = of
  const prefetch = {
    enable: ahead.enable,
    threads: ahead.threads_count,
    batch_size: ahead.merging_size,
    bandwidth_limit: ahead.bandwidth_rate,
    prefetch_all: ahead.prefetch_all,
    stream_prefetch: ahead.stream_prefetch,
  }
  return {
    version: 2,
    id: of.device.id,
    backend: { type: backend.type, ...NO_BACKENDS, [backend.type]: backend.config },
    external_backends: of.device.external_backends,
    cache: {
      type: cache.type,
      compressed: cache.compressed,
      validate: cache.validate,
      prefetch: ahead.enable ? prefetch : { ...NO_PREFETCH, prefetch_all: true },
      filecache: cache.type === 'blobcache' || cache.type === 'filecache' ? cache.config : null,
      fscache: cache.type === 'fscache' ? cache.config : null,
    },
    rafs: {
      mode: of.mode,
      batch_size: of.amplify_io,
      validate: of.digest_validate,
      enable_xattr: of.enable_xattr,
      iostats_files: of.iostats_files,
      access_pattern: of.access_pattern,
      latest_read_files: of.latest_read_files,
      ...(of.id_mapping === undefined ? {} : { id_mapping: of.id_mapping }),
      prefetch,
    },
    overlay: null,
  }
}
