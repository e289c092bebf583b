import type { HostFiles } from '../../kernel/index.ts'
import type { Ino } from '../../rafs/index.ts'
import { ROOT_NODE } from './file-server.ts'
import type { FilesJournal } from './files-journal.ts'
import type { OverlayNode } from './overlay-node.ts'

/** What the kernel was told of an overlay's nodes, written where it outlives the process: before the kernel is told, and before what is written may be relied on. */
export class OverlayWritten {
  readonly #files: HostFiles
  readonly #removedOf: (ino: Ino) => number
  #journal: FilesJournal | undefined

  /** `removedOf`: how many names of an image's file were removed. */
  constructor(files: HostFiles, removedOf: (ino: Ino) => number) {
    this.#files = files
    this.#removedOf = removedOf
  }

  keepIn(journal: FilesJournal | undefined): void {
    this.#journal = journal
  }

  /** The kernel is about to be told of it. */
  told(node: OverlayNode): void {
    if (!node.isWritten) this.#write(node)
  }

  /** What is written of it, if anything, is no longer true. */
  changed(node: OverlayNode): void {
    if (node.isWritten) this.#write(node)
  }

  /** How many names it has left has changed, which is to be known also when the kernel knows it no more. */
  counted(node: OverlayNode): void {
    this.#write(node)
  }

  /** A file that has several names is about to get them in the upper directory: if that stays half done, the next process takes it back. Undefined: it is done, or taken back. */
  placing(node: OverlayNode, copy: number | undefined): void {
    if (this.#journal === undefined || !node.isWritten) return
    node.placing = copy === undefined ? undefined : this.#files.openedHandle(copy)
    this.#write(node)
  }

  /** Nobody knows it any more. */
  gone(node: OverlayNode): void {
    if (node.isWritten) this.#journal?.forgotten(node.id)
    node.isWritten = false
  }

  /** All of these that are written, to another place. */
  all(nodes: Iterable<OverlayNode>, to: FilesJournal): void {
    for (const node of nodes) if (node.isWritten) this.#writeTo(to, node, this.#handleOf(node))
  }

  #handleOf({ upper, placing }: OverlayNode): Uint8Array | undefined {
    return upper === undefined ? placing : this.#files.knownHandle(upper)
  }

  #write(node: OverlayNode): void {
    const journal = this.#journal
    if (journal === undefined || node.id === ROOT_NODE) return
    const handle = this.#handleOf(node)
    if (node.upper !== undefined && handle === undefined) {
      this.gone(node) // it will not be found again, and what the image has is old
      return
    }
    node.isWritten = true // before it is: the journal may be written anew meanwhile
    this.#writeTo(journal, node, handle)
  }

  /** Where it is needs to be known of what only the image has, which never moves; the rest has a handle. */
  #writeTo(journal: FilesJournal, node: OverlayNode, handle: Uint8Array | undefined): void {
    const { id, lower, origin, isGone, name } = node
    const parent = node.upper === undefined ? node.parent : undefined
    if (parent !== undefined) this.told(parent)
    if (parent !== undefined) journal.name(id, name.subarray(0, -1))
    const removed = lower === undefined ? 0 : this.#removedOf(lower)
    const isPlacing = handle !== undefined && node.upper === undefined
    journal.layered(id, { parent: parent?.id, lower, origin, removed, isGone, isPlacing, handle })
  }
}
