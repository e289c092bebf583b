import type { DecodeChunk, DecodeOutcome, DecodeTask } from './decode-task.ts'
import type { LentBuffers, Loan, SeenBuffers } from './lent-buffers.ts'

/**
 * A task as it is sent: what belongs to chunks is in two arrays for all of them, since objects, and buffers above all, are dear to send, and chunks are many.
 */
export interface SentTask extends Omit<DecodeTask, 'stored' | 'plain' | 'chunks'> {
  /** `plain`, then `stored` if there is one. */
  readonly loan: Loan
  /** {@link FIELDS} a chunk. */
  readonly numbers: Float64Array
  readonly digests: Uint8Array
}

/** Outcomes as they are sent: digests of the verified chunks, and what was wrong with the others. */
export interface SentOutcomes {
  readonly digests: Uint8Array
  readonly reasons: ReadonlyMap<number, string>
}

const DIGEST_BYTES = 32
const FIELDS = 9
const COMPRESSED = 1
const ENCRYPTED = 2
/** A chunk without a checksum. */
const NO_CRC = -1

export function packTask({ stored, plain, chunks, ...of }: DecodeTask, lent: LentBuffers): SentTask {
  const numbers = new Float64Array(chunks.length * FIELDS)
  const digests = new Uint8Array(chunks.length * DIGEST_BYTES)
  for (const [number, chunk] of chunks.entries()) {
    const { index, storedAt, storedSize, plainAt, plainSize, batchOffset, batchSize, crc32c = NO_CRC } = chunk
    const flags = (chunk.compressed ? COMPRESSED : 0) | (chunk.encrypted ? ENCRYPTED : 0)
    const row = [index, storedAt, storedSize, plainAt, plainSize, flags, batchOffset, batchSize, crc32c]
    numbers.set(row, number * FIELDS)
    digests.set(chunk.digest, number * DIGEST_BYTES)
  }
  const loan = lent.lend(stored === undefined ? [plain] : [plain, stored])
  return { ...of, loan, numbers, digests }
}

export function unpackTask({ loan, numbers, digests, ...of }: SentTask, seen: SeenBuffers): DecodeTask {
  const [plain, stored] = seen.take(loan)
  if (plain === undefined) throw new Error('a task came without a place for its plain bytes')
  const chunks: DecodeChunk[] = []
  for (let at = 0; at < numbers.length; at += FIELDS) {
    const [index, storedAt, storedSize, plainAt, plainSize, flags, batchOffset, batchSize, crc32c] = numbers.subarray(
      at,
      at + FIELDS,
    ) as unknown as readonly [number, number, number, number, number, number, number, number, number] // a row has all fields
    const from = (at / FIELDS) * DIGEST_BYTES
    chunks.push({
      index,
      storedAt,
      storedSize,
      plainAt,
      plainSize,
      batchOffset,
      batchSize,
      compressed: (flags & COMPRESSED) !== 0,
      encrypted: (flags & ENCRYPTED) !== 0,
      digest: digests.subarray(from, from + DIGEST_BYTES),
      crc32c: crc32c === NO_CRC ? undefined : crc32c,
    })
  }
  return { ...of, plain, stored, chunks }
}

export function packOutcomes(outcomes: readonly DecodeOutcome[]): SentOutcomes {
  const digests = new Uint8Array(outcomes.length * DIGEST_BYTES)
  const reasons = new Map<number, string>()
  for (const [number, outcome] of outcomes.entries())
    if (outcome.verified) digests.set(outcome.digest, number * DIGEST_BYTES)
    else reasons.set(number, outcome.reason)
  return { digests, reasons }
}

export function unpackOutcomes({ digests, reasons }: SentOutcomes): DecodeOutcome[] {
  return Array.from({ length: digests.length / DIGEST_BYTES }, (_, number): DecodeOutcome => {
    const reason = reasons.get(number)
    if (reason !== undefined) return { verified: false, reason }
    return { verified: true, digest: digests.subarray(number * DIGEST_BYTES, (number + 1) * DIGEST_BYTES) }
  })
}
