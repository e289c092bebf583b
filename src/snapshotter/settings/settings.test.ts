import assert from 'node:assert/strict'
import { chmodSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { totalmem, tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import * as fc from 'fast-check'
import { parse as parseToml, stringify } from 'smol-toml'
import { SnapshotterError } from '../errors.ts'
import { outlineToml } from './outline.ts'
import { type Flags, knownKeys, parseSettings } from './parse.ts'
import { findProgram, readSettings } from './read.ts'
import { Document } from './schema.ts'
import type { Settings } from './settings.ts'
import { parseDuration, parseListenAddress, parseMemoryLimit } from './values.ts'

const refusal = (toml: string, flags: Flags = {}): string => {
  try {
    parseSettings(toml, flags, '/etc/n.toml')
  } catch (error) {
    assert.ok(error instanceof SnapshotterError && error.code === 'BAD_CONFIG', String(error))
    return error.message
  }
  throw new Error(`accepted: ${toml}`)
}

test('defaults are those of the documentation', () => {
  const { warnings, ...settings } = parseSettings('version = 1')
  assert.deepEqual(warnings, [])
  const root = '/var/lib/containerd/io.containerd.snapshotter.v1.nydus'
  const auth: Settings['remote']['auth'] = {
    kubeconfig: { enable: false, path: '' },
    cri: { enable: false, imageServiceAddress: '/run/containerd/containerd.sock' },
    kubelet: { enable: false, config: '', binDir: '' },
    renewalIntervalMs: 0,
  }
  assert.deepEqual(settings, {
    root,
    address: '/run/containerd-nydus/containerd-nydus-grpc.sock',
    uid: 0,
    gid: 0,
    daemonMode: 'shared',
    cleanupOnClose: false,
    system: {
      enable: false,
      address: '/run/containerd-nydus/system.sock',
      uid: 0,
      gid: 0,
      cpuProfileSeconds: 0,
      pprofAddress: '',
    },
    metrics: { address: '', hungIoIntervalMs: 10_000, collectIntervalMs: 60_000 },
    daemon: {
      nydusdPath: '',
      nydusImagePath: '',
      configPath: '/etc/nydus/nydusd-config.json',
      fsDriver: 'fusedev',
      recoverPolicy: 'restart',
      threads: 0,
      logRotationMib: 100,
      failoverPolicy: 'resend',
      startupTimeoutMs: 30_000,
      hangTimeoutMs: 60_000,
    },
    cgroup: { enable: false, memoryLimitBytes: Number.POSITIVE_INFINITY },
    log: {
      toStdout: false,
      level: 'info',
      dir: `${root}/logs`,
      maxSizeMib: 200,
      maxBackups: 5,
      maxAgeDays: 0,
      localTime: true,
      compress: true,
    },
    remote: { skipSslVerify: false, mirrorsDir: '', auth },
    snapshot: {
      nydusOverlayfs: false,
      nydusOverlayfsPath: 'nydus-overlayfs',
      kataVolume: false,
      syncRemove: false,
      erofsForCached: 'alike',
      volatile: false,
    },
    cache: { dir: `${root}/cache`, gc: true, gcPeriodMs: 86_400_000, quotaBytes: Number.POSITIVE_INFINITY },
    image: { publicKeyFile: '', validateSignature: false },
    stargz: false,
    referrerDetect: false,
    indexDetect: false,
    tarfs: { enable: false, mountOnHost: false, hint: false, concurrency: 0, exportMode: undefined },
  })
})

test('a key that is present wins, also with the value that is nothing: defaults < file < flags', () => {
  const file = `version = 1
root = "/r"
[log]
level = "warn"
log_rotation_compress = false
log_rotation_local_time = false
log_rotation_max_backups = 0
[metrics]
collect_interval = "0s"
hung_io_interval = 1500000000
[daemon]
log_rotation_size = 0
`
  const { log, metrics, daemon, cache } = parseSettings(file)
  assert.deepEqual([log.level, log.compress, log.localTime, log.maxBackups], ['warn', false, false, 0])
  assert.deepEqual([metrics.collectIntervalMs, metrics.hungIoIntervalMs, daemon.logRotationMib], [0, 1500, 0])
  assert.deepEqual([log.dir, cache.dir], ['/r/logs', '/r/cache'])
  const flags = {
    root: '/f',
    logLevel: 'debug',
    logToStdout: true,
    daemonMode: 'multiple',
    nydusd: '/n',
    fsDriver: 'proxy',
  }
  const both = parseSettings(file, flags)
  assert.deepEqual([both.root, both.log.level, both.log.toStdout, both.log.compress], ['/f', 'debug', true, false])
  assert.deepEqual([both.daemonMode, both.daemon.nydusdPath, both.daemon.fsDriver], ['dedicated', '/n', 'proxy'])
  assert.equal(both.cache.dir, '/f/cache')
})

test("upstream's own example is read without a warning", () => {
  const settings = parseSettings(readFileSync(join(import.meta.dirname, 'testdata/upstream-keys.toml'), 'utf8'))
  assert.deepEqual(settings.warnings, [])
  assert.equal(settings.daemonMode, 'dedicated')
  assert.equal(settings.log.maxAgeDays, 7)
})

test('whether the kernel may show images has three answers', () => {
  const wish = (line: string): string => parseSettings(`version = 1\n[snapshot]\n${line}`).snapshot.erofsForCached
  const key = 'enable_erofs_for_cached'
  assert.deepEqual(['', `${key} = true`, `${key} = false`].map(wish), ['alike', 'possible', 'never'])
  assert.throws(() => wish(`${key} = "yes"`), { code: 'BAD_CONFIG', message: /snapshot\.enable_erofs_for_cached/ })
})

test('what is wrong is told with file, line, key, value, and what to write', () => {
  const cases: ReadonlyArray<readonly [string, string]> = [
    ['root = "/r"', 'cannot use /etc/n.toml: "version" is missing; write version = 1 as the first line'],
    ['version = 2', 'cannot use /etc/n.toml: line 1: unsupported configuration version 2; write version = 1'],
    ['version = 1\nroot = [', 'cannot use /etc/n.toml: line 2, column 8: it is no TOML: unfinished array'],
    [
      'version = 1\n\ndaemon_mode = "multi"',
      'cannot use /etc/n.toml: line 3: "daemon_mode" is "multi", wanted is one of "shared", "dedicated", "multiple", "none"',
    ],
    [
      'version = 1\n[daemon]\nthreads_number = 1025',
      'cannot use /etc/n.toml: line 3: "daemon.threads_number" is 1025, wanted is a whole number from 0 to 1024',
    ],
    [
      'version = 1\nroot = "relative"',
      'cannot use /etc/n.toml: line 2: "root" is "relative", wanted is an absolute path of 70 bytes at most',
    ],
    [
      'version = 1\nroot = "/a:b"',
      'cannot use /etc/n.toml: line 2: "root" is "/a:b", wanted is a path without ":", "," and "\\", which overlayfs cannot have in its options',
    ],
    [
      `version = 1\nroot = "/${'r'.repeat(70)}"`,
      `cannot use /etc/n.toml: line 2: "root" is "/${'r'.repeat(58)}… (73 characters), wanted is an absolute path of 70 bytes at most`,
    ],
    [
      'version = 1\n[metrics]\naddress = "9110"',
      'cannot use /etc/n.toml: line 3: "metrics.address" is "9110", wanted is a host and a port to listen on, such as "127.0.0.1:9110" or ":9110", or "" for none',
    ],
    [
      'version = 1\n[system]\nenable = "yes"',
      'cannot use /etc/n.toml: line 3: "system.enable" is "yes", wanted is true or false',
    ],
    ['version = 1\ndaemon = 3', 'cannot use /etc/n.toml: line 2: "daemon" is 3, wanted is a table'],
    [
      'version = 1\n[image]\nvalidate_signature = true',
      'cannot use /etc/n.toml: "image.public_key_file" is missing, and "image.validate_signature" needs it; write public_key_file = "/etc/nydus/image-key.pem", or validate_signature = false',
    ],
    [
      'version = 1\n[remote.auth]\nenable_cri_keychain = true\nenable_kubeconfig_keychain = true',
      'cannot use /etc/n.toml: line 4: "remote.auth.enable_kubeconfig_keychain" cannot be used together with "remote.auth.enable_cri_keychain"; leave one of them false',
    ],
    [
      'version = 1\ngid = -1\nuid = 1.5',
      'cannot use /etc/n.toml: 2 keys are wrong\n  line 3: "uid" is 1.5, wanted is a whole number from 0 to 4294967294\n  line 2: "gid" is -1, wanted is a whole number from 0 to 4294967294',
    ],
  ]
  for (const [toml, wanted] of cases) assert.equal(refusal(toml), wanted)
  assert.equal(
    refusal('version = 1', { logLevel: 'loud' }),
    'cannot use /etc/n.toml: --log-level: "log.level" is "loud", wanted is one of "trace", "debug", "info", "warn", "error"',
  )
  assert.match(refusal(`version = 1\n#${'x'.repeat(1 << 20)}`), /more than 1048576/)
  assert.match(refusal('version = 1\ndaemon = 3', { nydusd: '/n' }), /line 2: "daemon" is 3, wanted is a table/)
})

test('unknown keys and keys without effect are told with their lines and the key that was meant', () => {
  const { warnings } = parseSettings(`version = 1
nydusd_config = "/x"
[daemon]
nydusd_pth = "/n"
zzzzzzzzzzzz = 1
[metrix]
address = ""
[system.debug]
pprof_address = ":6060"
[cgroup]
memory_limit = "10%"
[experimental.tarfs]
export_mode = "layer_block"
`)
  assert.deepEqual(warnings, [
    'line 2: unknown key "nydusd_config" is ignored; did you mean "daemon.nydusd_config"?',
    'line 4: unknown key "daemon.nydusd_pth" is ignored; did you mean "daemon.nydusd_path"?',
    'line 5: unknown key "daemon.zzzzzzzzzzzz" is ignored',
    'line 6: unknown key "metrix" is ignored; did you mean "metrics"?',
    'line 9: "system.debug.pprof_address" has no effect without enable = true in [system]',
    'line 11: "cgroup.memory_limit" has no effect without enable = true in [cgroup]',
    'line 13: "experimental.tarfs.export_mode" has no effect without enable_tarfs = true',
  ])
})

test('every key of the schema is told in the documentation, with its default', () => {
  const page = readFileSync(join(import.meta.dirname, '../../../docs/containerd-nydus-grpc.md'), 'utf8')
  for (const key of knownKeys(Document, ''))
    assert.ok(page.includes(`\`${key}\``) || page.includes(`\`[${key}]\``), key)
})

test('durations, sizes and addresses', () => {
  const durations: ReadonlyArray<readonly [string | number, number | undefined]> = [
    ['24h', 86_400_000],
    ['1m30s', 90_000],
    ['1.5s', 1500],
    ['.5h', 1_800_000],
    ['0', 0],
    ['100us', 0.1],
    [1_000_000_000, 1000],
    ['-1s', undefined],
    ['1', undefined],
    ['1d', undefined],
    ['', undefined],
    ['9999h', undefined],
    ['1'.repeat(65), undefined],
  ]
  for (const [value, ms] of durations) assert.equal(parseDuration(value), ms, String(value))
  const sizes: ReadonlyArray<readonly [string, number | undefined]> = [
    ['', Number.POSITIVE_INFINITY],
    ['209715200', 209_715_200],
    ['200MiB', 209_715_200],
    ['200Mi', 209_715_200],
    ['1GiB', 2 ** 30],
    ['10B', 10],
    ['25%', 250],
    ['0', undefined],
    ['101%', undefined],
    ['10MB', undefined],
    ['99999PiB', undefined],
  ]
  for (const [text, bytes] of sizes) assert.equal(parseMemoryLimit(text, 1000), bytes, text)
  assert.deepEqual(parseListenAddress('[::1]:80'), { host: '::1', port: 80 })
  assert.deepEqual(parseListenAddress(':9110'), { host: undefined, port: 9110 })
  for (const wrong of ['9110', 'a:70000', 'a b:1', 'http://x:1', '::1:80'])
    assert.equal(parseListenAddress(wrong), undefined)
  const half = parseSettings('version = 1\n[cgroup]\nenable = true\nmemory_limit = "50%"').cgroup.memoryLimitBytes
  assert.equal(half, Math.floor(totalmem() / 2))
  const quota = (value: string): number =>
    parseSettings(`version = 1\n[cache_manager]\nquota = ${value}`).cache.quotaBytes
  assert.equal(quota('"50GiB"'), 50 * 2 ** 30)
  assert.equal(quota('""'), Number.POSITIVE_INFINITY)
  for (const wrong of ['"50%"', '"0"', '-1'])
    assert.throws(() => quota(wrong), { code: 'BAD_CONFIG', message: /cache_manager\.quota/ })
})

test('the outline of any document has each key where it stands', () => {
  const text = `a = 1 # x = 2
"b.c" . d = """
[no]
x = 1 \\"""
"""
[ t . 'u' ]
list = [ # [no]
  "]", '}', # more
]  # end
[[ arr ]]
k = { x = 1, y = [2] }
[arr.sub]
z = ''
[[arr]]
k = 2`
  const lines = outlineToml(text).map(({ path, line, start, end }) => [
    path.join('.'),
    line,
    text.slice(start, end).split('\n').length,
  ])
  assert.deepEqual(lines, [
    ['a', 1, 1],
    ['b.c.d', 2, 4],
    ['t.u', 6, 1],
    ['t.u.list', 7, 3],
    ['arr.0', 10, 1],
    ['arr.0.k', 11, 1],
    ['arr.0.sub', 12, 1],
    ['arr.0.sub.z', 13, 1],
    ['arr.1', 14, 1],
    ['arr.1.k', 15, 1],
  ])
  const name = fc.string({ maxLength: 6, unit: 'grapheme' })
  const value = fc.oneof(fc.string(), fc.integer(), fc.boolean(), fc.array(fc.string(), { maxLength: 3 }))
  const table = fc.dictionary(name, fc.oneof(value, fc.dictionary(name, value, { maxKeys: 3 })), { maxKeys: 5 })
  fc.assert(
    fc.property(table, (document) => {
      const toml = stringify(document)
      for (const statement of outlineToml(toml)) {
        if (statement.kind !== 'key') continue
        const [found] = Object.values(parseToml(`v = ${toml.slice(statement.valueStart, statement.end)}`))
        const wanted = statement.path.reduce<unknown>(
          (at, part) => (at as Record<string, unknown>)[part],
          parseToml(toml),
        )
        assert.deepEqual(found, wanted)
      }
    }),
  )
})

test('any text gives settings or a coded error', () => {
  const words = [
    'version = 1\n',
    '[daemon]\n',
    '[',
    ']',
    '=',
    '"',
    "'",
    '"""',
    '{',
    '}',
    ',',
    '#',
    '\n',
    'a.b',
    '1',
    'root',
    '\\',
    '\0',
    'é',
  ]
  fc.assert(
    fc.property(fc.array(fc.constantFrom(...words), { maxLength: 30 }), (parts) => {
      try {
        parseSettings(parts.join(''))
      } catch (error) {
        assert.ok(error instanceof SnapshotterError, String(error))
      }
      outlineToml(parts.join(''))
    }),
  )
})

test('files that a configuration names must be there, and so must programs', () => {
  const folder = mkdtempSync(join(tmpdir(), 'settings-'))
  try {
    const file = join(folder, 'n.toml')
    const throws = (run: () => unknown, message: RegExp): void => assert.throws(run, { code: 'BAD_CONFIG', message })
    throws(() => readSettings(file, {}), /cannot read the configuration .*n\.toml: it is not there/)
    writeFileSync(file, `version = 1\n[image]\nvalidate_signature = true\npublic_key_file = "${folder}/key"`)
    throws(() => readSettings(file, {}), /"image\.public_key_file": there is no file .*key/)
    writeFileSync(file, `version = 1\n[remote.mirrors_config]\ndir = "${folder}/certs.d"`)
    throws(() => readSettings(file, {}), /"remote\.mirrors_config\.dir": there is no directory/)
    mkdirSync(join(folder, 'certs.d'))
    assert.equal(readSettings(file, {}).remote.mirrorsDir, `${folder}/certs.d`)
    const program = join(folder, 'nydusd')
    writeFileSync(program, '#!/bin/sh\n')
    throws(
      () => findProgram(program, 'nydusd', 'daemon.nydusd_path'),
      /is no program that may be run; write nydusd_path = /,
    )
    chmodSync(program, 0o755)
    assert.equal(findProgram(program, 'nydusd', 'daemon.nydusd_path'), program)
    throws(
      () => findProgram('no-such-program', 'nydusd', 'daemon.nydusd_path'),
      /there is no no-such-program in \$PATH/,
    )
    assert.match(findProgram('', 'nydusd', 'daemon.nydusd_path'), /\/nydusd$/)
  } finally {
    rmSync(folder, { recursive: true })
  }
})
