import { randomUUID } from 'node:crypto'
import type { FileHandle } from 'node:fs/promises'
import { open, rm } from 'node:fs/promises'
import { join } from 'node:path'
import type { Digest } from '../digest.ts'
import { digestAlgorithm, RunningDigest } from '../digest.ts'
import { SpecError } from './spec-error.ts'
import type { Store } from './store.ts'

/** An upload under way. What has arrived stays when a connection breaks, so that it can be resumed. */
export interface UploadSession {
  readonly id: string
  readonly name: string
  readonly path: string
  readonly file: FileHandle
  readonly hash: RunningDigest
  size: number
  busy: boolean
  usedAt: number
}

const MAX_SESSIONS = 1_000
const IDLE_MS = 3_600_000

/** The open upload sessions. They do not outlive the process: clients start anew, as the specification allows. */
export class UploadSessions {
  readonly #store: Store
  readonly #sessions = new Map<string, UploadSession>()

  constructor(store: Store) {
    this.#store = store
  }

  async start(name: string): Promise<UploadSession> {
    await this.#dropIdle()
    if (this.#sessions.size >= MAX_SESSIONS)
      throw new SpecError('TOOMANYREQUESTS', `${MAX_SESSIONS} uploads are under way; finish or cancel some`)
    const id = randomUUID()
    const path = join(this.#store.uploads, id)
    const file = await open(path, 'wx+', 0o644)
    const session = { id, name, path, file, hash: new RunningDigest(), size: 0, busy: false, usedAt: Date.now() }
    this.#sessions.set(id, session)
    return session
  }

  find(name: string, id: string): UploadSession {
    const session = this.#sessions.get(id)
    if (session === undefined || session.name !== name)
      throw new SpecError('BLOB_UPLOAD_UNKNOWN', `upload ${JSON.stringify(id.slice(0, 64))} is not known`)
    session.usedAt = Date.now()
    return session
  }

  /** Runs one request on a session; a second one at the same time is refused. */
  async exclusively<T>(session: UploadSession, action: () => Promise<T>): Promise<T> {
    if (session.busy)
      throw new SpecError('BLOB_UPLOAD_INVALID', `upload ${session.id} is in use by another request`, { status: 409 })
    session.busy = true
    try {
      return await action()
    } finally {
      session.busy = false
    }
  }

  async append(session: UploadSession, bytes: Uint8Array): Promise<void> {
    let written = 0
    while (written < bytes.length) {
      const { bytesWritten } = await session.file.write(bytes, written, bytes.length - written, session.size)
      session.hash.update(bytes.subarray(written, written + bytesWritten))
      session.size += bytesWritten
      written += bytesWritten
    }
  }

  /** Compares the digest, then the file becomes the blob; another digest ends the session. */
  async finish(session: UploadSession, digest: Digest): Promise<void> {
    const found = digestAlgorithm(digest) === 'sha256' ? session.hash.digest() : await this.#rehash(session, digest)
    this.#sessions.delete(session.id)
    try {
      if (found !== digest)
        throw new SpecError('DIGEST_INVALID', `the ${session.size} bytes have digest ${found}, not ${digest}`)
      await session.file.sync()
      await this.#store.adoptBlob(session.name, digest, session.path)
    } finally {
      await session.file.close()
      await rm(session.path, { force: true })
    }
  }

  async cancel(session: UploadSession): Promise<void> {
    this.#sessions.delete(session.id)
    await session.file.close()
    await rm(session.path, { force: true })
  }

  async close(): Promise<void> {
    for (const session of this.#sessions.values()) await this.cancel(session)
  }

  async #rehash(session: UploadSession, digest: Digest): Promise<Digest> {
    const hash = new RunningDigest(digestAlgorithm(digest))
    const buffer = Buffer.allocUnsafe(1 << 20)
    for (let at = 0; at < session.size; ) {
      const { bytesRead } = await session.file.read(buffer, 0, buffer.length, at)
      if (bytesRead === 0) break
      hash.update(buffer.subarray(0, bytesRead))
      at += bytesRead
    }
    return hash.digest()
  }

  async #dropIdle(): Promise<void> {
    const limit = Date.now() - IDLE_MS
    for (const session of this.#sessions.values())
      if (!session.busy && session.usedAt < limit) await this.cancel(session)
  }
}
