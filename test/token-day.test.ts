/** A day of an image whose registry gives tokens for five minutes, compressed in time: the registry has a clock of its own, which its requests move. */
import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { Scratch } from '../src/daemon/testing.ts'
import { whyNoFuse } from '../src/kernel/index.ts'
import {
  digestOf,
  fromPassword,
  parseReference,
  RegistryClient,
  type RegistryServer,
  startRegistry,
} from '../src/registry/index.ts'
import { nydusImage } from './nydus-image.ts'

const REPO = 'test/image'
const MINUTE_MS = 60_000
const TOKEN_LIFE_MS = 5 * MINUTE_MS
const DAY_MS = 24 * 60 * MINUTE_MS
/** That much time goes by with each request for data, also with one that is refused. */
const TICK_MS = MINUTE_MS / 2
const CHUNK = 4096
const READERS = 4
const CHUNKS_PER_READER = 800
const FILE_BYTES = READERS * CHUNKS_PER_READER * CHUNK

test('a day of tokens that hold five minutes fails no read, and costs one request for a token each', {
  skip: whyNoFuse() ?? false,
}, async () => {
  await using scratch = new Scratch()
  const content = randomBytes(FILE_BYTES)
  const { bootstrap, blob } = buildImage(scratch, content)
  const server = await startRegistry({
    root: scratch.folder('registry'),
    host: '127.0.0.1',
    port: 0,
    auth: { kind: 'bearer', users: { ann: 'secret' }, tokenLifeMs: TOKEN_LIFE_MS },
    now: () => elapsedOn(server),
  })
  try {
    await push(server, blob)
    const config = join(scratch.path, 'config.json')
    writeFileSync(config, JSON.stringify(document(scratch, server)))
    const daemon = await scratch.nydusd(['--bootstrap', bootstrap, '--config', config])
    const parts = await Promise.all(
      Array.from({ length: READERS }, (_, index) => readPart(join(scratch.mnt, 'file'), index)),
    )
    assert.ok(Buffer.concat(parts).equals(content), 'every byte is right')
    const { token, blob: data } = server.counters()
    assert.ok(elapsedOn(server) >= DAY_MS, `${data.requests} requests are a day`)
    assert.ok(token.requests > DAY_MS / TOKEN_LIFE_MS, `${token.requests} tokens`)
    assert.ok(
      token.requests <= 1 + elapsedOn(server) / TOKEN_LIFE_MS,
      `${token.requests} tokens for ${data.requests} requests`,
    )
    const backend = JSON.parse((await daemon.api('GET', '/api/v1/metrics/backend')).text) as Record<string, unknown>
    assert.equal(backend['read_errors'], 0)
    assert.doesNotMatch(daemon.log, /WARN|ERROR/)
  } finally {
    await server.close()
  }
})

function elapsedOn(server: RegistryServer): number {
  return server.counters().blob.requests * TICK_MS
}

function buildImage(scratch: Scratch, content: Uint8Array): { readonly bootstrap: string; readonly blob: Buffer } {
  const [source, blobs] = [scratch.folder('source'), scratch.folder('blobs')]
  const bootstrap = join(scratch.path, 'bootstrap')
  writeFileSync(join(source, 'file'), content)
  const args = ['--chunk-size', '0x1000', '--compressor', 'none', '--blob-dir', blobs, '--bootstrap', bootstrap, source]
  nydusImage(['create', '--log-level', 'error', ...args], scratch.path)
  const [name = ''] = readdirSync(blobs)
  return { bootstrap, blob: readFileSync(join(blobs, name)) }
}

async function push(server: RegistryServer, bytes: Buffer): Promise<void> {
  const client = new RegistryClient({ credentials: fromPassword('ann', 'secret'), plainHttp: 'always' })
  const open = async function* () {
    yield bytes
  }
  await client
    .repository(parseReference(`${server.host}/${REPO}`))
    .uploadBlob({ digest: digestOf(bytes), size: bytes.length, open })
  await client.close()
  server.resetCounters()
}

/** A request fetches what one read wants, and no more. */
function document(scratch: Scratch, { host }: RegistryServer): unknown {
  const auth = Buffer.from('ann:secret').toString('base64')
  return {
    version: 2,
    backend: { type: 'registry', registry: { scheme: 'http', host, repo: REPO, auth } },
    cache: { type: 'blobcache', filecache: { work_dir: scratch.cache } },
    rafs: { batch_size: 0 },
  }
}

/** One reader's part of the file, a chunk a read, past the kernel's cache. Throws when a read fails. */
async function readPart(file: string, index: number): Promise<Buffer> {
  const place = [`bs=${CHUNK}`, `skip=${index * CHUNKS_PER_READER}`, `count=${CHUNKS_PER_READER}`]
  const child = spawn('dd', [`if=${file}`, 'iflag=direct', ...place], { stdio: ['ignore', 'pipe', 'pipe'] })
  const [parts, said]: [Buffer[], string[]] = [[], []]
  child.stdout.on('data', (part: Buffer) => parts.push(part))
  child.stderr.on('data', (part: Buffer) => said.push(part.toString()))
  const [code] = (await once(child, 'close')) as [number | null]
  assert.equal(code, 0, said.join(''))
  return Buffer.concat(parts)
}
