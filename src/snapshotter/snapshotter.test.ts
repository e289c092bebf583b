import assert from 'node:assert/strict'
import { copyFileSync, existsSync, lstatSync, mkdirSync, readdirSync, writeFileSync } from 'node:fs'
import { mkdir } from 'node:fs/promises'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import { mountTmpfs, readMountInfo, unmount } from '../kernel/index.ts'
import {
  CRI_IMAGE_LAYERS,
  CRI_IMAGE_REF,
  CRI_LAYER_DIGEST,
  CRI_MANIFEST_DIGEST,
  GID_MAPPING,
  NYDUS_ALTERNATIVE,
  NYDUS_BLOB,
  NYDUS_BOOTSTRAP,
  NYDUS_INDEX_ALTERNATIVE,
  SNAPSHOT_REF,
  UID_MAPPING,
} from './labels.ts'
import type { ImageRequest } from './daemons/index.ts'
import type { BootstrapDetector, ReadyImage, ServedImages, SnapshotterParts } from './parts.ts'
import type { SnapshotStore } from './store/index.ts'
import {
  callsOf,
  startSnapshotter,
  type TestOptions,
  type TestSnapshotter,
  whyNoMounts,
  withMounts,
} from './testing.ts'

const skip = whyNoMounts()
const BOOTSTRAP = join(import.meta.dirname, '../builder/testdata/third.bootstrap')
const never = new AbortController().signal

/** Images without nydusd: each is a file system in memory with one file, `/image`, that names it. */
class MemoryImages implements ServedImages {
  readonly asked: ImageRequest[] = []
  readonly released: string[] = []
  wait: Promise<void> = Promise.resolve()
  failure: Error | undefined
  readonly #store: SnapshotStore
  readonly #mounting = new Map<string, Promise<void>>()

  constructor(store: SnapshotStore) {
    this.#store = store
  }

  async ensure(request: ImageRequest, signal: AbortSignal): Promise<ReadyImage> {
    this.asked.push(request)
    await Promise.race([
      this.wait,
      new Promise((_resolve, reject) => signal.addEventListener('abort', () => reject(signal.reason))),
    ])
    if (this.failure !== undefined) throw this.failure
    const image = this.#image(request.directory, request.idMapping?.host)
    const mounting = (this.#mounting.get(image.mountpoint) ?? Promise.resolve()).then(() =>
      mountOnce(image.mountpoint, request.reference),
    )
    this.#mounting.set(image.mountpoint, mounting)
    await mounting
    return image
  }

  find(snapshotId: number): ReadyImage | undefined {
    return this.#image(join(this.#store.root, 'snapshots', String(snapshotId)), undefined)
  }

  async release(snapshotId: number, idMapping?: { readonly host: number }): Promise<void> {
    this.released.push(idMapping === undefined ? `${snapshotId}` : `${snapshotId}-${idMapping.host}`)
    const { mountpoint } = this.#image(join(this.#store.root, 'snapshots', String(snapshotId)), idMapping?.host)
    await unmount(mountpoint)
  }

  async cacheUsage(blobId: string) {
    return { bytes: blobId.length, inodes: 1 }
  }

  async collectCache(given: () => Iterable<string>) {
    const roots = given()
    return { removed: 0, skipped: [...roots].join() || undefined }
  }

  async stop(): Promise<void> {}

  #image(directory: string, host: number | undefined): ReadyImage {
    const configPath = join(directory, 'config.json')
    if (existsSync(directory)) writeFileSync(configPath, '{"device":{}}')
    return {
      mountpoint: join(directory, host === undefined ? 'mnt' : `mnt-${host}`),
      bootstrap: join(directory, 'fs/image/image.boot'),
      configPath,
    }
  }
}

async function mountOnce(at: string, text: string): Promise<void> {
  await mkdir(at, { recursive: true })
  if ((await readMountInfo()).some((entry) => entry.at === at)) return
  await mountTmpfs(at, 1 << 20)
  writeFileSync(join(at, 'image'), text)
}

interface Started extends TestSnapshotter {
  readonly images: MemoryImages
}

async function start(t: TestContext, options: Omit<TestOptions, 'images'> = {}): Promise<Started> {
  let images: MemoryImages | undefined
  const make = (_settings: SnapshotterParts['settings'], store: SnapshotStore): MemoryImages =>
    (images = new MemoryImages(store))
  const started = await startSnapshotter({ ...options, images: make })
  t.after(() => started.close())
  assert.ok(images !== undefined)
  return { ...started, images }
}

