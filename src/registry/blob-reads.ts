import { MAX_SKIP_BYTES, RangeFill } from './blob-range.ts'
import { contentLength, parseContentRange, refuseEncoding } from './content-range.ts'
import type { Digest } from './digest.ts'
import { digestAlgorithm, RunningDigest } from './digest.ts'
import { RegistryError } from './errors.ts'
import type { HttpHeaders } from './http.ts'
import type { MirrorState } from './mirrors.ts'
import type { Route } from './forward-proxy.ts'
import { isPeerFailure, isProxyThrottle } from './proxy-refusal.ts'
import type { BlobStreamOptions, RangeOptions } from './repository.ts'
import { withoutRetry } from './retry.ts'
import type { Endpoint } from './endpoint.ts'
import type { RegistryAnswer, RegistryRequest, Transport } from './transport.ts'

export interface BlobReadsOptions {
  readonly transport: Transport
  readonly endpoint: Endpoint
  readonly mirrors: readonly MirrorState[]
  readonly repository: string
}

interface StreamState {
  readonly digest: Digest
  readonly what: string
  readonly signal: AbortSignal
  at: number
  size: number | undefined
}

/** A body that got this far before it broke does not count as a failed try: a slow link is no dead one. */
const PROGRESS_BYTES = 1 << 16
const MAX_TARGETS = 1_024
/** Nobody waits: whoever wants it ahead asks again later. */
const PREFETCH_TRIES = 2
const DEMAND: Route = { purpose: 'demand', fromSource: false }
/** Never aborted: for callers without a signal. */
export const NO_SIGNAL: AbortSignal = new AbortController().signal

/** Reads of blobs: mirrors first, then the registry; redirects to object stores are remembered. */
export class BlobReads {
  readonly #options: BlobReadsOptions
  /** Where the registry sent us for a blob; asked again when that no longer works. */
  readonly #targets = new Map<Digest, URL>()

  constructor(options: BlobReadsOptions) {
    this.#options = options
  }

  async readRange(digest: Digest, offset: number, into: Uint8Array, options: RangeOptions): Promise<void> {
    const what = `read bytes ${offset}-${offset + into.length - 1} of blob ${digest} of ${this.#options.repository}`
    if (!Number.isSafeInteger(offset) || offset < 0 || !Number.isSafeInteger(offset + into.length)) {
      throw withoutRetry(new RegistryError('TRUNCATED', `cannot ${what}: the range is not in any blob`))
    }
    if (into.length === 0) return
    const signal = options.signal ?? NO_SIGNAL
    const fill = new RangeFill({ into, offset, what, onFilled: options.onFilled })
    const { purpose = 'demand' } = options
    const tries = this.#options.transport.tries(signal, purpose === 'prefetch' ? PREFETCH_TRIES : undefined)
    const { fromSource = false } = options
    let route: Route = { purpose, fromSource }
    for (;;) {
      const before = fill.filled
      try {
        await this.#fillOnce(digest, fill, { what, signal, route, mirrors: fromSource ? [] : this.#options.mirrors })
        return
      } catch (error) {
        if (fill.filled - before >= PROGRESS_BYTES) tries.progressed()
        else if (isPeerFailure(error)) tries.leave(purpose === 'demand' ? 1 : 0)
        await tries.failed(error)
        const isLast = tries.isLast || isProxyThrottle(error)
        route = { purpose, fromSource: fromSource || (purpose === 'demand' && isLast) }
      }
    }
  }

  async *stream(digest: Digest, options: BlobStreamOptions): AsyncGenerator<Uint8Array, void, undefined> {
    const offset = options.offset ?? 0
    const what = `read blob ${digest} of ${this.#options.repository}`
    const state: StreamState = { digest, what, signal: options.signal ?? NO_SIGNAL, at: offset, size: options.size }
    const hash = offset === 0 ? new RunningDigest(digestAlgorithm(digest)) : undefined
    const tries = this.#options.transport.tries(state.signal)
    while (state.at !== state.size) {
      const before = state.at
      try {
        for await (const bytes of this.#streamOnce(state)) {
          hash?.update(bytes)
          yield bytes
        }
        break
      } catch (error) {
        if (state.at - before >= PROGRESS_BYTES) tries.progressed()
        await tries.failed(error)
      }
    }
    const found = hash?.digest()
    if (found !== undefined && found !== digest) {
      throw new RegistryError(
        'DIGEST_MISMATCH',
        `cannot ${what}: its ${state.at} bytes have digest ${found}; the registry's copy is damaged`,
      )
    }
  }

