import assert from 'node:assert/strict'
import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, test } from 'node:test'
import { checkTree, diffImages, ImageInspector, ImageStatistics, unpackImage } from '../../builder/index.ts'
import { type Bootstrap, dumpLines, openBootstrap, RafsError, readTree } from '../../rafs/index.ts'
import { describeInodes } from './check-listing.ts'

const IMAGES = join(import.meta.dirname, '../../rafs/testdata')
const { signal } = new AbortController()

/** More text than this no reader makes of a small image: it would be a loop. */
const MAX_PIECES = 200_000

/** All that shows an image without its data. */
const READERS: ReadonlyArray<readonly [string, (image: Bootstrap, bytes: Uint8Array) => Promise<void> | void]> = [
  ['dump', (image) => drain(dumpLines(image, 'text'))],
  ['dump --json', (image) => drain(dumpLines(image, 'json'))],
  ['check -v', (image) => drain(describeInodes(image))],
  ['stat', (image) => new ImageStatistics('blake3').addBase(image, signal)],
  [
    'inspect',
    (image, bytes) => {
      const inspector = new ImageInspector({ image, bytes }, false)
      for (const command of [
        'stats',
        'blobs',
        'prefetch',
        'ls',
        'chunk 0',
        `icheck ${image.root}`,
        'stat .',
        'stat dup/a',
      ])
        inspector.execute(command)
    },
  ],
  ['diff', (image) => drain(diffImages({ name: 'a', image }, { name: 'b', image }))],
  ['merge', (image) => void readTree(image)],
  [
    'unpack',
    (image) =>
      unpackImage(image, {
        data: { read: (_spans, _count, into) => Promise.resolve(void into.fill(0)) },
        sink: () => Promise.resolve(),
        signal,
        onBytes: () => undefined,
        onLost: () => undefined,
      }),
  ],
]

function drain(pieces: Iterable<unknown>): void {
  let count = 0
  for (const _piece of pieces) {
    count += 1
    assert.ok(count < MAX_PIECES)
  }
}

describe('one bit is wrong at every 64th byte of an image:', () => {
  for (const name of readdirSync(IMAGES).filter((file) => file.endsWith('.bootstrap'))) {
    const good = readFileSync(join(IMAGES, name))
    // The larger ones have more of the same.
    if (good.length > 21_000) continue
    test(`${name}: every reader ends in a result or in a coded error`, async () => {
      const counts = { opened: 0, refused: 0 }
      for (let at = 0; at < good.length; at += 64) {
        const bytes = Buffer.from(good)
        bytes[at + ((at >> 6) % 64)] = (bytes[at + ((at >> 6) % 64)] ?? 0) ^ (1 << ((at >> 6) % 8))
        const image = opened(bytes)
        if (image === undefined) continue
        counts.opened += 1
        for (const [reader, read] of READERS) {
          try {
            await read(image, bytes)
          } catch (error) {
            assert.ok(isCoded(error), `${reader}, byte ${at}: ${String(error)}`)
            counts.refused += 1
          }
        }
        // A check finds what is wrong and throws nothing.
        for await (const { message } of checkTree(image, { signal, onPath: () => undefined })) assert.ok(message !== '')
      }
      assert.ok(counts.opened > good.length / 64 / 2, JSON.stringify(counts))
    })
  }
})

function opened(bytes: Uint8Array): Bootstrap | undefined {
  try {
    return openBootstrap(bytes)
  } catch (error) {
    assert.ok(error instanceof RafsError, String(error))
    return undefined
  }
}

function isCoded(error: unknown): boolean {
  return (
    error instanceof Error && error.name !== 'Error' && 'code' in error && /^[A-Z][A-Z_]+$/.test(String(error.code))
  )
}
