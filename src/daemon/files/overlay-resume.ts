import { closeFd, cName, TYPE } from '../../kernel/index.ts'
import type { LayeredNode } from './files-in-hand.ts'
import type { FilesJournal } from './files-journal.ts'
import type { OverlayCopy } from './overlay-copy.ts'
import type { OverlayLower } from './overlay-lower.ts'
import { isOpaque, isWhiteout, originOf } from './overlay-marks.ts'
import type { OverlayNode } from './overlay-node.ts'
import type { OverlayNodes } from './overlay-nodes.ts'

/** Numbers of nodes after a takeover begin at the time in these: no process has given so many. */
const NODES_A_MILLISECOND = 4096

/** What the upper directory has in the place of a file of the image: its copy, or what hides it. */
type UpperState = 'nothing' | 'copy' | 'mark' | 'other'

export interface ResumedParts {
  readonly nodes: OverlayNodes
  readonly lower: OverlayLower
  readonly copy: OverlayCopy
  /** Copies have marks by which they are known. */
  readonly hasMarks: boolean
}

/**
 * Goes on from what another process had in hand: its nodes have their numbers again. What is in the upper directory is found by handle; of the rest it is looked at whether it was copied or removed
 * in that process's last moment, before it could write so. Throws RafsError for a node that the image has not, KernelError where the host fails.
 */
export function resumeNodes(parts: ResumedParts, journal: FilesJournal): void {
  const { nodes, copy } = parts
  const { layered, names } = journal.before
  nodes.numberBeyond(Date.now() * NODES_A_MILLISECOND)
  const several: Array<readonly [node: OverlayNode, placing: Uint8Array | undefined]> = []
  // a directory of the image has a smaller number than what is in it: it was met before
  for (const [id, record] of [...layered].sort(([a], [b]) => a - b)) {
    nodes.numberBeyond(id) // the clock may have been set back
    nodes.files.trim()
    if (record.handle !== undefined && !record.isPlacing) {
      restoreUpper(parts, id, record, record.handle)
      continue
    }
    const node = restoreLower(parts, id, record, names.get(id))
    if (node === undefined || node.isGone) continue
    if (hasSeveralNames(parts, node)) several.push([node, record.isPlacing ? record.handle : undefined])
    else lookAtPlace(parts, node)
  }
  // when all directories are known
  for (const [node, placing] of several) {
    if (node.lower === undefined) continue
    if (placing !== undefined) copy.takeBack(node.lower, placing)
    if (placing !== undefined || upperAt(parts, node).state !== 'nothing')
      nodes.namesLeft(node, copy.namesLeft(node, node.lower))
  }
}

function restoreUpper({ nodes }: ResumedParts, id: number, record: LayeredNode, handle: Uint8Array): void {
  const fd = nodes.files.openHandle(handle)
  if (fd < 0) return // it is gone
  const { type, nlink } = nodes.files.stat
  const upper = nodes.files.adopt(fd)
  const isGone = nlink === 0 // somebody of the host has it open
  if (isGone) nodes.files.pin(upper)
  // it may have been marked just before another was to take its place, and the marks in it are gone since
  const lower = type === TYPE.DIRECTORY && isOpaque(fd) ? undefined : record.lower
  nodes.restore(id, { type, upper, lower, origin: record.origin, isGone }, 0)
}

function restoreLower(
  { nodes, lower }: ResumedParts,
  id: number,
  { parent: above, lower: ino, origin, removed, isGone }: LayeredNode,
  name: Uint8Array | undefined,
): OverlayNode | undefined {
  if (ino === undefined) return undefined // nothing is known of it but that it was there
  const parent = above === undefined ? undefined : nodes.get(above)
  const isPlaced = parent !== undefined && name !== undefined && !parent.isGone
  const type = lower.look(ino)
  // where its directory cannot be found any more, nobody knows whether it was copied there; a file with other names is found by those
  if (!isPlaced && !isGone && (type === TYPE.DIRECTORY || lower.of.nlink < 2)) return undefined
  const place = isPlaced ? { parent, name: cName(name) } : {}
  return nodes.restore(id, { type, lower: ino, origin, isGone, ...place }, removed)
}

function hasSeveralNames({ lower }: ResumedParts, { type, lower: ino }: OverlayNode): boolean {
  if (type === TYPE.DIRECTORY || ino === undefined) return false
  lower.look(ino)
  return lower.of.nlink > 1
}

function lookAtPlace(parts: ResumedParts, node: OverlayNode): void {
  const { nodes, hasMarks } = parts
  const { state, fd } = upperAt(parts, node, true)
  switch (state) {
    case 'nothing':
      return
    case 'copy':
      nodes.setUpper(node, nodes.files.adopt(fd))
      return
    case 'other':
      // a copy or another file, where nobody can tell
      if (!hasMarks && node.type !== TYPE.DIRECTORY) return nodes.lose(node)
      return nodes.namesLeft(node, 0)
    case 'mark':
      return nodes.namesLeft(node, 0)
    default:
      return state satisfies never
  }
}

/** `isKept`: the descriptor of a copy stays open, and its attributes stand in the files' stat. */
function upperAt({ nodes }: ResumedParts, node: OverlayNode, isKept = false): { state: UpperState; fd: number } {
  const { parent, name, type, lower } = node
  const fd = parent?.upper === undefined ? -1 : nodes.files.lookup(parent.upper, name)
  if (fd < 0) return { state: 'nothing', fd }
  const { stat } = nodes.files
  const isCopy =
    stat.type === type && (type === TYPE.DIRECTORY ? !isOpaque(fd) : originOf(fd) === lower && lower !== undefined)
  const state = isWhiteout(stat) ? 'mark' : isCopy ? 'copy' : 'other'
  if (!(isKept && state === 'copy')) closeFd(fd)
  return { state, fd }
}
