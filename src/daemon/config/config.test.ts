import assert from 'node:assert/strict'
import { test } from 'node:test'
import { DaemonError } from '../errors.ts'
import { openSource } from '../image-backend.ts'
import { parseConfig } from './document.ts'
import { externalSourceOf } from './external.ts'
import { settingsOf, withoutSecrets } from './settings.ts'

const V1 = {
  device: {
    id: '/sn',
    backend: { type: 'registry', config: { host: 'registry.example', repo: 'library/node', auth: 'dXNlcjpwYXNz' } },
    cache: { type: 'blobcache', config: { work_dir: '/var/cache/nydus' } },
  },
  mode: 'direct',
}
const V2_TOML = `
version = 2
id = "mine"
[backend]
type = "localfs"
[backend.localfs]
dir = "/blobs"
alt_dirs = ["/more"]
[cache]
type = "filecache"
[cache.filecache]
work_dir = "/cache"
[rafs]
batch_size = 4096
[rafs.prefetch]
enable = true
threads = 3
bandwidth_limit = 1000
prefetch_all = true
`

test('version 1 becomes version 2, with its defaults', () => {
  const { config, unknownKeys } = parseConfig(JSON.stringify({ ...V1, fs_prefetch: { enable: true } }), 'a')
  assert.deepEqual(unknownKeys, [])
  assert.equal(config.id, '/sn')
  assert.equal(config.backend?.registry?.timeout, 5)
  assert.equal(config.cache?.filecache?.work_dir, '/var/cache/nydus')
  assert.deepEqual(config.cache.prefetch, {
    enable: true,
    threads: 8,
    batch_size: 1 << 20,
    bandwidth_limit: 0,
    prefetch_all: true,
    stream_prefetch: false,
  })
  assert.equal(settingsOf(config).readDeadlineMs, 50_000)
})

test('version 2 is TOML or JSON', () => {
  const { config } = parseConfig(V2_TOML, 'a')
  assert.deepEqual(parseConfig(JSON.stringify(config), 'a').config, config)
  const settings = settingsOf(config)
  assert.deepEqual(settings.source, { kind: 'localfs', blobFile: '', dir: '/blobs', altDirs: ['/more'] })
  assert.deepEqual(settings.prefetch, {
    enabled: true,
    everything: true,
    isStream: false,
    requests: 3,
    bandwidth: 1000,
  })
  assert.equal(settings.amplifyBytes, 4096)
  assert.equal(settings.cacheDirectory, '/cache')
})

test('unknown keys are found at every level', () => {
  const document = structuredClone(V1) as typeof V1 & { warmup: number }
  document.warmup = 1
  Object.assign(document.device.cache.config, { compressed: false })
  Object.assign(document.device.backend.config, { readahead: false }) // as containerd-nydus-grpc writes it
  assert.deepEqual(parseConfig(JSON.stringify(document), 'a').unknownKeys, ['device.cache.config.compressed', 'warmup'])
  assert.deepEqual(parseConfig('version = 2\n[backend]\ntype = "oss"\n[backend.registy]\na = 1', 'a').unknownKeys, [
    'backend.registy',
  ])
})

test('a document that cannot be used names the key and shows no value', () => {
  const cases: ReadonlyArray<readonly [string, RegExp]> = [
    ['nope', /neither a JSON object nor TOML/],
    ['[]', /neither/],
    ['{"version":3}', /"version" is wrong/],
    [JSON.stringify({ ...V1, mode: undefined }), /"mode" is missing/],
    [
      JSON.stringify({ ...V1, device: { ...V1.device, backend: { type: 'http-proxy', config: {} } } }),
      /"device\.backend\.type" is wrong/,
    ],
    [JSON.stringify({ ...V1, amplify_io: 2 ** 40 }), /"amplify_io" is wrong/],
    [JSON.stringify({ ...V1, device: { ...V1.device, cache: { type: 'blobcache' } } }), /device\.cache/],
    [`version = 2\nid = "${'x'.repeat(1 << 20)}"`, /more than 1048576/],
    [
      'version = 2\n[backend]\ntype="registry"\n[backend.registry]\nhost="s3cret"\nrepo=1',
      /"backend\.registry\.repo" is wrong/,
    ],
  ]
  for (const [document, wanted] of cases)
    assert.throws(
      () => parseConfig(document, 'a'),
      (error: DaemonError) => {
        assert.ok(error instanceof DaemonError && error.code === 'BAD_CONFIG', document.slice(0, 200))
        assert.match(error.message, wanted)
        assert.doesNotMatch(error.message, /s3cret/)
        return true
      },
    )
})

