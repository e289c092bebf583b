import { createHash, type KeyObject } from 'node:crypto'
import { lstatSync, mkdirSync } from 'node:fs'
import { dirname } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import pLimit from 'p-limit'
import { cachePath, firstUnclaimed } from '../../cache/index.ts'
import { bootstrapPath, checkSignature, readyBootstrap } from '../daemons/bootstrap.ts'
import type { ImageRequest } from '../daemons/image-request.ts'
import { messageOf } from '../daemons/message.ts'
import type { DaemonLog } from '../daemons/settings.ts'
import { unlessAborted } from '../daemons/turns.ts'
import { SnapshotterError } from '../errors.ts'
import { NYDUS_SIGNATURE } from '../labels.ts'
import { checkOnThread } from './check-thread.ts'
import type { CheckAnswer } from './image-check.ts'
import { type CheckedImage, contentIdentity } from './record.ts'
import { deadlineSignal } from '../../kernel/index.ts'

interface ImageChecksParts {
  readonly cacheDir: string
  /** Whose signature bootstraps must have; undefined: nobody's. */
  readonly key: KeyObject | undefined
  readonly log: Pick<DaemonLog, 'warn' | 'info' | 'debug'>
  /** From the start that asks for a check to its beginning: it takes a processor and the disk, which that container needs now. */
  readonly delayMs: number
  /** Where the metadata goes. */
  readonly outputOf: (key: string) => string
  /** An image is fit; its metadata is at `output`. */
  readonly onFit: (key: string, output: string, checked: CheckedImage) => Promise<void>
  /** A check was ended, or its result cannot be kept: it may have left pins. */
  readonly onBroken: () => void
}

interface Check {
  readonly done: Promise<void>
  readonly control: AbortController
}

/** A check reads the whole image: one at a time, and never endlessly. */
const CHECK_MS = 15 * 60_000

/** Checks of images, each once however many ask, in the background. */
export class ImageChecks {
  readonly #parts: ImageChecksParts
  readonly #checks = new Map<string, Check>()
  /** What keeps an image from being shown, as long as it answers true. */
  readonly #obstacles = new Map<string, () => boolean>()
  readonly #one = pLimit(1)
  readonly #lifetime = new AbortController()

  constructor(parts: ImageChecksParts) {
    this.#parts = parts
  }

