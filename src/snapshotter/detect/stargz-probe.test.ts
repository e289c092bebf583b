import assert from 'node:assert/strict'
import { existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, test } from 'node:test'
import { gzipSync } from 'node:zlib'
import { digestOf } from '../../registry/index.ts'
import { CRI_IMAGE_REF, CRI_LAYER_DIGEST, STARGZ_TOC_DIGEST } from '../labels.ts'
import type { Labels } from '../snapshot.ts'
import { FOOTER_BYTES, parseStargzFooter } from './stargz-footer.ts'
import { StargzProbe } from './stargz-probe.ts'
import { NEVER, pushBlob, requests, tarOf, testWorld, type World } from './testing.ts'

const SHARED = join(import.meta.dirname, '../../../../shared/fixtures/sources')
const skipShared = existsSync(join(SHARED, 'lower.estargz.tar.gz'))
  ? false
  : 'the original layers are not here (../shared/fixtures/sources)'
const TOC = Buffer.from(JSON.stringify({ version: 1, entries: [{ name: 'a', type: 'dir', mode: 0o755 }] }))

function footer(offset: number, isOld = false): Buffer {
  const payload = Buffer.from(`${offset.toString(16).padStart(16, '0')}STARGZ`)
  const extra = isOld ? payload : Buffer.concat([Buffer.from([0x53, 0x47, payload.length, 0]), payload])
  const head = Buffer.from([0x1f, 0x8b, 8, 4, 0, 0, 0, 0, 0, 0xff, extra.length, 0])
  return Buffer.concat([head, extra, Buffer.from([1, 0, 0, 0xff, 0xff]), Buffer.alloc(8)])
}

/** A layer: content, its table, a footer that says where that is. */
async function layerOf(
  toc: Uint8Array,
  change: { readonly isOld?: boolean; readonly offset?: number; readonly name?: string } = {},
): Promise<Buffer> {
  const content = gzipSync(Buffer.from('content'))
  const table = gzipSync(await tarOf([{ path: change.name ?? 'stargz.index.json', content: toc }]))
  return Buffer.concat([content, table, footer(change.offset ?? content.length, change.isOld)])
}

const labelsOf = (world: World, layer: string, toc: string): Labels =>
  new Map([
    [CRI_IMAGE_REF, `${world.server.host}/app:v1`],
    [CRI_LAYER_DIGEST, layer],
    [STARGZ_TOC_DIGEST, toc],
  ])

async function probe(
  layer: Uint8Array,
  toc: string,
): Promise<{ found: Uint8Array | undefined; size: number | undefined; lines: string[]; bytes: number }> {
  await using world = await testWorld()
  const { digest } = await pushBlob(world.repository, layer)
  world.server.resetCounters()
  const { credentials, access } = world.parts
  const log = { debug: () => {}, warn: (line: string) => void world.lines.push(line) }
  const found = await new StargzProbe({ credentials, access, log }).find(labelsOf(world, digest, toc), NEVER)
  if (found !== undefined) assert.equal(`sha256:${found.blobId}`, digest)
  return { found: found?.toc, size: found?.blobSize, lines: world.lines, bytes: world.server.counters().blob.bytesOut }
}

for (const isOld of [false, true])
  test(`a layer with the ${isOld ? 'older ' : ''}footer gives its table, and only that is read`, async () => {
    const layer = Buffer.concat([await layerOf(TOC, { isOld })])
    const big = Buffer.concat([Buffer.alloc(3_000_000, 7), layer.subarray(0, layer.length - footer(0, isOld).length)])
    const moved = Buffer.concat([big, footer(3_000_000 + gzipSync(Buffer.from('content')).length, isOld)])
    const { found, size, bytes } = await probe(moved, digestOf(TOC))
    assert.deepEqual(Buffer.from(found ?? []), TOC)
    assert.equal(size, moved.length)
    assert.ok(bytes < 10_000, `${bytes} bytes were read`)
  })

test('a real layer', { skip: skipShared }, async () => {
  const toc = readFileSync(join(SHARED, 'lower.estargz.toc.json'))
  const { found } = await probe(readFileSync(join(SHARED, 'lower.estargz.tar.gz')), digestOf(toc))
  assert.ok(Buffer.from(found ?? []).equals(toc))
})

describe('a layer that is taken as a plain one', () => {
  const cases: readonly (readonly [string, () => Promise<Buffer>, string, RegExp])[] = [
    ['without a footer', async () => gzipSync(Buffer.alloc(100_000, 'plain; ')), digestOf(TOC), /no eStargz footer/],
    ['that is tiny', async () => Buffer.from('x'), digestOf(TOC), /too small/],
    [
      'whose table is another',
      () => layerOf(Buffer.from('{"version":1,"entries":[]}')),
      digestOf(TOC),
      /the image says/,
    ],
    ['whose table is elsewhere', () => layerOf(TOC, { offset: 3 }), digestOf(TOC), /cannot be unpacked/],
    ['whose table is behind its end', () => layerOf(TOC, { offset: 1 << 30 }), digestOf(TOC), /would have -/],
    ['whose table would begin at 2^60', () => layerOf(TOC, { offset: 2 ** 60 }), digestOf(TOC), /no eStargz footer/],
    ['with another file for a table', () => layerOf(TOC, { name: 'etc/passwd' }), digestOf(TOC), /"etc\/passwd"/],
  ]
  for (const [name, layer, toc, line] of cases)
    test(name, async () => {
      const { found, lines } = await probe(await layer(), toc)
      assert.equal(found, undefined)
      assert.match(lines.join('\n'), line)
    })

  test('without the digest of its table it costs no request', async () => {
    await using world = await testWorld()
    const { digest } = await pushBlob(world.repository, await layerOf(TOC))
    world.server.resetCounters()
    const stargz = new StargzProbe({ ...world.parts, log: { debug: () => {}, warn: () => {} } })
    const labels = new Map(labelsOf(world, digest, ''))
    assert.equal(await stargz.find(labels, NEVER), undefined)
    labels.delete(STARGZ_TOC_DIGEST)
    assert.equal(await stargz.find(labels, NEVER), undefined)
    assert.equal(requests(world.server), 0)
  })
})

test('a registry that is gone is UNAVAILABLE', async () => {
  const world = await testWorld()
  const labels = labelsOf(world, digestOf(Buffer.from('x')), digestOf(TOC))
  await world[Symbol.asyncDispose]()
  const stargz = new StargzProbe({ ...world.parts, log: { debug: () => {}, warn: () => {} } })
  await assert.rejects(stargz.find(labels, NEVER), { code: 'UNAVAILABLE' })
})

test('footers with any byte changed are none, but for those that nobody reads', () => {
  const right = footer(12_345)
  assert.equal(right.length, FOOTER_BYTES)
  assert.deepEqual(parseStargzFooter(right), { tocOffset: 12_345, bytes: FOOTER_BYTES })
  assert.equal(parseStargzFooter(right.subarray(1)), undefined)
  const digits = [16, 32]
  for (let at = 0; at < right.length; at += 1) {
    if ((at >= 4 && at < 10) || (at >= (digits[0] ?? 0) && at < (digits[1] ?? 0))) continue
    const wrong = Buffer.from(right)
    wrong[at] = (wrong[at] ?? 0) ^ 0x55
    assert.equal(parseStargzFooter(wrong), undefined, `byte ${at}`)
  }
})
