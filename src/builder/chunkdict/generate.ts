import type { BlobInfo } from '../../blob/index.ts'
import {
  type Bootstrap,
  compactTree,
  DICTIONARY_NAME,
  emptyDirectory,
  FileTree,
  hasDigests,
  MODE,
  type RafsChunk,
  type RafsNode,
} from '../../rafs/index.ts'
import { BuilderError } from '../errors.ts'
import { checkConsistent, checkReadable } from '../merge.ts'
import { prefetchNodes } from '../file-order.ts'
import { writeTree } from '../write-tree.ts'
import type { ChunkFacts, StoredChunk } from './chunk-facts.ts'
import type { ChunkDatabase } from './database.ts'
import { type DictionaryBlob, dictionaryBlob, KnownBlobs } from './dictionary-blobs.ts'
import { type Selection, selectChunks } from './select.ts'

/** RAFS v6 cannot name a blob with less than a block. */
const MIN_BLOB_BYTES = 4096
/** Of root and file, as the original has them. */
const PERMISSIONS = 0o660
const ROOT_OWNER = 1000

export interface GeneratedDictionary {
  readonly bootstrap: Uint8Array
  readonly blobs: readonly BlobInfo[]
  readonly chunkCount: number
  readonly bytes: Selection['bytes']
  /** Names of images that have too little in common with others. */
  readonly unclustered: readonly string[]
  /** Blobs that the dictionary does not have though chunks of them were chosen: because they are smaller than a block, or because their numbers of chunks are not known. */
  readonly tooSmall: readonly string[]
  readonly unknown: readonly string[]
}

/** What images of one dictionary must have in common. Throws BuilderError 'INCONSISTENT', 'UNSUPPORTED'. */
export function checkSources(images: ReadonlyArray<{ readonly name: string; readonly bootstrap: Bootstrap }>): void {
  const [first] = images
  if (first === undefined) throw new BuilderError('BAD_OPTION', 'there is no image to make a dictionary of')
  for (const { name, bootstrap } of images) {
    checkReadable(bootstrap, name)
    if (bootstrap.isTarfs || !bootstrap.blobs.every(hasDigests)) {
      const kind = bootstrap.isTarfs ? 'a tarfs image' : 'an image of external files'
      throw new BuilderError(
        'UNSUPPORTED',
        `${name} is ${kind}, whose chunks have no digests: there is nothing to find again`,
      )
    }
    checkConsistent(first.bootstrap, bootstrap)
    const other = bootstrap.blobs.find(({ digest }) => digest !== first.bootstrap.blobs[0]?.digest)
    if (other !== undefined && first.bootstrap.blobs.length > 0)
      throw new BuilderError(
        'INCONSISTENT',
        `${name}: chunks are digested with ${other.digest}, those of ${first.name} with ${first.bootstrap.blobs[0]?.digest}; a dictionary has one digest`,
      )
  }
}

/**
 * Makes a chunk dictionary of what a database holds: the chunks that the original's algorithm chooses, and with them all others of their blobs. `images` are those that were saved
 * in this run: only they tell the numbers of chunks. Throws BuilderError, or the signal's reason.
 */
export async function generateDictionary(
  database: ChunkDatabase,
  images: readonly Bootstrap[],
  { prefetchPaths, signal }: { readonly prefetchPaths: readonly string[]; readonly signal: AbortSignal },
): Promise<GeneratedDictionary> {
  const facts = database.load()
  const selection = await selectChunks(facts, signal)
  const stored = chunksOfBlobs(facts, selection.rows)
  const known = new KnownBlobs(images, new Set(stored.keys()))
  const blobs: DictionaryBlob[] = []
  const [tooSmall, unknown]: [string[], string[]] = [[], []]
  for (const [id, chunks] of [...stored].sort(([a], [b]) => (a < b ? -1 : 1))) {
    if (chunks.reduce((sum, { uncompressedSize }) => sum + uncompressedSize, 0) < MIN_BLOB_BYTES) {
      tooSmall.push(id)
      continue
    }
    const blob = known.describe(id, chunks, database.blob(id))
    if (blob === undefined) unknown.push(id)
    else blobs.push(blob)
  }
  const unclustered = selection.unclustered.map((image) => facts.imageName(image))
  return { ...write(blobs, images, prefetchPaths), bytes: selection.bytes, unclustered, tooSmall, unknown }
}

/** All chunks of the blobs that the rows touch, each place once. */
function chunksOfBlobs(facts: ChunkFacts, rows: readonly number[]): Map<string, StoredChunk[]> {
  const touched = new Set(rows.map((row) => facts.blobOf(row)))
  const places = new Map<number, number>()
  for (const row of facts.rows) if (touched.has(facts.blobOf(row))) places.set(facts.placeOf(row), row)
  const stored = new Map<string, StoredChunk[]>()
  for (const row of places.values()) {
    const chunk = facts.chunk(row)
    const known = stored.get(chunk.blobId)
    if (known === undefined) stored.set(chunk.blobId, [chunk])
    else known.push(chunk)
  }
  return stored
}

function write(
  found: readonly DictionaryBlob[],
  images: readonly Bootstrap[],
  prefetchPaths: readonly string[],
): Pick<GeneratedDictionary, 'bootstrap' | 'blobs' | 'chunkCount'> {
  const [first] = images
  if (first === undefined) throw new BuilderError('BAD_OPTION', 'there is no image to make a dictionary of')
  const blobs = found.map(({ blob }, index) => dictionaryBlob(blob, index))
  const chunks = found.flatMap(({ chunks: own }, blobIndex) => own.map((chunk) => ({ ...chunk, blobIndex })))
  const tree = compactTree({ root: dictionaryTree(chunks, first.chunkSize), blobs }, new FileTree())
  const bootstrap = writeTree(tree, {
    version: first.version,
    chunkSize: first.chunkSize,
    compression: first.blobs[0]?.compression ?? 'zstd',
    digest: first.blobs[0]?.digest ?? 'blake3',
    explicitOwners: first.explicitOwners,
    alwaysXattrs: true,
    prefetch: prefetchNodes(tree.files, tree.root, prefetchPaths),
    source: 'directory',
  })
  return { bootstrap, blobs, chunkCount: chunks.length }
}

/** The file is as large as if each chunk were a full one: so every reader takes as many chunks for its own as there are. */
function dictionaryTree(chunks: readonly RafsChunk[], chunkSize: number): RafsNode {
  const root = emptyDirectory(new Uint8Array(0))
  const file: RafsNode = {
    ...emptyDirectory(Buffer.from(DICTIONARY_NAME)),
    mode: MODE.FILE | PERMISSIONS,
    size: chunks.length * chunkSize,
    children: undefined,
    chunks,
  }
  return { ...root, mode: MODE.DIRECTORY | PERMISSIONS, uid: ROOT_OWNER, gid: ROOT_OWNER, children: [file] }
}