  /** Begins one, unless nothing has changed since the last. */
  begin(key: string, request: ImageRequest): void {
    if (this.#lifetime.signal.aborted || this.#checks.has(key) || this.#obstacles.get(key)?.() === true) return
    this.#obstacles.delete(key)
    const control = new AbortController()
    const signal = AbortSignal.any([this.#lifetime.signal, control.signal])
    const done = this.#one(async () => await this.#check(key, request, signal))
      .catch((error: unknown) => {
        if (signal.aborted) return
        // One that takes more than there is would take it at every start.
        this.#leave(key, request)
        this.#parts.log.warn(`${nameOf(request)} is served by nydusd: ${messageOf(error)}`)
      })
      .finally(() => this.#checks.delete(key))
    this.#checks.set(key, { done, control })
  }

  /** Checks do not help this one until the next start of the process. */
  giveUp(key: string): void {
    this.#obstacles.set(key, () => true)
  }

  /** Resolves when a check that is under way has ended. Throws the signal's reason. */
  async ended(key: string, signal: AbortSignal): Promise<void> {
    const check = this.#checks.get(key)
    if (check !== undefined) await unlessAborted(check.done, signal)
  }

  /** The image is gone. */
  async forget(key: string): Promise<void> {
    const check = this.#checks.get(key)
    check?.control.abort(new SnapshotterError('CANCELLED', 'the image was removed'))
    await check?.done
    this.#obstacles.delete(key)
  }

  keys(): Iterable<string> {
    return this.#checks.keys()
  }

  async settled(): Promise<void> {
    while (this.#checks.size > 0) await Promise.all([...this.#checks.values()].map(({ done }) => done))
  }

  async stop(): Promise<void> {
    this.#lifetime.abort(new SnapshotterError('UNAVAILABLE', 'the snapshotter stops'))
    await this.settled()
  }

  /** What the metadata for the kernel is made from: of other things other metadata is to be made. */
  sourceOf({ directory, idMapping, labels }: ImageRequest): string {
    const { key } = this.#parts
    const signed = key && createHash('sha256').update(key.export({ type: 'spki', format: 'der' }))
    const signature = signed?.update(labels.get(NYDUS_SIGNATURE) ?? '').digest('hex')
    return JSON.stringify([identityOf(bootstrapPath(directory)), idMapping ?? null, signature ?? null])
  }

  async #check(key: string, request: ImageRequest, outer: AbortSignal): Promise<void> {
    const { delayMs, key: publicKey, cacheDir, log, onFit, onBroken } = this.#parts
    await sleep(delayMs, undefined, { signal: outer })
    const signal = AbortSignal.any([outer, deadlineSignal(CHECK_MS)])
    const bootstrap = await readyBootstrap(request.directory, signal)
    if (publicKey !== undefined) await checkSignature(bootstrap, request.labels, publicKey)
    const source = this.sourceOf(request)
    const started = performance.now()
    const output = this.#parts.outputOf(key)
    mkdirSync(dirname(output), { recursive: true, mode: 0o700 })
    const owner = { uid: process.getuid?.() ?? 0, gid: process.getgid?.() ?? 0 }
    const task = { bootstrap, output, cacheDir, mapping: request.idMapping, ...owner }
    const answered = async (): Promise<CheckAnswer> => {
      const answer = await checkOnThread(task, signal)
      if (answer.kind !== 'fit') return answer
      const { blobs, bytes } = answer
      await onFit(key, output, { version: 1, reference: request.reference, source, bytes, blobs: [...blobs] })
      return answer
    }
    const answer = await answered().catch((error: unknown) => {
      onBroken()
      throw error
    })
    if (answer.kind !== 'fit') return this.#stays(key, request, answer)
    log.info(
      `${nameOf(request)} can be shown by the kernel from now on: its ${answer.bytes} bytes in the cache were verified in ${Math.round(performance.now() - started)} ms`,
    )
  }

  /** Until its bootstrap is another one. */
  #leave(key: string, request: ImageRequest): void {
    const source = this.sourceOf(request)
    this.#obstacles.set(key, () => this.sourceOf(request) === source)
  }

  /** It is nydusd's for now; asked again when what hinders it has changed. */
  #stays(key: string, request: ImageRequest, answer: Exclude<CheckAnswer, { kind: 'fit' }>): void {
    const { cacheDir: directory, log } = this.#parts
    switch (answer.kind) {
      case 'missing': {
        const { chunk, ...blob } = answer.missing
        this.#obstacles.set(key, () => firstUnclaimed({ directory, ...blob }, [chunk]) !== undefined)
        return log.debug(`${nameOf(request)} is served by nydusd: blob ${blob.blobId} is not all in the cache`)
      }
      case 'busy':
        return log.debug(`${nameOf(request)} is served by nydusd: ${answer.why}`)
      case 'unfit':
        this.#leave(key, request)
        return log.info(`${nameOf(request)} is served by nydusd, and is not for the kernel: ${answer.why}`)
      case 'damaged': {
        const path = cachePath(directory, answer.blobId, 'data')
        this.#obstacles.set(key, () => identityOf(path) === answer.data)
        return log.warn(
          `${nameOf(request)} is served by nydusd, which verifies what it reads and fetches it again: the cache does not have what the image wants: ${answer.why}`,
        )
      }
      default:
        return answer satisfies never
    }
  }
}

/** For people. */
export function nameOf({ reference, snapshot }: ImageRequest): string {
  return reference === '' ? `the image of snapshot ${snapshot.id}` : `${reference} (snapshot ${snapshot.id})`
}

function identityOf(path: string): string | undefined {
  const found = lstatSync(path, { bigint: true, throwIfNoEntry: false })
  return found && contentIdentity(found)
}
