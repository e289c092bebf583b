import assert from 'node:assert/strict'
import { rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { gzipSync } from 'node:zlib'
import { localfsBackend } from '../backend/index.ts'
import { openBootstrap } from '../rafs/index.ts'
import { checkBlobs } from './index.ts'
import { buildTar, sha256, tarOf, temporary } from './testing.ts'

/** Bytes of four bits, so that gzip halves them. */
function content(seed: number, size: number): Buffer {
  const bytes = Buffer.alloc(size)
  let state = seed
  for (let at = 0; at < size; at += 1) {
    state = (Math.imul(state, 1_103_515_245) + 12_345) >>> 0
    bytes[at] = (state >>> 24) & 0x0f
  }
  return bytes
}

const layer = gzipSync(
  await tarOf(Array.from({ length: 12 }, (_unused, at) => ({ path: `f${at}`, content: content(at, 250_000) }))),
)

test('every chunk of a gzip layer is inflated and compared; what is wrong is named', async (t) => {
  const folder = temporary(t)
  const built = await buildTar(layer, { reference: true, digest: 'sha256' })
  const image = openBootstrap(built.bootstrap)
  writeFileSync(join(folder, built.blobId), built.blob)
  const check = async (bytes: Uint8Array): Promise<string[]> => {
    writeFileSync(join(folder, sha256(layer)), bytes)
    await using stack = new AsyncDisposableStack()
    const backend = localfsBackend({ dir: folder })
    stack.defer(() => backend.close())
    const found: string[] = []
    let read = 0
    for await (const { message } of checkBlobs(image, backend, t.signal, (size) => (read += size))) found.push(message)
    assert.ok(found.length > 0 || read >= layer.length * 0.9)
    return found
  }
  assert.deepEqual(await check(layer), [])
  for (const at of [50_000, 700_000, layer.length - 200_000]) {
    const flipped = Buffer.from(layer)
    flipped[at] = (flipped[at] ?? 0) ^ 0x04
    const found = await check(flipped)
    assert.ok(found.length > 0)
    for (const message of found)
      assert.match(message, /^(slice \d+ \(bytes \d+ to \d+\): gzip: |chunk \d+: its sha256 digest is )/)
  }
  assert.match(
    (await check(layer.subarray(0, 900_000))).join(),
    /^slice \d+ \(bytes \d+ to \d+\): the layer ends at byte 900000/,
  )
  const damaged = Buffer.from(built.blob)
  damaged[damaged.length - 1] = 0
  writeFileSync(join(folder, built.blobId), damaged)
  assert.equal((await check(layer)).length, 1)
  rmSync(join(folder, built.blobId))
  assert.equal((await check(layer)).length, 1)
})
