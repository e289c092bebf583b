/** What the snapshotter takes over from the original's databases, and filters that clients send. */
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { gunzipSync } from 'node:zlib'
import { SnapshotterError } from '../../src/snapshotter/errors.ts'
import type { Snapshot } from '../../src/snapshotter/snapshot.ts'
import { BoltFile } from '../../src/snapshotter/store/bolt/bolt-file.ts'
import { metadataTree, nydusTree } from '../../src/snapshotter/store/bolt/export-trees.ts'
import { readRecords } from '../../src/snapshotter/store/bolt/import-records.ts'
import { readSnapshots } from '../../src/snapshotter/store/bolt/import-snapshots.ts'
import { checksum, META, PAGE } from '../../src/snapshotter/store/bolt/layout.ts'
import { boltBytes } from '../../src/snapshotter/store/bolt/write-bolt.ts'
import { parseFilters } from '../../src/snapshotter/store/filter.ts'
import { fieldsAt, type Seed, type Target } from './target.ts'

const testdata = join(import.meta.dirname, '../../src/snapshotter/store/testdata')
const PAGE_SIZE = 4096
let folder: string | undefined

/** Where the database of this thread is put, in memory if possible. */
function path(): string {
  if (folder === undefined) {
    const made = mkdtempSync(join(existsSync('/dev/shm') ? '/dev/shm' : tmpdir(), 'fuzz-bolt-'))
    folder = made
    process.once('exit', () => rmSync(made, { recursive: true, force: true }))
  }
  return join(folder, 'database')
}

/** A chain, long enough for branches. */
const SNAPSHOTS: readonly Snapshot[] = Array.from({ length: 60 }, (_unused, i) => ({
  id: i + 1,
  key: `sha256:${i}`,
  parent: i === 0 ? '' : `sha256:${i - 1}`,
  kind: 'committed' as const,
  labels: new Map([['containerd.io/snapshot.ref', `sha256:${i}`]]),
  createdAt: 1_700_000_000_000_000_000n,
  updatedAt: 1_700_000_000_000_000_000n,
  usage: { bytes: 4096, inodes: 2 },
}))
const RECORDS = ['1', '2'].map((key, i) => ({ key, seq: i + 1, json: `{"SnapshotID":"${key}"}` }))

/** Heads, and of each page that is used its header and first entries. */
function seed(bytes: Uint8Array): Seed {
  const fields = [0, PAGE_SIZE].flatMap((at) => fieldsAt(at + PAGE.size, META))
  for (let at = 2 * PAGE_SIZE; at < bytes.length; at += PAGE_SIZE)
    if (bytes.subarray(at, at + PAGE.size).some((byte) => byte !== 0)) {
      fields.push(...fieldsAt(at, PAGE))
      for (let entry = 0; entry < 4 * 16; entry += 4) fields.push(at + PAGE.size + entry)
    }
  return { bytes, fields }
}

function original(name: string): Seed {
  return seed(gunzipSync(readFileSync(join(testdata, `${name}.gz`))))
}

function target(seeds: () => Seed[], read: (file: BoltFile) => unknown): Target {
  return {
    seeds,
    read: (bytes) => {
      writeFileSync(path(), bytes)
      const file = new BoltFile(path())
      try {
        return JSON.stringify(read(file), (_key, value: unknown) =>
          typeof value === 'bigint' ? String(value) : value instanceof Map ? [...value] : value,
        )
      } finally {
        file.close()
      }
    },
    refusals: [SnapshotterError],
    repair: (bytes) => {
      const view = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length)
      for (const at of [PAGE.size, PAGE_SIZE + PAGE.size])
        if (at + META.size <= view.length)
          view.writeBigUInt64LE(checksum(view.subarray(at, at + META.checksum)), at + META.checksum)
    },
  }
}

/** Each filter with every kind of token. */
const FILTERS = [
  'labels."containerd.io/snapshot.ref"==sha256:abc,parent==""',
  'kind!=committed , name~=/^k8s\\\\.io\\/\\d+(a|b){2,3}[[:alpha:]\\]x-z]*?$/',
  'labels.a."\\x41\\u0042\\103"~=|(?i:x)\\pL\\p{Greek}(?P<n>.+)|',
].map((text): Seed => ({ bytes: Buffer.from(text), fields: Array.from(text, (_character, at) => at) }))

export const SNAPSHOT_STORE: Readonly<Record<string, Target>> = {
  'bolt-snapshots': target(
    () => [original('metadata.db'), seed(boltBytes(metadataTree(SNAPSHOTS, 60), 4))],
    (file) => readSnapshots(file, 'metadata.db'),
  ),
  'bolt-records': target(
    () => [original('nydus.db'), seed(boltBytes(nydusTree(RECORDS, RECORDS), 4))],
    (file) => readRecords(file, 'nydus.db', '/nonexistent'),
  ),
  'snapshot-filter': {
    seeds: () => FILTERS,
    read: (bytes) => String(SNAPSHOTS.slice(0, 3).filter(parseFilters([Buffer.from(bytes).toString()])).length),
    refusals: [SnapshotterError],
  },
}
