import { setTimeout as delay } from 'node:timers/promises'
import { ContainerdError, WriteAction } from '../../containerd/index.ts'
import type { Digest } from '../../registry/index.ts'
import { IntegrationError } from '../errors.ts'
import type { Session } from './session.ts'

/** Content to be written: `open` gives its bytes from an offset on, and may be called again. */
export interface NewContent {
  readonly digest: Digest
  readonly size: number
  /** Name of the write; two of one name wait for each other, and a broken one is resumed. */
  readonly ref: string
  open(offset: number, signal: AbortSignal): AsyncIterable<Uint8Array>
}

/** A message has at most 16 MiB; small ones keep the other calls of the connection moving. */
const PIECE_BYTES = 1 << 20
const LOCKED_MS = 500

/** containerd's content store, through its service. Bytes are compared with their digest there before they count. */
export class ContentStore {
  readonly #session: Session

  constructor(session: Session) {
    this.#session = session
  }

  /** Bytes of this content, or undefined when it is not in the namespace. */
  async size(digest: Digest): Promise<number | undefined> {
    const info = await this.#info(digest)
    return info === undefined ? undefined : Number(info.size)
  }

  async labels(digest: Digest): Promise<ReadonlyMap<string, string>> {
    return new Map(Object.entries((await this.#info(digest))?.labels ?? {}))
  }

  /** A small content whole. Throws 'NOT_FOUND', or 'BAD_IMAGE' when it has more than `limit` bytes. */
  async read(digest: Digest, limit: number, signal: AbortSignal = this.#session.signal): Promise<Uint8Array> {
    const parts: Uint8Array[] = []
    let length = 0
    for await (const bytes of this.stream(digest, 0, signal)) {
      length += bytes.length
      if (length > limit)
        throw new IntegrationError(
          'BAD_IMAGE',
          `${digest} has more than the ${limit} bytes that are read of such content`,
        )
      parts.push(bytes)
    }
    return Buffer.concat(parts)
  }

  async *stream(
    digest: Digest,
    offset: number,
    signal: AbortSignal = this.#session.signal,
  ): AsyncGenerator<Uint8Array, void, undefined> {
    const size = await this.size(digest)
    if (size === undefined)
      throw new IntegrationError(
        'NOT_FOUND',
        `containerd has no content ${digest} in this namespace; pull the image whole`,
      )
    if (offset >= size) return
    // A size of 0 is "to the end".
    const wanted = { digest, offset: BigInt(offset), size: 0n }
    for await (const { data } of this.#session.content.read(wanted, this.#session.endless(signal))) yield data
  }

  /** Adds labels. The content must be there. */
  async label(digest: Digest, labels: Readonly<Record<string, string>>): Promise<void> {
    const paths = Object.keys(labels).map((key) => `labels.${key}`)
    if (paths.length === 0) return
    await this.#session.content.update({ info: { digest, labels }, updateMask: { paths } }, this.#session.soon)
  }

  /** Writes what is not there yet; gives whether bytes were written. */
  async write(content: NewContent, signal: AbortSignal = this.#session.signal): Promise<boolean> {
    const resumed = { at: 0 }
    for (;;)
      try {
        return await this.#write(content, resumed, signal)
      } catch (error) {
        signal.throwIfAborted()
        if (!(error instanceof ContainerdError)) throw error
        if (error.code === 'ALREADY_EXISTS') return false
        // What an earlier try left was wrong: from the start, once.
        if (error.code === 'FAILED_PRECONDITION' && resumed.at > 0) {
          await this.#session.content.abort({ ref: content.ref }, this.#session.soon)
          resumed.at = 0
          continue
        }
        // Somebody else writes the same: it will be there soon, or ours to write.
        if (error.code !== 'UNAVAILABLE' || !error.message.includes('locked')) throw error
        await delay(LOCKED_MS, undefined, { signal })
      }
  }

  async #write(content: NewContent, resumed: { at: number }, signal: AbortSignal): Promise<boolean> {
    const { digest, size, ref } = content
    const stop = new AbortController()
    const under = AbortSignal.any([signal, stop.signal])
    const begun = Promise.withResolvers<number>()
    begun.promise.catch(() => undefined) // told by the call itself
    const total = BigInt(size)
    let sent = false
    let failed: unknown
    const requests = async function* () {
      yield { action: WriteAction.STAT, ref, total, expected: digest }
      let at = await begun.promise
      resumed.at = at
      try {
        if (at < size)
          for await (const bytes of content.open(at, under))
            for (let from = 0; from < bytes.length; from += PIECE_BYTES) {
              const data = bytes.subarray(from, from + PIECE_BYTES)
              yield { action: WriteAction.WRITE, offset: BigInt(at), data }
              sent = true
              at += data.length
            }
      } catch (error) {
        failed = error
        throw error
      }
      yield { action: WriteAction.COMMIT, total, offset: BigInt(at), expected: digest }
    }
    try {
      for await (const { offset } of this.#session.content.write(requests(), this.#session.endless(under)))
        begun.resolve(Number(offset))
      return sent
    } catch (error) {
      begun.reject(error)
      throw failed ?? error
    } finally {
      stop.abort()
    }
  }

  async #info(digest: Digest) {
    try {
      return (await this.#session.content.info({ digest }, this.#session.soon)).info
    } catch (error) {
      if (error instanceof ContainerdError && error.code === 'NOT_FOUND') return undefined
      throw error
    }
  }
}
