import assert from 'node:assert/strict'
import { execFileSync, spawnSync } from 'node:child_process'
import { closeSync, mkdtempSync, openSync, renameSync, rmSync, truncateSync, writeFileSync, writeSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { crc32 } from 'node:zlib'
import { backendConformance, patience, pattern, sha256, type Subject } from './conformance.ts'
import { BASIC_DATA, diskOf, LINUX_DATA, type Part, split } from './testing/disk-image.ts'
import { readBlobPartitions } from './gpt.ts'
import { localdiskBackend } from './localdisk.ts'

function scratch(): { readonly path: string; [Symbol.dispose](): void } {
  const folder = mkdtempSync(join(tmpdir(), 'localdisk-'))
  return { path: join(folder, 'disk.img'), [Symbol.dispose]: () => rmSync(folder, { recursive: true }) }
}

/** A whole number of sectors: a partition is no shorter. */
const SIZE = 3_000_320
const CONTENT = pattern(SIZE)
const ID = sha256(CONTENT)

function subject(parts: readonly Part[], sector = 512): () => Promise<Subject> {
  return async () => {
    const place = scratch()
    writeFileSync(place.path, diskOf(parts, sector))
    const backend = localdiskBackend({ devicePath: place.path, isWhole: false })
    return {
      backend,
      put: async () => ID,
      async [Symbol.asyncDispose]() {
        await backend.close()
        place[Symbol.dispose]()
      },
    }
  }
}

const OTHER: Part = { name: 'EFI system', guid: '11111111-2222-3333-4444-555555555555', bytes: pattern(5000, 9) }

backendConformance('localdisk', subject([OTHER, { ...split(ID), bytes: CONTENT }]), SIZE)

async function firstBytes(path: string, blobId: string, isWhole = false): Promise<Buffer> {
  const backend = localdiskBackend({ devicePath: path, isWhole })
  const into = Buffer.alloc(1000)
  await (await backend.open(blobId)).read(0, into, patience())
  await backend.close()
  return into
}

test('ids are names with GUIDs; of basic data the names, whole or cut', async () => {
  const long = sha256(pattern(2))
  const short = sha256(pattern(3))
  using place = scratch()
  writeFileSync(
    place.path,
    diskOf([
      { ...split(ID), bytes: pattern(2000, 1) },
      { name: 'layer-1', guid: OTHER.guid, type: BASIC_DATA, bytes: pattern(2000, 2) },
      { name: short.slice(0, 32), guid: OTHER.guid, type: BASIC_DATA, bytes: pattern(2000, 3) },
      // No start of any id: of this type the GUID belongs to the id.
      { name: '', guid: split(long).guid, bytes: pattern(2000, 4) },
    ]),
  )
  assert.deepEqual(await firstBytes(place.path, ID), pattern(1000, 1))
  assert.deepEqual(await firstBytes(place.path, 'layer-1'), pattern(1000, 2))
  assert.deepEqual(await firstBytes(place.path, short), pattern(1000, 3))
  for (const unknown of [long, `${long.slice(32)}${ID.slice(32)}`, ID.slice(0, 32), 'layer-2'])
    await assert.rejects(firstBytes(place.path, unknown), { code: 'NOT_FOUND' }, unknown)
  writeFileSync(place.path, diskOf([{ ...split(ID), bytes: pattern(2000, 1) }]))
  await assert.rejects(firstBytes(place.path, `${ID.slice(0, 32)}${long.slice(32)}`), { code: 'NOT_FOUND' })
})

test('sectors of 4096 bytes, a damaged first table, and a disk without a table', async () => {
  using place = scratch()
  const parts = [OTHER, { ...split(ID), bytes: CONTENT }]
  writeFileSync(place.path, diskOf(parts, 4096))
  assert.deepEqual(await firstBytes(place.path, ID), CONTENT.subarray(0, 1000))
  for (const at of [512, 512 + 17, 512 + 60, 1024 + 130]) {
    const disk = diskOf(parts)
    disk[at] = (disk[at] ?? 0) ^ 0xff
    writeFileSync(place.path, disk)
    assert.deepEqual(await firstBytes(place.path, ID), CONTENT.subarray(0, 1000), `byte ${at}`)
  }
  writeFileSync(place.path, CONTENT)
  assert.deepEqual(await firstBytes(place.path, ID, true), CONTENT.subarray(0, 1000))
  assert.throws(() => localdiskBackend({ devicePath: place.path, isWhole: false }), {
    code: 'IO',
    retryable: false,
    message: /no GUID partition table.*disable_gpt/,
  })
})

test('disks that cannot be right are refused before anything is mounted', () => {
  using place = scratch()
  const good = { ...split(ID), bytes: pattern(2000) }
  const end = BigInt(diskOf([good]).length / 512)
  const bad: ReadonlyArray<readonly [string, readonly Part[], RegExp]> = [
    ['beyond the end', [{ ...good, sectors: [34n, end] }], /does not lie on it/],
    ['around 2^64', [{ ...good, sectors: [34n, 2n ** 64n - 1n] }], /does not lie on it/],
    ['backwards', [{ ...good, sectors: [35n, 34n] }], /does not lie on it/],
    ['no name', [{ ...good, name: '', type: BASIC_DATA }], /no name/],
    ['twice', [good, good], /two partitions are called/],
  ]
  for (const [what, parts, message] of bad) {
    writeFileSync(place.path, diskOf(parts))
    assert.throws(() => localdiskBackend({ devicePath: place.path, isWhole: false }), { code: 'IO', message }, what)
  }
  for (const path of ['/nowhere/disk', ''])
    assert.throws(() => localdiskBackend({ devicePath: path, isWhole: false }), { name: 'BackendError' }, path)
  assert.throws(() => localdiskBackend({ devicePath: tmpdir(), isWhole: false }), { code: 'IO' })
  execFileSync('mkfifo', [`${place.path}.fifo`])
  assert.throws(() => localdiskBackend({ devicePath: `${place.path}.fifo`, isWhole: true }), { code: 'IO' })
})

test('headers with any one byte changed, and disks cut anywhere, end in the blob or in a coded error', async () => {
  using place = scratch()
  const disk = diskOf([{ ...split(ID), bytes: pattern(2000) }])
  const half = disk.subarray(0, disk.length - 512 - 128 * 128) // no second table to fall back to
  for (let at = 512; at < 512 + 92; at += 1)
    for (const value of [0, 0xff, 0x80]) {
      const changed = Buffer.from(half)
      changed[at] = value
      changed.writeUInt32LE(0, 512 + 16)
      changed.writeUInt32LE(crc32(changed.subarray(512, 604)), 512 + 16)
      writeFileSync(place.path, changed)
      await firstBytes(place.path, ID).catch((error: Error) =>
        assert.equal(error.name, 'BackendError', `${at}: ${error}`),
      )
    }
  for (const length of [0, 1, 511, 512, 1000, 1024, 5000, half.length - 512]) {
    writeFileSync(place.path, disk.subarray(0, length))
    await assert.rejects(firstBytes(place.path, ID), { name: 'BackendError', code: 'IO' }, String(length))
  }
})

test('a header that stands elsewhere than it says, or wants more entries than any disk has, is none', () => {
  const disk = diskOf([{ ...split(ID), bytes: pattern(2000) }])
  const size = 1 << 30 // beyond what is there it reads as zeros
  const read = (changed: Buffer) => (offset: number, length: number) => {
    assert.ok(length <= 4 << 20, `reads ${length} bytes at once`)
    const bytes = Buffer.alloc(length)
    changed.copy(bytes, 0, Math.min(offset, changed.length), Math.min(offset + length, changed.length))
    return bytes
  }
  const changes: ReadonlyArray<readonly [string, (header: Buffer) => unknown]> = [
    ['elsewhere', (header) => header.writeBigUInt64LE(7n, 24)],
    ['too many', (header) => header.writeUInt32LE(1 << 20, 80)],
    ['too large', (header) => header.writeUInt32LE(1 << 20, 84)],
  ]
  assert.equal(readBlobPartitions({ path: 'good', size, read: read(disk) }).length, 1)
  for (const [what, change] of changes) {
    const changed = Buffer.from(disk)
    const header = changed.subarray(512, 512 + 92)
    change(header)
    header.writeUInt32LE(0, 16)
    header.writeUInt32LE(crc32(header), 16)
    const bad = { path: what, size, read: read(changed) }
    assert.throws(() => readBlobPartitions(bad), { code: 'IO', message: /no GUID partition table/ }, what)
  }
})

test('a disk that shrinks, or is replaced, under open readers', async () => {
  using place = scratch()
  writeFileSync(place.path, diskOf([{ ...split(ID), bytes: CONTENT }]))
  const backend = localdiskBackend({ devicePath: place.path, isWhole: false })
  const reader = await backend.open(ID)
  truncateSync(place.path, 1_000_000)
  await assert.rejects(reader.read(0, Buffer.alloc(SIZE), patience()), { code: 'TRUNCATED', retryable: false })
  writeFileSync(`${place.path}.new`, diskOf([{ ...split(ID), bytes: CONTENT }]))
  renameSync(`${place.path}.new`, place.path)
  await assert.rejects(backend.open(ID), { code: 'IO', message: /another disk/ })
  await backend.close()
})

const loops =
  (process.geteuid?.() !== 0 && 'loop devices need root') ||
  (spawnSync('losetup', ['--find']).status !== 0 && 'no loop devices, or no right to use them')

test('a block device', { skip: loops }, async () => {
  using place = scratch()
  writeFileSync(place.path, diskOf([OTHER, { ...split(ID), bytes: CONTENT }]))
  const device = execFileSync('losetup', ['--find', '--show', '--read-only', place.path], { encoding: 'utf8' }).trim()
  try {
    const backend = localdiskBackend({ devicePath: device, isWhole: false })
    const reader = await backend.open(ID)
    const into = Buffer.alloc(SIZE)
    await reader.read(0, into, patience())
    assert.ok(into.equals(CONTENT))
    assert.equal(await reader.size(patience().signal), SIZE)
    await backend.close()
    assert.deepEqual(
      await firstBytes(device, 'any', true),
      diskOf([OTHER, { ...split(ID), bytes: CONTENT }]).subarray(0, 1000),
    )
  } finally {
    execFileSync('losetup', ['--detach', device])
  }
})

const sfdisk =
  spawnSync('sfdisk', ['--version']).status === 0 ? false : 'sfdisk (Debian package fdisk) is not installed'

test('a disk that sfdisk made', { skip: sfdisk }, async () => {
  using place = scratch()
  const { name, guid } = split(ID)
  writeFileSync(place.path, '')
  truncateSync(place.path, 8 << 20)
  const script = `label: gpt\nstart=2048, size=6000, type=${LINUX_DATA}, uuid=${guid}, name="${name}"\nstart=10000, size=100, type=${BASIC_DATA}, name="layer-1"\n`
  execFileSync('sfdisk', ['--quiet', place.path], { input: script })
  const fd = openSync(place.path, 'r+')
  writeSync(fd, CONTENT, 0, SIZE, 2048 * 512)
  writeSync(fd, pattern(5000, 7), 0, 5000, 10_000 * 512)
  closeSync(fd)
  assert.deepEqual(await firstBytes(place.path, ID), CONTENT.subarray(0, 1000))
  assert.deepEqual(await firstBytes(place.path, 'layer-1'), pattern(1000, 7))
})
