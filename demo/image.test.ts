import assert from 'node:assert/strict'
import { chmodSync, mkdirSync, mkdtempSync, rmSync, symlinkSync, utimesSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { gunzipSync } from 'node:zlib'
import {
  anonymous,
  digestOf,
  parseImageConfig,
  parseReference,
  RegistryClient,
  startRegistry,
} from '../src/registry/index.ts'
import { TarReader } from '../src/tar/index.ts'
import { pushImage } from './image.ts'
import type { LayerPlan } from './layers.ts'

function planOf(folder: string): LayerPlan[] {
  mkdirSync(join(folder, 'bin'))
  writeFileSync(join(folder, 'bin/tool'), Buffer.alloc(3_000_000, 'tool'))
  chmodSync(join(folder, 'bin/tool'), 0o755)
  utimesSync(join(folder, 'bin/tool'), 1_600_000_000.75, 1_600_000_000.75)
  symlinkSync('tool', join(folder, 'bin/link'))
  return [
    {
      name: 'first',
      entries: [
        { path: 'tmp', directory: true },
        { path: 'usr/bin', from: join(folder, 'bin') },
        { path: 'usr/bin/tool', from: join(folder, 'bin/tool') },
        { path: 'usr/bin/link', from: join(folder, 'bin/link') },
      ],
    },
    {
      name: 'second',
      entries: [
        { path: 'etc/motd', text: 'hello\n' },
        { path: 'usr/bin/link', deleted: true },
      ],
    },
  ]
}

test('the planned layers become an OCI image: tars in order, parents first, whiteouts, verified digests', async (t) => {
  const folder = mkdtempSync(join(tmpdir(), 'demo-image-'))
  t.after(() => rmSync(folder, { recursive: true }))
  const server = await startRegistry({ root: join(folder, 'store'), host: '127.0.0.1', port: 0 })
  t.after(() => server.close())
  const layers = planOf(folder)
  const told: number[] = []
  const image = await pushImage({ layers, registry: server.url, onProgress: (packed) => told.push(packed) })
  assert.ok(told.length > 0)
  assert.equal(image.reference, `${server.host}/demo/app:oci`)
  assert.equal(image.files, 4)

  const client = new RegistryClient({ credentials: anonymous(), plainHttp: 'always' })
  t.after(() => client.close())
  const repository = client.repository(parseReference(image.reference))
  const { parsed, descriptor } = await repository.manifest('oci')
  assert.equal(descriptor.digest, image.digest)
  assert.ok(parsed.kind === 'image')
  const config = parseImageConfig(await repository.blob(parsed.image.config.digest, 1 << 20))
  assert.deepEqual(config.config?.['Entrypoint'], ['/usr/local/bin/node', '/app/server.mjs'])

  const listings: string[][] = []
  for (const [index, layer] of parsed.image.layers.entries()) {
    const tar = gunzipSync(await repository.blob(layer.digest, 1 << 24))
    assert.equal(digestOf(tar), config.rootfs.diff_ids[index])
    assert.deepEqual([layer.size, tar.length], [image.layers[index]?.compressed, image.layers[index]?.uncompressed])
    const reader = new TarReader(pieces(tar))
    const listing: string[] = []
    for (let entry = await reader.next(); entry !== undefined; entry = await reader.next()) {
      const { type, mode, size, mtimeSeconds, path, link } = entry
      const [name, target] = [path, link].map((bytes) => Buffer.from(bytes).toString())
      if (name === 'usr/bin/tool') assert.equal(mtimeSeconds, 1_600_000_000)
      listing.push(`${type} ${mode.toString(8)} ${size} ${name} ${target}`.trimEnd())
    }
    listings.push(listing)
  }
  assert.deepEqual(listings, [
    [
      'directory 1777 0 tmp/',
      'directory 755 0 usr/',
      'directory 755 0 usr/bin/',
      'file 755 3000000 usr/bin/tool',
      'symlink 777 0 usr/bin/link tool',
    ],
    [
      'directory 755 0 etc/',
      'file 644 6 etc/motd',
      'directory 755 0 usr/',
      'directory 755 0 usr/bin/',
      'file 644 0 usr/bin/.wh.link',
    ],
  ])
  const again = await pushImage({ layers, registry: server.url, name: 'demo/again:oci' })
  assert.equal(again.digest, image.digest)
})

test('a file that is gone stops the push, and the registry has no such image', async (t) => {
  const folder = mkdtempSync(join(tmpdir(), 'demo-image-'))
  t.after(() => rmSync(folder, { recursive: true }))
  const server = await startRegistry({ root: join(folder, 'store'), host: '127.0.0.1', port: 0 })
  t.after(() => server.close())
  const layers = [{ name: 'broken', entries: [{ path: 'a', from: join(folder, 'missing') }] }]
  await assert.rejects(pushImage({ layers, registry: server.url }), { code: 'ENOENT' })
  const whole = planOf(folder)
  await assert.rejects(pushImage({ layers: whole, registry: server.url, signal: AbortSignal.abort() }))
  assert.equal(server.counters().manifest.requests, 0)
})

async function* pieces(bytes: Uint8Array): AsyncGenerator<Uint8Array> {
  for (let at = 0; at < bytes.length; at += 65_536) yield bytes.subarray(at, at + 65_536)
}
