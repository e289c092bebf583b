import { RafsError } from '../errors.ts'
import { compareNames, NAME_MAX, SLASH } from '../names.ts'
import type { RafsNode } from '../tree.ts'
import { DIRENT } from './layout.ts'

const DOT = new Uint8Array([0x2e])
const DOT_DOT = new Uint8Array([0x2e, 0x2e])

/** An entry as a directory lists it; `node` undefined stands for `.` and `..`. */
export interface DirentPlan {
  readonly name: Uint8Array
  readonly node: RafsNode | 'self' | 'parent'
}

/** `.`, `..` and the children in bytewise order: names below `.` (such as `!x`) come before it. */
export function planDirents(directory: RafsNode): DirentPlan[] {
  const plan: DirentPlan[] = []
  const dots: DirentPlan[] = [
    { name: DOT, node: 'self' },
    { name: DOT_DOT, node: 'parent' },
  ]
  for (const child of directory.children ?? []) {
    while (dots.length > 0 && compareNames(dots[0].name, child.name) < 0) plan.push(dots.shift() as DirentPlan)
    plan.push({ name: child.name, node: child })
  }
  return [...plan, ...dots]
}

/** Bytes of the dirent area: each block but the last is filled up to the block size. Checks the names. */
export function direntSize(directory: RafsNode, blockSize: number): number {
  let closed = 0
  let used = 0
  let previous: Uint8Array | undefined
  for (const { name } of planDirents(directory)) {
    if (name.length === 0 || name.length > NAME_MAX)
      throw new RafsError('TOO_LARGE', `a name of ${name.length} bytes: Linux and RAFS take 1 to ${NAME_MAX}`)
    if (name.includes(0) || name.includes(SLASH))
      throw new RafsError(
        'BAD_DIRECTORY',
        `${JSON.stringify(Buffer.from(name).toString())} cannot be a name: it has a slash or NUL`,
      )
    if (previous !== undefined && compareNames(previous, name) >= 0)
      throw new RafsError(
        'BAD_DIRECTORY',
        `a directory holds ${JSON.stringify(Buffer.from(name).toString())} twice or out of order`,
      )
    previous = name
    const cost = DIRENT.size + name.length
    if (used + cost > blockSize) {
      closed += blockSize
      used = 0
    }
    used += cost
  }
  return closed + used
}

/** Cuts the entries into blocks: `[from, to)` into the plan. */
export function direntBlocks(plan: readonly DirentPlan[], blockSize: number): Array<readonly [number, number]> {
  const blocks: Array<readonly [number, number]> = []
  let start = 0
  let used = 0
  for (const [index, { name }] of plan.entries()) {
    const cost = DIRENT.size + name.length
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
