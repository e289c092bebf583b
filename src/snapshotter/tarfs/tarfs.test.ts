import assert from 'node:assert/strict'
import { chmodSync, existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { rm } from 'node:fs/promises'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import { gzipSync } from 'node:zlib'
import { KernelError, knowsFileSystem, type mountErofs, readMountInfo, unmount } from '../../kernel/index.ts'
import { openBootstrap } from '../../rafs/index.ts'
import { PasswordCredential } from '../credentials/index.ts'
import { type Entry, inFrames, pushBlob, pushManifest, tarOf, testWorld, type World } from '../detect/testing.ts'
import {
  CRI_IMAGE_LAYERS,
  CRI_IMAGE_REF,
  CRI_LAYER_DIGEST,
  CRI_MANIFEST_DIGEST,
  GID_MAPPING,
  NYDUS_IMAGE_BLOCK,
  NYDUS_LAYER_BLOCK,
  NYDUS_TARFS,
  SNAPSHOT_REF,
  TARFS_HINT,
  UID_MAPPING,
} from '../labels.ts'
import type { Settings } from '../settings/index.ts'
import { callsOf, startSnapshotter, type TestSnapshotter, whyNoMounts, withMounts } from '../testing.ts'
import { mountImage } from './image-mount.ts'
import { Tarfs } from './index.ts'

const skip = whyNoMounts() || (knowsFileSystem('erofs') ? false : 'the kernel has no EROFS')
const HOST = '[experimental.tarfs]\nenable_tarfs = true\nmount_tarfs_on_host = true\n'

const text = (path: string, content: string): Entry => ({ path, content: Buffer.from(content) })
const LOW: Entry[] = [
  { path: 'etc', type: 'directory', mode: 0o755 },
  text('etc/hosts', 'low'),
  text('etc/gone', 'x'),
  text('big', 'b'.repeat(100_000)),
]
const TOP: Entry[] = [
  { path: 'etc', type: 'directory', mode: 0o755 },
  text('etc/.wh.gone', ''),
  text('etc/hosts', 'top'),
]

interface Pulled {
  readonly names: readonly string[]
  readonly digests: readonly string[]
  readonly labels: (layer: number) => Record<string, string>
}

interface Started {
  readonly world: World
  readonly snapshotter: TestSnapshotter
  readonly push: (layers: readonly Uint8Array[], annotations?: Record<string, string>) => Promise<Pulled>
  /** As containerd does: true for each layer that was left out. */
  readonly unpack: (pulled: Pulled) => Promise<boolean[]>
}

async function start(
  t: TestContext,
  config: string,
  noRemoval: () => Promise<void> = async () => {},
): Promise<Started> {
  // Without challenges, so that requests can be counted.
  const world = await testWorld({ auth: undefined })
  // nydus-image as a program, from its sources.
  const program = join(world.folder, 'nydus-image')
  writeFileSync(
    program,
    `#!/bin/sh\nexec '${process.execPath}' '${join(import.meta.dirname, '../../cli/nydus-image/index.ts')}' "$@"\n`,
  )
  chmodSync(program, 0o755)
  const tarfs = (settings: Settings): Tarfs =>
    new Tarfs({
      settings,
      program,
      credentials: { find: async () => new PasswordCredential('me', 'secret') },
      access: { skipVerify: false, plainHttp: 'localhost' },
      noRemoval: async () => await noRemoval(),
      log: { debug: () => {} },
    })
  const snapshotter = await startSnapshotter({ config, tarfs })
  t.after(async () => {
    for (const { at } of (await readMountInfo()).reverse()) if (at.startsWith(snapshotter.root)) await unmount(at, true)
    await snapshotter.close()
    await world[Symbol.asyncDispose]()
  })
  const push = async (layers: readonly Uint8Array[], annotations = {}): Promise<Pulled> => {
    const blobs = []
    for (const layer of layers) blobs.push(await pushBlob(world.repository, layer))
    const manifest = await pushManifest(world.repository, blobs, { annotations })
    const digests = blobs.map(({ digest }) => String(digest))
    return {
      digests,
      names: digests.map((digest) => `sha256:${digest.slice(-64).replace(/^.{4}/, 'cafe')}`),
      labels: (layer) => ({
        [SNAPSHOT_REF]: `sha256:${digests[layer]?.slice(-64).replace(/^.{4}/, 'cafe')}`,
        [CRI_IMAGE_REF]: `${world.server.host}/app:v1`,
        [CRI_MANIFEST_DIGEST]: String(manifest.digest),
        [CRI_LAYER_DIGEST]: digests[layer] ?? '',
        [CRI_IMAGE_LAYERS]: digests.slice(layer).join(),
      }),
    }
  }
  return { world, snapshotter, push, unpack: (pulled) => unpack(snapshotter, pulled) }
}

async function unpack({ client }: TestSnapshotter, { names, labels }: Pulled): Promise<boolean[]> {
  const skipped: boolean[] = []
  for (const [i, name] of names.entries()) {
    const key = `extract-${i}`
    const parent = names[i - 1] ?? ''
    const outcome = await callsOf(client)
      .prepare({ key, parent, labels: labels(i) })
      .catch((error: { code: string }) => error.code)
    skipped.push(outcome === 'ALREADY_EXISTS')
    if (typeof outcome === 'object') await callsOf(client).commit({ name, key, labels: labels(i) })
    else assert.equal(outcome, 'ALREADY_EXISTS')
  }
  return skipped
}

const layers = async (): Promise<[Uint8Array, Uint8Array]> => [gzipSync(await tarOf(LOW)), await tarOf(TOP)]

test('layers are fetched once and run from their tars, without a daemon; a lost mount comes back, a restart changes nothing', {
  skip,
  timeout: 180_000,
}, async (t) => {
  const { world, snapshotter, push, unpack: pull } = await start(t, HOST)
  const { client, store, work, root } = snapshotter
  const calls = callsOf(client)
  const [low, top] = [(await layers())[0], inFrames(await tarOf(TOP))]
  const pulled = await push([low, top])
  world.server.resetCounters()
  assert.deepEqual(await pull(pulled), [true, true])
  assert.equal(world.server.counters().blob.bytesOut, low.length + top.length)
  const parent = pulled.names[1] ?? ''
  assert.equal(store.stat(parent).labels.get(NYDUS_TARFS), pulled.digests[1]?.slice(-64))
  const check = async (mounts: Parameters<typeof withMounts>[0]): Promise<void> =>
    await withMounts(mounts, join(work, 'mnt'), () => {
      assert.deepEqual(readdirSync(join(work, 'mnt')).sort(), ['big', 'etc'])
      assert.deepEqual(readdirSync(join(work, 'mnt/etc')), ['hosts'])
      assert.equal(readFileSync(join(work, 'mnt/etc/hosts'), 'utf8'), 'top')
      assert.equal(readFileSync(join(work, 'mnt/big'), 'utf8'), 'b'.repeat(100_000))
    })
  const all = await Promise.all([1, 2, 3].map((i) => calls.prepare({ key: `c${i}`, parent })))
  const mounts = all[0]?.mounts ?? []
  await check(mounts)
  const at = join(root, 'snapshots', String(store.stat(parent).id), 'mnt')
  assert.deepEqual(
    (await readMountInfo()).filter((entry) => entry.at === at).map(({ type }) => type),
    ['erofs'],
  )
  await check((await calls.view({ key: 'view', parent })).mounts)
  // Files that a container wrote, as a layer above.
  await calls.commit({ name: 'above', key: 'c3' })
  await check((await calls.prepare({ key: 'on-above', parent: 'above' })).mounts)
  await unmount(at)
  const again = await snapshotter.restart()
  t.after(() => again.close())
  assert.deepEqual((await callsOf(again.client).mounts({ key: 'c1' })).mounts, mounts)
  await check(mounts)
  assert.deepEqual([...snapshotter.complaints, ...again.complaints], [])
})

test('a second image with the same layer does not fetch it; what nobody has any more goes', {
  skip,
  timeout: 180_000,
}, async (t) => {
  const { world, snapshotter, push, unpack: pull } = await start(t, HOST)
  const { client, root } = snapshotter
  const calls = callsOf(client)
  const [low, top] = await layers()
  const first = await push([low])
  await pull(first)
  const second = await push([low, top])
  world.server.resetCounters()
  assert.deepEqual(await pull({ ...second, names: [first.names[0] ?? '', second.names[1] ?? ''] }), [true, true])
  assert.equal(world.server.counters().blob.bytesOut, top.length)
  await calls.prepare({ key: 'c', parent: second.names[1] ?? '' })
  for (const key of ['c', second.names[1] ?? '', first.names[0] ?? '']) await calls.remove({ key })
  await calls.cleanup({})
  assert.deepEqual(readdirSync(join(root, 'snapshots')), [])
  assert.deepEqual(
    (await readMountInfo()).filter(({ at }) => at.startsWith(root)),
    [],
  )
})

test('a tar that is just being removed when its layer is pulled anew is fetched again', {
  skip,
  timeout: 180_000,
}, async (t) => {
  let noRemoval = async (): Promise<void> => {}
  const { snapshotter, push, unpack: pull } = await start(t, HOST, async () => await noRemoval())
  const [low] = await layers()
  const first = await push([low])
  await pull(first)
  await callsOf(snapshotter.client).remove({ key: first.names[0] ?? '' })
  // Another process does not know that it was converted.
  const again = await snapshotter.restart()
  t.after(() => again.close())
  const tar = join(again.root, 'cache', first.digests[0]?.slice(-64) ?? '')
  assert.ok(existsSync(tar))
  const [asked, removed] = [Promise.withResolvers<void>(), Promise.withResolvers<void>()]
  noRemoval = async () => {
    asked.resolve()
    await removed.promise
  }
  const pulling = unpack(again, first)
  await Promise.race([asked.promise, pulling])
  await rm(tar)
  removed.resolve()
  assert.deepEqual([await pulling, existsSync(tar)], [[true], true])
})

test('a layer that cannot be had, or is no tar, is unpacked, and so are those on it', {
  skip,
  timeout: 180_000,
}, async (t) => {
  const { snapshotter, push, unpack: pull } = await start(t, HOST)
  const [low] = await layers()
  assert.deepEqual(await pull(await push([gzipSync(Buffer.from('no tar at all'.repeat(1000))), low])), [false, false])
  assert.equal(snapshotter.complaints.length, 1)
  const missing = await push([low])
  const digest = `sha256:${'0'.repeat(64)}`
  const labels = { ...missing.labels(0), [CRI_LAYER_DIGEST]: digest, [SNAPSHOT_REF]: digest }
  assert.equal((await callsOf(snapshotter.client).prepare({ key: 'x', labels })).mounts.length, 1)
  assert.match(snapshotter.complaints.join('\n'), /is unpacked, .*tarfs/)
  const { root } = snapshotter
  assert.deepEqual(
    readdirSync(join(root, 'cache')).filter((name) => name.endsWith('.tmp')),
    [],
  )
})

test('with tarfs_hint only images that ask for it run from their tars', { skip, timeout: 180_000 }, async (t) => {
  const { push, unpack: pull } = await start(t, `${HOST}tarfs_hint = true\n`)
  const [low, top] = await layers()
  assert.deepEqual(await pull(await push([low])), [false])
  assert.deepEqual(await pull(await push([top], { [TARFS_HINT]: 'true' })), [true])
})

const KATA =
  'daemon_mode = "none"\n[daemon]\nfs_driver = "blockdev"\n[snapshot]\nenable_kata_volume = true\n[experimental.tarfs]\nenable_tarfs = true\n'
for (const [mode, kind, hasVerity, hasDisk] of [
  ['layer_block_with_verity', 'layer', true, true],
  ['image_block', 'image', false, true],
  ['image_verity_only', 'image', true, false],
] as const)
  test(`export_mode ${mode} gives a virtual machine ${kind} disks, which the kernel mounts`, {
    skip,
    timeout: 180_000,
  }, async (t) => {
    const { snapshotter, push, unpack: pull } = await start(t, `${KATA}export_mode = "${mode}"\n`)
    const { client, store, work } = snapshotter
    const pulled = await push(await layers())
    assert.deepEqual(await pull(pulled), [true, true])
    const [low, top] = pulled.names
    const { mounts } = await callsOf(client).prepare({ key: 'c', parent: top ?? '' })
    assert.equal(mounts[0]?.type, 'fuse.nydus-overlayfs')
    const volumes = (mounts[0]?.options ?? [])
      .filter((option) => option.startsWith('io.katacontainers.volume='))
      .map((option) => JSON.parse(Buffer.from(option.slice(option.indexOf('=') + 1), 'base64').toString()))
    const hex = pulled.digests.map((digest) => digest.slice(-64))
    const disks = kind === 'image' ? [hex[1]] : [hex[1], hex[0]]
    assert.deepEqual(
      volumes.map(({ source }) => source),
      disks.map((name) => join(snapshotter.root, 'cache', `${name}.${kind}.disk`)),
    )
    for (const volume of volumes) {
      assert.equal(volume.volume_type, `${kind}_raw_block`)
      assert.equal(volume.dm_verity !== undefined, hasVerity)
      assert.equal(existsSync(volume.source), hasDisk)
    }
    const label = kind === 'image' ? NYDUS_IMAGE_BLOCK : NYDUS_LAYER_BLOCK
    assert.match(
      store.stat((kind === 'image' ? top : low) ?? '').labels.get(label) ?? '',
      hasVerity ? /^\d+,\d+,sha256:[0-9a-f]{64}$/ : /^true$/,
    )
    assert.deepEqual((await callsOf(client).mounts({ key: 'c' })).mounts, mounts)
    if (!hasDisk) return
    await mountErofsAt(volumes[0].source, join(work, 'disk'), () =>
      assert.equal(readFileSync(join(work, 'disk/etc/hosts'), 'utf8'), 'top'),
    )
  })

async function mountErofsAt(image: string, at: string, check: () => void): Promise<void> {
  await withMounts([{ type: 'erofs', source: image, options: ['ro'] } as never], at, check)
}

test("containerd maps a container's ids on such an image", { skip, timeout: 180_000 }, async (t) => {
  const { snapshotter, push, unpack: pull } = await start(t, HOST)
  const [low] = await layers()
  const pulled = await push([low])
  await pull(pulled)
  const labels = { [UID_MAPPING]: '0:70000:65536', [GID_MAPPING]: '0:70000:65536' }
  const { mounts } = await callsOf(snapshotter.client).prepare({ key: 'c', parent: pulled.names[0] ?? '', labels })
  assert.deepEqual(mounts[0]?.options.slice(2, 4), ['uidmap=0:70000:65536', 'gidmap=0:70000:65536'])
})

test('where the kernel wants block devices, files become some, and go with the mount', {
  skip,
  timeout: 180_000,
}, async (t) => {
  const { snapshotter, push, unpack: pull } = await start(t, HOST)
  const pulled = await push(await layers())
  await pull(pulled)
  await callsOf(snapshotter.client).prepare({ key: 'c', parent: pulled.names[1] ?? '' })
  const { store, root, work } = snapshotter
  const image = join(store.directory(store.stat(pulled.names[1] ?? '')), 'fs/image/image.boot')
  const tars = pulled.digests.map((digest) => join(root, 'cache', digest.slice(-64)))
  const asOlder: typeof mountErofs = async () => {
    throw new KernelError('mount', 15, 'block device required')
  }
  const at = join(work, 'loops')
  mkdirSync(at)
  const order = openBootstrap(readFileSync(image)).blobs.map(({ id }) => tars.find((tar) => tar.endsWith(id)) ?? '')
  await mountImage(image, at, order, asOlder)
  try {
    assert.match((await readMountInfo()).find((entry) => entry.at === at)?.source ?? '', /^\/dev\/loop/)
    assert.equal(readFileSync(join(at, 'etc/hosts'), 'utf8'), 'top')
  } finally {
    await unmount(at)
  }
})