const DIGEST = (c: string): string => `sha256:${c.repeat(64)}`
const REF = { [CRI_IMAGE_REF]: 'registry.test/app:v1' }

/** As containerd unpacks a Nydus image of one data layer: gives the name of the layer with the bootstrap. */
async function pull(
  { client, store }: Started,
  namespace = 'ns/1',
  bootstrapLabels: Record<string, string> = { ...REF, [NYDUS_BOOTSTRAP]: 'true' },
): Promise<string> {
  const calls = callsOf(client)
  const labels = { ...REF, [SNAPSHOT_REF]: DIGEST('a'), [NYDUS_BLOB]: 'true', [CRI_LAYER_DIGEST]: DIGEST('b') }
  await assert.rejects(calls.prepare({ key: `${namespace}/extract-1`, labels }), { code: 'ALREADY_EXISTS' })
  const found: string[] = []
  for await (const { info } of calls.list({
    filters: [`labels."containerd.io/snapshot.ref"==${DIGEST('a')},parent==""`],
  }))
    found.push(...info.map(({ name }) => name))
  assert.deepEqual(found, [DIGEST('a')])
  const key = `${namespace}/extract-2`
  await calls.prepare({
    key,
    parent: DIGEST('a'),
    labels: { ...bootstrapLabels, [SNAPSHOT_REF]: DIGEST('c'), [NYDUS_BOOTSTRAP]: 'true' },
  })
  mkdirSync(join(store.directory(store.stat(key)), 'fs/image'))
  copyFileSync(BOOTSTRAP, join(store.directory(store.stat(key)), 'fs/image/image.boot'))
  await calls.commit({
    name: `${namespace}/${DIGEST('c')}`,
    key,
    labels: { ...bootstrapLabels, [SNAPSHOT_REF]: DIGEST('c') },
  })
  return `${namespace}/${DIGEST('c')}`
}

test('a data layer is left out, in every namespace, and nothing of its calls stays', { skip }, async (t) => {
  const started = await start(t)
  const { store, root, client } = started
  await pull(started)
  const before = readdirSync(join(root, 'snapshots'))
  const calls = callsOf(client)
  const labels = { [SNAPSHOT_REF]: DIGEST('a'), [NYDUS_BLOB]: 'true' }
  await assert.rejects(calls.prepare({ key: 'other/extract', labels }), {
    code: 'ALREADY_EXISTS',
    message: `target snapshot "${DIGEST('a')}": already exists`,
  })
  assert.deepEqual(readdirSync(join(root, 'snapshots')), before)
  assert.equal(store.list(['name~=extract']).length, 0)
  await Promise.all(
    Array.from({ length: 16 }, (_, i) =>
      assert.rejects(calls.prepare({ key: `${i}/extract`, labels: { ...labels, [SNAPSHOT_REF]: DIGEST('e') } }), {
        code: 'ALREADY_EXISTS',
      }),
    ),
  )
  assert.equal(store.list([`labels."containerd.io/snapshot.ref"==${DIGEST('e')}`]).length, 1)
  assert.equal(store.list(['kind==active']).length, 0)
})

test('where a namespace unpacked the lower layers itself, a layer on them is left out under another name', {
  skip,
}, async (t) => {
  const { client, store } = await start(t)
  const calls = callsOf(client)
  const labels = { [SNAPSHOT_REF]: DIGEST('b'), [NYDUS_BLOB]: 'true' }
  for (const namespace of ['one', 'two', 'two']) {
    const parent = `${namespace}/base`
    if (namespace === 'one' || store.list([`name==two/base`]).length === 0) {
      await calls.prepare({ key: `${namespace}/x` })
      await calls.commit({ name: parent, key: `${namespace}/x` })
    }
    await assert.rejects(calls.prepare({ key: `${namespace}/extract`, parent, labels }), { code: 'ALREADY_EXISTS' })
    const found = store.list([`labels."containerd.io/snapshot.ref"==${DIGEST('b')},parent==${JSON.stringify(parent)}`])
    assert.equal(found.length, 1, namespace)
  }
})

