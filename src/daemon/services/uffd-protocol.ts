/** Messages between a virtual machine monitor and `nydusd uffd`. Source: docs/formats/userfault.md. */
import * as v from 'valibot'
import { DaemonError } from '../errors.ts'
import { PAGE } from './page-map.ts'

/** Pages of the other side that are filled from the disk. */
export interface Region {
  /** Address there. */
  readonly base: number
  readonly size: number
  /** Bytes of the disk. */
  readonly offset: number
  /** Bytes that one fault brings: a power of two. */
  readonly pageSize: number
}

export type ClientMessage =
  | {
      readonly kind: 'handshake'
      readonly regions: readonly Region[]
      readonly isCopy: boolean
      readonly prefault: boolean
    }
  | { readonly kind: 'stat' }
  /** A type that only we send. */
  | { readonly kind: 'other'; readonly type: number }

/** Ranges in one answer, a descriptor each. */
export const MAX_RANGES = 16
/** Bytes of one message: a thousand regions. */
const MAX_MESSAGE_BYTES = 256 << 10
/** No fault brings more. */
const MAX_PAGE_BYTES = 64 << 20
const STAT = 2
const STAT_ANSWER = 3
const PAGE_FAULT = 1
const VERSION = 1

const whole = v.pipe(v.number(), v.safeInteger(), v.minValue(0))
const RegionJson = v.object({ base_host_virt_addr: whole, size: whole, offset: whole, page_size: whole })
const Handshake = v.object({
  regions: v.array(RegionJson),
  policy: v.optional(v.picklist([0, 1]), 0),
  enable_prefault: v.optional(v.boolean(), false),
})

/** Throws DaemonError 'BAD_REQUEST'. */
export function parseMessage(text: string): ClientMessage {
  const value = parseJson(text)
  const type = typeof value === 'object' && value !== null && 'type' in value ? value.type : undefined
  if (type === STAT) return { kind: 'stat' }
  if (type === PAGE_FAULT || type === STAT_ANSWER) return { kind: 'other', type }
  // Firecracker sends the regions alone.
  const result = v.safeParse(Handshake, Array.isArray(value) ? { regions: value } : value)
  if (!result.success) {
    const [issue] = result.issues
    const key = issue.path?.map((item) => String(item.key)).join('.') ?? 'the message'
    throw bad(`"${key}" is wrong, expected ${issue.expected ?? issue.type}`)
  }
  const { regions, policy, enable_prefault: prefault } = result.output
  return { kind: 'handshake', regions: regions.map(regionOf), isCopy: policy === 1, prefault }
}

export function statAnswer(disk: { readonly size: number; readonly blockSize: number }): Buffer {
  return Buffer.from(
    JSON.stringify({ type: STAT_ANSWER, size: disk.size, block_size: disk.blockSize, flags: 0, version: VERSION }),
  )
}

/** Tells where data is: of each range a descriptor goes with it. */
export function pageFaultAnswer(
  ranges: ReadonlyArray<{ readonly offset: number; readonly length: number; readonly fileOffset: number }>,
): Buffer {
  return Buffer.from(
    JSON.stringify({
      type: PAGE_FAULT,
      ranges: ranges.map(({ length: len, fileOffset, offset }) => ({
        len,
        blob_offset: fileOffset,
        block_offset: offset,
      })),
    }),
  )
}

function regionOf(of: v.InferOutput<typeof RegionJson>): Region {
  const region = { base: of.base_host_virt_addr, size: of.size, offset: of.offset, pageSize: of.page_size }
  const { pageSize } = region
  if (pageSize < PAGE || pageSize > MAX_PAGE_BYTES || (pageSize & (pageSize - 1)) !== 0)
    throw bad(`"page_size" is ${pageSize}, no power of two from ${PAGE} to ${MAX_PAGE_BYTES}`)
  if (region.base % PAGE !== 0 || region.offset % PAGE !== 0 || region.base + region.size > Number.MAX_SAFE_INTEGER)
    throw bad('a region does not begin at a page')
  return region
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    throw bad('it is no JSON')
  }
}

function bad(what: string): DaemonError {
  return new DaemonError('BAD_REQUEST', `a client sent a message that cannot be used: ${what}`)
}

/** Cuts a stream into JSON documents: nothing stands between them, and the kernel joins or cuts what was sent. */
export class DocumentStream {
  #text = ''
  #scanned = 0
  #depth = 0
  #isString = false
  #isEscaped = false
  readonly #decoder = new TextDecoder('utf-8', { fatal: true })

  /** Gives the documents that are complete now. Throws DaemonError 'BAD_REQUEST'. */
  push(bytes: Uint8Array): string[] {
    try {
      this.#text += this.#decoder.decode(bytes, { stream: true })
    } catch {
      throw bad('it is no UTF-8')
    }
    const documents: string[] = []
    for (; this.#scanned < this.#text.length; this.#scanned++) {
      const character = this.#text[this.#scanned] ?? ''
      if (!this.#step(character)) continue
      documents.push(this.#text.slice(0, this.#scanned + 1))
      this.#text = this.#text.slice(this.#scanned + 1)
      this.#scanned = -1
    }
    if (this.#text.length > MAX_MESSAGE_BYTES) throw bad(`it is longer than ${MAX_MESSAGE_BYTES} bytes`)
    return documents
  }

  /** True at the last character of a document. */
  #step(character: string): boolean {
    if (this.#isString) {
      if (this.#isEscaped) this.#isEscaped = false
      else if (character === '\\') this.#isEscaped = true
      else if (character === '"') this.#isString = false
      return false
    }
    if (character === '{' || character === '[') this.#depth++
    else if (this.#depth === 0 && !/\s/.test(character)) throw bad('it is neither an object nor an array')
    else if (character === '"') this.#isString = true
    else if (character === '}' || character === ']') return --this.#depth === 0
    return false
  }
}
