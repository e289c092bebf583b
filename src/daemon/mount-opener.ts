import type { DecodePool } from '../engine/index.ts'
import { newJournal } from './files/files-journal.ts'
import type { FilesThread } from './files/files-thread.ts'
import { type ImageRequest, MountedImage } from './image.ts'

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

/** Where to put what is opened. */
export interface Place {
  readonly path: string
  /** Asked when an image is open, so that one that cannot be opened takes no slot. */
  readonly slot: () => number
  /** Another daemon had it mounted; `journal` is what it wrote of the files in hand, if that can be told. */
  readonly restored?: { readonly journal: string | undefined }
}

/**
 * Opens what is to be mounted, and closes it again. The files thread serves shared directories and images with an overlay, and starts with the first of them; other images
 * need none. Nobody sees what is opened here until a tree with it is published, and nobody may use it any more when it is closed.
 */
export class MountOpener {
  readonly #decoders: DecodePool
  readonly #files: () => Promise<FilesThread>

  /** `files` gives the files thread, starting it when it is first needed. */
  constructor(decoders: DecodePool, files: () => Promise<FilesThread>) {
    this.#decoders = decoders
    this.#files = files
  }

  /** Opens an image; nothing is fetched yet. Throws DaemonError; then nothing stays open. */
  async openImage(request: ImageRequest, { path, slot, restored }: Place): Promise<Mount> {
    const image = await MountedImage.open(request, this.#decoders)
    try {
      const journal = isOverlay(image) ? (restored?.journal ?? newJournal()) : undefined
      const isRestored = restored !== undefined
      const mount = { path, slot: slot(), image, mountedAt: new Date(), journal, isRestored }
      await this.#attachOverlay(mount)
      return mount
    } catch (error) {
      await image.close()
      throw error
    }
  }

  /**
   * Opens a directory of the host. Throws DaemonError; then nothing stays open. What another daemon has in hand of it is read when the session comes: until then that
   * one serves it.
   */
  async openShare(directory: string, { path, slot, restored }: Place): Promise<Share> {
    const place = { path, slot: slot(), mountedAt: new Date() }
    const journal = restored?.journal ?? newJournal()
    const isRestored = restored !== undefined
    await (await this.#files()).attach(place.slot, { directory, journal, isRestored })
    return { ...place, directory, journal, isRestored }
  }

  /** Reads of it that are under way end with an error. */
  async close(opened: Mount | Share): Promise<void> {
    if (!isMount(opened) || isOverlay(opened.image)) await (await this.#files()).detach(opened.slot)
    if (isMount(opened)) await opened.image.close()
  }

  async #attachOverlay({ slot, image, journal, isRestored = false }: Mount): Promise<void> {
    const { overlay } = image.settings
    if (overlay === undefined) return
    await (await this.#files()).attachOverlay(slot, image.served(slot), { ...overlay, journal, isRestored })
  }
}

export function isMount(opened: Mount | Share): opened is Mount {
  return 'image' in opened
}

/** Can the image be written to, in an upper directory of its own? */
export function isOverlay(image: MountedImage): boolean {
  return image.settings.overlay !== undefined
}
