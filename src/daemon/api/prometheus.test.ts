import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { whyNoFuse } from '../../kernel/index.ts'
import { CARRIED_BLOBS, carriedImage, localConfig, Scratch } from '../testing.ts'

const IMAGE = carriedImage('v6-tar-none-c64k')
const DOCS = join(import.meta.dirname, '../../../docs/nydusd.md')

/** Values by name and labels; every line must be one that Prometheus reads. */
function samples(text: string): ReadonlyMap<string, number> {
  assert.ok(text.endsWith('\n'))
  const found = new Map<string, number>()
  const types = new Map<string, string>()
  for (const line of text.trimEnd().split('\n')) {
    const type = /^# TYPE (\S+) (counter|gauge|histogram)$/.exec(line)
    if (type !== null) types.set(type[1] ?? '', type[2] ?? '')
    if (line.startsWith('#')) continue
    const parts = /^([a-z_]+)(\{(?:[a-z]+="(?:[^"\\\n]|\\[\\"n])*",?)*\})? (-?\d+(?:\.\d+)?(?:e-?\d+)?)$/.exec(line)
    assert.ok(parts, line)
    const [, name = '', labels = '', value] = parts
    const family = types.has(name) ? name : name.replace(/_(?:bucket|sum|count)$/, '')
    assert.ok(types.has(family), `${line}: its type was not told before`)
    assert.ok(!found.has(name + labels), `${line} comes twice`)
    if (types.get(family) === 'counter') assert.match(name, /_total$/)
    found.set(name + labels, Number(value))
  }
  return found
}

test('Prometheus gets what was read, from where, and how long it took', {
  skip: whyNoFuse() ?? false,
  timeout: 180_000,
}, async () => {
  await using scratch = new Scratch()
  const daemon = await scratch.nydusd([])
  const odd = '/a "b" \\n'
  for (const path of ['/one', odd]) {
    const config = localConfig(CARRIED_BLOBS, scratch.cache)
    const at = `/api/v1/mount?mountpoint=${encodeURIComponent(path)}`
    assert.equal((await daemon.api('POST', at, { source: IMAGE.bootstrap, fs_type: 'rafs', config })).status, 204)
  }
  readFileSync(join(scratch.mnt, 'one/sizes/65536'))
  readFileSync(join(scratch.mnt, 'one/sizes/4096'))
  const { status, headers, text } = await daemon.api('GET', '/metrics')
  assert.equal(status, 200)
  assert.equal(headers['content-type'], 'text/plain; version=0.0.4; charset=utf-8')
  const all = samples(text)
  const one = (name: string, more = ''): number | undefined => all.get(`${name}{mountpoint="/one"${more}}`)
  assert.equal(all.get('nydusd_mounts'), 2)
  assert.equal(one('nydusd_fs_read_bytes_total'), 65_536 + 4096)
  assert.equal(one('nydusd_fs_operations_total', ',operation="read",result="ok"'), 2)
  assert.equal(one('nydusd_fs_read_size_bytes_bucket', ',le="65535"'), 1)
  assert.equal(one('nydusd_fs_read_size_bytes_bucket', ',le="+Inf"'), 2)
  assert.equal(one('nydusd_fs_read_duration_seconds_count'), 2)
  const hits = one('nydusd_cache_reads_total', ',result="hit"') ?? 0
  assert.equal(hits + (one('nydusd_cache_reads_total', ',result="miss"') ?? 0), 2)
  assert.ok((one('nydusd_backend_requests_total', ',backend="localfs",result="ok"') ?? 0) >= 1)
  assert.equal(all.get(`nydusd_fs_read_bytes_total{mountpoint="/a \\"b\\" \\\\n"}`), 0)
  assert.ok((all.get('process_resident_memory_bytes') ?? 0) > 1 << 20)
  const docs = readFileSync(DOCS, 'utf8')
  const names = new Set([...all.keys()].map((key) => key.replace(/\{.*/, '').replace(/_(?:bucket|sum|count)$/, '')))
  for (const name of names) assert.ok(docs.includes(name), `docs/nydusd.md does not tell of ${name}`)
  assert.equal((await daemon.api('POST', '/metrics')).status, 400)
})
