import type { Digest } from './digest.ts'
import { RunningDigest } from './digest.ts'
import { RegistryError } from './errors.ts'
import type { BlobSource, UploadOptions, UploadResult } from './repository.ts'
import type { Endpoint } from './endpoint.ts'
import type { RegistryAnswer, RegistryRequest, Transport } from './transport.ts'
import { gather, WatchedSource } from './upload-source.ts'

export interface UploadsOptions {
  readonly transport: Transport
  readonly endpoint: Endpoint
  readonly repository: string
}

/** One upload session of the registry: its address changes with each answer. */
interface Session {
  url: URL
  readonly what: string
  readonly signal: AbortSignal
}

/** Pieces of a stream of unknown length; each is held in memory until the registry has it. */
const DEFAULT_CHUNK_BYTES = 8 << 20
const OCTETS = { 'content-type': 'application/octet-stream' }
const NOTHING = new Uint8Array(0)

/** Uploads into one repository: POST opens a session, PUT (or PATCHes and a PUT) fills and closes it. */
export class Uploads {
  readonly #options: UploadsOptions
  readonly #scope: string

  constructor(options: UploadsOptions) {
    this.#options = options
    this.#scope = `repository:${options.repository}:pull,push`
  }

  async exists(digest: Digest, signal: AbortSignal): Promise<boolean> {
    const to = `/v2/${this.#options.repository}/blobs/${digest}`
    const { answer } = await this.#send({
      method: 'HEAD',
      to,
      what: `look for blob ${digest} in ${this.#options.repository}`,
      accept: [200, 404],
      signal,
    })
    answer.discard()
    return answer.status === 200
  }

  /** True when mounted; else the session that the registry opened instead. */
  async mount(digest: Digest, from: string, signal: AbortSignal): Promise<true | Session> {
    const what = `mount blob ${digest} of ${from} in ${this.#options.repository}`
    const to = `/v2/${this.#options.repository}/blobs/uploads/?mount=${encodeURIComponent(digest)}&from=${encodeURIComponent(from)}`
    const scopes = [this.#scope, `repository:${from}:pull`]
    const sent = await this.#send({
      method: 'POST',
      to,
      what,
      accept: [201, 202],
      signal,
      scopes,
      body: () => NOTHING,
      headers: { 'content-length': '0' },
    })
    sent.answer.discard()
    return sent.answer.status === 201 ? true : { url: this.#location(sent, what), what, signal }
  }

  /** Ends a session that is not needed. The registry would drop it some day anyway: a failure to do so is nobody's error. */
  async cancel(session: Session): Promise<void> {
    try {
      const { answer } = await this.#send({
        ...this.#at(session),
        method: 'DELETE',
        accept: [200, 202, 204, 404, 405],
        retry: false,
      })
      answer.discard()
    } catch (error) {
      if (!(error instanceof RegistryError)) throw error
    }
  }

  async upload(blob: BlobSource, options: UploadOptions, signal: AbortSignal): Promise<UploadResult> {
    const { digest, size } = blob
    if (await this.exists(digest, signal)) return { digest, size, outcome: 'existed' }
    let opened: Session | undefined
    for (const from of options.mountFrom ?? []) {
      const mounted = await this.#tryMount(digest, from, signal)
      if (mounted === true) return { digest, size, outcome: 'mounted' }
      if (opened !== undefined && mounted !== undefined) await this.cancel(mounted)
      opened ??= mounted
    }
    return this.#uploadWithRetry(blob, options, { signal, opened })
  }

  /** Not retried as a whole: the source flows once. */
  async stream(source: AsyncIterable<Uint8Array>, options: UploadOptions, signal: AbortSignal): Promise<UploadResult> {
    const what = `upload a stream to ${this.#options.repository}`
    const session = await this.#openSession(what, signal)
    const hash = new RunningDigest()
    try {
      for await (const piece of gather(source, options.chunkBytes ?? DEFAULT_CHUNK_BYTES)) {
        const start = hash.size
        hash.update(piece)
        await this.#patch(session, start, piece)
        options.onProgress?.(hash.size)
      }
      const { size } = hash
      const digest = hash.digest()
      await this.#finish(session, digest, { body: () => NOTHING, length: 0 })
      return { digest, size, outcome: 'uploaded' }
    } catch (error) {
      if (!signal.aborted) await this.cancel(session)
      throw error
    }
  }

  /** A registry that forbids reading the other repository may still take the upload. */
  async #tryMount(digest: Digest, from: string, signal: AbortSignal): Promise<true | Session | undefined> {
    try {
      return await this.mount(digest, from, signal)
    } catch (error) {
      if (
        error instanceof RegistryError &&
        ['UNAUTHORIZED', 'FORBIDDEN', 'NOT_FOUND', 'REFUSED', 'UNSUPPORTED'].includes(error.code)
      )
        return undefined
      throw error
    }
  }

  async #uploadWithRetry(
    blob: BlobSource,
    options: UploadOptions,
    start: { signal: AbortSignal; opened: Session | undefined },
  ): Promise<UploadResult> {
    const { digest, size } = blob
    const { signal } = start
    const what = `upload blob ${digest} to ${this.#options.repository}`
    const tries = this.#options.transport.tries(signal)
    let { opened } = start
    for (;;) {
      const session: Session = opened ?? (await this.#openSession(what, signal))
      opened = undefined
      const source = new WatchedSource(blob, options.onProgress)
      try {
        if (options.chunkBytes === undefined) await this.#monolithic(session, blob, source)
        else await this.#chunked(session, blob, { source, chunkBytes: options.chunkBytes })
        return { digest, size, outcome: 'uploaded' }
      } catch (error) {
        if (source.failure !== undefined) {
          await this.cancel(session)
          throw source.failure.error
        }
        await tries.failed(error)
      }
      // The answer may have been lost and not the blob.
      if (await this.exists(digest, signal)) return { digest, size, outcome: 'uploaded' }
      await this.cancel(session)
    }
  }

  async #monolithic(session: Session, blob: BlobSource, source: WatchedSource): Promise<void> {
    await this.#finish(session, blob.digest, {
      body: () => (blob.size === 0 ? NOTHING : source.open()),
      length: blob.size,
    })
  }

  async #chunked(
    session: Session,
    blob: BlobSource,
    parts: { source: WatchedSource; chunkBytes: number },
  ): Promise<void> {
    let at = 0
    for await (const piece of gather(parts.source.open(), parts.chunkBytes)) {
      await this.#patch(session, at, piece)
      at += piece.length
    }
    await this.#finish(session, blob.digest, { body: () => NOTHING, length: 0 })
  }

  /** Sends one piece; after a failure asks the registry how much of it has arrived and sends the rest. */
  async #patch(session: Session, start: number, piece: Uint8Array): Promise<void> {
    const tries = this.#options.transport.tries(session.signal)
    let sent = 0
    while (sent < piece.length) {
      const rest = piece.subarray(sent)
      const headers = {
        ...OCTETS,
        'content-range': `${start + sent}-${start + piece.length - 1}`,
        'content-length': String(rest.length),
      }
      try {
        const done = await this.#send({
          ...this.#at(session),
          method: 'PATCH',
          accept: [200, 202, 204],
          headers,
          body: () => rest,
          retry: false,
        })
        done.answer.discard()
        session.url = this.#location(done, session.what)
        return
      } catch (error) {
        if (!(error instanceof RegistryError) || error.status !== 416) await tries.failed(lostSession(error))
        const arrived = await this.#arrived(session)
        if (
          arrived < start ||
          arrived > start + piece.length ||
          (arrived === start + sent && error instanceof RegistryError && error.status === 416)
        ) {
          throw new RegistryError(
            'UNAVAILABLE',
            `cannot ${session.what}: the registry holds ${arrived} bytes, ${start + sent} were sent`,
            { cause: error },
          )
        }
        sent = arrived - start
      }
    }
  }

  /** Bytes that the session holds. `0-0` is what registries answer for an empty one. */
  async #arrived(session: Session): Promise<number> {
    const asked = await this.#send({ ...this.#at(session), method: 'GET', accept: [200, 204] }).catch(
      (error: unknown) => {
        throw lostSession(error)
      },
    )
    asked.answer.discard()
    const { location, range } = asked.answer.headers
    if (location !== undefined) session.url = this.#location(asked, session.what)
    const match = typeof range === 'string' ? /^(?:bytes=)?0-(\d{1,15})$/.exec(range) : null
    if (match === null)
      throw new RegistryError('BAD_RESPONSE', `cannot ${session.what}: the registry does not tell how much it has`)
    return match[1] === '0' ? 0 : Number(match[1]) + 1
  }

  async #openSession(what: string, signal: AbortSignal): Promise<Session> {
    const to = `/v2/${this.#options.repository}/blobs/uploads/`
    const opened = await this.#send({
      method: 'POST',
      to,
      what,
      accept: [202],
      signal,
      body: () => NOTHING,
      headers: { 'content-length': '0' },
    })
    opened.answer.discard()
    return { url: this.#location(opened, what), what, signal }
  }

  async #finish(
    session: Session,
    digest: Digest,
    content: { body: () => Uint8Array | AsyncIterable<Uint8Array>; length: number },
  ): Promise<void> {
    const url = new URL(session.url)
    // Appended as text: the state that registries keep in the query must come back unchanged.
    url.search = `${url.search}${url.search === '' ? '?' : '&'}digest=${encodeURIComponent(digest)}`
    const headers = { ...OCTETS, 'content-length': String(content.length) }
    const retry = content.length === 0
    try {
      const done = await this.#send({
        ...this.#at(session),
        to: url,
        method: 'PUT',
        accept: [200, 201, 202, 204],
        headers,
        body: content.body,
        retry,
      })
      done.answer.discard()
    } catch (error) {
      throw lostSession(error)
    }
  }

  #at(session: Session): { to: URL; what: string; signal: AbortSignal } {
    return { to: session.url, what: session.what, signal: session.signal }
  }

  #send(
    request: Omit<RegistryRequest, 'endpoint' | 'scopes'> & { readonly scopes?: readonly string[] },
  ): Promise<RegistryAnswer> {
    return this.#options.transport.send({ scopes: [this.#scope], ...request, endpoint: this.#options.endpoint })
  }

  #location(from: RegistryAnswer, what: string): URL {
    const { location } = from.answer.headers
    const url = typeof location === 'string' ? URL.parse(location, from.url.href) : null
    if (url === null || !/^https?:$/.test(url.protocol)) {
      throw new RegistryError(
        'BAD_RESPONSE',
        `cannot ${what}: ${this.#options.endpoint.host} gave no usable upload Location`,
      )
    }
    return url
  }
}

/** 404 in the middle of a session: the registry has lost it (a restart, another instance); a new one may do. */
function lostSession(error: unknown): unknown {
  if (!(error instanceof RegistryError) || error.code !== 'NOT_FOUND') return error
  return new RegistryError('UNAVAILABLE', `${error.message} (the upload session is gone)`, {
    cause: error,
    status: 404,
  })
}
