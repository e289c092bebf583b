import assert from 'node:assert/strict'
import { mkdirSync, mkdtempSync, readdirSync, readlinkSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, test } from 'node:test'
import { gzipSync } from 'node:zlib'
import { type ByteInput, TarReader, TarWriter } from '../../tar/index.ts'
import { TarFile } from './tar-file.ts'

const home = mkdtempSync(join(tmpdir(), 'nydus-tar-file-'))
after(() => rmSync(home, { recursive: true }))

const MIB = 2 ** 20
/** Around the borders of the buffer, of direct reads and of turns. */
const SIZES = [0, 1, 511, 512, 32_767, 32_768, 32_769, 262_144, 100, 262_145, 3 * MIB + 5, 4096, MIB, 7]

function pattern(seed: number, length: number): Buffer {
  const bytes = Buffer.alloc(length)
  for (let at = 0; at < length; at += 1) bytes[at] = (at * seed + (at >>> 9)) & 0xff
  return bytes
}

async function archive(): Promise<Buffer> {
  const pieces: Uint8Array[] = []
  const writer = new TarWriter((bytes) => void pieces.push(bytes.slice()))
  for (const [at, size] of SIZES.entries())
    for (let again = 0; again < 40; again += again < 2 && size > 5000 ? 39 : 1) {
      const path = Buffer.from(`${'long/'.repeat(at * 8)}file-${at}-${again}`)
      await writer.add({ path, type: 'file', mode: 0o644, size, mtimeSeconds: 1 }, [pattern(at + 3, size)])
    }
  await writer.finish()
  return Buffer.concat(pieces)
}

function written(name: string, bytes: Uint8Array): string {
  const path = join(home, name)
  writeFileSync(path, bytes)
  return path
}

/** Opens what must be a plain tar; counts the bytes that were read. */
function opened(path: string, signal = new AbortController().signal): { file: TarFile; read: () => number } {
  let total = 0
  const file = TarFile.open(path, { signal, onBytes: (bytes) => (total += bytes) })
  assert.ok(file !== undefined)
  return { file, read: () => total }
}

/** Each entry's path and, of every `share`-th, its content in reads of `piece` bytes. */
async function entriesOf(source: AsyncIterable<Uint8Array> | ByteInput, piece: number, share = 1): Promise<string[]> {
  const reader = new TarReader(source)
  const found: string[] = []
  try {
    for (let entry = await reader.next(), at = 0; entry !== undefined; entry = await reader.next(), at += 1) {
      const bytes = Buffer.alloc(at % share === 0 ? entry.size : 0)
      for (let from = 0; from < bytes.length; ) from += await reader.read(bytes.subarray(from, from + piece))
      found.push(`${Buffer.from(entry.path).toString()} ${entry.size} ${bytes.toString('base64')}`)
    }
    return found
  } finally {
    await reader.close()
  }
}

async function* stream(bytes: Uint8Array): AsyncGenerator<Uint8Array> {
  yield bytes
}

test('a tar in a file gives what the same bytes give as a stream, whatever is read of it and in what pieces', async () => {
  const bytes = await archive()
  const path = written('plain.tar', bytes)
  for (const [piece, share] of [
    [2 * MIB, 1],
    [65_536, 1],
    [5000, 1],
    [MIB, 3],
  ] as const) {
    const { file, read } = opened(path)
    assert.deepEqual(await entriesOf(file, piece, share), await entriesOf(stream(bytes), piece, share))
    assert.ok(read() <= bytes.length, `${read()} of ${bytes.length} bytes were read`)
  }
})

test('a tar that ends early is told as of a stream', async () => {
  const bytes = await archive()
  for (const end of [bytes.length - 4 * MIB, 700]) {
    const cut = bytes.subarray(0, end)
    const { file } = opened(written('cut.tar', cut))
    const told = await entriesOf(stream(cut), MIB).catch((error: unknown) => error)
    await assert.rejects(entriesOf(file, MIB), told as Error)
  }
})

test('what is compressed, or no file, is left to those who read streams, and nothing stays open', async () => {
  let told = 0
  const options = { signal: new AbortController().signal, onBytes: (bytes: number) => void (told += bytes) }
  mkdirSync(join(home, 'folder'))
  const compressed = written('layer.tar.gz', gzipSync(await archive()))
  for (const path of [compressed, join(home, 'folder'), join(home, 'missing'), '/dev/null'])
    assert.equal(TarFile.open(path, options), undefined, path)
  assert.equal(told, 0, 'they tell of what they read')
  const empty = opened(written('empty.tar', new Uint8Array(0)))
  assert.deepEqual(await entriesOf(empty.file, MIB), [])
  const open = readdirSync('/proc/self/fd').flatMap((fd) => {
    try {
      return [readlinkSync(`/proc/self/fd/${fd}`)]
    } catch {
      return [] // the folder that is listed
    }
  })
  assert.deepEqual(
    open.filter((path) => path.startsWith(home)),
    [],
  )
})

test('a build that is ended stops reading within a few MiB', async () => {
  const controller = new AbortController()
  const { file, read } = opened(written('huge.tar', pattern(5, 16 * MIB)), controller.signal)
  setImmediate(() => controller.abort(new Error('enough')))
  try {
    await assert.rejects(file.skip(16 * MIB), /enough/)
    assert.ok(read() <= 3 * MIB, `${read()} bytes were read`)
  } finally {
    await file.close()
  }
})
