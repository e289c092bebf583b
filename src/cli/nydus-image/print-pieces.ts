import { setImmediate } from 'node:timers/promises'

const BATCH_LENGTH = 0x1_0000

/** A piece that only lets signals in, where much work makes little text. */
export const PAUSE = ''

/** Writes pieces of text to stdout as fast as they are read there; the next pieces are made when the reader wants them. */
export async function printPieces(pieces: Iterable<string>, signal: AbortSignal): Promise<void> {
  await writePieces(pieces, toStdout, signal)
}

/** Joins pieces of text into batches for `sink`. */
export async function writePieces(
  pieces: Iterable<string>,
  sink: (bytes: Uint8Array) => Promise<void>,
  signal: AbortSignal,
): Promise<void> {
  let batch = ''
  for (const piece of pieces) {
    if (piece === PAUSE) {
      await setImmediate()
      signal.throwIfAborted()
    }
    batch += piece
    if (batch.length < BATCH_LENGTH) continue
    await sink(Buffer.from(batch))
    batch = ''
    // A file takes all at once: without this no signal would be heard before the end.
    await setImmediate()
    signal.throwIfAborted()
  }
  if (batch !== '') await sink(Buffer.from(batch))
}

/** To stdout; settles when it was taken. */
export async function toStdout(bytes: Uint8Array): Promise<void> {
  await new Promise<void>((resolve, reject) =>
    process.stdout.write(bytes, (error) => (error ? reject(error) : resolve())),
  )
}
