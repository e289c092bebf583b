import type { BlobInfo } from '../blob/index.ts'
import type { Bootstrap, Ino } from './bootstrap.ts'
import { chunkIds, type DumpEntry, describeEntries, escapePath } from './dump.ts'

/** How a dump is written; docs/nydus-image.md, "dump", has the grammar. */
export type DumpForm = 'text' | 'json'

/**
 * An image as lines: what is true of the image and of each blob, then a line a path. Gives pieces of lines, each of moderate length however many chunks a file has; the last piece of a line ends with LF.
 * The same image gives the same bytes. Throws RafsError where the bootstrap is damaged, after what came before.
 */
export function* dumpLines(image: Bootstrap, form: DumpForm): Generator<string> {
  yield* form === 'json' ? jsonHead(image) : textHead(image)
  const prefetched = new Map<Ino, number>()
  for (const [place, ino] of image.prefetch().entries()) if (!prefetched.has(ino)) prefetched.set(ino, place)
  for (const { entry, ino } of describeEntries(image)) {
    const prefetch = prefetched.get(ino)
    const whole = prefetch === undefined ? entry : { ...entry, prefetch }
    const chunks = entry.type === 'file' ? chunkIds(image, ino, entry.size ?? 0) : []
    yield* form === 'json' ? jsonLine(whole, chunks) : textLine(whole, chunks)
  }
}

type DumpedEntry = DumpEntry & { readonly prefetch?: number }

function imageFacts(image: Bootstrap): Record<string, string | number | boolean> {
  return {
    version: image.version,
    chunk_size: image.chunkSize,
    inodes: image.inodeCount,
    owners: image.explicitOwners,
    xattrs: image.hasXattrs,
  }
}

function blobFacts(blob: BlobInfo): Record<string, string | number> {
  return {
    index: blob.index,
    id: escapePath(Buffer.from(blob.id)),
    compressor: blob.compression,
    digester: blob.digest,
    chunk_size: blob.chunkSize,
    chunks: blob.chunkCount,
    compressed_size: blob.compressedSize,
    uncompressed_size: blob.uncompressedSize,
    features: `0x${blob.features.toString(16)}`,
  }
}

function* jsonHead(image: Bootstrap): Generator<string> {
  yield `${JSON.stringify({ image: imageFacts(image) })}\n`
  for (const blob of image.blobs) yield `${JSON.stringify({ blob: blobFacts(blob) })}\n`
}

function* jsonLine(entry: DumpedEntry, chunks: Iterable<string>): Generator<string> {
  yield JSON.stringify(entry).slice(0, -1)
  let before = ',"chunks":["'
  for (const id of chunks) {
    yield `${before}${id}"`
    before = ',"'
  }
  yield before === ',"' ? ']}\n' : '}\n'
}

function* textHead(image: Bootstrap): Generator<string> {
  yield `#image${pairs(imageFacts(image))}\n`
  for (const blob of image.blobs) yield `#blob${pairs(blobFacts(blob))}\n`
}

function pairs(facts: Readonly<Record<string, string | number | boolean>>): string {
  return Object.entries(facts)
    .map(([name, value]) => ` ${name}=${word(String(value))}`)
    .join('')
}

function* textLine(entry: DumpedEntry, chunks: Iterable<string>): Generator<string> {
  const { path, type, mode, uid, gid, nlink, size, mtime, mtime_nsec: nanoseconds } = entry
  const time = `${mtime}.${String(nanoseconds).padStart(9, '0')}`
  yield `${word(path)} ${type} ${mode} ${uid}:${gid} ${nlink} ${size ?? '-'} ${time}`
  if (entry.rdev !== undefined) yield ` rdev=${entry.rdev}`
  if (entry.target !== undefined) yield ` target=${word(entry.target)}`
  if (entry.hardlink !== undefined) yield ` hardlink=${word(entry.hardlink)}`
  if (entry.prefetch !== undefined) yield ` prefetch=${entry.prefetch}`
  for (const [name, value] of Object.entries(entry.xattrs ?? {}))
    yield ` xattr:${word(name).replaceAll('=', '%3D')}=${value}`
  yield* textChunks(chunks)
  yield '\n'
}

/** Equal chunks in a row, as sparse files have them, are written once and counted. */
function* textChunks(chunks: Iterable<string>): Generator<string> {
  let before = ' chunks='
  let run = { id: '', count: 0 }
  const written = ({ id, count }: typeof run): string => before + (count > 1 ? `${id}*${count}` : id)
  for (const id of chunks) {
    if (id === run.id) {
      run.count += 1
      continue
    }
    if (run.count > 0) {
      yield written(run)
      before = ','
    }
    run = { id, count: 1 }
  }
  if (run.count > 0) yield written(run)
}

/** Escaped text as one word: spaces are escaped too. */
function word(escaped: string): string {
  return escaped.replaceAll(' ', '%20')
}
