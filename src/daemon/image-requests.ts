import type { ChunkDedup } from '../cache/index.ts'
import { parseConfig } from './config/document.ts'
import type { Config } from './config/schema.ts'
import { settingsOf } from './config/settings.ts'
import { DaemonError } from './errors.ts'
import type { MountRecord } from './handover/session-state.ts'
import type { ImageRequest } from './image.ts'
import { liveLogin } from './live-login.ts'
import { liveProxy, schedulerNotice } from './live-proxy.ts'
import type { Log } from './log.ts'

/** What to mount at the start. */
export interface InitialMount {
  /** Place inside the session. */
  readonly path: string
  readonly source: string
  /** The configuration document. */
  readonly document: string
  readonly prefetchFiles: readonly string[]
  /** In the place of the document's registry login. */
  readonly auth?: string | undefined
}

/** A request of the API to mount. */
export interface MountRequest {
  readonly source: string
  readonly fs_type: string
  readonly config: string
  readonly prefetch_files: readonly string[] | null
}

type Wanted = Omit<InitialMount, 'path'>

interface Parts {
  readonly threads: number
  readonly dedup?: ChunkDedup | undefined
  readonly log: Log
}

/** Turns what somebody wants mounted, in its own words, into requests for images; what a document has without effect is logged. */
export class ImageRequests {
  readonly #parts: Parts
  readonly #dynamic: ReadonlyMap<string, string>

  /** `dynamic`: settings that the API changes, `<mount path>:<key>` to value. */
  constructor(parts: Parts, dynamic: ReadonlyMap<string, string>) {
    this.#parts = parts
    this.#dynamic = dynamic
  }

  /** Throws DaemonError 'BAD_CONFIG', 'UNSUPPORTED'. */
  of(path: string, from: Wanted): ImageRequest {
    const { log, threads, dedup } = this.#parts
    const { config: written, unknownKeys } = parseConfig(from.document, `of mount ${path}`)
    const config = from.auth === undefined ? written : withAuth(written, from.auth)
    if (unknownKeys.length > 0)
      log.warn(`configuration of ${path}: unknown keys, without effect: ${unknownKeys.join(', ')}`)
    const { ignored } = settingsOf(config)
    if (ignored.length > 0) log.warn(`configuration of ${path}: without effect in this version: ${ignored.join(', ')}`)
    const notice = schedulerNotice(config)
    if (notice !== undefined) log.warn(`configuration of ${path}: ${notice}`)
    return {
      source: from.source,
      document: config === written ? from.document : undefined,
      config,
      prefetchFiles: from.prefetchFiles,
      threads,
      dedup,
      login: liveLogin(path, this.#dynamic),
      proxy: liveProxy(path, this.#dynamic, (text) => log.warn(`${path}: ${text}`)),
    }
  }
}

function withAuth(config: Config, auth: string): Config {
  const { backend } = config
  if (backend === null || backend.registry === null) return config
  return { ...config, backend: { ...backend, registry: { ...backend.registry, auth } } }
}

export function fromApi(request: MountRequest): Wanted {
  return { source: request.source, document: request.config, prefetchFiles: request.prefetch_files ?? [] }
}

export function fromRecord({ source, document, prefetchFiles }: MountRecord): Wanted {
  return { source, document, prefetchFiles: prefetchFiles ?? [] }
}

/** What the API calls file systems. Throws DaemonError 'BAD_REQUEST'. */
export function fileSystemType(type: string): 'rafs' | 'passthrough' {
  if (type === 'rafs') return 'rafs'
  if (['passthrough', 'passthroughfs', 'passthrough_fs'].includes(type)) return 'passthrough'
  throw new DaemonError(
    'BAD_REQUEST',
    `${JSON.stringify(type.slice(0, 100))} is no file system type; rafs and passthrough_fs are`,
    {
      wire: `invalid argument \`only 'rafs' and 'passthrough_fs' are supported, but ${type} was specified\``,
    },
  )
}