  async exists(digest: Digest, signal: AbortSignal): Promise<boolean> {
    const { transport, endpoint, repository } = this.#options
    const request = this.#request(endpoint, digest, `look for blob ${digest} in ${repository}`, signal)
    const { answer } = await transport.send({ ...request, method: 'HEAD', accept: [200, 404] })
    answer.discard()
    return answer.status === 200
  }

  /** Length by HEAD; by a range of one byte where HEAD is refused (signed URLs are for GET only) or tells no length. */
  async size(digest: Digest, signal: AbortSignal): Promise<number> {
    const what = `find the size of blob ${digest} of ${this.#options.repository}`
    try {
      const { answer } = await this.#fromAny((endpoint) =>
        this.#options.transport.send({
          ...this.#request(endpoint, digest, what, signal),
          method: 'HEAD',
          accept: [200],
        }),
      )
      answer.discard()
      const length = contentLength(answer.headers, what)
      if (length !== undefined) return length
    } catch (error) {
      if (!(error instanceof RegistryError) || (error.code !== 'FORBIDDEN' && error.code !== 'UNSUPPORTED')) throw error
    }
    return this.#sizeByRange(digest, what, signal)
  }

  async #sizeByRange(digest: Digest, what: string, signal: AbortSignal): Promise<number> {
    const { transport, endpoint } = this.#options
    const request = {
      ...this.#request(endpoint, digest, what, signal),
      accept: [200, 206, 416],
      headers: { range: 'bytes=0-0' },
    }
    const { answer } = await transport.send(request)
    answer.discard()
    if (answer.status === 416) return 0
    const length =
      answer.status === 200
        ? contentLength(answer.headers, what)
        : parseContentRange(answer.headers['content-range'])?.total
    if (length === undefined)
      throw new RegistryError('BAD_RESPONSE', `cannot ${what}: ${endpoint.host} tells no length`)
    return length
  }

  /** Healthy mirrors in their order, then the registry, whose failure is the one that counts. */
  async #fromAny<T>(read: (endpoint: Endpoint) => Promise<T>, mirrors = this.#options.mirrors): Promise<T> {
    for (const mirror of mirrors) {
      if (!mirror.healthy) continue
      try {
        const result = await read(mirror.endpoint)
        mirror.succeeded()
        return result
      } catch (error) {
        mirror.failed(error)
        if (error instanceof RegistryError && (error.code === 'ABORTED' || error.code === 'CLOSED')) throw error
      }
    }
    return read(this.#options.endpoint)
  }

  #request(endpoint: Endpoint, digest: Digest, what: string, signal: AbortSignal): Omit<RegistryRequest, 'accept'> {
    const { repository } = this.#options
    // A mirror gets one try: the next place is the retry.
    const isRegistry = endpoint === this.#options.endpoint
    return {
      endpoint,
      method: 'GET',
      to: `/v2/${repository}/blobs/${digest}`,
      scopes: [`repository:${repository}:pull`],
      what,
      signal,
      retry: isRegistry,
      // Mirrors are near: the proxy is for the registry.
      route: isRegistry ? DEMAND : undefined,
    }
  }

  #fillOnce(
    digest: Digest,
    fill: RangeFill,
    context: { what: string; signal: AbortSignal; route: Route; mirrors: readonly MirrorState[] },
  ): Promise<void> {
    return this.#fromAny(async (endpoint) => {
      if (fill.done) return
      const request = {
        ...this.#request(endpoint, digest, context.what, context.signal),
        accept: [200, 206],
        headers: { range: fill.range },
        ...(endpoint === this.#options.endpoint ? { route: context.route } : {}),
      }
      const accept = (status: number, headers: HttpHeaders): ReturnType<RangeFill['accept']> =>
        fill.accept(status, headers)
      if (endpoint === this.#options.endpoint && (await this.#fillFromTarget(digest, fill, request))) return
      const { url, redirected } = await this.#options.transport.sendInto(
        { ...request, headers: { range: fill.range } },
        accept,
      )
      fill.ended()
      if (redirected && endpoint === this.#options.endpoint) this.#remember(digest, url)
    }, context.mirrors)
  }

  /** True when the remembered object store gave the rest; false when there is none or it failed: the registry may know a fresh address. */
  async #fillFromTarget(digest: Digest, fill: RangeFill, request: RegistryRequest): Promise<boolean> {
    const url = this.#targets.get(digest)
    if (url === undefined) return false
    try {
      await this.#options.transport.sendIntoElsewhere(request, url, (status, headers) => fill.accept(status, headers))
      fill.ended()
      return true
    } catch (error) {
      if (error instanceof RegistryError && (error.code === 'ABORTED' || error.code === 'CLOSED')) throw error
      this.#targets.delete(digest) // expired, moved, or ill: whatever it is, the registry is asked next and reports what is wrong
      return false
    }
  }

  #remember(digest: Digest, url: URL): void {
    const [oldest] = this.#targets.keys()
    if (this.#targets.size >= MAX_TARGETS && oldest !== undefined) this.#targets.delete(oldest)
    this.#targets.set(digest, url)
  }

  async *#streamOnce(state: StreamState): AsyncGenerator<Uint8Array, void, undefined> {
    const { answer } = await this.#fromAny((endpoint) => this.#open(endpoint, state))
    let skip = answer.status === 200 ? state.at : 0
    for await (const part of answer.stream()) {
      const bytes = skip === 0 ? part : part.subarray(Math.min(skip, part.length))
      skip -= part.length - bytes.length
      if (bytes.length === 0) continue
      state.at += bytes.length
      if (state.size !== undefined && state.at > state.size)
        throw new RegistryError('BAD_RESPONSE', `cannot ${state.what}: more than its ${state.size} bytes came`)
      yield bytes
    }
    if (state.size !== undefined && state.at < state.size) {
      throw new RegistryError(
        'TRUNCATED',
        `cannot ${state.what}: the body ended after ${state.at} of ${state.size} bytes`,
      )
    }
  }

  async #open(endpoint: Endpoint, state: StreamState): Promise<RegistryAnswer> {
    const range: Record<string, string> = state.at === 0 ? {} : { range: `bytes=${state.at}-` }
    const request = {
      ...this.#request(endpoint, state.digest, state.what, state.signal),
      accept: [200, 206],
      headers: range,
      retry: false,
    }
    const opened = await this.#options.transport.send(request)
    try {
      checkStart(state, opened.answer.status, opened.answer.headers)
    } catch (error) {
      opened.answer.discard()
      throw error
    }
    return opened
  }
}

