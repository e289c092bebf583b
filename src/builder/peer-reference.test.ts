/** References to gzip layers beside the original's; NYDUS_PEER_DIR names the folder with its nydus-image. */
import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { constants, gzipSync, zstdDecompressSync } from 'node:zlib'
import { openBootstrap } from '../rafs/index.ts'
import { buildImage } from './index.ts'
import { assertSameMeaning, DEFAULTS, tarOf, temporary } from './testing.ts'

const peer = join(process.env['NYDUS_PEER_DIR'] ?? '', 'nydus-image')
const skip =
  process.env['NYDUS_PEER_DIR'] === undefined
    ? 'NYDUS_PEER_DIR is not set'
    : existsSync(peer)
      ? false
      : `there is no ${peer}`

/** Bytes of one to eight bits, the same in each run. */
function content(seed: number, size: number): Buffer {
  const bytes = Buffer.alloc(size)
  let state = seed
  for (let at = 0; at < size; at += 1) {
    state = (Math.imul(state, 1_103_515_245) + 12_345) >>> 0
    bytes[at] = (state >>> 24) & ((2 << (seed % 8)) - 1)
  }
  return bytes
}

const SIZES = [0, 1, 512, 5000, 70_000, 300_000, 1_048_576, 2_500_000]

const archive = await tarOf([
  { path: './', type: 'directory' },
  ...Array.from({ length: 48 }, (_unused, at) => ({ path: `./f${at}`, content: content(at % 41, SIZES[at % 8] ?? 0) })),
])

/** A block ends, at a whole byte, every so many bytes: as pigz writes. */
function synced(size: number): Buffer {
  const [head, tail] = [gzipSync('').subarray(0, 10), gzipSync(archive).subarray(-8)]
  const parts: Buffer[] = []
  for (let at = 0; at < archive.length; at += size)
    parts.push(gzipSync(archive.subarray(at, at + size), { finishFlush: constants.Z_SYNC_FLUSH }).subarray(10))
  // An empty last block.
  return Buffer.concat([head, ...parts, Buffer.from([0x03, 0x00]), tail])
}

function inMembers(size: number): Buffer {
  const members: Buffer[] = []
  for (let at = 0; at < archive.length; at += size) members.push(gzipSync(archive.subarray(at, at + size)))
  return Buffer.concat(members)
}

/** Infos and contexts, plain: compressed, they depend on the release of zstd. */
function contextsOf(folder: string): Buffer {
  const name = readdirSync(folder).find((found) => found.length === 64) ?? assert.fail('there is no blob')
  const blob = readFileSync(join(folder, name))
  const header = blob.subarray(blob.length - 4096)
  const infos = blob.subarray(0, Number(header.readBigUInt64LE(24)))
  return header.readUInt32LE(8) === 0 ? infos : zstdDecompressSync(infos)
}

for (const [name, layer] of [
  ['one member', gzipSync(archive)],
  ['fast', gzipSync(archive, { level: 1 })],
  ['stored', gzipSync(archive, { level: 0 })],
  ['blocks of 128 KiB, as pigz has them', synced(131_072)],
  ['members of 1,000,003 bytes', inMembers(1_000_003)],
  ['members of 65,281 bytes, as bgzip has them', inMembers(65_281)],
] as const) {
  test(`the original's contexts: ${name}`, { skip }, async (t) => {
    const folder = temporary(t)
    const [theirs, ours, source] = [join(folder, 'theirs'), join(folder, 'ours'), join(folder, 'layer.tar.gz')]
    for (const path of [theirs, ours]) mkdirSync(path)
    writeFileSync(source, layer)
    const args = ['create', '-l', 'error', '-t', 'targz-ref', '-D', theirs, '-B', join(theirs, 'bootstrap'), source]
    const { status, stderr } = spawnSync(peer, args, { encoding: 'utf8', timeout: 60_000 })
    assert.equal(status, 0, stderr)
    await buildImage(
      { kind: 'tar', path: source },
      { blob: { kind: 'directory', path: ours }, bootstrap: { kind: 'file', path: join(ours, 'bootstrap') } },
      { ...DEFAULTS, reference: true, digest: 'sha256' },
      { signal: t.signal, onBytes: () => undefined },
    )
    assert.ok(contextsOf(ours).equals(contextsOf(theirs)), 'infos, contexts and dictionaries have the same bytes')
    const open = (path: string): ReturnType<typeof openBootstrap> =>
      openBootstrap(readFileSync(join(path, 'bootstrap')))
    assertSameMeaning(open(ours), open(theirs))
    const checked = spawnSync(peer, ['check', '-l', 'error', join(ours, 'bootstrap')], { timeout: 60_000 })
    assert.equal(checked.status, 0)
  })
}
