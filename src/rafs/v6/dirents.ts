import type { FileTree, NodeId } from '../file-tree.ts'
import { compareNames } from '../names.ts'
import { DIRENT } from './layout.ts'

const DOT = new Uint8Array([0x2e])
const DOT_DOT = new Uint8Array([0x2e, 0x2e])

/** What stands for `.` and `..` in a {@link planDirents plan}. */
export const SELF = -1
export const PARENT = -2

/** `.`, `..` and the children in bytewise order: names below `.` (such as `!x`) come before it. */
export function planDirents(files: FileTree, directory: NodeId): number[] {
  const plan: number[] = []
  let dots = 0
  for (let child = files.firstChild(directory); child !== 0; child = files.next(child)) {
    if (dots < 2) {
      const name = files.name(child)
      if (dots === 0 && compareNames(DOT, name) < 0) plan.push([SELF, PARENT][dots++])
      if (dots === 1 && compareNames(DOT_DOT, name) < 0) plan.push([SELF, PARENT][dots++])
    }
    plan.push(child)
  }
  while (dots < 2) plan.push([SELF, PARENT][dots++])
  return plan
}

export function direntName(files: FileTree, entry: number): Uint8Array {
  return entry === SELF ? DOT : entry === PARENT ? DOT_DOT : files.name(entry)
}

/** Bytes of the dirent area: each block but the last is filled up to the block size. */
export function direntSize(files: FileTree, plan: readonly number[], blockSize: number): number {
  let closed = 0
  let used = 0
  for (const entry of plan) {
    const cost = DIRENT.size + nameLength(files, entry)
    if (used + cost > blockSize) {
      closed += blockSize
      used = 0
    }
    used += cost
  }
  return closed + used
}

/** Cuts the entries into blocks: `[from, to)` into the plan. */
export function direntBlocks(
  files: FileTree,
  plan: readonly number[],
  blockSize: number,
): Array<readonly [number, number]> {
  const blocks: Array<readonly [number, number]> = []
  let start = 0
  let used = 0
  for (const [index, entry] of plan.entries()) {
    const cost = DIRENT.size + nameLength(files, entry)
    if (used + cost > blockSize) {
      blocks.push([start, index])
      start = index
      used = 0
    }
    used += cost
  }
  blocks.push([start, plan.length])
  return blocks
}

function nameLength(files: FileTree, entry: number): number {
  return entry === SELF ? DOT.length : entry === PARENT ? DOT_DOT.length : files.nameLength(entry)
}
