import { ChunkInfo } from '../blob/index.ts'
import {
  type Bootstrap,
  type ChunkSpan,
  chunkWindows,
  comparePaths,
  type DescribedEntry,
  type DumpEntry,
  describeEntries,
  hasDigests,
} from '../rafs/index.ts'
import { FetchCost, type FetchFigures, type NamedImage, named } from './fetch-cost.ts'

/** In what a path differs. `content_unknown`: the images cut or digest files in ways that cannot be compared without their data. */
export type DiffPart =
  | 'type'
  | 'content'
  | 'content_unknown'
  | 'target'
  | 'device'
  | 'mode'
  | 'owner'
  | 'mtime'
  | 'xattrs'
  | 'links'

/** A path that is not the same in both images. */
export interface PathDifference {
  /** As `DumpEntry.path`. */
  readonly path: string
  readonly change: 'added' | 'removed' | 'changed'
  /** Empty unless `changed`. */
  readonly parts: readonly DiffPart[]
  readonly a: DumpEntry | undefined
  readonly b: DumpEntry | undefined
}

/** What was found when all differences have been told. */
export interface DiffSummary {
  readonly paths: { added: number; removed: number; changed: number; same: number }
  /** Changed paths by what changed in them: a path may count in several. */
  readonly parts: Readonly<Record<DiffPart, number>>
  readonly fetch: FetchFigures
  /** Ids. */
  readonly blobs: { readonly shared: string[]; readonly onlyA: string[]; readonly onlyB: string[] }
}

/**
 * Compares two images by their bootstraps; blobs are not read. Tells each path that differs, in the order of a walk, and undefined now and then, when the caller may pause; gives the summary at the end. Sizes and link counts of directories, which
 * follow from what they hold and from the version, are not compared. Throws RafsError, which names the image, where one of them is damaged.
 */
export function* diffImages(a: NamedImage, b: NamedImage): Generator<PathDifference | undefined, DiffSummary> {
  const cost = new FetchCost(a, b)
  const paths = { added: 0, removed: 0, changed: 0, same: 0 }
  const parts = Object.fromEntries(PARTS.map((part) => [part, 0])) as Record<DiffPart, number>
  let count = 0
  for (const [inA, inB] of pairs(a, b)) {
    count += 1
    if (count % PATHS_AT_ONCE === 0) yield undefined
    if (inA !== undefined) cost.addA(inA)
    if (inB !== undefined) cost.addB(inB)
    const difference = inA === undefined || inB === undefined ? undefined : comparedParts(a, b, inA, inB)
    if (difference?.length === 0) {
      paths.same += 1
      continue
    }
    const change = difference !== undefined ? 'changed' : inA === undefined ? 'added' : 'removed'
    paths[change] += 1
    for (const part of difference ?? []) parts[part] += 1
    const path = inA?.entry.path ?? inB?.entry.path ?? ''
    yield { path, change, parts: difference ?? [], a: inA?.entry, b: inB?.entry }
  }
  return { paths, parts, fetch: cost.figures(), blobs: sharedBlobs(a.image, b.image) }
}

/** So many paths are compared without a pause. */
const PATHS_AT_ONCE = 4096

const PARTS: readonly DiffPart[] = [
  'type',
  'content',
  'content_unknown',
  'target',
  'device',
  'mode',
  'owner',
  'mtime',
  'xattrs',
  'links',
]

/** Both walks side by side: a path that one image lacks stands alone. */
function* pairs(
  a: NamedImage,
  b: NamedImage,
): Generator<readonly [DescribedEntry | undefined, DescribedEntry | undefined]> {
  const [walkA, walkB] = [describeEntries(a.image), describeEntries(b.image)]
  const next = (of: NamedImage, walk: Generator<DescribedEntry, void>): DescribedEntry | undefined =>
    named(of, () => walk.next().value ?? undefined)
  let [inA, inB] = [next(a, walkA), next(b, walkB)]
  while (inA !== undefined || inB !== undefined) {
    const order: number = inA === undefined ? 1 : inB === undefined ? -1 : comparePaths(inA.path, inB.path)
    yield [order <= 0 ? inA : undefined, order >= 0 ? inB : undefined]
    if (order <= 0) inA = next(a, walkA)
    if (order >= 0) inB = next(b, walkB)
  }
}

