import { type DiffSummary, diffImages, type NamedImage } from '../../builder/index.ts'
import { RafsError } from '../../rafs/index.ts'
import { ExitError } from '../output.ts'
import type { CommonFlags } from './arguments.ts'
import { openNamedImage } from './bootstrap-file.ts'
import { jsonReport, type Report, textReport } from './diff-report.ts'
import { withLog } from './log.ts'
import { PAUSE, printPieces } from './print-pieces.ts'

/** Values of `diff`'s options, as the parser gives them. */
export interface DiffFlags extends CommonFlags {
  readonly json?: boolean
  readonly summary?: boolean
  readonly exitCode?: boolean
}

/** With `--exit-code`: not the same. 1 and 2 are every command's. */
const DIFFERENT = 3

/** `diff`: differences as they are found, then the figures. */
export async function diffImageFiles(a: string, b: string, flags: DiffFlags, signal: AbortSignal): Promise<void> {
  await withLog(flags, async () => {
    const images = [await opened(a), await opened(b)] as const
    const report: Report = flags.json === true ? jsonReport : textReport
    const found: { summary?: DiffSummary } = {}
    try {
      await printPieces(pieces(images, report, flags.summary !== true, found), signal)
    } catch (error) {
      if (!(error instanceof RafsError)) throw error
      throw new ExitError(1, 'failed to compare the images', { cause: new Error(error.message) })
    }
    if (flags.exitCode === true && isDifferent(found.summary)) throw new ExitError(DIFFERENT, '')
  })
}

async function opened(path: string): Promise<NamedImage> {
  return { name: path, image: await openNamedImage(path, undefined) }
}

function* pieces(
  [a, b]: readonly [NamedImage, NamedImage],
  report: Report,
  hasPaths: boolean,
  found: { summary?: DiffSummary },
): Generator<string> {
  yield report.head(a, b, hasPaths)
  const differences = diffImages(a, b)
  let count = 0
  let next = differences.next()
  for (; next.done !== true; next = differences.next()) {
    if (next.value === undefined) yield PAUSE
    else if (hasPaths) {
      yield report.path(next.value, count)
      count += 1
    }
  }
  found.summary = next.value
  yield report.end(next.value, hasPaths)
}

function isDifferent(summary: DiffSummary | undefined): boolean {
  return summary === undefined || summary.paths.added + summary.paths.removed + summary.paths.changed > 0
}