test('what this version does not do is refused, naming the key', () => {
  const base = parseConfig(V2_TOML, 'a').config
  const { backend, cache } = base
  assert.ok(backend !== null && cache !== null)
  for (const type of ['oss', 's3', 'localdisk', 'http-proxy', 'registry'] as const)
    assert.throws(() => settingsOf({ ...base, backend: { ...backend, type } }), {
      code: 'BAD_CONFIG',
      message: new RegExp(`"backend.${type}": the table is missing`),
    })
  const cases: ReadonlyArray<readonly [Partial<typeof base>, string]> = [
    [{ cache: { ...cache, type: 'fscache' } }, 'cache.type = "fscache"'],
  ]
  for (const [change, key] of cases)
    assert.throws(
      () => settingsOf({ ...base, ...change }),
      (error: DaemonError) => error.code === 'UNSUPPORTED' && error.message.includes(key),
    )
  for (const missing of ['backend', 'cache', 'rafs'] as const)
    assert.throws(() => settingsOf({ ...base, [missing]: null }), { code: 'BAD_CONFIG', message: new RegExp(missing) })
})

test('how a cache keeps chunks: compressed, encrypted, always verified; wrong keys are refused without being shown', () => {
  const base = parseConfig(V2_TOML, 'a').config
  const { cache } = base
  const files = cache?.filecache
  assert.ok(cache !== null && files != null)
  const formOf = (change: Partial<typeof cache>, fileChange: Partial<typeof files> = {}): unknown =>
    settingsOf({ ...base, cache: { ...cache, filecache: { ...files, ...fileChange }, ...change } }).cacheForm
  const key = '00112233445566778899aabbccddeeff0F1e2d3c4b5a69788796a5b4c3d2e1f0'
  const encryption = { key: Buffer.from(key, 'hex'), convergent: true }
  assert.deepEqual(formOf({}), { compressed: false, validate: false, encryption: undefined })
  assert.deepEqual(formOf({ compressed: true, validate: true }), {
    compressed: true,
    validate: true,
    encryption: undefined,
  })
  const limited = { ...base, cache: { ...cache, filecache: { ...files, size_limit: 5 } } }
  assert.deepEqual([settingsOf(base).cacheBytes, settingsOf(limited).cacheBytes], [0, 5])
  const encrypted = { enable_encryption: true, enable_convergent_encryption: true, encryption_key: key }
  assert.deepEqual(formOf({}, encrypted), { compressed: false, validate: false, encryption })
  assert.throws(() => formOf({ compressed: true }, encrypted), { code: 'BAD_CONFIG', message: /"cache\.compressed"/ })
  for (const [wrong, reason] of [
    ['secret', 'invalid cache file encryption key'],
    ['', 'invalid key length 0'],
    ['0011', 'invalid key length 2'],
    ['ab'.repeat(32), 'invalid symmetry key'],
  ] as const)
    assert.throws(
      () => formOf({}, { enable_encryption: true, encryption_key: wrong }),
      (error: DaemonError) =>
        error.code === 'BAD_CONFIG' && error.message.includes(reason) && !/secret|abab/.test(error.message),
    )
})

test('nothing secret is left in a document that is shown', () => {
  const document = structuredClone(V1)
  Object.assign(document.device.backend.config, {
    registry_token: 'tok3n',
    proxy: { url: 'http://me:pa55@proxy:1', ping_url: 'http://me:pa55@proxy:1/ping' },
    mirrors: [{ host: 'https://me:@pa55@mirror', headers: { Authorization: 'Bearer tok3n' } }],
  })
  const external = [{ patch: { access_key_secret: 'tok3n' }, type: 'x', config: { key: 'tok3n' } }]
  const { config } = parseConfig(
    JSON.stringify({ ...document, device: { ...document.device, external_backends: external } }),
    'a',
  )
  const shown = JSON.stringify(withoutSecrets(config))
  assert.doesNotMatch(shown, /dXNlcjpwYXNz|tok3n|pa55/)
  assert.match(shown, /"auth":null,"registry_token":null/)
  const proxied = parseConfig(
    'version = 2\n[backend]\ntype = "http-proxy"\n[backend.http-proxy]\naddr = "https://me:pa55@host/x"',
    'a',
  )
  assert.match(JSON.stringify(withoutSecrets(proxied.config)), /"addr":"https:\/\/host\/x"/)
})

