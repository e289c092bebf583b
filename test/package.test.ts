/** What `npm run package` makes: a Debian package that dpkg takes apart, and an image whose files run by themselves. */
import assert from 'node:assert/strict'
import { spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { readFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { text as textOf } from 'node:stream/consumers'
import { after, before, test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { writeDeb } from '../scripts/package/deb.ts'
import { writeLayout } from '../scripts/package/oci.ts'
import { pushLayout } from '../scripts/package/push.ts'
import { readManifest } from '../scripts/package/tree.ts'
import { whyNoFuse } from '../src/kernel/index.ts'
import { MEDIA_TYPES, parseManifest, startRegistry } from '../src/registry/index.ts'

const root = join(import.meta.dirname, '..')
const TOOLS = Object.keys(readManifest(root).bin)
const skip = existsSync(join(root, 'dist/containerd-nydus-grpc.cjs')) ? false : 'dist/ is not built (npm run build)'
const isRoot = process.getuid?.() === 0
let folder = ''

before(() => {
  folder = mkdtempSync(join(tmpdir(), 'package-'))
})
after(() => rmSync(folder, { recursive: true, force: true }))

function run(program: string, ...args: string[]): string {
  const { status, stdout, stderr, error } = spawnSync(program, args, { encoding: 'utf8', timeout: 120_000, env: {} })
  assert.equal(status, 0, `${program} ${args.join(' ')}: ${error?.message ?? stderr}`)
  return stdout
}

/** With all that they load of the system, each of which is a module of its own. */
async function showsAnImage(tools: string): Promise<void> {
  const [source, blobs, at] = ['source', 'blobs', 'mnt'].map((name) => join(folder, name)) as [string, string, string]
  for (const made of [source, blobs, at]) mkdirSync(made)
  const text = 'what is in the package builds and mounts\n'.repeat(10_000)
  writeFileSync(join(source, 'file'), text)
  const bootstrap = join(folder, 'image.boot')
  run(join(tools, 'nydus-image'), 'create', '-t', 'directory', '-D', blobs, '-B', bootstrap, source)
  const nydusd = spawn(join(tools, 'nydusd'), ['-M', at, '-B', bootstrap, '-D', blobs, '--log-level', 'warn'], {
    stdio: ['ignore', 'ignore', 'pipe'],
    env: {},
  })
  const said = textOf(nydusd.stderr)
  const ended = once(nydusd, 'exit')
  try {
    const deadline = performance.now() + 60_000
    while (!existsSync(join(at, 'file')) && nydusd.exitCode === null && performance.now() < deadline) await sleep(20)
    assert.ok(existsSync(join(at, 'file')), nydusd.exitCode === null ? 'it has not mounted' : await said)
    assert.equal(await readFile(join(at, 'file'), 'utf8'), text)
  } finally {
    nydusd.kill('SIGTERM')
    await ended
  }
}

const noDpkg = spawnSync('dpkg-deb', ['--version']).status === 0 ? false : 'dpkg-deb is not here'

test('dpkg takes the package apart, and the tools run from what is in it', {
  skip: skip || noDpkg,
  timeout: 240_000,
}, async () => {
  const deb = await writeDeb(root, folder, 1)
  assert.match(run('/usr/bin/dpkg-deb', '--field', deb), /^Package: nydus-node\nVersion: \d+\.\d+\.\d+\n/)
  const system = join(folder, 'system')
  run('/usr/bin/dpkg-deb', '--extract', deb, system)
  for (const tool of TOOLS) assert.match(run(join(system, 'usr/bin', tool), '--version'), /\d+\.\d+\.\d+/)
  if (whyNoFuse() === undefined) await showsAnImage(join(system, 'usr/bin'))
  const control = join(folder, 'control')
  run('/usr/bin/dpkg-deb', '--control', deb, control)
  for (const script of ['postinst', 'prerm', 'postrm']) run('/bin/sh', '-n', join(control, script))
  assert.deepEqual(
    readFileSync(join(control, 'conffiles'), 'utf8')
      .trim()
      .split('\n')
      .map((path) => existsSync(join(system, path))),
    [true, true],
  )
  rmSync(system, { recursive: true })
  rmSync(deb)
})

test('the image is pushed, and the snapshotter starts in its files alone', { skip, timeout: 240_000 }, async (t) => {
  const layout = await writeLayout(root, join(folder, 'image'), '0.1.0', 1)
  const registry = await startRegistry({ root: join(folder, 'registry'), host: '127.0.0.1', port: 0 })
  try {
    assert.equal(await pushLayout(layout.folder, `${registry.host}/tools/nydus-node:0.1.0`), layout.digest)
  } finally {
    await registry.close()
  }
  const manifest = parseManifest(
    readFileSync(join(layout.folder, 'blobs/sha256', layout.digest.slice(7))),
    'application/vnd.oci.image.manifest.v1+json',
  )
  assert.equal(manifest.kind, 'image')
  if (manifest.kind !== 'image') return
  for (const { mediaType, digest } of manifest.image.layers) {
    // containerd takes a layer for what its type says.
    assert.equal(mediaType, MEDIA_TYPES.ociLayerGzip)
    assert.equal(readFileSync(join(layout.folder, 'blobs/sha256', digest.slice(7))).readUInt16BE(), 0x1f8b)
  }
  if (!isRoot) return t.skip('a change of the root directory needs root')
  const files = join(folder, 'files')
  mkdirSync(files)
  const { layers } = JSON.parse(readFileSync(join(layout.folder, 'blobs/sha256', layout.digest.slice(7)), 'utf8')) as {
    layers: ReadonlyArray<{ digest: string }>
  }
  for (const { digest } of layers)
    run('/bin/tar', '-xzf', join(layout.folder, 'blobs/sha256', digest.slice(7)), '-C', files)
  for (const tool of TOOLS)
    assert.match(run('/usr/sbin/chroot', files, `/usr/bin/${tool}`, '--version'), /\d+\.\d+\.\d+/)
  assert.match(
    run('/usr/sbin/chroot', files, '/bin/sh', '-c', 'nydus-setup --containerd-version 2.1 --yes && ls /etc/containerd'),
    /config\.toml/,
  )
  run('/usr/sbin/chroot', files, '/bin/stat', '-f', '/') // by which the snapshotter asks mounts
})
