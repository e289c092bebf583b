/**
 * What the database keeps of daemons and of images: JSON with the names of upstream's `nydus.db`, so that its records are read as they are. Fields that
 * upstream does not know come last; its own reader ignores them.
 */
import { randomBytes } from 'node:crypto'
import * as v from 'valibot'
import type { RecordTable } from '../store/index.ts'

const text = v.optional(v.string(), '')
const whole = v.optional(v.pipe(v.number(), v.safeInteger()), 0)

const DAEMON = v.object({
  ID: v.pipe(v.string(), v.regex(/^[A-Za-z0-9_-]{1,64}$/, 'is no name of a daemon')),
  ProcessID: whole,
  APISocket: text,
  DaemonMode: text,
  FsDriver: text,
  LogDir: text,
  LogLevel: text,
  LogRotationSize: whole,
  LogToStdout: v.optional(v.boolean(), false),
  Mountpoint: text,
  SupervisorPath: text,
  ThreadNum: whole,
  FailoverPolicy: text,
  ConfigDir: text,
})

const INSTANCE = v.object({
  Seq: whole,
  ImageID: text,
  DaemonID: text,
  FsDriver: text,
  SnapshotID: v.pipe(v.string(), v.regex(/^\d{1,16}(-userns-\d{1,10})?$/, 'is no name of a mounted image')),
  SnapshotDir: text,
  SourceSnapshotID: text,
  UnderlyingFiles: v.optional(v.nullable(v.array(v.string())), []),
  Mountpoint: text,
  Annotations: v.optional(v.nullable(v.record(v.string(), v.string())), {}),
})

/** A nydusd. `DaemonMode` is `shared` or `dedicated`; upstream also wrote `multiple`. */
export type DaemonRecord = v.InferOutput<typeof DAEMON>

/** A mounted image. `SnapshotID` is its key: the number of the layer's snapshot, with `-userns-<host id>` when ids are shifted. */
export type InstanceRecord = v.InferOutput<typeof INSTANCE>

export interface FoundRecords {
  readonly daemons: readonly DaemonRecord[]
  /** In the order in which they were mounted. */
  readonly instances: readonly InstanceRecord[]
  /** Of records that cannot be used: key and reason. */
  readonly damaged: readonly string[]
}

/** All records that make sense. Those that do not are told, and stay where they are. */
export function readRecords(daemons: RecordTable, instances: RecordTable): FoundRecords {
  const damaged: string[] = []
  const read = <T>(schema: v.GenericSchema<unknown, T>, table: RecordTable, kind: string): T[] =>
    table.all().flatMap(({ key, json }) => {
      const parsed = v.safeParse(schema, parse(json))
      if (parsed.success) return [parsed.output]
      damaged.push(`${kind} ${key}: ${parsed.issues[0].message}`)
      return []
    })
  return {
    daemons: read(DAEMON, daemons, 'daemon'),
    instances: read(INSTANCE, instances, 'image').sort((a, b) => a.Seq - b.Seq),
    damaged,
  }
}

function parse(json: string): unknown {
  try {
    return JSON.parse(json)
  } catch {
    return undefined // told as what is no record
  }
}

/** The number of the snapshot that a mounted image's bootstrap is in. */
export function sourceSnapshot(record: InstanceRecord): number {
  return Number.parseInt(record.SourceSnapshotID || record.SnapshotID)
}

const DIGITS = '0123456789abcdefghijklmnopqrstuv'

/** A name as upstream gives them: 20 characters, those of later daemons sort later. */
export function newDaemonId(): string {
  const bytes = Buffer.alloc(13) // 12 of the name, and what its last character is filled up with
  bytes.writeUInt32BE(Math.floor(Date.now() / 1000), 0)
  randomBytes(8).copy(bytes, 4)
  let name = ''
  for (let bit = 0; bit < 100; bit += 5) {
    const pair = bytes.readUInt16BE(bit >> 3)
    name += DIGITS[(pair >> (11 - (bit & 7))) & 31]
  }
  return name
}
