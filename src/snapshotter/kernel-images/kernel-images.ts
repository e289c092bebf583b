import type { KeyObject } from 'node:crypto'
import { rm } from 'node:fs/promises'
import { join } from 'node:path'
import { unpin } from '../../cache/index.ts'
import { readPublicKey } from '../daemons/bootstrap.ts'
import { imageKey, type ImageRequest } from '../daemons/image-request.ts'
import { messageOf } from '../daemons/message.ts'
import type { DaemonLog } from '../daemons/settings.ts'
import { TurnsByKey } from '../daemons/turns.ts'
import { SnapshotterError } from '../errors.ts'
import { ImageChecks, nameOf } from './image-checks.ts'
import { KernelImage, namesIn } from './kernel-image.ts'
import { type KernelImageWish, whyNoKernelImages } from './probe.ts'
import { deadlineSignal } from '../../kernel/index.ts'

interface KernelImagesParts {
  readonly settings: {
    readonly root: string
    readonly cleanupOnClose: boolean
    readonly cache: { readonly dir: string }
    readonly image: { readonly publicKeyFile: string; readonly validateSignature: boolean }
  }
  /** Numbers of all snapshots that there are. */
  readonly snapshots: () => ReadonlySet<number>
  readonly log: Pick<DaemonLog, 'warn' | 'info' | 'debug'>
  /** From the start that asks for a check to its beginning: it takes a processor and the disk, which that container needs now. */
  readonly delayMs: number
}

/** An image that the kernel shows. */
export interface LentImage {
  readonly key: string
  readonly reference: string
  readonly mountpoint: string
  /** Of the image, in the cache. */
  readonly bytes: number
  readonly blobs: readonly string[]
  /** Numbers of the snapshots that show it. */
  readonly users: readonly number[]
}

/** So long a container that was there before a reboot waits for its image to be checked again. */
const AGAIN_MS = 60_000
const PINS = /^([A-Za-z0-9][A-Za-z0-9_-]{0,199})\.blob\.pins$/
const KEY = /^(\d+)(-userns-\d+)?$/

/**
 * Images whose data is all in the cache are shown by the kernel: EROFS, with the cache's files as its devices. No daemon takes part in their reads, so none can fail them.
 *
 * Nothing that an image says reaches the kernel: its metadata is read and checked by our own reader, and written anew. Its data is compared with the image's digests before, and pinned in the cache before that, so that no
 * nydusd writes there. A start never waits for this: it asks (`lend`), and if the image was not checked yet, that begins, and a later start has it. Who was lent an image keeps it, over restarts and reboots; it is
 * unmounted when the last one has given it back.
 */
export class KernelImages {
  readonly #parts: KernelImagesParts
  readonly #directory: string
  readonly #images = new Map<string, KernelImage>()
  readonly #turns = new TurnsByKey()
  readonly #checks: ImageChecks