test('http-proxy is taken, with a proxy in front of it', () => {
  const text = (more: string): string =>
    `version = 2\n[cache]\n[rafs]\nmode = "direct"\n[backend]\ntype = "http-proxy"\n[backend.http-proxy]\naddr = "/run/blobs.sock"\n${more}`
  const { source, readDeadlineMs } = settingsOf(
    parseConfig(text('timeout = 7\nconnect_timeout = 3\nretry_limit = 1'), 'a').config,
  )
  assert.equal(source.kind === 'http-proxy' && source.httpProxy.addr, '/run/blobs.sock')
  assert.equal(readDeadlineMs, 30_000)
  const proxy = '[backend.http-proxy.proxy]\nurl = "http://p"'
  const behind = settingsOf(parseConfig(text(proxy), 'a').config).source
  assert.equal(behind.kind === 'http-proxy' && behind.httpProxy.proxy.url, 'http://p')
})

test('a proxy whose address is none is refused by the name of its key', () => {
  for (const [key, value] of [
    ['url', 'socks5://p:1'],
    ['url', 'p:1'],
    ['url', 'http://me:%zz@p:1'],
    ['ping_url', 'ping'],
  ] as const) {
    const registry = { ...V1.device.backend.config, proxy: { [key]: value } }
    const document = { ...V1, device: { ...V1.device, backend: { type: 'registry', config: registry } } }
    const { source } = settingsOf(parseConfig(JSON.stringify(document), 'a').config)
    assert.throws(() => openSource(source), {
      code: 'BAD_CONFIG',
      message: new RegExp(`"proxy.${key}"`),
    })
  }
})

test('an external backend is text throughout: its flags and numbers are read, and refused when they are none', () => {
  const entry = { type: 'http-proxy', config: { addr: 'http://host', skip_verify: 'false' }, patch: {} }
  const source = externalSourceOf({ ...entry, patch: { skip_verify: 'true', timeout: '7' } }, 0)
  assert.ok(source.kind === 'http-proxy')
  assert.deepEqual([source.httpProxy.skip_verify, source.httpProxy.timeout], [true, 7])
  for (const [key, text] of [
    ['skip_verify', 'yes'],
    ['timeout', 'soon'],
  ] as const)
    assert.throws(() => externalSourceOf({ ...entry, patch: { [key]: text } }, 0), {
      code: 'BAD_CONFIG',
      message: new RegExp(`external_backends\\[0\\]": "${key}" is missing or wrong`),
    })
})

test('buckets and disks are taken, their keys not shown', () => {
  const text = (type: string, table: string): string =>
    `version = 2\n[cache]\n[rafs]\n[backend]\ntype = "${type}"\n[backend.${type}]\n${table}`
  const bucket =
    'endpoint = "host:9000"\nbucket_name = "b"\naccess_key_id = "1d"\naccess_key_secret = "s3cret"\nsession_token = "t0ken"\ntimeout = 7'
  for (const [type, more] of [
    ['oss', ''],
    ['s3', '\nregion = "r"'],
  ] as const) {
    const { config, unknownKeys } = parseConfig(text(type, bucket + more), 'a')
    assert.deepEqual(unknownKeys, [])
    assert.equal(settingsOf(config).source.kind, type)
    assert.equal(settingsOf(config).readDeadlineMs, 58_000)
    assert.doesNotMatch(JSON.stringify(withoutSecrets(config)), /1d|s3cret|t0ken/)
  }
  const disk = parseConfig(text('localdisk', 'device_path = "/dev/vdb"\ndisable_gpt = true'), 'a').config
  assert.deepEqual(settingsOf(disk).source, { kind: 'localdisk', devicePath: '/dev/vdb', isWhole: true })
  assert.throws(() => settingsOf(parseConfig(text('localdisk', ''), 'a').config), /device_path/)
  assert.throws(() => parseConfig(text('s3', bucket), 'a'), /"backend.s3.region" is missing/)
})
