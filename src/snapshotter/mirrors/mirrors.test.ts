import assert from 'node:assert/strict'
import { chmod, mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, test } from 'node:test'
import { blobSourceOf, openSource, parseConfig } from '../../daemon/config/index.ts'
import {
  anonymous,
  digestOf,
  parseReference,
  RegistryClient,
  type RegistryServer,
  startRegistry,
} from '../../registry/index.ts'
import { readHostsFile } from './hosts-file.ts'
import { Mirrors } from './mirrors.ts'

const NEVER = new AbortController().signal

interface Bench extends AsyncDisposable {
  readonly folder: string
  /** Writes `hosts.toml` into a folder of the directory. */
  readonly write: (name: string, text: string) => Promise<void>
  readonly mirrors: (change?: { readonly nydusd?: string; readonly template?: unknown }) => Mirrors
  readonly lines: string[]
}

async function bench(): Promise<Bench> {
  const folder = await mkdtemp(join(tmpdir(), 'mirrors-'))
  const lines: string[] = []
  for (const [name, text] of [
    ['ours', 'Git Commit: nydus-node-1'],
    ['original', 'Git Commit: 34e6071e'],
  ]) {
    await writeFile(join(folder, name ?? ''), `#!/bin/sh\n[ "$1" = --version ] && echo '${text}'\n`)
    await chmod(join(folder, name ?? ''), 0o755)
  }
  return {
    folder,
    lines,
    write: async (name, text) => {
      await mkdir(join(folder, 'certs.d', name), { recursive: true })
      await writeFile(join(folder, 'certs.d', name, 'hosts.toml'), text)
    },
    mirrors: ({ nydusd = 'ours', template } = {}) =>
      new Mirrors({
        directory: join(folder, 'certs.d'),
        nydusdPath: join(folder, nydusd),
        template,
        log: { warn: (line) => void lines.push(line) },
      }),
    [Symbol.asyncDispose]: () => rm(folder, { recursive: true, force: true }),
  }
}

const urls = async (of: Bench, host: string): Promise<string[]> =>
  (await readHostsFile(join(of.folder, 'certs.d'), host, (line) => void of.lines.push(line))).map(({ url }) => url)

describe('hosts.toml', () => {
  test('the folder of the registry counts before the default one, and the file’s order is kept', async () => {
    await using of = await bench()
    await of.write('_default', '[host."https://default"]')
    await of.write('a.example_5000_', '[host."https://z"]\n[host."http://y:80"]\n[host."x.example"]')
    await of.write('a.example:5000', '[host."https://never"]')
    await of.write('b.example:5000', '[host."https://colon"]')
    await of.write('docker.io', 'server = "https://docker.io"\n[host."https://hub"]')
    await mkdir(join(of.folder, 'certs.d/empty.example'))
    assert.deepEqual(await urls(of, 'a.example:5000'), ['https://z', 'http://y', 'https://x.example'])
    assert.deepEqual(await urls(of, 'b.example:5000'), ['https://colon'])
    for (const host of ['docker.io', 'index.docker.io', 'registry-1.docker.io'])
      assert.deepEqual(await urls(of, host), ['https://hub'])
    assert.deepEqual(await urls(of, 'empty.example'), [])
    for (const host of ['c.example', '..', '../..', 'a/../b', ''])
      assert.deepEqual(await urls(of, host), host === 'c.example' ? ['https://default'] : [])
  })

  test('paths, capabilities, certificates, headers and limits', async () => {
    await using of = await bench()
    await of.write(
      'a.example',
      `[host."https://push-only"]
capabilities = ["push"]
[host."https://m/prefix/v2"]
capabilities = ["pull", "resolve"]
ca = ["ca.crt", "/etc/ca.pem"]
health_check_interval = 7
failure_limit = 3
override_path = true
skip_verify = true
[host."https://m/prefix/v2".header]
x-one = "1"
x-two = ["2", "3"]
[host."https://harbor/v2/cache"]
override_path = true`,
    )
    const [found, ...more] = await readHostsFile(
      join(of.folder, 'certs.d'),
      'a.example',
      (line) => void of.lines.push(line),
    )
    assert.deepEqual(more, [])
    assert.deepEqual(found, {
      url: 'https://m/prefix',
      caFiles: [join(of.folder, 'certs.d/a.example/ca.crt'), '/etc/ca.pem'],
      headers: { 'x-one': '1', 'x-two': '2' },
      healthCheckInterval: 7,
      failureLimit: 3,
      pingUrl: '',
    })
    assert.match(of.lines.join('\n'), /skip_verify has no effect[^]*harbor.*left out/)
  })

  const wrong: readonly (readonly [string, RegExp])[] = [
    ['not toml', /no TOML/],
    ['host = 1', /host must be tables/],
    ['host.a = 1', /host "a": it must be a table/],
    ['[host."ftp://x:y:z"]', /must be http/],
    ['[host."https://u:secret@x"]', /must be http/],
    ['[host.a]\nca = 7', /ca must be/],
    ['[host.a]\nping_url = "file:///x"', /ping_url/],
    ['[host.a]\nfailure_limit = 1000', /failure_limit/],
    ['[host.a]\nhealth_check_interval = -1', /health_check_interval/],
    ['[host.a.header]\nx = "a\\r\\nb: secret"', /header "x" cannot be sent/],
    ['[host.a.header]\n"a b" = "1"', /header "a b"/],
  ]
  for (const [text, message] of wrong)
    test(`${JSON.stringify(text)} is refused`, async () => {
      await using of = await bench()
      await of.write('a.example', text)
      await assert.rejects(urls(of, 'a.example'), (error: Error & { code: string }) => {
        assert.equal(error.code, 'BAD_CONFIG')
        assert.match(error.message, message)
        assert.match(error.message, /a.example\/hosts.toml/)
        return !/b: secret/.test(error.message)
      })
    })
})

