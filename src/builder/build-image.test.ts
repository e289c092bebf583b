import assert from 'node:assert/strict'
import { execFileSync, spawn } from 'node:child_process'
import { once } from 'node:events'
import {
  closeSync,
  createReadStream,
  linkSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
  writeSync,
} from 'node:fs'
import { basename, join } from 'node:path'
import { test, type TestContext } from 'node:test'
import { Attributes, openBootstrap } from '../rafs/index.ts'
import {
  buildImage,
  type BuiltImage,
  BuilderError,
  checkBootstrap,
  type LayerOptions,
  openDictionary,
  openParent,
} from './index.ts'
import { contentOf, DEFAULTS, filesIn, sha256, tarOf, temporary } from './testing.ts'

const hasCode =
  (code: string) =>
  (error: unknown): boolean =>
    error instanceof BuilderError && error.code === code

interface Job {
  readonly t: TestContext
  readonly path: string
  readonly out: string
  readonly kind?: 'directory' | 'tar'
  readonly options?: Partial<LayerOptions>
}

async function build({ t, path, out, kind = 'tar', options = {} }: Job): Promise<BuiltImage> {
  const all = { ...DEFAULTS, ...options }
  const place = { kind: 'directory', path: out } as const
  return await buildImage({ kind, path }, { blob: place, bootstrap: all.inlineBootstrap ? undefined : place }, all, {
    signal: t.signal,
    onBytes: () => undefined,
  })
}

/** A source tar and an empty folder for output. */
async function setUp(t: TestContext): Promise<{ folder: string; tar: string; out: string }> {
  const folder = temporary(t)
  const [tar, out] = [join(folder, 'source.tar'), join(folder, 'out')]
  mkdirSync(out)
  writeFileSync(
    tar,
    await tarOf([
      { path: 'a', content: Buffer.from('content '.repeat(5000)) },
      { path: 'b', content: Buffer.from('b') },
    ]),
  )
  return { folder, tar, out }
}

test('blob and bootstrap are named by their digests', async (t) => {
  const { tar, out } = await setUp(t)
  const built = await build({ t, path: tar, out })
  assert.deepEqual(filesIn(out), [...built.blobs, sha256(readFileSync(built.bootstrapPath ?? ''))].sort())
  assert.equal(sha256(readFileSync(built.blobPath ?? '')), built.blobs[0])
})

test('a given id names the blob', async (t) => {
  const { tar, out } = await setUp(t)
  const built = await build({ t, path: tar, out, options: { blobId: 'my-blob' } })
  assert.deepEqual(built.blobs, ['my-blob'])
  assert.equal(built.blobPath, join(out, 'my-blob'))
  assert.equal(openBootstrap(readFileSync(built.bootstrapPath ?? '')).blobs[0]?.id, 'my-blob')
})

test('an inlined bootstrap is in the blob, which is the only file', async (t) => {
  const { tar, out } = await setUp(t)
  const built = await build({ t, path: tar, out, options: { inlineBootstrap: true, blobToc: true } })
  assert.deepEqual(filesIn(out), built.blobs)
  assert.equal(built.bootstrapPath, undefined)
})

test('a layer without data has a bootstrap and no blob', async (t) => {
  const { folder, out } = await setUp(t)
  const path = join(folder, 'empty.tar')
  writeFileSync(path, await tarOf([{ path: 'd', type: 'directory' }]))
  const built = await build({ t, path, out })
  assert.deepEqual(built.blobs, [])
  assert.equal(built.blobPath, undefined)
  assert.equal(filesIn(out).length, 1)
})

test('a failed build leaves nothing behind', async (t) => {
  const { folder, tar, out } = await setUp(t)
  const cut = join(folder, 'cut.tar')
  writeFileSync(cut, readFileSync(tar).subarray(0, 2000))
  await assert.rejects(build({ t, path: cut, out }), hasCode('BAD_SOURCE'))
  await assert.rejects(build({ t, path: join(folder, 'nowhere.tar'), out }), hasCode('BAD_SOURCE'))
  await assert.rejects(build({ t, path: folder, out }), hasCode('BAD_SOURCE'))
  assert.deepEqual(filesIn(out), [])
  await assert.rejects(build({ t, path: tar, out: join(folder, 'no-such-folder') }), hasCode('OUTPUT'))
})

