/** Every image of the original that this version can build, built again from its source and compared. */
import assert from 'node:assert/strict'
import { mkdirSync, mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, test } from 'node:test'
import { openBootstrap } from '../rafs/index.ts'
import {
  buildImage,
  type BuiltImage,
  checkBootstrap,
  type LayerOptions,
  openDictionary,
  openParent,
  parsePrefetchPatterns,
} from './index.ts'
import {
  assertSameLines,
  assertSameMeaning,
  DEFAULTS,
  noShared,
  type SharedImage,
  sharedImages,
  sharedPath,
  shownLines,
  sourceOf,
  treeLines,
} from './testing.ts'

const folder = mkdtempSync(join(tmpdir(), 'nydus-builder-'))
after(() => rmSync(folder, { recursive: true, force: true }))

function flagOf(image: SharedImage, name: string): string | undefined {
  const words = image.command.split(' ')
  const at = words.indexOf(name)
  return at < 0 ? undefined : words[at + 1]
}

/** The key that the original drew. */
function cipherOf({ id }: SharedImage): LayerOptions['cipher'] {
  return openBootstrap(readFileSync(sharedPath('images', id, 'bootstrap'))).blobs[0]?.cipher
}

async function optionsOf(image: SharedImage): Promise<LayerOptions> {
  const flag = (name: string): string | undefined => flagOf(image, name)
  const options: LayerOptions = {
    ...DEFAULTS,
    version: flag('-v') === '5' ? 5 : 6,
    alignedChunks: image.command.includes('--aligned-chunk'),
    chunkSize: Number(flag('--chunk-size') ?? DEFAULTS.chunkSize),
    compression: (flag('--compressor') ?? 'zstd') as LayerOptions['compression'],
    batchSize: Number(flag('--batch-size') ?? 0),
    cipher: image.command.includes('--encrypt') ? cipherOf(image) : undefined,
    digest: (flag('--digester') ?? 'blake3') as LayerOptions['digest'],
    keepOwners: !image.command.includes('--repeatable'),
    inlineBootstrap: image.command.includes('--blob-inline-meta'),
    blobToc: flag('--features') === 'blob-toc',
    whiteoutSpec: (flag('--whiteout-spec') ?? 'oci') as LayerOptions['whiteoutSpec'],
    prefetch: {
      policy: (flag('--prefetch-policy') ?? 'none') as LayerOptions['prefetch']['policy'],
      paths: parsePrefetchPatterns(Buffer.from(image.stdin ?? '')).paths,
    },
  }
  const [dictionary, parent] = [flag('--chunk-dict')?.replace('bootstrap=', ''), flag('--parent-bootstrap')]
  return {
    ...options,
    dictionary: dictionary === undefined ? undefined : await openDictionary(sharedPath(dictionary), options),
    parent: parent === undefined ? undefined : await openParent(sharedPath(parent), options),
  }
}

async function build(image: SharedImage): Promise<{ built: BuiltImage; at: string }> {
  const at = join(folder, image.id)
  mkdirSync(at)
  const name = image.command.split(' ').at(-1) ?? ''
  const options = await optionsOf(image)
  const bootstrap = options.inlineBootstrap ? undefined : ({ kind: 'file', path: join(at, 'bootstrap') } as const)
  const built = await buildImage(
    { kind: name.startsWith('dirs/') ? 'directory' : 'tar', path: sourceOf(name, folder) },
    { blob: { kind: 'directory', path: at }, bootstrap },
    options,
    { signal: new AbortController().signal, onBytes: () => undefined },
  )
  return { built, at }
}

function isOurs({ id, command }: SharedImage): boolean {
  if (!/^v[56]-/.test(id) || !command.startsWith('nydus-image create ')) return false
  return !/-ref |tarfs|stargztoc|-v 5 .*--encrypt|--attributes|--blob-cache-dir|-B x/.test(command)
}

/** The bootstrap inside a blob without a table of contents: raw, before the last header. */
function inlinedBootstrap(blob: Buffer): Buffer {
  const size = Number.parseInt(blob.toString('latin1', blob.length - 512 + 124, blob.length - 512 + 135), 8)
  return blob.subarray(blob.length - 512 - size, blob.length - 512)
}

const needsRoot = process.getuid?.() === 0 ? false : 'needs root to unpack owners and devices'

/** Compression of their data depends on the library's release, so blobs have other ids; this set has the same bytes with any. */
const isByteEqual = ({ id, command, reproducible }: SharedImage): boolean =>
  reproducible === true && (/v[56]-(empty|src-)/.test(id) || /--compressor (none|lz4_block)/.test(command))

for (const image of noShared === false ? sharedImages().filter(isOurs) : []) {
  if (image.exit !== 0 || /v[56]-(src-implicit|upper-tar-parent)$/.test(image.id)) continue
  test(`builds ${image.id} as the original does`, { skip: needsRoot }, async () => {
    const { built, at } = await build(image)
    const theirs = JSON.parse(readFileSync(sharedPath('images', image.id, 'output.json'), 'utf8')) as {
      blobs: string[]
      trace: { registered_events: Record<string, number> }
    }
    const { registered_events: events } = theirs.trace
    assert.equal(built.trace.events['blob_uncompressed_size'], events['blob_uncompressed_size'])
    assert.equal(built.blobs.length, theirs.blobs.length)
    const theirBootstrap = readFileSync(sharedPath('images', image.id, 'bootstrap'))
    if (built.bootstrapPath === undefined) {
      if (image.command.includes('blob-toc')) return
      const ours = inlinedBootstrap(readFileSync(built.blobPath ?? ''))
      assertSameMeaning(openBootstrap(ours), openBootstrap(theirBootstrap))
      return
    }
    const ours = readFileSync(built.bootstrapPath)
    assertSameMeaning(openBootstrap(ours), openBootstrap(theirBootstrap))
    assert.deepEqual([...checkBootstrap(openBootstrap(ours))], [])
    if (/--compressor (none|lz4_block)/.test(image.command) || isByteEqual(image)) {
      assert.deepEqual(built.blobs, theirs.blobs)
      const { new_blobs } = JSON.parse(readFileSync(sharedPath('images', image.id, 'image.json'), 'utf8')) as {
        new_blobs: string[]
      }
      for (const id of new_blobs)
        assert.ok(readFileSync(join(at, id)).equals(readFileSync(sharedPath('blobs', id))), `blob ${id}`)
    }
    if (isByteEqual(image)) assert.ok(ours.equals(theirBootstrap), 'the bootstrap has the same bytes')
  })
}

test('the large set', { skip: noShared }, () => undefined)

for (const image of noShared === false ? sharedImages().filter(isOurs) : []) {
  if (image.exit === 0 && !/v[56]-(src-implicit|upper-tar-parent)$/.test(image.id)) continue
  test(`builds ${image.id} rightly, where the original fails`, async () => {
    const { built } = await build(image)
    const ours = readFileSync(built.bootstrapPath ?? '')
    assertSameLines(shownLines(ours), treeLines(readFileSync(sharedPath(image.tree ?? ''), 'utf8')), 'tree')
    assert.deepEqual([...checkBootstrap(openBootstrap(ours))], [])
  })
}