/** Compares what an answer says it brings with what is missing; learns the size where nobody told. */
function checkStart(state: StreamState, status: number, headers: HttpHeaders): void {
  refuseEncoding(headers, state.what)
  const length = contentLength(headers, state.what)
  const range = status === 206 ? parseContentRange(headers['content-range']) : undefined
  const total = status === 200 ? length : range?.total
  if (
    status === 206 &&
    (range === undefined || range.start !== state.at || (total !== undefined && range.end !== total - 1))
  ) {
    throw new RegistryError(
      'BAD_RESPONSE',
      `cannot ${state.what}: asked for bytes ${state.at}-, got Content-Range ${JSON.stringify(headers['content-range'] ?? null)}`,
    )
  }
  if (range !== undefined && length !== undefined && length !== range.end - range.start + 1) {
    throw new RegistryError(
      'BAD_RESPONSE',
      `cannot ${state.what}: Content-Length ${length} for bytes ${range.start}-${range.end}`,
    )
  }
  if (total !== undefined && state.size !== undefined && total !== state.size) {
    throw new RegistryError(
      'BAD_RESPONSE',
      `cannot ${state.what}: the registry has ${total} bytes, wanted ${state.size}`,
    )
  }
  if (status === 200 && state.at > MAX_SKIP_BYTES) {
    throw new RegistryError(
      'UNSUPPORTED',
      `cannot ${state.what}: the server ignores Range, and ${state.at} bytes were read already`,
    )
  }
  state.size ??= total
}