test('the image is mounted when its bootstrap is committed, and containers, also those on layers above, and views show it', {
  skip,
}, async (t) => {
  const started = await start(t)
  const { client, images, work, root, store } = started
  const calls = callsOf(client)
  const top = await pull(started)
  while (images.asked.length === 0) await new Promise((resolve) => setTimeout(resolve, 5))
  assert.equal(images.asked[0]?.reference, 'registry.test/app:v1')
  const lower = join(root, 'snapshots', String(store.stat(top).id), 'mnt')
  const { mounts } = await calls.prepare({ key: 'ctr', parent: top })
  const own = store.directory(store.stat('ctr'))
  assert.deepEqual(
    mounts.map(({ type, source, options }) => ({ type, source, options })),
    [
      {
        type: 'overlay',
        source: 'overlay',
        options: [`workdir=${own}/work`, `upperdir=${own}/fs`, `lowerdir=${lower}`],
      },
    ],
  )
  assert.deepEqual((await calls.mounts({ key: 'ctr' })).mounts, mounts)
  // As Docker does: a layer with files of its own below the container's.
  await calls.prepare({ key: 'init-key', parent: top })
  writeFileSync(join(store.directory(store.stat('init-key')), 'fs/hosts'), 'of init')
  await calls.commit({ name: 'init', key: 'init-key' })
  for (const kind of ['prepare', 'view'] as const) {
    const { mounts: above } = await calls[kind]({ key: kind, parent: 'init' })
    await withMounts(above, join(work, 'mnt'), () =>
      assert.deepEqual(readdirSync(join(work, 'mnt')).sort(), ['hosts', 'image']),
    )
    assert.deepEqual((await calls.mounts({ key: kind })).mounts, above)
  }
  const view = await calls.view({ key: 'top-view', parent: top })
  await withMounts(view.mounts, join(work, 'mnt'), () => assert.deepEqual(readdirSync(join(work, 'mnt')), ['image']))
  await assert.rejects(calls.view({ key: 'data', parent: DIGEST('a') }), {
    code: 'FAILED_PRECONDITION',
    message: /topmost layer/,
  })
  assert.equal(store.list(['name==data']).length, 0)
  await assert.rejects(calls.mounts({ key: top }), { code: 'FAILED_PRECONDITION', message: /not active or view/ })
})

test('after a restart and a lost mount, mounts are the same and work again', { skip }, async (t) => {
  const started = await start(t)
  const top = await pull(started)
  const first = (await callsOf(started.client).prepare({ key: 'ctr', parent: top })).mounts
  const view = (await callsOf(started.client).view({ key: 'view', parent: top })).mounts
  const lower = join(started.root, 'snapshots', String(started.store.stat(top).id), 'mnt')
  await unmount(lower)
  const again = await started.restart()
  t.after(async () => {
    await unmount(lower, true)
    await again.close()
  })
  for (const [key, mounts] of [
    ['ctr', first],
    ['view', view],
  ] as const) {
    const now = (await callsOf(again.client).mounts({ key })).mounts
    assert.deepEqual(now, mounts)
    await withMounts(now, join(again.work, 'mnt'), () =>
      assert.ok(readdirSync(join(again.work, 'mnt')).includes('image')),
    )
  }
})

test('an image that cannot be mounted fails the call, and leaves no snapshot; one that gives up neither', {
  skip,
}, async (t) => {
  const started = await start(t)
  const { client, images, store, root } = started
  const top = await pull(started)
  const before = readdirSync(join(root, 'snapshots'))
  images.failure = new Error('nydusd says no')
  await assert.rejects(callsOf(client).prepare({ key: 'ctr', parent: top }), {
    code: 'UNKNOWN',
    message: 'nydusd says no',
  })
  images.failure = undefined
  images.wait = new Promise(() => {})
  await assert.rejects(callsOf(client).prepare({ key: 'ctr', parent: top }, { timeoutMs: 300 }), {
    code: 'DEADLINE_EXCEEDED',
  })
  while (store.list(['name==ctr']).length > 0 || readdirSync(join(root, 'snapshots')).length > before.length)
    await new Promise((resolve) => setTimeout(resolve, 10))
  images.wait = Promise.resolve()
  await callsOf(client).prepare({ key: 'ctr', parent: top })
})

test('a layer on a Nydus image is unpacked upon it, or without it when it cannot be mounted', { skip }, async (t) => {
  const started = await start(t)
  const { client, images, store } = started
  const top = await pull(started)
  const labels = { [SNAPSHOT_REF]: DIGEST('f') }
  const lower = join(store.directory(store.stat(top)), 'mnt')
  const upon = await callsOf(client).prepare({ key: 'extract', parent: top, labels })
  assert.equal(upon.mounts[0]?.options.at(-1), `lowerdir=${lower}`)
  images.failure = new Error('down')
  const without = await callsOf(client).prepare({ key: 'extract-2', parent: top, labels })
  assert.match(without.mounts[0]?.options.at(-1) ?? '', /fs:.*fs$/)
})

