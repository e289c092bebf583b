import type { DecodePool } from '../engine/index.ts'
import { DroppedMemory } from './dropped-memory.ts'
import { DaemonError } from './errors.ts'
import type { FilesThread } from './files/files-thread.ts'
import type { MountRecord } from './handover/session-state.ts'
import type { ImageRequest } from './image.ts'
import { type KernelName, rootNames, staleNames } from './kernel-names.ts'
import { isMount, isOverlay, type Mount, MountOpener, type Place, type Share } from './mount-opener.ts'
import { MountSlots } from './mount-slots.ts'
import { type MountedTree, mountRecord, type RestoreParts, restoreTree, shareRecord } from './mounted-tree.ts'
import { type PseudoNode, PseudoTree } from './pseudo-tree.ts'
import type { ServedTree } from './transports/fuse-handler.ts'

/** What must learn of a change: the session, once there is one. */
export interface TreeListener {
  /** Resolves when no thread uses an older tree any more. */
  publish(tree: ServedTree): Promise<void>
  /** Makes the kernel forget names, with everything below them. */
  forget(names: readonly KernelName[]): Promise<void>
}

/**
 * The images of a session and the directories above them. Changes go one after another; each is seen by all serving threads, and forgotten by the kernel where it knew
 * better before, when its promise resolves.
 */
export class MountTable {
  #tree = new PseudoTree()
  #mounts = new Map<string, Mount>()
  #shares = new Map<string, Share>()
  /** Another daemon's mounts that could not be opened: their users see errors, and the next daemon tries again. */
  readonly #lost = new Map<string, MountRecord>()
  readonly #opener: MountOpener
  readonly #slots = new MountSlots()
  readonly #onFree: (slot: number) => void
  readonly #dropped = new DroppedMemory()
  #listener: TreeListener | undefined
  #turn: Promise<unknown> = Promise.resolve()

  /** `onFree` is told of a slot that nobody serves any more; `files` starts the files thread when it is first needed. */
  constructor(decoders: DecodePool, onFree: (slot: number) => void, files: () => Promise<FilesThread>) {
    this.#opener = new MountOpener(decoders, files)
    this.#onFree = onFree
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
      const mount = await this.#opener.openImage(request, this.#place(path))
      await this.#show(mount)
      mount.image.prefetch()
    })
  }

  /** Shows a directory of the host at a path. Throws DaemonError; then nothing has changed. */
  share(path: string, directory: string): Promise<void> {
    return this.#inTurn(async () => {
      const known = this.#shares.get(path)
      if (known?.isRestored === true && known.directory === directory) return
      if (this.#isTaken(path)) throw exists(path)
      await this.#show(await this.#opener.openShare(directory, this.#place(path)))
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
      if (this.#lost.delete(path)) {
        await this.#takeOut(path, node)
        await this.#publish()
        return await this.#forget(way, [])
      }
      const opened = this.#shares.get(path) ?? this.#existing(path)
      await this.#takeOut(path, node)
      await this.#opener.close(opened)
      await this.#forget(way, namesInRoot(opened))
      if (isMount(opened)) this.#dropped.add(opened.image.loaded.bytes.length)
    })
  }

  /** Where everything is, for another daemon to {@link restore}. */
  get tree(): MountedTree {
    const mounts = [...this.all.map(mountRecord), ...this.shares.map(shareRecord), ...this.#lost.values()]
    const directories = this.#tree.nodes.filter(({ name }) => name !== '')
    return { mounts, directories, nextDirectory: this.#tree.nextIno, nextSlot: this.#slots.next }
  }

  /**
   * Opens what another daemon had mounted and puts it where it was. Before a session is served only. What was mounted here before at the same path goes; other mounts stay, at a slot that
   * is free. `onFailure` is told of an image that cannot be opened: when it throws, nothing has changed; else the image's place stays, and gives errors.
   */
  restore(from: MountedTree, parts: Omit<RestoreParts, 'opener'>): Promise<void> {
    return this.#inTurn(async () => {
      const { tree, mounts, shares, lost } = await restoreTree(from, { ...parts, opener: this.#opener })
      const before = this.all
      const restored = new Set([...shares.values()].map(({ slot }) => slot))
      for (const share of this.#shares.values()) if (!restored.has(share.slot)) await this.#opener.close(share)
      this.#shares = shares
      for (const record of lost) this.#lost.set(record.path, record)
      this.#tree = tree
      this.#mounts = mounts
      this.#slots.goOnFrom(from.nextSlot)
      for (const mount of before) {
        if (mounts.has(mount.path)) await mount.image.close()
        else this.#move(mount)
      }
    })
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

  /** Puts what was opened in its place, for all to see. Throws DaemonError; then it is closed, and nothing has changed. */
  async #show(opened: Mount | Share): Promise<void> {
    const { path, slot } = opened
    let way: readonly PseudoNode[] = []
    try {
      way = this.#tree.mount(path, slot)
      if (isMount(opened)) this.#mounts.set(path, opened)
      else this.#shares.set(path, opened)
      await this.#publish()
      this.#lost.delete(path)
    } catch (error) {
      await this.#takeOut(path, way.at(-1))
      await this.#opener.close(opened)
      throw error
    }
    await this.#forget(way, namesInRoot(opened))
  }

  /** Puts a mount in a tree that came after it. */
  #move({ path, image, mountedAt }: Mount): void {
    const slot = this.#freeSlot()
    this.#tree.mount(path, slot)
    this.#mounts.set(path, { path, slot, image, mountedAt })
  }

  async #replace(old: Mount, request: ImageRequest): Promise<void> {
    if (isOverlay(old.image) || request.config.overlay !== null) throw notRemounted(old.path)
    const { image } = await this.#opener.openImage(request, { path: old.path, slot: () => old.slot })
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

  async #forget(way: readonly PseudoNode[], inRoot: readonly Uint8Array[]): Promise<void> {
    await this.#listener?.forget(staleNames(way, inRoot, this.#tree.nodes))
  }

  #place(path: string): Place {
    return { path, slot: () => this.#freeSlot() }
  }

  #freeSlot(): number {
    return this.#slots.take(new Set([...this.all, ...this.shares, ...this.#lost.values()].map(({ slot }) => slot)))
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

function namesInRoot(opened: Mount | Share): Uint8Array[] {
  return isMount(opened) ? rootNames(opened.image) : []
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

function exists(path: string): DaemonError {
  return new DaemonError('EXISTS', `an image is mounted at ${path} already; unmount it first, or take another path`, {
    wire: 'object or filesystem already exists',
  })
}