  private constructor(parts: KernelImagesParts, key: KeyObject | undefined) {
    this.#parts = parts
    this.#directory = directoryOf(parts.settings.root)
    const { log, delayMs, settings } = parts
    this.#checks = new ImageChecks({
      cacheDir: settings.cache.dir,
      key,
      log,
      delayMs,
      outputOf: (name) => `${this.#at(name).metadata}.new`,
      onFit: async (name, output, checked) =>
        await this.#turns.take(name, async () => {
          const image = this.#at(name)
          // Else its record would tell of another mount than there is.
          if (image.checked?.source !== checked.source && image.isMounted)
            throw new SnapshotterError('FAILED_PRECONDITION', `${image.mountpoint} shows it in another form`)
          image.take(output, checked)
        }),
      onBroken: () => this.#unpinUnused(),
    })
  }

  /** Takes up what an earlier process left, if the kernel can; undefined, with all of it gone, if it cannot, or not as is wanted. Throws SnapshotterError 'BAD_CONFIG' for a key that cannot be read. */
  static async start(parts: KernelImagesParts, wish: KernelImageWish | 'never'): Promise<KernelImages | undefined> {
    const { settings, log } = parts
    const { publicKeyFile, validateSignature } = settings.image
    const images = new KernelImages(parts, validateSignature ? await readPublicKey(publicKeyFile) : undefined)
    const why = wish === 'never' ? '' : await whyNoKernelImages(directoryOf(settings.root), wish)
    if (why === undefined) {
      await images.#takeUp()
      return images
    }
    await images.#dropAll()
    if (why !== '') log.info(`images that are all in the cache are served by nydusd, not by the kernel: ${why}`)
    return undefined
  }

  /** Where the image is mounted for a snapshot that begins now; undefined: it is to be served in another way. Never throws: what fails here does not keep a container from its start. */
  async lend(request: ImageRequest, user: number): Promise<string | undefined> {
    try {
      return await this.#lend(imageKey(request.snapshot.id, request.idMapping), request, user)
    } catch (error) {
      this.#parts.log.warn(`${nameOf(request)} is served by nydusd: ${messageOf(error)}`)
      return undefined
    }
  }

  async #lend(key: string, request: ImageRequest, user: number): Promise<string | undefined> {
    return await this.#turns.take(key, async () => {
      const image = this.#at(key)
      const isOther = image.checked?.source !== this.#checks.sourceOf(request)
      // Who has the other form keeps it, and its place.
      if (isOther && image.isMounted) return undefined
      if (isOther || !(await this.#isReady(key, request))) {
        this.#checks.begin(key, request)
        return undefined
      }
      image.lend(user)
      return image.mountpoint
    })
  }

  /** The same for a snapshot that was there before: it has what it had. After a reboot it may wait for a check. */
  async lentTo(request: ImageRequest, user: number, signal: AbortSignal): Promise<string | undefined> {
    const key = imageKey(request.snapshot.id, request.idMapping)
    if (this.#images.get(key)?.users.has(user) !== true) return undefined
    const ready = async (): Promise<string | undefined> =>
      await this.#turns.take(key, async () => {
        const image = this.#at(key)
        return image.users.has(user) && (await this.#isReady(key, request)) ? image.mountpoint : undefined
      })
    const found = await ready()
    if (found !== undefined) return found
    this.#checks.begin(key, request)
    await this.#checks.ended(key, AbortSignal.any([signal, deadlineSignal(AGAIN_MS)])).catch(() => undefined)
    signal.throwIfAborted()
    const again = await ready()
    if (again !== undefined) return again
    this.#parts.log.warn(
      `snapshot ${user} goes on with ${nameOf(request)} by nydusd: the kernel cannot show it any more`,
    )
    await this.#turns.take(key, async () => this.#at(key).giveBack(user))
    return undefined
  }

  /** Checks an image that was pulled, so that its first container has it. */
  begin(request: ImageRequest): void {
    this.#checks.begin(imageKey(request.snapshot.id, request.idMapping), request)
  }

  /** A snapshot is gone. */
  async giveBack(user: number): Promise<void> {
    for (const [key, image] of this.#images)
      if (image.users.has(user))
        await this.#turns.take(key, async () => {
          image.giveBack(user)
          if (image.users.size === 0) await this.#unmount(image)
        })
  }

  /** An image is gone. */
  async forget(layerId: number): Promise<void> {
    for (const key of this.#keysOf(layerId)) {
      await this.#checks.forget(key)
      await this.#turns.take(key, async () => await this.#remove(key))
    }
  }

  /** Ids of blobs that the cache must keep. */
  *blobs(): Generator<string> {
    for (const { checked } of this.#images.values()) for (const { id } of checked?.blobs ?? []) yield id
  }

  /** What an image has on the disk beside the cache; what is mounted there has its bytes in the cache. */
  directoriesOf(layerId: number): string[] {
    return [...this.#keysOf(layerId)].map((key) => join(this.#directory, key))
  }

  /** What is mounted. */
  list(): LentImage[] {
    return [...this.#images].flatMap(([key, image]) => {
      const { checked, mountpoint, users } = image
      if (checked === undefined || !image.isMounted) return []
      const { reference, bytes, blobs } = checked
      return [{ key, reference, mountpoint, bytes, blobs: blobs.map(({ id }) => id), users: [...users] }]
    })
  }

  /** Resolves when nothing is being checked. */
  async settled(): Promise<void> {
    await this.#checks.settled()
  }

  /** Mounts stay, unless the configuration has them end. */
  async stop(): Promise<void> {
    await this.#checks.stop()
    if (!this.#parts.settings.cleanupOnClose) return
    for (const image of this.#images.values()) await this.#unmount(image)
  }

  #at(key: string): KernelImage {
    const known = this.#images.get(key)
    if (known !== undefined) return known
    const image = new KernelImage(join(this.#directory, key))
    this.#images.set(key, image)
    return image
  }

  /** Mounts it if that was checked before and nothing has changed since. */
  async #isReady(key: string, request: ImageRequest): Promise<boolean> {
    const image = this.#at(key)
    const { checked } = image
    if (checked === undefined) return false
    if (image.isMounted) return true
    if (checked.source !== this.#checks.sourceOf(request)) return false
    const started = performance.now()
    try {
      if (!(await image.mount(this.#parts.settings.cache.dir))) return false
    } catch (error) {
      this.#checks.giveUp(key)
      this.#parts.log.warn(`the kernel does not mount ${nameOf(request)}: ${messageOf(error)}`)
      return false
    }
    this.#parts.log.info(
      `${nameOf(request)} is shown by the kernel at ${image.mountpoint} after ${Math.round(performance.now() - started)} ms: its ${checked.bytes} bytes are in the cache`,
    )
    return true
  }

  async #unmount(image: KernelImage): Promise<void> {
    try {
      await image.unmount()
    } catch (error) {
      this.#parts.log.warn(`an image stays mounted: ${messageOf(error)}`) // until its next user has gone
    }
  }

  async #remove(key: string): Promise<void> {
    const image = this.#at(key)
    this.#images.delete(key)
    const own = image.checked?.blobs ?? []
    await image.remove()
    const needed = new Set(this.blobs())
    for (const { id } of own) if (!needed.has(id)) unpin(this.#parts.settings.cache.dir, id)
  }

  #keysOf(layerId: number): Set<string> {
    return new Set([...this.#images.keys(), ...this.#checks.keys()].filter((key) => Number.parseInt(key) === layerId))
  }

  async #takeUp(): Promise<void> {
    const snapshots = this.#parts.snapshots()
    for (const name of namesIn(this.#directory)) {
      const layer = Number(KEY.exec(name)?.[1])
      const image = this.#at(name)
      for (const user of image.users) if (!snapshots.has(user)) image.giveBack(user)
      if (!snapshots.has(layer) || image.checked === undefined) await this.#remove(name)
      else if (image.users.size === 0) await this.#unmount(image)
    }
    this.#unpinUnused()
  }

  async #dropAll(): Promise<void> {
    for (const name of namesIn(this.#directory)) await this.#remove(name)
    await rm(this.#directory, { recursive: true, force: true })
    this.#unpinUnused()
  }

  #unpinUnused(): void {
    const { dir } = this.#parts.settings.cache
    const needed = new Set(this.blobs())
    for (const name of namesIn(dir)) {
      const id = PINS.exec(name)?.[1]
      if (id !== undefined && !needed.has(id)) unpin(dir, id)
    }
  }
}

function directoryOf(root: string): string {
  return join(root, 'erofs')
}