test('a bootstrap that cannot be placed leaves no blob behind', async (t) => {
  const { folder, tar, out } = await setUp(t)
  const boots = join(folder, 'boots')
  mkdirSync(boots)
  const run = { signal: t.signal, onBytes: () => undefined }
  const blob = { kind: 'directory', path: out } as const
  const bootstrap = { kind: 'file', path: boots } as const
  let isRead = false
  const onBytes = (): void => void (isRead = true)
  await assert.rejects(
    buildImage({ kind: 'tar', path: tar }, { blob, bootstrap }, DEFAULTS, { ...run, onBytes }),
    hasCode('OUTPUT'),
  )
  assert.deepEqual([filesIn(out), isRead], [[], false])
  // Its name is taken when the blob is there already.
  const places = { blob, bootstrap: { kind: 'directory', path: boots } } as const
  const { bootstrapPath = '', blobPath = '' } = await buildImage({ kind: 'tar', path: tar }, places, DEFAULTS, run)
  for (const path of [bootstrapPath, blobPath]) rmSync(path)
  mkdirSync(bootstrapPath)
  await assert.rejects(buildImage({ kind: 'tar', path: tar }, places, DEFAULTS, run), hasCode('OUTPUT'))
  assert.deepEqual([filesIn(out), filesIn(boots)], [[], [basename(bootstrapPath)]])
  // A blob that was there before stays.
  writeFileSync(blobPath, 'of another build')
  await assert.rejects(buildImage({ kind: 'tar', path: tar }, places, DEFAULTS, run), hasCode('OUTPUT'))
  assert.deepEqual(filesIn(out), [basename(blobPath)])
})

test('files and folders with the names of what is written are not in the way', async (t) => {
  const { tar, out } = await setUp(t)
  mkdirSync(join(out, 'blob'))
  execFileSync('mkfifo', [join(out, 'bootstrap')])
  const built = await build({ t, path: tar, out })
  assert.equal(sha256(readFileSync(built.blobPath ?? '')), built.blobs[0])
  assert.equal(filesIn(out).length, 4)
})

test('a parent blob whose id begins with x keeps it in an inlined layer', async (t) => {
  const { folder, tar, out } = await setUp(t)
  const lower = await build({ t, path: tar, out, options: { blobId: 'x-lower' } })
  const upper = join(folder, 'upper.tar')
  writeFileSync(upper, await tarOf([{ path: 'c', content: Buffer.from('c'.repeat(9000)) }]))
  const parent = await openParent(lower.bootstrapPath ?? '', DEFAULTS)
  const built = await build({ t, path: upper, out, options: { parent, inlineBootstrap: true, blobToc: true } })
  assert.deepEqual(built.blobs, ['x-lower', basename(built.blobPath ?? '')])
})

test('FIFOs: the source is read from one while the blob goes into another', async (t) => {
  const { folder, tar } = await setUp(t)
  const [source, blob] = [join(folder, 'source.fifo'), join(folder, 'blob.fifo')]
  execFileSync('mkfifo', [source, blob])
  const writer = spawn('cp', [tar, source])
  const parts: Buffer[] = []
  const reading = (async () => {
    for await (const part of createReadStream(blob)) parts.push(part as Buffer)
  })()
  const options = { ...DEFAULTS, inlineBootstrap: true, blobToc: true }
  const built = await buildImage(
    { kind: 'tar', path: source },
    { blob: { kind: 'file', path: blob }, bootstrap: undefined },
    options,
    { signal: t.signal, onBytes: () => undefined },
  )
  await reading
  if (writer.exitCode === null) await once(writer, 'exit')
  const direct = join(folder, 'direct')
  mkdirSync(direct)
  const plain = await build({ t, path: tar, out: direct, options })
  assert.deepEqual(built.blobs, plain.blobs)
  assert.ok(Buffer.concat(parts).equals(readFileSync(plain.blobPath ?? '')))
})