function comparedParts(a: NamedImage, b: NamedImage, inA: DescribedEntry, inB: DescribedEntry): DiffPart[] {
  const [x, y] = [inA.entry, inB.entry]
  const found: DiffPart[] = []
  if (x.type !== y.type) found.push('type')
  else if (x.type === 'file') found.push(...comparedContent(a, b, inA, inB))
  else if (x.target !== y.target) found.push('target')
  else if (x.rdev !== y.rdev) found.push('device')
  if (x.mode !== y.mode) found.push('mode')
  const hasOwners = a.image.explicitOwners && b.image.explicitOwners
  if (hasOwners && (x.uid !== y.uid || x.gid !== y.gid)) found.push('owner')
  if (x.mtime !== y.mtime || x.mtime_nsec !== y.mtime_nsec) found.push('mtime')
  if (JSON.stringify(x.xattrs) !== JSON.stringify(y.xattrs)) found.push('xattrs')
  const isLinkable = x.type !== 'dir' && y.type !== 'dir'
  if (isLinkable && (x.nlink !== y.nlink || x.hardlink !== y.hardlink)) found.push('links')
  return found
}

function comparedContent(a: NamedImage, b: NamedImage, inA: DescribedEntry, inB: DescribedEntry): DiffPart[] {
  const size = inA.entry.size ?? 0
  if (size !== inB.entry.size) return ['content']
  if (size === 0) return []
  // Chunks can be compared when they begin and end at the same places.
  if (a.image.chunkSize !== b.image.chunkSize && size > Math.min(a.image.chunkSize, b.image.chunkSize))
    return ['content_unknown']
  const [inImageA, inImageB] = [new FileChunks(a, inA), new FileChunks(b, inB)]
  let isUnknown = false
  for (let count = inImageA.next(); count > 0; count = inImageA.next()) {
    // Of images with one chunk size, only external files are cut in another way.
    if (inImageB.next() !== count) return ['content_unknown']
    for (let i = 0; i < count; i += 1) {
      const isEqual = inImageA.equals(inImageB, i)
      if (isEqual === false) return ['content']
      isUnknown ||= isEqual === undefined
    }
  }
  return isUnknown ? ['content_unknown'] : []
}

/** A part of one file's chunks. */
class FileChunks {
  readonly #of: NamedImage
  readonly #spans: ChunkSpan[] = []
  readonly #info = new ChunkInfo()
  readonly #windows: Generator<number, void>

  constructor(of: NamedImage, { entry, ino }: DescribedEntry) {
    this.#of = of
    this.#windows = chunkWindows(of.image, ino, entry.size ?? 0, this.#spans)
  }

  /** How many chunks the next part has; 0 at the end. */
  next(): number {
    return named(this.#of, () => this.#windows.next().value ?? 0)
  }

  /** Undefined when nothing tells: chunks cut in other ways or without digests, or digests of two kinds. */
  equals(other: FileChunks, i: number): boolean | undefined {
    const [mine, theirs] = [this.#spans[i], other.#spans[i]]
    if (mine === undefined || theirs === undefined) return false
    if (mine.length !== theirs.length || mine.offsetInChunk !== theirs.offsetInChunk) return undefined
    const [blob, otherBlob] = [this.#blob(mine), other.#blob(theirs)]
    if (blob?.id === otherBlob?.id && mine.chunkOffset === theirs.chunkOffset) return true
    if (blob === undefined || otherBlob === undefined || !this.#read(mine) || !other.#read(theirs)) return undefined
    const [info, otherInfo] = [this.#info, other.#info]
    if (hasDigests(blob) && hasDigests(otherBlob))
      return blob.digest === otherBlob.digest ? Buffer.compare(info.digest, otherInfo.digest) === 0 : undefined
    // Equal sums prove nothing.
    const isOther =
      info.uncompressedSize === otherInfo.uncompressedSize &&
      info.crc32c !== undefined &&
      otherInfo.crc32c !== undefined &&
      info.crc32c !== otherInfo.crc32c
    return isOther ? false : undefined
  }

  #blob(span: ChunkSpan): Bootstrap['blobs'][number] | undefined {
    return this.#of.image.blobs[span.blobIndex]
  }

  /** False when the image has no record of the chunk. */
  #read(span: ChunkSpan): boolean {
    return named(this.#of, () => {
      const layout = this.#of.image.layout(span.blobIndex)
      if (!layout.has(span.chunkIndex)) return false
      layout.chunk(span.chunkIndex, this.#info)
      return true
    })
  }
}

function sharedBlobs(a: Bootstrap, b: Bootstrap): DiffSummary['blobs'] {
  const inA = new Set(a.blobs.map(({ id }) => id))
  const inB = new Set(b.blobs.map(({ id }) => id))
  return {
    shared: [...inB].filter((id) => inA.has(id)),
    onlyA: [...inA].filter((id) => !inB.has(id)),
    onlyB: [...inB].filter((id) => !inA.has(id)),
  }
}
