import type { ChunkId, FileTree, NodeId } from '../rafs/index.ts'
import { matchPattern } from './prefetch.ts'

/** Entries of the prefetch table, in the order of the patterns. A pattern that names an empty file, or nothing, has no entry. */
export function prefetchNodes(files: FileTree, root: NodeId, patterns: readonly string[]): NodeId[] {
  const found: NodeId[] = []
  for (const pattern of patterns) {
    let id = root
    for (const name of pattern.split('/').filter((part) => part !== '')) if (id !== 0) id = files.find(id, name)
    if (id !== 0 && (files.chunkCount(id) > 0 || !files.isFile(id))) found.push(id)
  }
  return found
}

/** Files with content in the order in which a directory's data is stored: those under a pattern first, pattern by pattern. Each file once, by its inode. */
export function* dumpOrder(files: FileTree, root: NodeId, patterns: readonly string[]): Generator<NodeId> {
  const numbers = new Map(patterns.map((path, number) => [path, number]))
  const first: Array<{ readonly inode: NodeId; readonly rank: number }> = []
  const ranked = new Set<NodeId>()
  if (numbers.size > 0) {
    for (const id of contentFiles(files, root)) {
      const rank = matchPattern(files.path(id), numbers)
      const inode = files.inode(id)
      if (rank !== undefined) first.push({ inode, rank })
    }
    first.sort((a, b) => a.rank - b.rank)
  }
  for (const { inode } of first) {
    if (ranked.has(inode)) continue
    ranked.add(inode)
    yield inode
  }
  const linked = new Set<NodeId>()
  for (const id of contentFiles(files, root)) {
    const inode = files.inode(id)
    if (ranked.has(inode) || linked.has(inode)) continue
    if (files.isShared(inode)) linked.add(inode)
    yield inode
  }
}

/** Files with content under a pattern. */
export function prefetchedFiles(files: FileTree, root: NodeId, patterns: readonly string[]): NodeId[] {
  const numbers = new Map(patterns.map((path, number) => [path, number]))
  const found: NodeId[] = []
  for (const id of contentFiles(files, root))
    if (matchPattern(files.path(id), numbers) !== undefined) found.push(files.inode(id))
  return found
}

function* contentFiles(files: FileTree, root: NodeId): Generator<NodeId> {
  for (const id of files.hybridOrder(root)) if (files.isFile(id) && files.size(id) > 0) yield id
}

/** Chunks of a tree in the order of their first use, each once. */
export function* usedChunks(files: FileTree, root: NodeId): Generator<ChunkId> {
  const seen = new Uint8Array(files.chunks.end)
  for (const id of files.hybridOrder(root)) {
    const count = files.chunkCount(id)
    for (let index = 0; index < count; index += 1) {
      const chunk = files.chunk(id, index)
      if (seen[chunk] === 1) continue
      seen[chunk] = 1
      yield chunk
    }
  }
}
