/** Images over layers that stay as they are: tables of contents of eStargz layers, plain tars, and the gzip members that chunks are. */
import { createHash } from 'node:crypto'
import { gzipSync } from 'node:zlib'
import { BuilderError, type BuiltLayer, checkBootstrap } from '../../src/builder/index.ts'

import { buildStargzLayer } from '../../src/builder/build-stargz.ts'
import { buildTarfsLayer } from '../../src/builder/build-tarfs.ts'
import { CodecError, decompressor } from '../../src/codec/index.ts'
import { openBootstrap } from '../../src/rafs/index.ts'
import { ARCHIVES } from './archives.ts'
import type { Seed, Target } from './target.ts'

const OPTIONS = { chunkSize: 0x1000, keepOwners: true, prefetch: { policy: 'none', paths: [] } } as const
const { signal } = new AbortController()

function entry(name: string, type: string, more: object = {}): object {
  return { name, type, modtime: '2023-11-14T22:13:20Z', mode: 0o644, uid: 1, gid: 2, ...more }
}

function tables(): Seed[] {
  const digest = (text: string): string => `sha256:${createHash('sha256').update(text).digest('hex')}`
  const chunk = (offset: number, chunkOffset: number, chunkSize: number): object => ({
    offset,
    chunkOffset,
    chunkSize,
    chunkDigest: digest(String(offset)),
  })
  const entries = [
    entry('', 'dir'),
    entry('d/', 'dir', { xattrs: { 'user.a': 'Yg==', 'trusted.b': '' } }),
    entry('d/one', 'reg', { size: 5, ...chunk(100, 0, 0), digest: digest('100') }),
    entry('d/two', 'reg', { size: 0x1005, ...chunk(200, 0, 0x1000) }),
    { name: 'd/two', type: 'chunk', ...chunk(300, 0x1000, 0) },
    entry('d/link', 'symlink', { linkName: 'one' }),
    entry('d/hard', 'hardlink', { linkName: 'd/two' }),
    entry('null', 'char', { devMajor: 1, devMinor: 3 }),
    entry('.prefetch.landmark', 'reg', { size: 1, ...chunk(400, 0, 0) }),
  ]
  const texts = [
    JSON.stringify({ version: 1, entries }),
    JSON.stringify(
      { entries: entries.slice(2, 5), more: [{ a: ['}', 1.5e3, null, true] }], version: 1 },
      undefined,
      '\t',
    ),
  ]
  return texts.map((text) => ({ bytes: Buffer.from(text), fields: fieldsOf(text) }))
}

/** Where something begins: keys, values, lists. */
function fieldsOf(text: string): number[] {
  return [...text.matchAll(/["{}[\],:0-9]/g)].map(({ index }) => index)
}

/** In pieces, so that values lie across their borders. */
async function* inTwo(bytes: Uint8Array): AsyncGenerator<Uint8Array> {
  yield bytes.subarray(0, bytes.length >> 1)
  yield bytes.subarray(bytes.length >> 1)
}

async function readTable(bytes: Uint8Array): Promise<string> {
  let written = 0
  const layer = { blobId: 'ab'.repeat(32), blobSize: 1000 }
  const run = { signal, sink: (part: Uint8Array) => void (written += part.length), keep: undefined }
  return summary(await sound(buildStargzLayer(inTwo(bytes), { ...OPTIONS, ...layer, ...run }))) + String(written)
}

async function readPlainTar(bytes: Uint8Array): Promise<string> {
  return summary(await sound(buildTarfsLayer(inTwo(bytes), { ...OPTIONS, blobId: undefined, signal })))
}

/** An image that does not read back is a fault of ours, whatever the input. */
async function sound(building: Promise<BuiltLayer>): Promise<Uint8Array> {
  try {
    return (await building).bootstrap
  } catch (error) {
    if (error instanceof BuilderError && error.code === 'READBACK') throw new RangeError(error.message)
    throw error
  }
}

/** What was built must be an image without faults. */
function summary(bootstrap: Uint8Array): string {
  const [finding] = checkBootstrap(openBootstrap(bootstrap))
  if (finding !== undefined) throw new RangeError(`${finding.object}: ${finding.message}`)
  return createHash('sha256').update(bootstrap).digest('hex')
}

const MEMBER_BYTES = 3000

function members(): Seed[] {
  const plain = Buffer.from(Array.from({ length: 1000 }, (_unused, at) => `line ${at * 7919}\n`).join(''))
  const fields = Array.from({ length: 40 }, (_unused, at) => at)
  return [
    gzipSync(plain),
    gzipSync(plain, { level: 0 }),
    Buffer.concat([gzipSync(plain.subarray(0, 3000)), plain]),
  ].map((bytes) => ({ bytes, fields }))
}

function readMember(bytes: Uint8Array): string {
  const into = new Uint8Array(MEMBER_BYTES)
  decompressor('gzip').decompress(bytes, into)
  return createHash('sha256').update(into).digest('hex')
}

export const OVER_LAYERS: Readonly<Record<string, Target>> = {
  stargz: { seeds: tables, read: readTable, refusals: [BuilderError] },
  tarfs: {
    ...ARCHIVES['tar'],
    seeds: async () => (await ARCHIVES['tar']?.seeds()) ?? [],
    read: readPlainTar,
    refusals: [BuilderError],
  },
  member: { seeds: members, read: readMember, refusals: [CodecError] },
}
