import type { DecodePool } from '../engine/index.ts'
import type { FuseNode } from '../kernel/index.ts'
import { DroppedMemory } from './dropped-memory.ts'
import { DaemonError } from './errors.ts'
import { journalDocument, journalIn, journalNamed, newJournal } from './files/files-journal.ts'
import type { FilesThread } from './files/files-thread.ts'
import { type ImageRequest, MountedImage } from './image.ts'
import type { MountRecord, SessionState } from './handover/session-state.ts'
import { type PseudoNode, PseudoTree } from './pseudo-tree.ts'
import type { ServedTree } from './transports/fuse-handler.ts'

/** A mounted image and where it is. */
export interface Mount {
  readonly path: string
  readonly slot: number
  readonly image: MountedImage
  readonly mountedAt: Date
  /** Of one with an overlay: where its files in hand are written, for the daemon after this one. */
  readonly journal?: string | undefined
  /** Another daemon had mounted it. Its clients may ask for it once more, of us. */
  readonly isRestored?: boolean
}

/** What another daemon had mounted, and where. */
export type MountedTree = Pick<SessionState, 'mounts' | 'directories' | 'nextDirectory' | 'nextSlot'>

/** A shared directory of the host, and where it is. */
export interface Share {
  readonly path: string
  readonly slot: number
  readonly directory: string
  readonly mountedAt: Date
  /** Where its files in hand are written, for the daemon after this one. */
  readonly journal: string | undefined
  readonly isRestored?: boolean
}

/** What must learn of a change: the session, once there is one. */
export interface TreeListener {
  publish(tree: ServedTree): Promise<void>
  forget(names: ReadonlyArray<{ readonly parent: FuseNode; readonly name: Uint8Array }>): Promise<void>
}

const SLOTS = 255
const OPENED_AT_ONCE = 4

/**
 * The images of a session and the directories above them. Changes go one after another; each is seen by all serving threads, and forgotten by the kernel where it knew
 * better before, when its promise resolves.
 */
export class MountTable {
  readonly #decoders: DecodePool
  #tree = new PseudoTree()
  #mounts = new Map<string, Mount>()
  #shares = new Map<string, Share>()
  /** Another daemon's mounts that could not be opened: their users see errors, and the next daemon tries again. */
  readonly #lost = new Map<string, MountRecord>()
  readonly #onFree: (slot: number) => void
  readonly #files: () => Promise<FilesThread>
  readonly #dropped = new DroppedMemory()
  #listener: TreeListener | undefined
  #lastSlot = 0
  #turn: Promise<unknown> = Promise.resolve()

  /** `onFree` is told of a slot that nobody serves any more; `files` starts the files thread when it is first needed. */
  constructor(decoders: DecodePool, onFree: (slot: number) => void, files: () => Promise<FilesThread>) {
    this.#decoders = decoders
    this.#onFree = onFree
    this.#files = files
  }