test('the name of an image is taken from the layers below when the bootstrap was committed without labels', {
  skip,
}, async (t) => {
  const started = await start(t)
  const top = await pull(started, 'ns/1', { [NYDUS_BOOTSTRAP]: 'true' })
  await callsOf(started.client).prepare({ key: 'ctr', parent: top })
  assert.equal(started.images.asked.at(-1)?.reference, 'registry.test/app:v1')
})

test('removed snapshots take their mounts and directories with them at the next cleanup, and nothing else', {
  skip,
}, async (t) => {
  const started = await start(t)
  const { client, store, root, complaints, images } = started
  const calls = callsOf(client)
  const top = await pull(started)
  await calls.prepare({ key: 'ctr', parent: top })
  await calls.prepare({ key: 'other' })
  const [layer, ctr, other] = [top, 'ctr', 'other'].map((key) => String(store.stat(key).id))
  await calls.remove({ key: 'ctr' })
  assert.ok(existsSync(join(root, 'snapshots', ctr ?? '')))
  await calls.cleanup({})
  assert.ok(!existsSync(join(root, 'snapshots', ctr ?? '')))
  await calls.remove({ key: top })
  await calls.remove({ key: DIGEST('a') })
  await calls.cleanup({})
  assert.deepEqual(readdirSync(join(root, 'snapshots')), [other])
  assert.ok(images.released.includes(layer ?? ''))
  assert.deepEqual(
    (await readMountInfo()).filter(({ at }) => at.startsWith(root)),
    [],
  )
  assert.deepEqual(complaints, [])
})

test('with sync_remove directories go with their snapshots', { skip }, async (t) => {
  const { client, root } = await start(t, { config: '[snapshot]\nsync_remove = true\n' })
  await callsOf(client).prepare({ key: 'a' })
  await callsOf(client).remove({ key: 'a' })
  assert.deepEqual(readdirSync(join(root, 'snapshots')), [])
})

test('usage is of the files now, or as measured after the commit, with what is cached of a blob', {
  skip,
}, async (t) => {
  const started = await start(t)
  const { client, store } = started
  const calls = callsOf(client)
  await calls.prepare({ key: 'a' })
  const empty = await calls.usage({ key: 'a' })
  const directory = store.directory(store.stat('a'))
  writeFileSync(join(directory, 'fs/file'), Buffer.alloc(100_000, 1))
  const full = await calls.usage({ key: 'a' })
  assert.ok(full.size >= empty.size + 100_000n && full.inodes === empty.inodes + 1n, `${empty.size} ${full.size}`)
  await calls.commit({ name: 'b', key: 'a' })
  assert.deepEqual(await calls.usage({ key: 'b' }), full)
  // It is kept: the files are not looked at again.
  writeFileSync(join(directory, 'fs/later'), Buffer.alloc(100_000, 1))
  assert.deepEqual(await calls.usage({ key: 'b' }), full)
  assert.ok(store.stat('b').usage !== undefined)
  await calls.view({ key: 'v', parent: 'b' })
  assert.equal((await calls.usage({ key: 'v' })).size, 0n)
  await pull(started)
  const { usage } = store.stat(DIGEST('a'))
  assert.equal((await calls.usage({ key: DIGEST('a') })).size, BigInt((usage?.bytes ?? 0) + 64))
})

