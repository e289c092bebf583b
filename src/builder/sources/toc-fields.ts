import { BuilderError } from '../errors.ts'
import { shown, toKey } from '../image-path.ts'

type NumberField =
  | 'size'
  | 'mode'
  | 'uid'
  | 'gid'
  | 'devMajor'
  | 'devMinor'
  | 'offset'
  | 'chunkOffset'
  | 'chunkSize'
  | 'innerOffset'

const MAX_SHOWN = 200
const DIGEST = /^sha256:([0-9a-f]{64})$/
/** RFC 3339; seconds of 60 and lower case are legal in it and written by nobody. */
const TIME = /^\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}(?:\.\d+)?(?:Z|[+-]\d{2}:\d{2})$/

/** One entry of an eStargz table of contents; what it says is checked when it is asked for. Source: docs/formats/estargz.md, "Entries". Throws BuilderError 'BAD_SOURCE', naming the entry. */
export class TocFields {
  readonly type: string
  readonly path: Uint8Array
  readonly #fields: Readonly<Record<string, unknown>>

  constructor(entry: unknown) {
    if (typeof entry !== 'object' || entry === null || Array.isArray(entry))
      throw new BuilderError('BAD_SOURCE', `stargz: an entry is ${JSON.stringify(entry).slice(0, 40)}, no object`)
    this.#fields = entry as Readonly<Record<string, unknown>>
    const { name, type } = this.#fields
    if (typeof name !== 'string' || typeof type !== 'string')
      throw new BuilderError(
        'BAD_SOURCE',
        `stargz: an entry has no name or no type: ${JSON.stringify(entry).slice(0, 120)}`,
      )
    this.path = Buffer.from(name)
    this.type = type
  }

  /** Its name, for people. */
  get shown(): string {
    return shown(toKey(this.path.subarray(0, MAX_SHOWN)))
  }

  bad(why: string): BuilderError {
    return new BuilderError('BAD_SOURCE', `stargz: the entry ${this.shown} cannot be used: ${why}`)
  }

  /** 0 when it is absent. */
  integer(field: NumberField, most = Number.MAX_SAFE_INTEGER): number {
    const value = this.#fields[field] ?? 0
    if (typeof value === 'number' && Number.isInteger(value) && value >= 0 && value <= most) return value
    throw this.bad(`its "${field}" is ${JSON.stringify(value).slice(0, 40)}`)
  }

  /** Of a symlink or hard link. */
  link(): Uint8Array {
    const value = this.#fields['linkName']
    if (typeof value === 'string' && value !== '') return Buffer.from(value)
    throw this.bad('it has no "linkName"')
  }

  digest(field: 'digest' | 'chunkDigest'): Buffer | undefined {
    const value = this.#fields[field] ?? ''
    if (value === '') return undefined
    const hex = typeof value === 'string' ? DIGEST.exec(value)?.[1] : undefined
    if (hex === undefined) throw this.bad(`its "${field}" is ${JSON.stringify(value).slice(0, 80)}, no sha256 digest`)
    return Buffer.from(hex, 'hex')
  }

  /** Whole seconds since 1970; 0 when none is told. */
  modificationTime(): number {
    const value = this.#fields['modtime'] ?? ''
    if (value === '') return 0
    const time = typeof value === 'string' && TIME.test(value) ? Date.parse(value) : Number.NaN
    if (Number.isNaN(time)) throw this.bad(`its "modtime" is ${JSON.stringify(value).slice(0, 40)}`)
    return Math.floor(time / 1000)
  }

  table(field: 'xattrs'): Array<[string, unknown]> {
    const value = this.#fields[field] ?? {}
    if (typeof value === 'object' && value !== null && !Array.isArray(value)) return Object.entries(value)
    throw this.bad(`its "${field}" is no table`)
  }
}