  get all(): readonly Mount[] {
    return [...this.#mounts.values()].sort((a, b) => (a.path < b.path ? -1 : 1))
  }

  get served(): ServedTree {
    return {
      images: this.all.flatMap(({ image, slot }) => (isOverlay(image) ? [] : [image.served(slot)])),
      pseudo: this.#tree.nodes,
      files: [...this.all.filter(({ image }) => isOverlay(image)), ...this.#shares.values()].map(({ slot }) => slot),
    }
  }

  get shares(): readonly Share[] {
    return [...this.#shares.values()].sort((a, b) => (a.path < b.path ? -1 : 1))
  }

  get(path: string): Mount | undefined {
    return this.#mounts.get(path)
  }

  bySlot(slot: number): Mount | undefined {
    for (const mount of this.#mounts.values()) if (mount.slot === slot) return mount
    return undefined
  }

  /** From now on changes are told to it. */
  listen(listener: TreeListener): void {
    this.#listener = listener
  }

  /** Opens an image and mounts it. Throws DaemonError; then nothing has changed. */
  mount(path: string, request: ImageRequest): Promise<void> {
    return this.#inTurn(async () => {
      const known = this.#mounts.get(path)
      if (known?.isRestored === true && known.image.request.source === request.source)
        return known.image.request.document === request.document ? undefined : await this.#replace(known, request)
      if (this.#isTaken(path)) throw exists(path)
      const image = await MountedImage.open(request, this.#decoders)
      let way: readonly PseudoNode[] = []
      let attached = 0
      try {
        const slot = this.#freeSlot()
        const journal = isOverlay(image) ? newJournal() : undefined
        if (await this.#attachOverlay(slot, image, { journal, isRestored: false })) attached = slot
        way = this.#tree.mount(path, slot)
        this.#mounts.set(path, { path, slot, image, mountedAt: new Date(), journal })
        await this.#publish()
        this.#lost.delete(path)
      } catch (error) {
        await this.#takeOut(path, way.at(-1))
        if (attached !== 0) await (await this.#files()).detach(attached)
        await image.close()
        throw error
      }
      await this.#forget(way, rootNames(image))
      image.prefetch()
    })
  }

  /** Has the files thread serve an image with an overlay; false for any other. Throws DaemonError. */
  async #attachOverlay(
    slot: number,
    image: MountedImage,
    hand: { journal: string | undefined; isRestored: boolean },
  ): Promise<boolean> {
    const { overlay } = image.settings
    if (overlay === undefined) return false
    await (await this.#files()).attachOverlay(slot, image.served(slot), { ...overlay, ...hand })
    return true
  }

  /** Shows a directory of the host at a path. Throws DaemonError; then nothing has changed. */
  share(path: string, directory: string): Promise<void> {
    return this.#inTurn(async () => {
      const known = this.#shares.get(path)
      if (known?.isRestored === true && known.directory === directory) return
      if (this.#isTaken(path)) throw exists(path)
      const slot = this.#freeSlot()
      const files = await this.#files()
      const journal = newJournal()
      await files.attach(slot, { directory, journal, isRestored: false })
      let way: readonly PseudoNode[] = []
      try {
        way = this.#tree.mount(path, slot)
        this.#shares.set(path, { path, slot, directory, mountedAt: new Date(), journal })
        await this.#publish()
      } catch (error) {
        await this.#takeOut(path, way.at(-1))
        await files.detach(slot)
        throw error
      }
      await this.#forget(way, [])
    })
  }

  /** Puts another bootstrap or configuration in the place of a mounted one; it must have as many blobs. Throws DaemonError; then the old one stays. */
  remount(path: string, request: ImageRequest): Promise<void> {
    return this.#inTurn(() => this.#replace(this.#existing(path), request))
  }

  /** Unmounts; its directory stays. Reads under way end with EIO. Throws DaemonError 'NOT_FOUND'. */
  unmount(path: string): Promise<void> {
    return this.#inTurn(async () => {
      const node = this.#tree.find(path)
      const way = node === undefined ? [] : [node]
      const share = this.#shares.get(path)
      if (share !== undefined) {
        await this.#takeOut(path, node)
        await (await this.#files()).detach(share.slot)
        return await this.#forget(way, [])
      }
      if (this.#lost.delete(path)) {
        await this.#takeOut(path, node)
        await this.#publish()
        return await this.#forget(way, [])
      }
      const { image, slot } = this.#existing(path)
      await this.#takeOut(path, node)
      if (isOverlay(image)) await (await this.#files()).detach(slot)
      await image.close()
      await this.#forget(way, rootNames(image))
      this.#dropped.add(image.loaded.bytes.length)
    })
  }

  /** Where everything is, for another daemon to {@link restore}. */
  get tree(): MountedTree {
    const mounts = this.all.map(({ path, slot, image, journal }): MountRecord => {
      const { source, config, document = JSON.stringify(config), prefetchFiles: files } = image.request
      const prefetchFiles = files.length > 0 ? files : undefined
      const kind = isOverlay(image) ? 'overlay' : 'rafs'
      return { path, slot, kind, source, document, prefetchFiles, journal }
    })
    for (const { path, slot, directory: source, journal } of this.shares)
      mounts.push({
        path,
        slot,
        kind: 'passthrough',
        source,
        document: journalDocument(journal),
        prefetchFiles: undefined,
      })
    const directories = this.#tree.nodes.filter(({ name }) => name !== '')
    mounts.push(...this.#lost.values())
    return { mounts, directories, nextDirectory: this.#tree.nextIno, nextSlot: (this.#lastSlot % SLOTS) + 1 }
  }

  /**
   * Opens what another daemon had mounted and puts it where it was. Before a session is served only. What was mounted here before at the same path goes; other mounts stay, at a slot that
   * is free. `onFailure` is told of an image that cannot be opened: when it throws, nothing has changed; else the image's place stays, and gives errors.
   */
  restore(
    from: MountedTree,
    requestOf: (record: MountRecord) => ImageRequest,
    onFailure: (path: string, error: unknown) => void,
  ): Promise<void> {
    return this.#inTurn(async () => {
      const tree = PseudoTree.of(from.directories, from.nextDirectory)
      const mounts = new Map<string, Mount>()
      const shares = new Map<string, Share>()
      const lost: MountRecord[] = []
      const restoreOne = async (record: MountRecord): Promise<void> => {
        const { path, slot } = record
        let image: MountedImage | undefined
        let isAttached = false
        try {
          if (record.kind === 'passthrough') {
            shares.set(path, await this.#restoreShare(record))
            tree.mount(path, slot)
            return
          }
          image = await MountedImage.open(requestOf(record), this.#decoders)
          const journal = isOverlay(image) ? (journalNamed(record.journal) ?? newJournal()) : undefined
          isAttached = await this.#attachOverlay(slot, image, { journal, isRestored: true })
          tree.mount(path, slot)
          mounts.set(path, { path, slot, image, mountedAt: new Date(), isRestored: true, journal })
        } catch (error) {
          if (isAttached) await (await this.#files()).detach(slot)
          await image?.close()
          onFailure(path, error)
          tree.mount(path, slot)
          lost.push(record)
        }
      }
      try {
        await each(from.mounts, restoreOne)
      } catch (error) {
        for (const { image, slot } of mounts.values()) {
          if (isOverlay(image)) await (await this.#files()).detach(slot)
          await image.close()
        }
        for (const { slot } of shares.values()) await (await this.#files()).detach(slot)
        throw error
      }
      const before = this.all
      for (const { slot } of this.#shares.values())
        if (![...shares.values()].some((share) => share.slot === slot)) await (await this.#files()).detach(slot)
      this.#shares = shares
      for (const record of lost) this.#lost.set(record.path, record)
      this.#tree = tree
      this.#mounts = mounts
      this.#lastSlot = (from.nextSlot + SLOTS - 1) % SLOTS
      for (const mount of before) {
        if (mounts.has(mount.path)) await mount.image.close()
        else this.#place(mount)
      }
    })
  }

  /** What is in hand is read when the session comes: until then another daemon serves it. */
  async #restoreShare({ path, slot, source: directory, document }: MountRecord): Promise<Share> {
    const journal = journalIn(document) ?? newJournal()
    await (await this.#files()).attach(slot, { directory, journal, isRestored: true })
    return { path, slot, directory, journal, mountedAt: new Date(), isRestored: true }
  }

  /** Starts fetching ahead what was restored. */
  prefetch(): void {
    for (const { image } of this.all) image.prefetch()
  }

  /** Closes all images, for the end of the daemon: no thread serves any more. */
  close(): Promise<void> {
    return this.#inTurn(async () => {
      for (const { path, image } of this.all) {
        this.#mounts.delete(path)
        await image.close()
      }
    })
  }

  #place({ path, image, mountedAt }: Mount): void {
    const slot = this.#freeSlot()
    this.#tree.mount(path, slot)
    this.#mounts.set(path, { path, slot, image, mountedAt })
  }

  async #replace(old: Mount, request: ImageRequest): Promise<void> {
    if (isOverlay(old.image) || request.config.overlay !== null) throw notRemounted(old.path)
    const image = await MountedImage.open(request, this.#decoders)
    const [before, after] = [old.image.loaded.bootstrap.blobs.length, image.loaded.bootstrap.blobs.length]
    if (before !== after) {
      await image.close()
      const what = `number of blobs doesn't match: ${after} in the new image, ${before} in the mounted one`
      throw new DaemonError('BAD_IMAGE', `cannot remount ${old.path}: ${what}`, {
        wire: `RAFS failed to handle request, ${what}\``,
      })
    }
    this.#mounts.set(old.path, { ...old, image, mountedAt: new Date() })
    await this.#publish()
    await this.#forget([], rootNames(image))
    await old.image.close()
    this.#dropped.add(old.image.loaded.bytes.length)
    image.prefetch()
  }

  #existing(path: string): Mount {
    const mount = this.#mounts.get(path)
    if (mount === undefined)
      throw new DaemonError('NOT_FOUND', `nothing is mounted at ${path}`, {
        wire: "object or filesystem doesn't exist",
      })
    return mount
  }

  async #takeOut(path: string, node: PseudoNode | undefined): Promise<void> {
    const mount = this.#mounts.get(path) ?? this.#shares.get(path)
    if (node !== undefined) this.#tree.unmount(node)
    this.#mounts.delete(path)
    this.#shares.delete(path)
    if (mount === undefined) return
    await this.#publish()
    this.#onFree(mount.slot)
  }

  async #publish(): Promise<void> {
    await this.#listener?.publish(this.served)
  }

  /**
   * The kernel keeps names for ever, also that there is none: those on the way to the mount are forgotten, and, since the session's root cannot be,
   * all names in it where the image's root is that.
   */
  async #forget(way: readonly PseudoNode[], inRoot: readonly Uint8Array[]): Promise<void> {
    if (this.#listener === undefined) return
    const names = way
      .filter((node) => node.name !== '')
      .map((node) => ({ parent: { node: node.parent, top: 0 }, name: Buffer.from(node.name) }))
    const isRoot = way.length === 0 || way.some((node) => node.name === '' && node.slot !== 0)
    if (isRoot && names.length === 0) {
      const parent = { node: 1, top: 0 }
      for (const name of inRoot) names.push({ parent, name: Buffer.from(name) })
      for (const node of this.#tree.nodes)
        if (node.parent === 1 && node.name !== '') names.push({ parent, name: Buffer.from(node.name) })
    }
    await this.#listener.forget(names)
  }

  /** Slots go round, so that a number which an old user still knows is not soon another image's. */
  #freeSlot(): number {
    const used = new Set([...this.all, ...this.shares, ...this.#lost.values()].map((mount) => mount.slot))
    for (let tries = 0; tries < SLOTS; tries++) {
      this.#lastSlot = (this.#lastSlot % SLOTS) + 1
      if (!used.has(this.#lastSlot)) return this.#lastSlot
    }
    throw new DaemonError(
      'TOO_MANY',
      `${SLOTS} images are mounted, which is all that one daemon takes; start another`,
      {
        wire: 'vfs maximum mountpoints reached',
      },
    )
  }

  #isTaken(path: string): boolean {
    return this.#mounts.has(path) || this.#shares.has(path)
  }

  #inTurn<T>(act: () => Promise<T>): Promise<T> {
    const result = this.#turn.then(act)
    this.#turn = result.catch(() => undefined) // the caller got it; the next one goes on
    return result
  }
}

function isOverlay(image: MountedImage): boolean {
  return image.settings.overlay !== undefined
}

/** Only images without an overlay can be exchanged under their users. */
export function notRemounted(path: string): DaemonError {
  return new DaemonError(
    'UNSUPPORTED',
    `${path} cannot be remounted: only images without overlay can; unmount it and mount it again`,
    {
      wire: 'filesystem type mismatch, expect RAFS',
    },
  )
}

/** Names that the kernel may know in the session's root when the image's is that. */
function rootNames(image: MountedImage): Uint8Array[] {
  const { bootstrap } = image.loaded
  const names: Uint8Array[] = []
  bootstrap.list(bootstrap.root, 0, (name) => {
    names.push(Buffer.from(name))
    return true
  })
  return names
}

/** At most a few at once. The first failure is thrown when the others have ended. */
async function each<T>(items: readonly T[], act: (item: T) => Promise<void>): Promise<void> {
  const left = [...items]
  const takeOne = async (): Promise<void> => {
    for (let item = left.shift(); item !== undefined; item = left.shift()) await act(item)
  }
  const ends = await Promise.allSettled(Array.from({ length: OPENED_AT_ONCE }, takeOne))
  const failed = ends.find((end) => end.status === 'rejected')
  if (failed !== undefined) throw failed.reason
}

function exists(path: string): DaemonError {
  return new DaemonError('EXISTS', `an image is mounted at ${path} already; unmount it first, or take another path`, {
    wire: 'object or filesystem already exists',
  })
}
