import assert from 'node:assert/strict'
import { test } from 'node:test'
import { diskVolume, guestPullVolume, kataOption } from './kata-volume.ts'
import { extraOption, helperMount, imageOptions, type Mounted, nativeMounts, proxyOptions } from './mounts.ts'

const ACTIVE: Mounted = { kind: 'active', directory: '/r/snapshots/9', volatile: false, mapping: undefined }
const VIEW: Mounted = { ...ACTIVE, kind: 'view' }
const MAPPED = { container: 0, host: 100_000, size: 65_536 }
const MAPS = ['uidmap=0:100000:65536', 'gidmap=0:100000:65536']
const [P1, P2] = ['/r/snapshots/2', '/r/snapshots/1']
const WRITABLE = ['workdir=/r/snapshots/9/work', 'upperdir=/r/snapshots/9/fs']
const bind = (source: string, ...options: string[]) => [{ type: 'bind', source, target: '', options }]
const overlay = (...options: string[]) => [{ type: 'overlay', source: 'overlay', target: '', options }]

const NATIVE: ReadonlyArray<readonly [string, Mounted, string[], unknown]> = [
  ['a first layer is its own directory', ACTIVE, [], bind('/r/snapshots/9/fs', 'rw', 'rbind')],
  ['a view of nothing is its own directory, read-only', VIEW, [], bind('/r/snapshots/9/fs', 'ro', 'rbind')],
  [
    'ids are mapped in a bind mount',
    { ...ACTIVE, mapping: MAPPED },
    [],
    bind('/r/snapshots/9/fs', 'rw', 'rbind', ...MAPS),
  ],
  ['a view of one layer is that layer', { ...VIEW, volatile: true }, [P1], bind('/r/snapshots/2/fs', 'ro', 'rbind')],
  [
    'a view of one layer with mapped ids',
    { ...VIEW, mapping: MAPPED },
    [P1],
    bind('/r/snapshots/2/fs', 'ro', 'rbind', ...MAPS),
  ],
  ['a second layer is an overlay', ACTIVE, [P1], overlay(...WRITABLE, 'lowerdir=/r/snapshots/2/fs')],
  [
    'volatile and maps stand before the lower directories',
    { ...ACTIVE, volatile: true, mapping: MAPPED },
    [P1, P2],
    overlay(...WRITABLE, 'volatile', ...MAPS, 'lowerdir=/r/snapshots/2/fs:/r/snapshots/1/fs'),
  ],
  [
    'a view of two layers is an overlay without an upper directory',
    { ...VIEW, mapping: MAPPED },
    [P1, P2],
    overlay(...MAPS, 'lowerdir=/r/snapshots/2/fs:/r/snapshots/1/fs'),
  ],
]
for (const [name, of, parents, expected] of NATIVE)
  test(name, () => {
    assert.deepEqual(nativeMounts(of, parents), expected)
  })

const IMAGE: ReadonlyArray<readonly [string, Mounted, string[], string[]]> = [
  ['a container is an overlay on the mounted image', ACTIVE, [], [...WRITABLE, 'lowerdir=/r/mnt/1']],
  [
    'layers between lie above the image',
    ACTIVE,
    ['/r/snapshots/5', '/r/snapshots/4'],
    [...WRITABLE, 'lowerdir=/r/snapshots/5/fs:/r/snapshots/4/fs:/r/mnt/1'],
  ],
  ['volatile comes first', { ...ACTIVE, volatile: true }, [], ['volatile', ...WRITABLE, 'lowerdir=/r/mnt/1']],
  ['a view of an image has its own empty directory below', VIEW, [], ['lowerdir=/r/mnt/1:/r/snapshots/9/fs']],
  ['ids of an image are mapped by its daemon', { ...ACTIVE, mapping: MAPPED }, [], [...WRITABLE, 'lowerdir=/r/mnt/1']],
]
for (const [name, of, above, expected] of IMAGE)
  test(name, () => {
    assert.deepEqual(imageOptions(of, above, '/r/mnt/1', undefined), expected)
  })

test('what a virtual machine brings has parents, or some directory in place of them', () => {
  assert.deepEqual(proxyOptions(ACTIVE, [P1, P2], '/r/snapshots'), [
    ...WRITABLE,
    'lowerdir=/r/snapshots/2/fs:/r/snapshots/1/fs',
  ])
  assert.deepEqual(proxyOptions(VIEW, [], '/r/snapshots'), ['lowerdir=/r/snapshots'])
})

test('the helper is the type of the mount, by name or by path', () => {
  assert.deepEqual(helperMount('/opt/nydus-overlayfs', ['a']), {
    type: 'fuse./opt/nydus-overlayfs',
    source: 'overlay',
    target: '',
    options: ['a'],
  })
})

const decoded = (option: string, name: string): string => {
  assert.ok(option.startsWith(`${name}=`))
  return Buffer.from(option.slice(name.length + 1), 'base64').toString()
}

test('extraoption is base64 of the fields in the order that Kata writes them', () => {
  const option = extraOption({
    bootstrap: '/r/snapshots/1/fs/image/image.boot',
    config: '{"device":{}}',
    directory: '/r/snapshots/9',
    version: 'v6',
  })
  assert.equal(
    decoded(option, 'extraoption'),
    '{"source":"/r/snapshots/1/fs/image/image.boot","config":"{\\"device\\":{}}","snapshotdir":"/r/snapshots/9","fs_version":"v6"}',
  )
})

test('volumes for Kata have exactly the fields that it reads', () => {
  const name = 'io.katacontainers.volume'
  const metadata = new Map([
    ['containerd.io/snapshot/nydus-proxy-mode', 'true'],
    ['containerd.io/snapshot/cri.layer-digest', 'sha256:a'],
  ])
  assert.equal(
    decoded(kataOption(guestPullVolume('r/i:t', metadata)), name),
    '{"volume_type":"image_guest_pull","source":"r/i:t","options":["containerd.io/snapshot/cri.layer-digest=sha256:a","containerd.io/snapshot/nydus-proxy-mode=true"],"image_pull":{"metadata":{"containerd.io/snapshot/cri.layer-digest":"sha256:a","containerd.io/snapshot/nydus-proxy-mode":"true"}}}',
  )
  assert.equal(
    decoded(kataOption(guestPullVolume(undefined, new Map())), name),
    '{"volume_type":"image_guest_pull","source":"dummy-image-reference","image_pull":{"metadata":{}}}',
  )
  const root = 'ab'.repeat(32)
  assert.equal(
    decoded(kataOption(diskVolume('image', '/c/x.image.disk', `8,4096,sha256:${root}`)), name),
    `{"volume_type":"image_raw_block","source":"/c/x.image.disk","fs_type":"erofs","options":["ro"],"dm_verity":{"hashtype":"sha256","hash":"${root}","blocknum":8,"blocksize":512,"hashsize":4096,"offset":4096}}`,
  )
  assert.equal(
    decoded(kataOption(diskVolume('layer', '/c/x.layer.disk', 'true')), name),
    '{"volume_type":"layer_raw_block","source":"/c/x.layer.disk","fs_type":"erofs","options":["ro"]}',
  )
})

test('a label that tells hashes of a disk which cannot be is refused', () => {
  const root = 'ab'.repeat(32)
  for (const label of [
    'x',
    `0,4096,sha256:${root}`,
    `9,4096,sha256:${root}`,
    `8,4097,sha256:${root}`,
    `8,4096,sha256:${root}0`,
    `4294967296,2199023255552,sha256:${root}`,
  ])
    assert.throws(() => diskVolume('image', '/c/x', label), { code: 'INVALID_ARGUMENT' }, label)
})
