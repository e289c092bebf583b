/** What is told of an image at a container's start: the bytes that its nydusd really fetched. */
import assert from 'node:assert/strict'
import { statSync } from 'node:fs'
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { test } from 'node:test'
import { CARRIED_BLOBS } from '../src/daemon/testing.ts'
import type { Snapshot } from '../src/snapshotter/snapshot.ts'
import { Field, FILE, IMAGE, OTHER_IMAGE, PEER, skip, skipPeer } from './daemons/field.ts'

const SOON = (): AbortSignal => AbortSignal.timeout(120_000)
const FILE_BYTES = 65_536
const DATA_BYTES = IMAGE.blobs.reduce((sum, blob) => sum + statSync(join(CARRIED_BLOBS, blob)).size, 0)

for (const { side, program, mode, why } of [
  { side: 'ours', program: undefined, mode: 'shared', why: skip },
  { side: 'ours', program: undefined, mode: 'dedicated', why: skip },
  { side: 'the original', program: PEER, mode: 'shared', why: skipPeer },
] as const)
  test(`${side}, ${mode}: an image's fetched bytes are those of its own reads`, {
    skip: why,
    timeout: 180_000,
  }, async () => {
    await using field = new Field({ mode })
    if (program !== undefined) field.program('nydusd', program)
    const images = await field.start()
    const [layer, other] = [field.layer(IMAGE), field.layer(OTHER_IMAGE)]
    assert.equal(await images.fetched(layer.id, SOON), undefined)
    const { mountpoint } = await field.ensure(layer)
    await field.ensure(other)
    const fetched = async (of: Snapshot): Promise<number> => (await images.fetched(of.id, SOON)) ?? assert.fail()
    const [atFirst, ofOther] = [await fetched(layer), await fetched(other)] // what says where chunks lie
    assert.ok(atFirst < FILE_BYTES, `${atFirst} bytes`)
    await readFile(join(mountpoint, FILE))
    const afterFile = await fetched(layer)
    assert.ok(afterFile >= atFirst + FILE_BYTES && afterFile <= atFirst + DATA_BYTES, `${afterFile} bytes`)
    assert.equal(await fetched(other), ofOther)
    await images.release(layer.id)
    assert.equal(await images.fetched(layer.id, SOON), undefined)
  })
