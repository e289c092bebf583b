/** Reads the original's records of daemons and instances, of all its versions. Source: docs/formats/bolt.md, "nydus.db". */
import { join } from 'node:path'
import { SnapshotterError } from '../../errors.ts'
import type { RecordKind, StoredRecord } from '../records.ts'
import { type BoltFile, Bucket } from './bolt-file.ts'
import { CURRENT_VERSION, DAEMONS, INSTANCES, VERSION_BUCKET, VERSION_KEY } from './names.ts'
import { translateOldDaemons } from './old-daemons.ts'

/** A record of the original's; its fields have Go's names. */
export type GoRecord = Readonly<Record<string, unknown>>
export type ImportedRecords = Readonly<Record<RecordKind, readonly StoredRecord[]>>

const MAX_JSON = 2 ** 20

/** `root` is the directory of the database. Throws SnapshotterError 'BAD_STATE' naming the record that cannot be. */
export function readRecords(file: BoltFile, path: string, root: string): ImportedRecords {
  const top = file.root().read()
  const version = top.get(VERSION_BUCKET)
  if (!(version instanceof Bucket)) {
    const old = translateOldDaemons(parsed(top.get(DAEMONS), path), root)
    return { daemons: ordered(old.daemons), instances: ordered(old.instances) }
  }
  const entries = version.read()
  const mark = entries.get(VERSION_KEY)
  const isCurrent = mark instanceof Uint8Array && Buffer.from(mark).toString() === CURRENT_VERSION
  const daemons = parsed(entries.get(DAEMONS), path)
  const instances = parsed(entries.get(INSTANCES), path)
  const named = isCurrent ? daemons : new Map([...daemons].map(([key, daemon]) => [key, withMode(daemon, root)]))
  return { daemons: ordered(named), instances: ordered(instances) }
}

function parsed(bucket: Uint8Array | Bucket | undefined, path: string): Map<string, GoRecord> {
  const records = new Map<string, GoRecord>()
  if (!(bucket instanceof Bucket)) return records
  for (const [key, value] of bucket.read()) {
    const name = Buffer.from(key, 'latin1').toString()
    records.set(name, value instanceof Bucket ? fail(path, name, undefined) : parseRecord(value, path, name))
  }
  return records
}

function parseRecord(value: Uint8Array, path: string, key: string): GoRecord {
  if (value.length > MAX_JSON) return fail(path, key, undefined)
  try {
    const record: unknown = JSON.parse(Buffer.from(value).toString())
    if (typeof record === 'object' && record !== null && !Array.isArray(record)) return record as GoRecord // fields are checked where they are used
  } catch (cause) {
    return fail(path, key, cause)
  }
  return fail(path, key, undefined)
}

/** Before version 1.1 the mode was not written down. */
function withMode(daemon: GoRecord, root: string): GoRecord {
  const { DaemonMode: mode, FsDriver: driver, Mountpoint: mountpoint } = daemon
  if (typeof mode === 'string' && mode !== '') return daemon
  if (driver === 'fscache' || (driver === 'fusedev' && mountpoint === join(root, 'mnt')))
    return { ...daemon, DaemonMode: 'shared' }
  return driver === 'fusedev' ? { ...daemon, DaemonMode: 'dedicated' } : daemon
}

/** In the order of `Seq`, where there is one. */
function ordered(records: ReadonlyMap<string, GoRecord>): StoredRecord[] {
  const place = ({ Seq: seq }: GoRecord) => (typeof seq === 'number' && Number.isSafeInteger(seq) ? seq : 0)
  const sorted = [...records].sort(([, a], [, b]) => place(a) - place(b))
  let last = 0
  return sorted.map(([key, record]) => {
    last = Math.max(last + 1, place(record))
    return { key, seq: last, json: JSON.stringify(record) }
  })
}

function fail(path: string, key: string, cause: unknown): never {
  throw new SnapshotterError(
    'BAD_STATE',
    `cannot take over ${path}: the record ${JSON.stringify(key.slice(0, 256))} is no JSON object; move it away to start without its daemons`,
    { cause },
  )
}
