import * as v from 'valibot'
import { SnapshotterError } from '../errors.ts'

const Scalar = v.union([v.string(), v.boolean(), v.number(), v.array(v.string())])

const EditRecord = v.union([
  /** `before` is missing where the key was. */
  v.object({ path: v.array(v.string()), value: Scalar, before: v.optional(Scalar) }),
  v.object({ array: v.array(v.string()), element: v.record(v.string(), v.string()) }),
])

const FileRecord = v.object({
  path: v.string(),
  /** null: the file was not there. */
  before: v.nullable(v.string()),
  after: v.string(),
  /** Of a TOML file, for when somebody changed it since. */
  edits: v.array(EditRecord),
})

const Record = v.object({ version: v.literal(1), files: v.array(FileRecord) })

/** What nydus-setup did to a node: enough to take it back. */
export type SetupRecord = v.InferOutput<typeof Record>
export type FileRecord = v.InferOutput<typeof FileRecord>
export type EditRecord = v.InferOutput<typeof EditRecord>

/** Throws SnapshotterError 'BAD_STATE'. */
export function parseRecord(text: string, path: string): SetupRecord {
  let value: unknown
  try {
    value = JSON.parse(text)
  } catch {
    value = undefined // told below
  }
  const result = v.safeParse(Record, value)
  if (result.success) return result.output
  throw new SnapshotterError(
    'BAD_STATE',
    `cannot use ${path}, which tells what nydus-setup did: remove it, and undo the rest by hand`,
  )
}
