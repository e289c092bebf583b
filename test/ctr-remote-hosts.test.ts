import assert from 'node:assert/strict'
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { pushImage, tarOf, testWorld } from '../src/convert/testing.ts'
import { anonymous, type ImageManifest, parseReference } from '../src/registry/index.ts'
import { type RegistryHost, readHosts } from '../src/integrations/ctr-remote/hosts.ts'
import { OpenedSource, type RegistryAccess } from '../src/integrations/ctr-remote/image-source.ts'

const ACCESS: RegistryAccess = {
  credentials: anonymous(),
  plainHttp: false,
  skipVerify: false,
  ca: undefined,
  clientCertificate: undefined,
  hostsDirectory: undefined,
}

const shown = (hosts: readonly RegistryHost[] | undefined): string[] | undefined =>
  hosts?.map(({ scheme, host, capabilities, skipVerify }) =>
    [`${scheme}://${host}`, ...capabilities, ...(skipVerify ? ['unverified'] : [])].join(' '),
  )

test('hosts.toml is found and read as containerd does it', () => {
  const path = mkdtempSync(join(tmpdir(), 'hosts '))
  try {
    const write = (name: string, text: string): void => {
      mkdirSync(join(path, name), { recursive: true })
      writeFileSync(join(path, name, 'hosts.toml'), text)
    }
    assert.equal(readHosts(path, 'a.example'), undefined)
    write('_default', '[host."http://mirror:5000"]\n capabilities = ["pull"]\n')
    assert.deepEqual(shown(readHosts(path, 'a.example')), ['http://mirror:5000 pull', 'https://a.example pull resolve'])
    write('a.example', 'server = "https://b.example"\nskip_verify = true\n')
    assert.deepEqual(shown(readHosts(path, 'a.example')), ['https://b.example pull resolve unverified'])
    write('c_5000_', '[host."https://first/v2"]\n[host."second:1"]\ncapabilities=["resolve","push"]\nheader={X="1"}\n')
    const hosts = readHosts(path, 'c:5000')
    assert.deepEqual(shown(hosts), [
      'https://first pull resolve',
      'https://second:1 resolve',
      'https://c:5000 pull resolve',
    ])
    assert.deepEqual(hosts?.[1]?.headers, { X: '1' })
    write('all', 'capabilities = []\n[host."https://loud"]\ncapabilities = ["PULL", "push"]\n')
    assert.deepEqual(shown(readHosts(path, 'all')), ['https://loud pull', 'https://all pull resolve'])
    const wrong: Array<[string, RegExp]> = [
      ['server = ', /bad\/hosts.toml: /],
      ['[host."https://x/path"]', /host: https:\/\/x\/path: write http/],
      ['ca = "absent.pem"', /ca: absent.pem: ENOENT/],
      ['capabilities = "pull"', /capabilities: write a list/],
      ['capabilities = ["puhl"]', /capabilities: there is no "puhl"/],
      ['[host."https://x"]\noverride_path = true', /override_path/],
    ]
    for (const [text, told] of wrong) {
      write('bad', text)
      assert.throws(() => readHosts(path, 'bad'), { name: 'IntegrationError', code: 'BAD_OPTION', message: told })
    }
  } finally {
    rmSync(path, { recursive: true, force: true })
  }
})

test('a mirror is asked first, and the registry for what it has not', async () => {
  await using near = await testWorld()
  await using far = await testWorld()
  await pushImage(far.repository('app:1'), [await tarOf([{ path: 'a', type: 'file', content: 'text' }])])
  const toml = `server = "http://${far.server.host}"\n[host."http://${near.server.host}"]\n capabilities = ["pull"]\n`
  const [host = '', port = ''] = far.server.host.split(':')
  const hostsDirectory = join(near.folder, 'hosts')
  mkdirSync(join(hostsDirectory, `${host}_${port}_`), { recursive: true })
  writeFileSync(join(hostsDirectory, `${host}_${port}_`, 'hosts.toml'), toml)
  const reference = parseReference(`${far.server.host}/app:1`)
  await using source = new OpenedSource(reference, { ...ACCESS, hostsDirectory })
  const { parsed } = await source.manifest('1')
  assert.equal(near.server.counters().manifest.requests, 0, 'the mirror may not resolve names')
  const { layers } = (parsed as { image: ImageManifest }).image
  const parts: Uint8Array[] = []
  for await (const bytes of source.blobStream(layers[0]?.digest ?? ('' as never))) parts.push(bytes)
  assert.equal(Buffer.concat(parts).length, layers[0]?.size)
  assert.equal(near.server.counters().blob.requests, 1, 'the mirror was asked')
  await assert.rejects(source.manifest('absent'), { name: 'RegistryError', code: 'NOT_FOUND' })
})
