import { journalDocument, journalIn, journalNamed } from './files/files-journal.ts'
import type { MountRecord, SessionState } from './handover/session-state.ts'
import type { ImageRequest } from './image.ts'
import { isMount, isOverlay, type Mount, type MountOpener, type Share } from './mount-opener.ts'
import { PseudoTree } from './pseudo-tree.ts'

/** What a daemon has mounted, and where, as it tells another one. */
export type MountedTree = Pick<SessionState, 'mounts' | 'directories' | 'nextDirectory' | 'nextSlot'>

/** Such a tree, opened. */
export interface RestoredTree {
  readonly tree: PseudoTree
  readonly mounts: Map<string, Mount>
  readonly shares: Map<string, Share>
  /** What could not be opened; their places are in the tree, with nothing behind them. */
  readonly lost: readonly MountRecord[]
}

export interface RestoreParts {
  readonly opener: MountOpener
  /** May throw: then that image cannot be opened. */
  readonly requestOf: (record: MountRecord) => ImageRequest
  /** Told of what cannot be opened, and why. When it throws, all of it fails. */
  readonly onFailure: (path: string, error: unknown) => void
}

const OPENED_AT_ONCE = 4

/** The mount as another daemon can open it: with its configuration as it was written, logins too. */
export function mountRecord({ path, slot, image, journal }: Mount): MountRecord {
  const { source, config, document = JSON.stringify(config), prefetchFiles: files } = image.request
  const prefetchFiles = files.length > 0 ? files : undefined
  const kind = isOverlay(image) ? 'overlay' : 'rafs'
  return { path, slot, kind, source, document, prefetchFiles, journal }
}

/** The shared directory as another daemon can open it. */
export function shareRecord({ path, slot, directory: source, journal }: Share): MountRecord {
  return { path, slot, kind: 'passthrough', source, document: journalDocument(journal), prefetchFiles: undefined }
}

/** Opens what another daemon had mounted, some at once. Throws what `onFailure` throws, and DaemonError 'EXISTS' for mounts below each other; then nothing stays open. */
export async function restoreTree(from: MountedTree, parts: RestoreParts): Promise<RestoredTree> {
  const { opener, onFailure } = parts
  const tree = PseudoTree.of(from.directories, from.nextDirectory)
  const opened: Array<Mount | Share> = []
  const lost: MountRecord[] = []
  const restoreOne = async (record: MountRecord): Promise<void> => {
    let one: Mount | Share | undefined
    try {
      one = await open(record, parts)
      tree.mount(record.path, record.slot)
      opened.push(one)
    } catch (error) {
      if (one !== undefined) await opener.close(one)
      onFailure(record.path, error)
      tree.mount(record.path, record.slot)
      lost.push(record)
    }
  }
  try {
    await each(from.mounts, restoreOne)
  } catch (error) {
    for (const one of opened) await opener.close(one)
    throw error
  }
  const mounts = new Map<string, Mount>()
  const shares = new Map<string, Share>()
  for (const one of opened) {
    if (isMount(one)) mounts.set(one.path, one)
    else shares.set(one.path, one)
  }
  return { tree, mounts, shares, lost }
}

async function open(record: MountRecord, { opener, requestOf }: RestoreParts): Promise<Mount | Share> {
  const { path, source, document, kind } = record
  const slot = (): number => record.slot
  return kind === 'passthrough'
    ? await opener.openShare(source, { path, slot, restored: { journal: journalIn(document) } })
    : await opener.openImage(requestOf(record), { path, slot, restored: { journal: journalNamed(record.journal) } })
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