test("a container's ids are mapped: its own directories belong to it, and its image is mounted for it alone, until the last such container is gone", {
  skip,
}, async (t) => {
  const started = await start(t)
  const { client, store, images } = started
  const calls = callsOf(client)
  const top = await pull(started)
  const labels = { [UID_MAPPING]: '0:200000:65536', [GID_MAPPING]: '0:200000:65536' }
  const { mounts } = await calls.prepare({ key: 'a', parent: top, labels })
  await calls.prepare({ key: 'b', parent: top, labels })
  const { id } = store.stat(top)
  assert.match(mounts[0]?.options.at(-1) ?? '', new RegExp(`/${id}/mnt-200000$`))
  for (const name of ['fs', 'work']) assert.equal(lstatSync(join(store.directory(store.stat('a')), name)).uid, 200_000)
  await calls.remove({ key: 'a' })
  await calls.remove({ key: 'b' })
  while (images.released.length === 0) await new Promise((resolve) => setTimeout(resolve, 5))
  assert.deepEqual(images.released, [`${id}-200000`])
  await calls.prepare({ key: 'plain', labels })
  const native = await calls.view({ key: 'native', labels })
  assert.deepEqual(native.mounts[0]?.options, ['ro', 'rbind', 'uidmap=0:200000:65536', 'gidmap=0:200000:65536'])
  await assert.rejects(calls.prepare({ key: 'wrong', labels: { [UID_MAPPING]: '0:1:1' } }), {
    code: 'INVALID_ARGUMENT',
  })
})

test('a parent that was lost is told with what to do; with the proxy driver an empty one takes its place', {
  skip,
}, async (t) => {
  const plain = await start(t)
  await assert.rejects(callsOf(plain.client).prepare({ key: 'a', parent: 'gone' }), {
    code: 'NOT_FOUND',
    message: /^missing parent "gone" bucket: not found; .*pull it again/,
  })
  const { client, store, root } = await start(t, {
    config: 'daemon_mode = "none"\n[daemon]\nfs_driver = "proxy"\n[snapshot]\nenable_kata_volume = true\n',
  })
  const calls = callsOf(client)
  const { mounts } = await calls.prepare({ key: 'a', parent: 'gone' })
  assert.equal(store.stat('gone').labels.get('nydus.recovered'), 'true')
  assert.equal(mounts[0]?.type, 'fuse.nydus-overlayfs')
  const sandbox = await calls.prepare({ key: 'sandbox' })
  assert.equal(sandbox.mounts[0]?.options[2], `lowerdir=${root}/snapshots`)
  assert.deepEqual((await calls.mounts({ key: 'sandbox' })).mounts, sandbox.mounts)
})

test('with the proxy driver the machine is told what to pull', { skip }, async (t) => {
  const { client, store } = await start(t, {
    config:
      'daemon_mode = "none"\n[daemon]\nfs_driver = "proxy"\n[snapshot]\nenable_kata_volume = true\nnydus_overlayfs_path = "/opt/helper"\n',
  })
  const calls = callsOf(client)
  const labels = { ...REF, [SNAPSHOT_REF]: DIGEST('a'), [CRI_LAYER_DIGEST]: DIGEST('b') }
  await assert.rejects(calls.prepare({ key: 'x', labels }), { code: 'ALREADY_EXISTS' })
  const { mounts } = await calls.prepare({ key: 'ctr', parent: DIGEST('a') })
  assert.equal(mounts[0]?.type, 'fuse./opt/helper')
  const options = mounts[0]?.options ?? []
  assert.equal(options.at(-2), `lowerdir=${store.directory(store.stat(DIGEST('a')))}/fs`)
  const volume = JSON.parse(Buffer.from(options.at(-1)?.split('=').slice(1).join('=') ?? '', 'base64').toString())
  assert.equal(volume.source, 'registry.test/app:v1')
  assert.equal(volume.image_pull.metadata[CRI_LAYER_DIGEST], DIGEST('b'))
  assert.deepEqual((await calls.mounts({ key: 'ctr' })).mounts, mounts)
})

test('the helper is told where the image is, by configuration', { skip }, async (t) => {
  const started = await start(t, {
    config: '[snapshot]\nenable_nydus_overlayfs = true\nenable_overlayfs_volatile = true\n',
  })
  const top = await pull(started)
  const { mounts } = await callsOf(started.client).prepare({ key: 'ctr', parent: top })
  assert.equal(mounts[0]?.type, 'fuse.nydus-overlayfs')
  const [volatile, , , , extra] = mounts[0]?.options ?? []
  assert.equal(volatile, 'volatile')
  const told = JSON.parse(Buffer.from(extra?.slice('extraoption='.length) ?? '', 'base64').toString())
  const { store } = started
  assert.deepEqual(told, {
    source: join(store.directory(store.stat(top)), 'fs/image/image.boot'),
    config: '{"device":{}}',
    snapshotdir: store.directory(store.stat('ctr')),
    fs_version: 'v6',
  })
})

