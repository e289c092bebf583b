import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { closeSync, mkdirSync, mkdtempSync, openSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { serve, service, Snapshots, Version } from '../../containerd/index.ts'
import { mountFuse, tryLockFile, unmount, whyNoFuse } from '../../kernel/index.ts'
import { anonymous, parseReference, RegistryClient, startRegistry } from '../../registry/index.ts'
import { SnapshotStore } from '../store/index.ts'
import { examineNode } from './examine.ts'
import type { Finding } from './finding.ts'

/** A node in a folder: a snapshotter and a containerd of its own, with their configurations. */
class PrivateNode {
  readonly folder = mkdtempSync(join(tmpdir(), 'doc-'))
  readonly root = join(this.folder, 'r')
  readonly address = join(this.folder, 'n.sock')
  readonly containerdAddress = join(this.folder, 'c.sock')
  readonly configFile = join(this.folder, 'snapshotter.toml')
  readonly containerdFile = join(this.folder, 'config.toml')
  readonly nydusd = join(this.folder, 'nydusd')
  readonly #stops: Array<() => Promise<void>> = []

  constructor() {
    mkdirSync(this.root)
    this.configure()
    writeFileSync(this.nydusd, '#!/bin/sh\nprintf "Version: v2.4.1\\n"\n', { mode: 0o755 })
    writeFileSync(
      join(this.folder, 'template.json'),
      '{"device": {"backend": {"type": "registry", "config": {}}, "cache": {"type": "blobcache"}}, "mode": "direct"}',
    )
    this.containerdSays(`version = 2
[grpc]
  address = "${this.containerdAddress}"
[proxy_plugins.nydus]
  type = "snapshot"
  address = "${this.address}"
[plugins."io.containerd.grpc.v1.cri".containerd]
  snapshotter = "nydus"
  disable_snapshot_annotations = false
`)
  }

  configure(more = ''): void {
    writeFileSync(
      this.configFile,
      `version = 1\nroot = "${this.root}"\naddress = "${this.address}"\n${more}\n[daemon]\nnydusd_path = "${this.nydusd}"\nnydusd_config = "${this.folder}/template.json"\n`,
    )
  }

  containerdSays(toml: string): void {
    writeFileSync(this.containerdFile, toml)
  }

  async start(version = 'v1.6.20'): Promise<void> {
    const refuse = async (): Promise<never> => await Promise.reject(new Error('not asked for'))
    const snapshots = service(Snapshots, {
      prepare: refuse,
      view: refuse,
      mounts: refuse,
      commit: refuse,
      remove: refuse,
      stat: refuse,
      update: refuse,
      usage: refuse,
      cleanup: refuse,
      list: async function* () {
        yield { info: [] }
        await Promise.resolve()
      },
    })
    const versions = service(Version, { version: async () => await Promise.resolve({ version, revision: 'x' }) })
    for (const [path, own] of [
      [this.address, snapshots],
      [this.containerdAddress, versions],
    ] as const) {
      const server = await serve({
        path,
        mode: 0o600,
        uid: process.getuid?.() ?? 0,
        gid: process.getgid?.() ?? 0,
        services: [own],
        raw: [],
      })
      this.#stops.push(async () => await server.stop(100))
    }
  }

  async examine(image?: string): Promise<Finding[]> {
    return await examineNode(
      { configFile: this.configFile, containerdConfigFile: this.containerdFile, image },
      AbortSignal.timeout(60_000),
    )
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const stop of this.#stops) await stop()
    rmSync(this.folder, { recursive: true, force: true })
  }
}

/** What is not in order, but for what depends on the machine that tests run on. */
function troubles(findings: readonly Finding[]): string[] {
  const ofMachine = /^(disk-space|inodes|kernel-|image-file-system|containerd-exports|containerd-unpack)/
  return findings
    .filter(({ status, check }) => (status === 'failed' || status === 'warning') && !ofMachine.test(check))
    .map(({ check, status }) => `${check} ${status}`)
}

const fixOf = (findings: readonly Finding[], check: string): string =>
  findings.find((one) => one.check === check && one.fix !== undefined)?.fix ?? ''

test('a node in order has no troubles, and every check has a name of its own', async () => {
  await using node = new PrivateNode()
  await node.start()
  const findings = await node.examine()
  assert.deepEqual(troubles(findings), [], JSON.stringify(findings, undefined, 1))
  const checks = new Set(findings.map(({ check }) => check))
  assert.ok(checks.size >= 20, [...checks].join(' '))
  const docs = readFileSync(join(import.meta.dirname, '../../../docs/containerd-nydus-grpc.md'), 'utf8')
  for (const check of checks) assert.ok(docs.includes(`\`${check}\``), `docs lack ${check}`)
})

test('images that the kernel does not show as it is configured are told with the key', async () => {
  await using node = new PrivateNode()
  node.configure('[snapshot]\nenable_kata_volume = true')
  const found = (await node.examine()).find(({ check }) => check === 'kernel-erofs-files')
  assert.match(found?.what ?? '', /since snapshot\.enable_kata_volume is true$/)
})

test('nothing runs: both sockets are missing, and the fix starts them', async () => {
  await using node = new PrivateNode()
  const findings = await node.examine()
  assert.deepEqual(troubles(findings), ['snapshotter-socket failed', 'containerd-socket failed'])
  assert.match(fixOf(findings, 'snapshotter-socket'), /systemctl start containerd-nydus-grpc/)
})

test('a socket that a dead snapshotter left, and one of something else', async () => {
  await using node = new PrivateNode()
  const child = spawn(
    process.execPath,
    ['-e', `require('net').createServer().listen(${JSON.stringify(node.address)}, () => console.log('listens'))`],
    { stdio: ['ignore', 'pipe', 'inherit'] },
  )
  await once(child.stdout, 'data')
  child.kill('SIGKILL')
  await once(child, 'exit')
  const dead = await node.examine()
  assert.match(dead.find(({ check }) => check === 'snapshotter-socket')?.what ?? '', /is gone: nobody listens/)
  rmSync(node.address)
  const other = createServer((socket) => socket.on('error', () => undefined).end('HTTP/1.1 400 \r\n\r\n')).listen(
    node.address,
  )
  await once(other, 'listening')
  try {
    assert.match(
      (await node.examine()).find(({ check }) => check === 'snapshotter-socket')?.what ?? '',
      /answers not as a snapshotter does/,
    )
  } finally {
    other.close()
  }
})

test("containerd's configuration lacks everything: each part is told with the lines to paste", async () => {
  await using node = new PrivateNode()
  await node.start('v2.1.4')
  node.containerdSays(
    `version = 3\n[grpc]\naddress = "${node.containerdAddress}"\n[proxy_plugins.nydus]\ncapabilities = ["rebase"]`,
  )
  const findings = await node.examine()
  assert.deepEqual(troubles(findings), [
    'containerd-plugin failed',
    'containerd-snapshotter failed',
    'containerd-annotations failed',
    'containerd-rebase failed',
  ])
  assert.ok(fixOf(findings, 'containerd-plugin').includes(`[proxy_plugins.nydus]\n  address = "${node.address}"`))
  assert.ok(
    fixOf(findings, 'containerd-annotations').includes(
      '[plugins."io.containerd.cri.v1.images"]\n  disable_snapshot_annotations = false',
    ),
  )
  assert.ok(
    fixOf(findings, 'containerd-unpack').includes('[[plugins."io.containerd.transfer.v1.local".unpack_config]]'),
  )
  assert.ok(fixOf(findings, 'containerd-exports').includes(`root = "${node.root}"`))
})

test('files that cannot be used are told with line and column', async () => {
  await using node = new PrivateNode()
  node.containerdSays('version = 2\n[grpc\n')
  const findings = await node.examine()
  assert.ok(troubles(findings).includes('configuration failed'))
  assert.match(
    findings.find(({ status, check }) => status === 'failed' && check === 'configuration')?.what ?? '',
    /config\.toml, line 2, column \d+: it is no TOML/,
  )
  writeFileSync(node.configFile, 'version = 1\ndaemon_mode = "all"')
  const own = await node.examine()
  assert.deepEqual(troubles(own), ['configuration failed'])
  assert.match(own[0]?.what ?? '', /line 2: "daemon_mode" is "all"/)
})

test('programs and templates: missing, old, failing, wrong', async () => {
  await using node = new PrivateNode()
  await node.start()
  writeFileSync(node.nydusd, '#!/bin/sh\nprintf "Version: v2.1.0\\n"\n', { mode: 0o755 })
  writeFileSync(join(node.folder, 'template.json'), '{"device": {"backend": {"config": {}}}}')
  const old = await node.examine()
  assert.deepEqual(troubles(old), ['nydusd failed', 'nydusd-config failed'])
  assert.match(old.find(({ check }) => check === 'nydusd')?.what ?? '', /version v2\.1\.0, older than 2\.2/)
  assert.match(old.find(({ check }) => check === 'nydusd-config')?.what ?? '', /has no "device\.backend\.type"/)
  writeFileSync(node.nydusd, '#!/bin/sh\nexit 3\n', { mode: 0o755 })
  rmSync(join(node.folder, 'template.json'))
  const failing = await node.examine()
  assert.match(failing.find(({ check }) => check === 'nydusd')?.what ?? '', /--version fails/)
  assert.match(failing.find(({ check }) => check === 'nydusd-config')?.what ?? '', /ENOENT/)
  rmSync(node.nydusd)
  assert.match(
    (await node.examine()).find(({ check }) => check === 'nydusd')?.what ?? '',
    /is no program that may be run/,
  )
})

test('a root that two snapshotters want', async () => {
  await using node = new PrivateNode()
  const store = SnapshotStore.open(node.root)
  try {
    assert.match(
      (await node.examine()).find(({ check }) => check === 'root-owner')?.what ?? '',
      /another snapshotter runs on/,
    )
  } finally {
    store.close()
  }
  const fd = openSync(join(node.root, 'metadata.db'), 'w')
  try {
    assert.ok(tryLockFile(fd))
    assert.match(
      (await node.examine()).find(({ check }) => check === 'root-owner')?.what ?? '',
      /upstream's snapshotter runs on/,
    )
  } finally {
    closeSync(fd)
  }
})

test('sockets of dead nydusds', async () => {
  await using node = new PrivateNode()
  const place = join(node.root, 'socket/abc')
  mkdirSync(place, { recursive: true })
  const child = spawn(
    process.execPath,
    [
      '-e',
      `require('net').createServer().listen(${JSON.stringify(join(place, 'api.sock'))}, () => console.log('listens'))`,
    ],
    { stdio: ['ignore', 'pipe', 'inherit'] },
  )
  await once(child.stdout, 'data')
  const of = async (): Promise<Finding | undefined> => (await node.examine()).find(({ check }) => check === 'daemons')
  assert.deepEqual([(await of())?.status, (await of())?.what], ['ok', '1 nydusd answers'])
  child.kill('SIGKILL')
  await once(child, 'exit')
  assert.deepEqual(
    [(await of())?.status, (await of())?.what],
    ['failed', `nydusd abc is dead: nobody listens on ${join(place, 'api.sock')}`],
  )
})

test('a mount that nobody serves', { skip: whyNoFuse() ?? false }, async () => {
  await using node = new PrivateNode()
  const at = join(node.root, 'mnt')
  mkdirSync(at)
  closeSync(mountFuse(at, { source: 'test', readOnly: true, maxReadBytes: 131_072 }))
  try {
    const found = (await node.examine()).find(({ check }) => check === 'leftover-mounts')
    assert.equal(found?.status, 'failed')
    assert.match(found?.fix ?? '', new RegExp(`umount -l ${at}`))
  } finally {
    await unmount(at)
  }
})

test('the registry of an image: there, with and without a login, and not there', async () => {
  await using node = new PrivateNode()
  const registry = await startRegistry({ root: join(node.folder, 'registry'), host: '127.0.0.1', port: 0 })
  const status = async (image: string): Promise<string> => {
    const {
      status: is,
      what,
      fix,
    } = (await node.examine(image)).find(({ check }) => check === 'registry') ?? { status: '', what: '' }
    return `${is}: ${what}\n${fix ?? ''}`
  }
  try {
    const client = new RegistryClient({ credentials: anonymous() })
    const index = Buffer.from(
      '{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[]}',
    )
    const repository = client.repository(parseReference(`${registry.host}/library/app:1`))
    await repository.pushManifest('1', index, 'application/vnd.oci.image.index.v1+json')
    await client.close()
    assert.match(
      await status(`${registry.host}/library/app:1`),
      /^ok: .* is there \(sha256:[0-9a-f]{64}\), asked without a login/,
    )
    assert.match(await status(`${registry.host}/library/none:1`), /^failed: .*none.*without a login/s)
    assert.match(await status('127.0.0.1:1/a:1'), /^failed: .*ECONNREFUSED.*curl -v/s)
    assert.match(await status('not an image'), /^failed: .*Write the image as HOST/s)
    writeFileSync(
      join(node.folder, 'template.json'),
      '{"device": {"backend": {"type": "registry", "config": {"ca_cert_files": ["/no/ca.pem"]}}, "cache": {"type": "blobcache"}}}',
    )
    assert.match(
      await status(`${registry.host}/library/app:1`),
      /^failed: cannot read \/no\/ca\.pem of ca_cert_files.*Correct what it names/s,
    )
  } finally {
    await registry.close()
  }
})
