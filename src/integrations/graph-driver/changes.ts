import { type BigIntStats, lstatSync, readdirSync, readlinkSync } from 'node:fs'
import { listXattrs } from '../../kernel/index.ts'

/** Numbers of the protocol. */
export const CHANGE = { modified: 0, added: 1, deleted: 2 } as const

/** A path that differs from what is below. Paths are bytes as latin1 text, with a slash first. */
export interface Change {
  readonly path: string
  readonly kind: (typeof CHANGE)[keyof typeof CHANGE]
}

const OPAQUE = 'trusted.overlay.opaque'

/** Names in a directory, as latin1 text, in order of their bytes; none for what is no directory. */
export function namesIn(path: string): string[] {
  try {
    return readdirSync(bytesOf(path), 'latin1').sort((a, b) => (a < b ? -1 : 1))
  } catch (error) {
    if (['ENOENT', 'ENOTDIR'].includes((error as NodeJS.ErrnoException).code ?? '')) return []
    throw error
  }
}

/** Undefined when nothing is there. */
export function statOf(path: string): BigIntStats | undefined {
  try {
    return lstatSync(bytesOf(path), { bigint: true, throwIfNoEntry: false })
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOTDIR') return undefined
    throw error
  }
}

/** Paths here are latin1 text. */
export function bytesOf(path: string): Buffer {
  return Buffer.from(path, 'latin1')
}

/** A path given as ordinary text, for this file's functions. */
export function latin1(path: string): string {
  return Buffer.from(path).toString('latin1')
}

export function isWhiteout(stats: BigIntStats): boolean {
  return stats.isCharacterDevice() && stats.rdev === 0n
}

export function isOpaque(path: string): boolean {
  return listXattrs(bytesOf(path)).some(
    ({ name, value }) => Buffer.from(name).toString('latin1') === OPAQUE && Buffer.from(value).toString() === 'y',
  )
}

/** What a layer in overlayfs's form changes of those below it, `lowers` nearest first. */
export function layerChanges(diff: string, lowers: readonly string[]): Change[] {
  const changes: Change[] = []
  const walk = (path: string): void => {
    for (const name of namesIn(diff + path)) {
      const at = `${path}/${name}`
      const stats = statOf(diff + at)
      if (stats === undefined) continue
      if (isWhiteout(stats)) {
        changes.push({ path: at, kind: CHANGE.deleted })
        continue
      }
      const below = shownBelow(at, lowers)
      // A directory that is here only for what is in it has not changed.
      const isSame = below !== undefined && stats.isDirectory() && sameDirectory(stats, below.stats)
      if (!isSame) changes.push({ path: at, kind: below === undefined ? CHANGE.added : CHANGE.modified })
      if (!stats.isDirectory()) continue
      if (below !== undefined && isOpaque(diff + at)) hidden(at)
      walk(at)
    }
  }
  /** What an opaque directory hides is deleted, unless it is here again. */
  const hidden = (at: string): void => {
    for (const name of shownNames(at, lowers))
      if (statOf(`${diff}${at}/${name}`) === undefined) changes.push({ path: `${at}/${name}`, kind: CHANGE.deleted })
  }
  walk('')
  return changes
}

/** What a path shows in a stack of layers. */
function shownBelow(path: string, lowers: readonly string[]): { readonly stats: BigIntStats } | undefined {
  for (const lower of lowers) {
    const stats = statOf(lower + path)
    if (stats !== undefined) return isWhiteout(stats) ? undefined : { stats }
    if (hides(lower, path)) return undefined
  }
  return undefined
}

/** Whether a layer hides what lower ones have at a path that it has not itself: by something above the path. */
function hides(lower: string, path: string): boolean {
  for (let at = path.slice(0, path.lastIndexOf('/')); at !== ''; at = at.slice(0, at.lastIndexOf('/'))) {
    const stats = statOf(lower + at)
    if (stats !== undefined && (!stats.isDirectory() || isOpaque(lower + at))) return true
  }
  return false
}

function shownNames(path: string, lowers: readonly string[]): string[] {
  const names = new Set<string>()
  for (const lower of lowers) for (const name of namesIn(lower + path)) names.add(name)
  return [...names].filter((name) => shownBelow(`${path}/${name}`, lowers) !== undefined).sort()
}

function sameDirectory(a: BigIntStats, b: BigIntStats): boolean {
  return b.isDirectory() && a.mode === b.mode && a.uid === b.uid && a.gid === b.gid && a.mtimeNs === b.mtimeNs
}

/** What one whole tree has that another has not, or otherwise; undefined is an empty one. */
export function treeChanges(now: string, before: string | undefined): Change[] {
  const changes: Change[] = []
  const walk = (path: string): void => {
    const older = new Set(before === undefined ? [] : namesIn(before + path))
    for (const name of namesIn(now + path)) {
      const at = `${path}/${name}`
      const stats = statOf(now + at)
      const old = older.delete(name) ? statOf(`${before}${at}`) : undefined
      if (stats === undefined) continue
      const isListed = old === undefined || !isSame(now + at, stats, `${before}${at}`, old)
      if (isListed) changes.push({ path: at, kind: old === undefined ? CHANGE.added : CHANGE.modified })
      if (!stats.isDirectory()) continue
      const entries = changes.length
      walk(at)
      // Its time has changed with what is in it.
      if (!isListed && changes.length > entries) changes.splice(entries, 0, { path: at, kind: CHANGE.modified })
    }
    for (const name of older) changes.push({ path: `${path}/${name}`, kind: CHANGE.deleted })
  }
  walk('')
  return changes
}

/** As Docker compares: a directory's size and time say nothing. */
function isSame(path: string, stats: BigIntStats, before: string, old: BigIntStats): boolean {
  if (stats.mode !== old.mode || stats.uid !== old.uid || stats.gid !== old.gid || stats.rdev !== old.rdev) return false
  if (xattrText(path) !== xattrText(before)) return false
  if (stats.isDirectory()) return true
  if (stats.isSymbolicLink() && !readlinkSync(bytesOf(path), 'buffer').equals(readlinkSync(bytesOf(before), 'buffer')))
    return false
  return stats.mtimeNs === old.mtimeNs && stats.size === old.size
}

function xattrText(path: string): string {
  return listXattrs(bytesOf(path))
    .map(({ name, value }) => `${Buffer.from(name).toString('latin1')}=${Buffer.from(value).toString('base64')}`)
    .filter((text) => !/^(?:trusted|user)\.overlay\./.test(text))
    .sort()
    .join()
}
