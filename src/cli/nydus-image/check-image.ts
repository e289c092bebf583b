import { type CheckFinding, checkBlobs, checkTree } from '../../builder/index.ts'
import type { Bootstrap } from '../../rafs/index.ts'
import { createOutput, ExitError, type ProgressMode } from '../output.ts'
import type { CommonFlags } from './arguments.ts'
import { openNamedImage } from './bootstrap-file.ts'
import { blobLine, describeInodes } from './check-listing.ts'
import { openBackend } from './blob-source.ts'
import { type Log, withLog } from './log.ts'
import { printPieces } from './print-pieces.ts'
import { compressorOf, writeResult } from './result.ts'

/** Values of `check`'s options, as the parser gives them. */
export interface CheckFlags extends CommonFlags {
  readonly bootstrap?: string
  readonly blobDir?: string
  readonly config?: string
  readonly verbose?: boolean
  readonly outputJson?: string
  readonly progress: ProgressMode
}

/** More findings than this help nobody. */
const MAX_SHOWN = 100

/** `check`: all that is wrong goes to the log; then the result, in the original's words. */
export async function checkImageFile(
  operand: string | undefined,
  flags: CheckFlags,
  signal: AbortSignal,
): Promise<void> {
  await withLog(flags, async (log) => {
    const path = flags.bootstrap ?? operand ?? ''
    const started = performance.now()
    const image = await openNamedImage(operand, flags.bootstrap)
    const found = new Findings(log, path)
    await checkMetadata(image, flags, found, signal)
    const seconds = (performance.now() - started) / 1000
    found.throwIfAny()
    if (flags.verbose === true) await printPieces(describeInodes(image), signal)
    // Programs give -B and mean the metadata alone.
    if (flags.bootstrap === undefined) await checkData(image, flags, found, signal)
    found.throwIfAny()
    await printPieces(
      ['RAFS filesystem metadata is valid, referenced data blobs: \n', ...image.blobs.map(blobLine)],
      signal,
    )
    await writeResult(flags.outputJson, resultOf(path, image, seconds), 0)
  })
}

async function checkMetadata(image: Bootstrap, flags: CheckFlags, found: Findings, signal: AbortSignal): Promise<void> {
  // What is counted are paths; v5 says how many inodes there are, and these may have several.
  const total = image.version === 6 ? image.inodeCount : 0
  const progress = createOutput(flags.progress).progress('checking paths', { total, unit: 'items' })
  try {
    for await (const finding of checkTree(image, { signal, onPath: () => progress.advance(1) })) found.add(finding)
  } finally {
    progress.done()
  }
}

async function checkData(image: Bootstrap, flags: CheckFlags, found: Findings, signal: AbortSignal): Promise<void> {
  const backend = await openBackend(flags)
  if (backend === undefined) return
  const total = image.blobs.reduce((sum, { compressedSize }) => sum + compressedSize, 0)
  const progress = createOutput(flags.progress).progress('checking data', { total, unit: 'bytes' })
  try {
    for await (const finding of checkBlobs(image, backend, signal, (bytes) => progress.advance(bytes)))
      found.add(finding)
  } finally {
    progress.done()
    await backend.close()
  }
}

class Findings {
  readonly #log: Log
  readonly #path: string
  #count = 0

  constructor(log: Log, path: string) {
    this.#log = log
    this.#path = path
  }

  add({ part, object, message }: CheckFinding): void {
    this.#count += 1
    if (this.#count <= MAX_SHOWN) this.#log.error(`${part} ${object}: ${message}`)
  }

  throwIfAny(): void {
    if (this.#count === 0) return
    const what = `${this.#count === 1 ? 'one thing is' : `${this.#count} things are`} wrong with it, see the log`
    throw new ExitError(1, `failed to check bootstrap ${JSON.stringify(this.#path)}`, { cause: new Error(what) })
  }
}

function resultOf(path: string, image: Bootstrap, seconds: number): Parameters<typeof writeResult>[1] {
  return {
    bootstrapPath: path,
    blobs: image.blobs.map(({ id }) => id),
    trace: { consumedTime: { load_tree_from_bootstrap: seconds }, events: {} },
    fsVersion: image.version,
    compressor: compressorOf(image),
  }
}
