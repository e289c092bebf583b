/**
 * A real guest: Linux under QEMU mounts an image of `nydusd virtiofs` and digests every file. It needs `qemu-system-x86_64`, `busybox` (static), `cpio`, and in NYDUS_GUEST_KERNEL a folder with `boot/vmlinuz-*` and `lib/modules/*`
 * (a Linux package, unpacked). Software emulation is enough; it takes half a minute.
 */
import assert from 'node:assert/strict'
import { execFile, spawnSync } from 'node:child_process'
import { copyFileSync, globSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { basename, join } from 'node:path'
import { test } from 'node:test'
import { promisify } from 'node:util'
import { CARRIED_BLOBS, carriedImage, Scratch, TestDaemon } from '../src/daemon/testing.ts'

const KERNEL = process.env['NYDUS_GUEST_KERNEL']
const MODULES = [
  'virtio_ring',
  'virtio',
  'virtio_pci_legacy_dev',
  'virtio_pci_modern_dev',
  'virtio_pci',
  'fuse',
  'virtiofs',
]
const IMAGE = carriedImage('v6-tar-none-c64k')

function lacking(): string | false {
  if (KERNEL === undefined) return 'no NYDUS_GUEST_KERNEL'
  const missing = ['qemu-system-x86_64', 'busybox', 'cpio'].find(
    (tool) => spawnSync(tool, ['--version']).error !== undefined,
  )
  return missing === undefined ? false : `there is no ${missing}`
}

const INIT = `#!/bin/busybox sh
/bin/busybox mount -t devtmpfs d /dev
for pass in 1 2 3; do for m in ${MODULES.join(' ')}; do /bin/busybox insmod /m/$m.ko 2>/dev/null; done; done
/bin/busybox mount -t virtiofs nydus /mnt && echo MOUNTED
cd /mnt && /bin/busybox find . -type f | while read -r file; do /bin/busybox sha256sum "$file"; done
cd / && /bin/busybox umount /mnt && /bin/busybox mount -t virtiofs nydus /mnt && echo AGAIN
/bin/busybox poweroff -f
`

/** An initial file system of busybox, the modules, and what to do. */
function initramfs(folder: string): string {
  const root = join(folder, 'initramfs')
  for (const name of ['', 'bin', 'dev', 'mnt', 'm']) mkdirSync(join(root, name))
  copyFileSync(spawnSync('which', ['busybox'], { encoding: 'utf8' }).stdout.trim(), join(root, 'bin/busybox'))
  for (const path of globSync('lib/modules/*/kernel/**/*.ko', { cwd: KERNEL ?? '' }))
    if (MODULES.includes(basename(path, '.ko'))) copyFileSync(join(KERNEL ?? '', path), join(root, 'm', basename(path)))
  writeFileSync(join(root, 'init'), INIT, { mode: 0o755 })
  const file = join(folder, 'initrd')
  const packed = spawnSync('sh', ['-c', `cd "${root}" && find . | cpio -o -H newc --quiet > "${file}"`])
  assert.equal(packed.status, 0, packed.stderr.toString())
  return file
}

test('Linux under QEMU mounts an image by virtio-fs and reads every file', {
  skip: lacking(),
  timeout: 400_000,
}, async () => {
  await using scratch = new Scratch()
  const blobs = scratch.folder('blobs')
  for (const blob of IMAGE.blobs) copyFileSync(join(CARRIED_BLOBS, blob), join(blobs, blob))
  const [socket, api] = [join(scratch.path, 'v.sock'), join(scratch.path, 'api.sock')]
  const args = ['virtiofs', '--sock', socket, '-B', IMAGE.bootstrap, '-D', blobs, '--rlimit-nofile', '0', '-A', api]
  const daemon = scratch.own(new TestDaemon(args, api, { cwd: scratch.path, env: {} }))
  await daemon.ready()
  const [kernel = ''] = globSync('boot/vmlinuz-*', { cwd: KERNEL ?? '' })
  const machine = [
    ['-machine', 'q35,accel=tcg', '-cpu', 'max', '-m', '256M', '-nographic', '-no-reboot'],
    ['-object', 'memory-backend-memfd,id=mem,size=256M,share=on', '-numa', 'node,memdev=mem'],
    ['-chardev', `socket,id=fs,path=${socket}`, '-device', 'vhost-user-fs-pci,chardev=fs,tag=nydus,queue-size=1024'],
    ['-kernel', join(KERNEL ?? '', kernel), '-initrd', initramfs(scratch.path)],
    ['-append', 'console=ttyS0 panic=-1 quiet'],
  ].flat()
  const { stdout } = await promisify(execFile)('qemu-system-x86_64', machine, {
    timeout: 180_000,
    killSignal: 'SIGKILL',
  })
  const seen = new Map(
    [...stdout.matchAll(/([0-9a-f]{64}) {2}\.([^\r\n]*)/g)].map(([, sha256 = '', path = '']) => [path, sha256]),
  )
  const wanted = readFileSync(IMAGE.tree, 'utf8')
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line) as { readonly type: string; readonly path: string; readonly sha256: string })
    .filter(({ type, path }) => type === 'file' && /^[\w./-]+$/.test(path))
  assert.ok(wanted.length > 2)
  for (const { path, sha256 } of wanted) assert.equal(seen.get(path), sha256, path)
  assert.match(stdout, /MOUNTED/)
  assert.match(stdout, /AGAIN/)
  assert.equal(await daemon.stop(), 0)
})