/** Says that every image has a Nydus form, and counts how often it is asked. */
class Everything implements BootstrapDetector {
  finds = 0
  fetches = 0
  answer: 'index' | 'referrer' | 'ill' | undefined = 'index'
  async find() {
    this.finds++
    if (this.answer === 'ill') throw new Error('no answer')
    return this.answer === undefined
      ? undefined
      : { kind: this.answer, labels: new Map([[NYDUS_ALTERNATIVE, 'index,sha256:1,2']]) }
  }
  async fetch(_found: unknown, directory: string) {
    this.fetches++
    writeFileSync(join(directory, 'fs/image.boot'), 'bootstrap')
    return join(directory, 'fs/image.boot')
  }
}

test('layers of an image that has a Nydus form are left out; its bootstrap is fetched once, without asking again', {
  skip,
}, async (t) => {
  const detector = new Everything()
  const { client, store, images, work } = await start(t, { detector })
  const calls = callsOf(client)
  const layers = [DIGEST('1'), DIGEST('2')]
  let parent = ''
  for (const [i, target] of layers.entries()) {
    const labels = {
      ...REF,
      [SNAPSHOT_REF]: target,
      [CRI_MANIFEST_DIGEST]: DIGEST('d'),
      [CRI_IMAGE_LAYERS]: layers.slice(i).join(),
    }
    await assert.rejects(calls.prepare({ key: `x${i}`, parent, labels }), { code: 'ALREADY_EXISTS' })
    parent = target
  }
  assert.equal(store.stat(parent).labels.get(NYDUS_INDEX_ALTERNATIVE), 'true')
  assert.equal(detector.finds, 1)
  const all = await Promise.all(Array.from({ length: 8 }, (_, i) => calls.prepare({ key: `c${i}`, parent })))
  assert.equal(detector.fetches, 1)
  await withMounts(all[0]?.mounts ?? [], join(work, 'mnt'), () =>
    assert.deepEqual(readdirSync(join(work, 'mnt')), ['image']),
  )
  assert.equal(images.asked.at(-1)?.snapshot.key, parent)
  const finds = detector.finds
  await calls.mounts({ key: 'c1' })
  assert.equal(detector.finds, finds)
  // The lower layer belongs to another image's Nydus form.
  await assert.rejects(calls.prepare({ key: 'lower', parent: layers[0] ?? '' }), {
    code: 'FAILED_PRECONDITION',
    message: /has more layers/,
  })
  assert.equal(store.list(['name==lower']).length, 0)
})

test('a layer whose image has no Nydus form, or whose registry does not say, is unpacked', { skip }, async (t) => {
  const detector = new Everything()
  const { client, complaints } = await start(t, { detector })
  for (const answer of [undefined, 'ill'] as const) {
    detector.answer = answer
    const { mounts } = await callsOf(client).prepare({ key: `x${answer}`, labels: { [SNAPSHOT_REF]: DIGEST('1') } })
    assert.equal(mounts[0]?.type, 'bind')
  }
  assert.match(complaints.join(), /detect.*no answer/)
})

test('hostile labels reach no file: digests that are paths are none, and a snapshot is never named outside of its directory', {
  skip,
}, async (t) => {
  const started = await start(t)
  const { client, store, root } = started
  const calls = callsOf(client)
  const evil = '../../../../../../etc/passwd'
  const labels = { ...REF, [SNAPSHOT_REF]: evil, [NYDUS_BLOB]: 'true', [CRI_LAYER_DIGEST]: `sha256:${evil}` }
  // Named as itself, it would never be there.
  await assert.rejects(calls.prepare({ key: evil, labels }), { code: 'ALREADY_EXISTS', message: /committed snapshot/ })
  await assert.rejects(calls.prepare({ key: 'extract', labels }), {
    code: 'ALREADY_EXISTS',
    message: /target snapshot/,
  })
  const { usage } = store.stat(evil)
  assert.equal((await calls.usage({ key: evil })).size, BigInt(usage?.bytes ?? 0))
  const { mounts } = await calls.prepare({ key: '/../x', parent: evil })
  for (const option of mounts[0]?.options ?? [])
    for (const path of option.split('=').slice(1).join('=').split(':'))
      assert.ok(path.startsWith(`${root}/snapshots/`), path)
  await calls.cleanup({})
})

test('calls after the end say so, and operations are timed', { skip }, async (t) => {
  const { snapshotter } = await start(t)
  await snapshotter.close()
  await assert.rejects(snapshotter.prepare('a', '', new Map(), never), { code: 'UNAVAILABLE' })
})
