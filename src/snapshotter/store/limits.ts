/** What is accepted of keys and labels, which images and clients choose. */
import { SnapshotterError } from '../errors.ts'
import type { Labels } from '../snapshot.ts'

/** Longest key of the original's database, in bytes. */
const MAX_KEY = 32_768
/** containerd's bound for a label: key and value together, in bytes. */
const MAX_LABEL = 4096
/** All labels of one snapshot, in bytes. */
const MAX_LABELS = 2 ** 20

/** Throws SnapshotterError 'INVALID_ARGUMENT'; `what` is the key's name in the message. */
export function checkKey(key: string, what: string): void {
  if (key === '') throw new SnapshotterError('INVALID_ARGUMENT', `${what} must not be empty: invalid argument`)
  const size = Buffer.byteLength(key)
  if (size > MAX_KEY)
    throw new SnapshotterError('INVALID_ARGUMENT', `${what} has ${size} bytes, more than ${MAX_KEY}: invalid argument`)
  if (!key.isWellFormed())
    throw new SnapshotterError('INVALID_ARGUMENT', `${what} ${JSON.stringify(key)} is not text: invalid argument`)
}

/** The labels as they are stored: without empty values, which containerd drops too. Throws SnapshotterError 'INVALID_ARGUMENT'. */
export function checkLabels(labels: Labels): Labels {
  let total = 0
  const kept = new Map<string, string>()
  for (const [key, value] of labels) {
    if (value === '') continue
    const size = Buffer.byteLength(key) + Buffer.byteLength(value)
    // The text is containerd's own; of the key it shows so much.
    if (size > MAX_LABEL) {
      const text = `label key and value length (${size} bytes) greater than maximum size (${MAX_LABEL} bytes), key: ${key.slice(0, 64)}`
      throw new SnapshotterError('INVALID_ARGUMENT', `${text}: invalid argument`)
    }
    if (key === '' || !key.isWellFormed() || !value.isWellFormed())
      throw new SnapshotterError(
        'INVALID_ARGUMENT',
        `label ${JSON.stringify(key)} is empty or not text: invalid argument`,
      )
    total += size
    kept.set(key, value)
  }
  if (total > MAX_LABELS)
    throw new SnapshotterError(
      'INVALID_ARGUMENT',
      `labels of ${total} bytes, more than ${MAX_LABELS}: invalid argument`,
    )
  return kept
}
