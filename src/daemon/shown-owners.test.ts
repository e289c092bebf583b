/** Owners as containers in user namespaces need them. */
import assert from 'node:assert/strict'
import { join } from 'node:path'
import { test } from 'node:test'
import { whyNoFuse } from '../kernel/index.ts'
import { CARRIED_BLOBS, carriedImages, localConfig, mountedTree, Scratch } from './testing.ts'

const skip = whyNoFuse() ?? false

/** Owners of all entries of an image of the original's, by path, mounted with a mapping. */
async function ownersOf(mapping: readonly number[] | undefined, version: 1 | 2): Promise<Map<string, string>> {
  await using scratch = new Scratch()
  const image = carriedImages().find(({ isInlined }) => !isInlined) ?? assert.fail()
  const daemon = await scratch.nydusd([])
  const one = localConfig(CARRIED_BLOBS, scratch.cache, { id_mapping: mapping })
  const two = JSON.stringify({
    version: 2,
    backend: { type: 'localfs', localfs: { dir: CARRIED_BLOBS } },
    cache: { type: 'filecache', filecache: { work_dir: scratch.cache } },
    rafs: { mode: 'direct', id_mapping: mapping },
  })
  const body = { source: image.bootstrap, fs_type: 'rafs', config: version === 1 ? one : two }
  assert.equal((await daemon.api('POST', '/api/v1/mount?mountpoint=/a', body)).status, 204)
  const entries = mountedTree(join(scratch.mnt, 'a'))
  return new Map(entries.map((entry) => [String(entry['path']), `${String(entry['uid'])}:${String(entry['gid'])}`]))
}

for (const version of [1, 2] as const) {
  test(`id_mapping of a document of version ${version} shifts the owners in its range, and no others`, {
    skip,
    timeout: 180_000,
  }, async () => {
    const plain = await ownersOf(undefined, version)
    const shifted = await ownersOf([0, 100_000, 1000], version)
    const shift = (id: number): number => (id < 1000 ? 100_000 + id : id)
    const wanted = [...plain].map(([path, owners]) => [
      path,
      owners
        .split(':')
        .map((id) => shift(Number(id)))
        .join(':'),
    ])
    assert.deepEqual([...shifted], wanted)
    const kinds = new Set([...plain.values()].flatMap((owners) => owners.split(':').map((id) => Number(id) < 1000)))
    assert.equal(kinds.size, 2, 'the image has owners inside and outside of the range')
  })
}

test('an id_mapping that cannot be used is refused by its key', { skip, timeout: 180_000 }, async () => {
  await using scratch = new Scratch()
  const daemon = await scratch.nydusd([])
  const image = carriedImages()[0] ?? assert.fail()
  for (const mapping of [
    [0, 1],
    [0, -1, 5],
    [0, 4_294_967_000, 1000],
    ['0', 1, 1],
  ]) {
    const config = localConfig(CARRIED_BLOBS, scratch.cache, { id_mapping: mapping })
    const body = { source: image.bootstrap, fs_type: 'rafs', config }
    const { status } = await daemon.api('POST', '/api/v1/mount?mountpoint=/a', body)
    assert.notEqual(status, 204, JSON.stringify(mapping))
  }
})