test('a directory: links, times, holes; the same tree gives the same image', async (t) => {
  const { folder, out } = await setUp(t)
  const path = join(folder, 'tree')
  mkdirSync(join(path, 'd'), { recursive: true })
  writeFileSync(join(path, 'd/file'), 'file')
  linkSync(join(path, 'd/file'), join(path, 'd/linked'))
  symlinkSync('file', join(path, 'd/symlink'))
  writeFileSync(Buffer.concat([Buffer.from(`${path}/`), Buffer.from([0xff, 0x0a, 0xe4])]), 'bytes')
  const sparse = openSync(join(path, 'sparse'), 'w')
  writeSync(sparse, 'start')
  writeSync(sparse, 'end', 5_000_000_000)
  closeSync(sparse)
  const built = await build({ t, path, out, kind: 'directory' })
  const image = openBootstrap(readFileSync(built.bootstrapPath ?? ''))
  const blob = readFileSync(built.blobPath ?? '')
  const attributes = new Attributes()
  assert.deepEqual([...checkBootstrap(image)], [])
  assert.equal(contentOf(image, [blob], 'd/linked').toString(), 'file')
  image.attributes(image.lookup(image.root, Buffer.from('sparse')) ?? assert.fail(), attributes)
  assert.equal(attributes.size, 5_000_000_003)
  assert.ok(blob.length < 20_000)
  assert.ok(image.lookup(image.root, Buffer.from([0xff, 0x0a, 0xe4])) !== undefined)
  const second = join(folder, 'second')
  mkdirSync(second)
  await build({ t, path, out: second, kind: 'directory' })
  assert.deepEqual(filesIn(second), filesIn(out))
})

test('a file that changes while the image is built is told of', async (t) => {
  const { folder, out } = await setUp(t)
  const path = join(folder, 'tree')
  mkdirSync(path)
  for (const name of ['a', 'b']) writeFileSync(join(path, name), Buffer.alloc(100_000, name))
  const building = buildImage(
    { kind: 'directory', path },
    { blob: { kind: 'directory', path: out }, bootstrap: { kind: 'directory', path: out } },
    DEFAULTS,
    {
      signal: t.signal,
      // After the first file.
      onBytes: () => truncateSync(join(path, 'b'), 10),
    },
  )
  await assert.rejects(building, hasCode('SOURCE_CHANGED'))
  assert.deepEqual(filesIn(out), [])
})

test('whiteouts of a directory are dropped from a first layer, and act on a parent', async (t) => {
  const { folder, out } = await setUp(t)
  const [lower, upper] = [join(folder, 'lower'), join(folder, 'upper')]
  for (const path of [lower, upper]) mkdirSync(path)
  for (const name of ['gone', 'kept']) writeFileSync(join(lower, name), name)
  writeFileSync(join(upper, '.wh.gone'), '')
  const first = await build({ t, path: lower, out, kind: 'directory' })
  const parent = await openParent(first.bootstrapPath ?? '', DEFAULTS)
  const names = async (options: Partial<LayerOptions>): Promise<string[]> => {
    const { bootstrapPath } = await build({ t, path: upper, out, kind: 'directory', options })
    const image = openBootstrap(readFileSync(bootstrapPath ?? ''))
    const found: string[] = []
    image.list(image.root, 0, (name) => found.push(Buffer.from(name).toString()) > 0)
    return found
  }
  assert.deepEqual(await names({}), [])
  assert.deepEqual(await names({ whiteoutSpec: 'none' }), ['.wh.gone'])
  assert.deepEqual(await names({ parent }), ['kept'])
})

test('dictionaries and parents that do not fit are refused', async (t) => {
  const { folder, tar, out } = await setUp(t)
  const { bootstrapPath = '' } = await build({ t, path: tar, out })
  await assert.rejects(openDictionary(bootstrapPath, { ...DEFAULTS, chunkSize: 4096 }), hasCode('INCONSISTENT'))
  await assert.rejects(openParent(bootstrapPath, { ...DEFAULTS, keepOwners: false }), hasCode('INCONSISTENT'))
  await assert.rejects(openDictionary(tar, DEFAULTS), hasCode('BAD_LAYER'))
  await assert.rejects(openDictionary(join(folder, 'nothing'), DEFAULTS), hasCode('BAD_LAYER'))
})

test('a build closes all that it opens', async (t) => {
  const { tar, out } = await setUp(t)
  const descriptors = (): number => readdirSync('/proc/self/fd').length
  await build({ t, path: tar, out })
  const before = descriptors()
  for (let i = 0; i < 5; i += 1) await build({ t, path: tar, out })
  await assert.rejects(build({ t, path: join(out, 'none'), out }))
  assert.ok(descriptors() <= before, `${descriptors()} open, ${before} before`)
})
