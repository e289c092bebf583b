import assert from 'node:assert/strict'
import {
  chmodSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { test } from 'node:test'
import * as fc from 'fast-check'
import { parse as parseToml, stringify } from 'smol-toml'
import { editToml, missingIn, readContainerdConfig, valueAt, withoutKey } from '../containerd-config/index.ts'
import { applyPlan, planSetup, planUndo, type SetupOptions } from './plan.ts'
import { unifiedDiff } from './unified-diff.ts'

const CONFIG = '/etc/containerd/config.toml'
const OLD = { major: 1, minor: 7 }
const NEW = { major: 2, minor: 1 }

/** The files of a system, in a folder. */
class System {
  readonly prefix = mkdtempSync(join(tmpdir(), 'setup-'))

  write(path: string, text: string): void {
    mkdirSync(dirname(join(this.prefix, path)), { recursive: true })
    writeFileSync(join(this.prefix, path), text)
  }
  read(path = CONFIG): string {
    return readFileSync(join(this.prefix, path), 'utf8')
  }
  files(): string[] {
    return readdirSync(this.prefix, { recursive: true, encoding: 'utf8', withFileTypes: true })
      .filter((entry) => !entry.isDirectory())
      .map((entry) => join(entry.parentPath, entry.name).slice(this.prefix.length))
      .sort()
  }
  setup(containerd: SetupOptions['containerd'], docker = false): number {
    const plan = planSetup({
      prefix: this.prefix,
      containerdConfig: CONFIG,
      containerd,
      docker,
      program: '/usr/bin/containerd-nydus-grpc',
    })
    applyPlan(plan)
    return plan.changes.length
  }
  undo(): readonly string[] {
    const plan = planUndo(this.prefix)
    applyPlan(plan)
    return plan.notes
  }
  [Symbol.dispose](): void {
    rmSync(this.prefix, { recursive: true })
  }
}

const WRITTEN = `# Our containerd, since 2019.
version = 2
root = "/var/lib/containerd"   # on the big disk

[plugins."io.containerd.grpc.v1.cri"]
    sandbox_image = "pause:3.9"  # mirrored
    [plugins."io.containerd.grpc.v1.cri".containerd]
        # do not touch
        snapshotter = "overlayfs"  # the default

        discard_unpacked_layers = false

[debug]
level = "info"
`

test('an edited configuration differs in what had to be changed, and in nothing else', () => {
  using system = new System()
  system.write(CONFIG, WRITTEN)
  system.setup(OLD)
  assert.equal(
    system.read(),
    WRITTEN.replace('snapshotter = "overlayfs"  # the default', 'snapshotter = "nydus"  # the default').replace(
      'discard_unpacked_layers = false\n',
      'discard_unpacked_layers = false\n        disable_snapshot_annotations = false\n',
    ) +
      '\n[proxy_plugins.nydus]\n  type = "snapshot"\n  address = "/run/containerd-nydus/containerd-nydus-grpc.sock"\n',
  )
  assert.deepEqual(system.files(), [
    CONFIG,
    '/etc/nydus/nydus-setup.json',
    '/etc/nydus/nydusd-config.json',
    '/etc/nydus/snapshotter.toml',
    '/etc/systemd/system/containerd-nydus-grpc.service',
  ])
  assert.match(
    system.read('/etc/systemd/system/containerd-nydus-grpc.service'),
    /^ExecStart=\/usr\/bin\/containerd-nydus-grpc --config \/etc\/nydus\/snapshotter\.toml$/m,
  )
})

test('a second setup has nothing to do, and undo gives every byte back', () => {
  for (const containerd of [OLD, NEW]) {
    using system = new System()
    system.write(CONFIG, WRITTEN)
    system.write('/etc/docker/daemon.json', '{\n    "log-level": "warn"\n}\n')
    chmodSync(join(system.prefix, CONFIG), 0o600)
    assert.equal(system.setup(containerd, true), 6)
    assert.equal(statSync(join(system.prefix, CONFIG)).mode & 0o777, 0o600)
    assert.equal(statSync(join(system.prefix, '/etc/nydus/nydus-setup.json')).mode & 0o777, 0o600)
    assert.deepEqual(JSON.parse(system.read('/etc/docker/daemon.json')), {
      'log-level': 'warn',
      features: { 'containerd-snapshotter': true },
      'storage-driver': 'nydus',
    })
    assert.equal(system.setup(containerd, true), 0)
    assert.deepEqual(system.undo(), [])
    assert.deepEqual(system.files(), [CONFIG, '/etc/docker/daemon.json'])
    assert.equal(system.read(), WRITTEN)
    assert.equal(system.read('/etc/docker/daemon.json'), '{\n    "log-level": "warn"\n}\n')
    assert.match(system.undo()[0] ?? '', /nydus-setup did nothing here/)
  }
})

test('undo takes back its own keys from files that were changed since', () => {
  using system = new System()
  system.write(CONFIG, WRITTEN)
  system.write('/etc/docker/daemon.json', '{"log-level": "warn"}')
  system.setup(NEW, true)
  system.write(
    CONFIG,
    system
      .read()
      .replace('level = "info"', 'level = "debug"')
      .replace('disable_snapshot_annotations = false', 'disable_snapshot_annotations = true'),
  )
  system.write('/etc/docker/daemon.json', system.read('/etc/docker/daemon.json').replace('warn', 'debug'))
  system.write('/etc/nydus/snapshotter.toml', 'version = 1\n')
  const notes = system.undo()
  assert.deepEqual(notes.map((note) => note.slice(system.prefix.length)).sort(), [
    '/etc/containerd/config.toml: plugins.io.containerd.grpc.v1.cri.containerd.disable_snapshot_annotations was changed since; it stays',
    '/etc/nydus/snapshotter.toml was changed since; it stays',
  ])
  assert.equal(
    system.read().trimEnd(),
    WRITTEN.replace('level = "info"', 'level = "debug"')
      .replace(
        'discard_unpacked_layers = false\n',
        'discard_unpacked_layers = false\n        disable_snapshot_annotations = true\n',
      )
      .trimEnd(),
  )
  assert.deepEqual(JSON.parse(system.read('/etc/docker/daemon.json')), { 'log-level': 'debug' })
})

test('without a configuration of containerd one is made, in the form of its version', () => {
  for (const [containerd, version] of [
    [OLD, 2],
    [NEW, 3],
  ] as const) {
    using system = new System()
    system.setup(containerd)
    assert.equal(valueAt(parseToml(system.read()), ['version']), version)
    const config = readContainerdConfig(join(system.prefix, CONFIG))
    const options = {
      containerd,
      address: '/run/containerd-nydus/containerd-nydus-grpc.sock',
      root: '/var/lib/containerd/io.containerd.snapshotter.v1.nydus',
      name: 'nydus',
      architecture: 'amd64',
    }
    assert.deepEqual(missingIn(config, options), [])
    system.undo()
    assert.deepEqual(system.files(), [])
  }
})

test('containerd 2: the built-in list of the transfer service is repeated, a list that is there gets one entry more', () => {
  using system = new System()
  system.setup(NEW)
  assert.equal(
    system.read().match(/^\[\[plugins\."io\.containerd\.transfer\.v1\.local"\.unpack_config\]\]$/gm)?.length,
    2,
  )
  using other = new System()
  const own =
    '[[plugins."io.containerd.transfer.v1.local".unpack_config]]\nplatform = "linux/amd64"\nsnapshotter = "zfs"\n'
  other.write(CONFIG, `version = 3\n${own}`)
  other.setup(NEW)
  assert.equal(other.read().match(/^\[\[/gm)?.length, 2)
  assert.doesNotMatch(other.read(), /overlayfs/)
})

test('imports count as containerd counts them, and are left alone', () => {
  using system = new System()
  system.write(CONFIG, 'version = 3\nimports = ["conf.d/*.toml"]\n')
  system.write(
    '/etc/containerd/conf.d/n.toml',
    'version = 3\n[proxy_plugins.nydus]\ntype = "snapshot"\naddress = "/run/containerd-nydus/containerd-nydus-grpc.sock"\n',
  )
  const plan = planSetup({
    prefix: system.prefix,
    containerdConfig: CONFIG,
    containerd: NEW,
    docker: false,
    program: '/p',
  })
  assert.match(plan.notes[0] ?? '', /imports .*n\.toml/)
  const after = plan.changes.find(({ path }) => path.endsWith('config.toml'))?.after ?? ''
  assert.doesNotMatch(after, /type = "snapshot"/)
  assert.match(after, /\[proxy_plugins\.nydus\.exports\]/)
})

test('what cannot be edited is told, and nothing is written', () => {
  const refused = (text: string, message: RegExp): void => {
    using system = new System()
    system.write(CONFIG, text)
    assert.throws(() => system.setup(OLD), { code: 'BAD_CONFIG', message })
    assert.deepEqual(system.files(), [CONFIG])
  }
  refused('version = 2\n[proxy_plugins\n', /config\.toml, line 2, column \d+: it is no TOML/)
  refused(
    'version = 2\nproxy_plugins = { nydus = { type = "snapshot" } }\n',
    /line 2: proxy_plugins is an inline table/,
  )
  using system = new System()
  system.write('/etc/docker/daemon.json', '{')
  assert.throws(() => system.setup(OLD, true), { code: 'BAD_CONFIG', message: /daemon\.json: it is no JSON/ })
  using broken = new System()
  broken.write('/etc/nydus/nydus-setup.json', '{"version": 9}')
  assert.throws(() => broken.undo(), { code: 'BAD_STATE' })
})

test('a file that is a link stays one', () => {
  using system = new System()
  system.write('/etc/real.toml', WRITTEN)
  mkdirSync(join(system.prefix, '/etc/containerd'))
  symlinkSync('../real.toml', join(system.prefix, CONFIG))
  system.setup(OLD)
  assert.match(system.read('/etc/real.toml'), /nydus/)
  system.undo()
  assert.equal(system.read('/etc/real.toml'), WRITTEN)
})

test('any document can be edited and taken back; what it says elsewhere stays', () => {
  const name = fc.string({ minLength: 1, maxLength: 5, unit: 'grapheme' })
  const value = fc.oneof(fc.string(), fc.integer(), fc.boolean(), fc.array(fc.string(), { maxLength: 2 }))
  const table = fc.dictionary(name, fc.oneof(value, fc.dictionary(name, value, { maxKeys: 3 })), { maxKeys: 4 })
  fc.assert(
    fc.property(table, fc.array(name, { minLength: 1, maxLength: 3 }), (document, path) => {
      const toml = stringify(document)
      const unique = path.map((part) => `${part}-new`)
      const edited = editToml(toml, [{ path: unique, value: 'x' }], 'any')
      assert.equal(valueAt(parseToml(edited), unique), 'x')
      assert.equal(editToml(edited, [{ path: unique, value: 'x' }], 'any'), edited)
      assert.deepEqual(parseToml(withoutKey(edited, unique)), parseToml(toml))
    }),
  )
})

test('differences are shown as diff -u shows them', () => {
  const before = 'a\nb\nc\nd\ne\nf\ng\nh\ni\nj\n'
  assert.equal(
    unifiedDiff('/f', before, before.replace('b\n', 'B\n').replace('j\n', 'j\nk\n')),
    '--- /f\n+++ /f\n@@ -1,5 +1,5 @@\n a\n-b\n+B\n c\n d\n e\n@@ -8,3 +8,4 @@\n h\n i\n j\n+k\n',
  )
  assert.equal(unifiedDiff('/f', undefined, 'a\n'), '--- /dev/null\n+++ /f\n@@ -0,0 +1,1 @@\n+a\n')
})
