/** Snapshots on images that the kernel shows, by the calls of containerd. */
import assert from 'node:assert/strict'
import { copyFileSync, existsSync, lstatSync, mkdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { CARRIED_BLOBS } from '../src/daemon/testing.ts'
import { readMountInfoNow, unmount } from '../src/kernel/index.ts'
import { KernelImages } from '../src/snapshotter/kernel-images/index.ts'
import { GID_MAPPING, NYDUS_BOOTSTRAP, UID_MAPPING } from '../src/snapshotter/labels.ts'
import type { ServedImages } from '../src/snapshotter/parts.ts'
import { callsOf, startSnapshotter, type TestSnapshotter, withMounts } from '../src/snapshotter/testing.ts'
import { FILE, IMAGE, PLENTY_MS } from './daemons/field.ts'
import { BLOB, skipReason } from './daemons/kernel-field.ts'

const skip = await skipReason()
const options = { skip, timeout: PLENTY_MS }

/** Images that would be nydusd's: folders with nothing in them. */
const FOLDERS: ServedImages = {
  ensure: async ({ directory, idMapping }) => {
    const mountpoint = join(directory, idMapping === undefined ? 'served' : `served-${idMapping.host}`)
    mkdirSync(mountpoint, { recursive: true })
    return await Promise.resolve({ mountpoint, bootstrap: join(directory, 'fs/image/image.boot'), configPath: '' })
  },
  find: () => undefined,
  release: async () => {},
  cacheUsage: async () => ({ bytes: 0, inodes: 0 }),
  collectCache: async () => ({ removed: 0, skipped: undefined }),
  stop: async () => {},
}

interface Node extends AsyncDisposable {
  readonly snapshotter: TestSnapshotter
  readonly kernel: () => KernelImages
  restart(): Promise<void>
}

async function startNode(): Promise<Node> {
  let [kernel, current]: [KernelImages | undefined, TestSnapshotter | undefined] = [undefined, undefined]
  current = await startSnapshotter({
    images: () => FOLDERS,
    kernelImages: async (settings, store) => {
      const snapshots = (): Set<number> => new Set(store.list([]).map(({ id }) => id))
      const quiet = (): void => {}
      const log = { warn: quiet, info: quiet, debug: quiet }
      kernel = await KernelImages.start({ settings, snapshots, log, delayMs: 0 }, 'possible')
      return kernel
    },
  })
  return {
    get snapshotter() {
      return current ?? assert.fail()
    },
    kernel: () => kernel ?? assert.fail(),
    restart: async () => {
      current = await current?.restart()
    },
    [Symbol.asyncDispose]: async () => {
      for (const { at } of readMountInfoNow().reverse())
        if (current !== undefined && at.startsWith(`${current.root}/`)) await unmount(at, true)
      await current?.close()
    },
  }
}

/** Its data is all in the cache. */
async function pull({ client, root, store }: TestSnapshotter): Promise<void> {
  mkdirSync(join(root, 'cache'), { recursive: true })
  for (const suffix of ['.blob.data', '.blob.data.chunk_map'])
    copyFileSync(join(CARRIED_BLOBS, BLOB + suffix), join(root, 'cache', BLOB + suffix))
  const calls = callsOf(client)
  await calls.prepare({ key: 'extract', labels: {} })
  const directory = join(store.directory(store.stat('extract')), 'fs/image')
  mkdirSync(directory, { recursive: true })
  copyFileSync(IMAGE.bootstrap, join(directory, 'image.boot'))
  await calls.commit({ key: 'extract', name: 'image', labels: { [NYDUS_BOOTSTRAP]: 'true' } })
}

const lowerOf = (mounts: ReadonlyArray<{ readonly options: readonly string[] }>): string =>
  mounts[0]?.options.find((option) => option.startsWith('lowerdir='))?.slice('lowerdir='.length) ?? ''

test(
  'who begins when an image is checked has it by the kernel, also after a restart; who began before never does',
  options,
  async () => {
    await using node = await startNode()
    await pull(node.snapshotter)
    let calls = callsOf(node.snapshotter.client)
    const [layer] = [node.snapshotter.store.stat('image')]
    const served = join(node.snapshotter.store.directory(layer), 'served')
    const shown = join(node.snapshotter.root, 'erofs', String(layer.id), 'mnt')
    assert.equal(lowerOf((await calls.prepare({ key: 'early', parent: 'image' })).mounts), served)
    await node.kernel().settled()
    const { mounts } = await calls.prepare({ key: 'late', parent: 'image' })
    assert.equal(lowerOf(mounts), shown)
    await withMounts(mounts, join(node.snapshotter.work, 'root'), () => {
      const path = join(node.snapshotter.work, 'root', FILE)
      assert.deepEqual(readFileSync(path), readFileSync(join(shown, FILE)))
    })
    for (let round = 0; round < 2; round += 1) {
      assert.equal(lowerOf((await calls.mounts({ key: 'early' })).mounts), served)
      assert.equal(lowerOf((await calls.mounts({ key: 'late' })).mounts), shown)
      await node.restart()
      calls = callsOf(node.snapshotter.client)
    }
    assert.equal(lowerOf((await calls.view({ key: 'view', parent: 'image' })).mounts).split(':')[0], shown)
    await calls.remove({ key: 'late' })
    assert.ok(isMounted(shown), 'the view has it still')
    await calls.remove({ key: 'view' })
    assert.equal(isMounted(shown), false)
    await calls.remove({ key: 'early' })
    await calls.remove({ key: 'image' })
    await calls.cleanup({})
    assert.equal(existsSync(join(node.snapshotter.root, 'erofs', String(layer.id))), false)
    assert.equal(existsSync(join(node.snapshotter.root, 'cache', `${BLOB}.blob.pins`)), false)
  },
)

test('usage of a layer counts what it is shown by, and not what is mounted there', options, async () => {
  await using node = await startNode()
  await pull(node.snapshotter)
  const calls = callsOf(node.snapshotter.client)
  const of = async (): Promise<number[]> => {
    const { size, inodes } = await calls.usage({ key: 'image' })
    return [Number(size), Number(inodes)]
  }
  const [size = 0, inodes = 0] = await of()
  await calls.prepare({ key: 'early', parent: 'image' })
  await node.kernel().settled()
  await calls.prepare({ key: 'late', parent: 'image' })
  const { root, store } = node.snapshotter
  const directory = join(root, 'erofs', String(store.stat('image').id))
  assert.ok(isMounted(join(directory, 'mnt')))
  const files = ['', 'image.boot', 'checked.json', 'users', `users/${store.stat('late').id}`]
  const more = files.map((name) => lstatSync(join(directory, name)).blocks * 512).reduce((a, b) => a + b)
  assert.deepEqual(await of(), [size + more, inodes + files.length])
})

test('a container with ids of its own has a mount of its own, whose files are its root’s', options, async () => {
  await using node = await startNode()
  await pull(node.snapshotter)
  const calls = callsOf(node.snapshotter.client)
  const labels = { [UID_MAPPING]: '0:100000:65536', [GID_MAPPING]: '0:100000:65536' }
  await calls.prepare({ key: 'early', parent: 'image', labels })
  await node.kernel().settled()
  const lower = lowerOf((await calls.prepare({ key: 'late', parent: 'image', labels })).mounts)
  assert.match(lower, /\/erofs\/\d+-userns-100000\/mnt$/)
  assert.equal(lstatSync(lower).uid, 100_000)
})

function isMounted(at: string): boolean {
  return readMountInfoNow().some((mount) => mount.at === at)
}