test('mirrors whose ping_url does not answer with success come last', async (t) => {
  await using of = await bench()
  const server = createServer((request, response) => void response.writeHead(request.url === '/well' ? 204 : 503).end())
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  t.after(() => server.close())
  const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`
  await of.write(
    'a.example',
    `[host."https://ill"]\nping_url = "${url}/ill"\n[host."https://gone"]\nping_url = "http://127.0.0.1:1"\n[host."https://well:8443"]\nping_url = "${url}/well"\n[host."https://unasked"]`,
  )
  const found = await of.mirrors().find('a.example', NEVER)
  assert.ok(found)
  const hosts = (found['mirrors'] as { host: string }[]).map(({ host }) => host)
  assert.deepEqual(hosts, ['https://well:8443', 'https://unasked', 'https://ill', 'https://gone'])
  assert.deepEqual(await of.mirrors({ nydusd: 'original' }).find('a.example', NEVER), {
    host: 'well:8443',
    scheme: 'https',
  })
})

test('certificates of the template stay; without mirrors nothing is said', async () => {
  await using of = await bench()
  await of.write('a.example', '[host."https://m"]\nca = "/b.pem"')
  const template = { device: { backend: { type: 'registry', config: { ca_cert_files: ['/a.pem', '/b.pem'] } } } }
  assert.deepEqual((await of.mirrors({ template }).find('a.example', NEVER))?.['ca_cert_files'], ['/a.pem', '/b.pem'])
  assert.equal(await of.mirrors({ template }).find('b.example', NEVER), undefined)
})

test('our nydusd reads from the mirror, and from the registry itself when the mirror is gone', async (t) => {
  await using of = await bench()
  const content = Buffer.alloc(100_000, 'from either; ')
  const start = async (name: string): Promise<RegistryServer> => {
    const server = await startRegistry({ root: join(of.folder, name), host: '127.0.0.1', port: 0 })
    t.after(() => server.close())
    const client = new RegistryClient({ credentials: anonymous() })
    await client.repository(parseReference(`${server.host}/app`)).uploadBlob({
      digest: digestOf(content),
      size: content.length,
      open: async function* () {
        yield content
      },
    })
    await client.close()
    server.resetCounters()
    return server
  }
  const [origin, mirror] = [await start('origin'), await start('mirror')]
  await of.write(origin.host.replace(':', '_').concat('_'), `[host."${mirror.url}"]\nping_url = "${mirror.url}/v2/"`)
  const keys = await of.mirrors().find(origin.host, NEVER)
  const config = { host: origin.host, repo: 'app', scheme: 'http', ...keys }
  const document = JSON.stringify({
    mode: 'direct',
    device: { backend: { type: 'registry', config }, cache: { type: 'blobcache', config: {} } },
  })
  const { config: parsed, unknownKeys } = parseConfig(document, 'rendered')
  assert.deepEqual(unknownKeys, [])
  const { backend } = openSource(blobSourceOf(parsed))
  const blob = await backend.open(digestOf(content).slice('sha256:'.length))
  const read = async (offset: number): Promise<void> => {
    const into = Buffer.alloc(1000)
    await blob.read(offset, into, { signal: NEVER })
    assert.ok(into.equals(content.subarray(offset, offset + 1000)))
  }
  await read(0)
  assert.equal(origin.counters().blob.requests, 0)
  await mirror.close()
  await read(50_000)
  assert.ok(origin.counters().blob.requests > 0)
  await blob.close()
  await backend.close()
})
