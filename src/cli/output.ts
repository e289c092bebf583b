import process from 'node:process'
import { DelayedProgress, hideBars, type Progress, type ProgressMode, type ProgressOptions } from './progress.ts'

export { formatBytes, formatDuration } from './amounts.ts'
export { hideBars, PROGRESS_MODES } from './progress.ts'
export type { Progress, ProgressMode, ProgressOptions } from './progress.ts'

/** Where a tool's words go: results to stdout, all that is about the work to stderr. */
export interface Output {
  /** A line of the result. */
  line(text: string): void
  /** The result for programs, on one line of stdout. */
  json(value: unknown): void
  /** A line about the work, on stderr. */
  note(text: string): void
  progress(label: string, options: ProgressOptions): Progress
  /** Prints an error with its causes and hints and sets the exit code of the process. */
  fail(error: unknown): void
}

/** An error that stands for an exit code of its own; without `message` nothing more is printed. */
export class ExitError extends Error {
  override readonly name = 'ExitError'
  readonly exitCode: number

  constructor(exitCode: number, message: string, options?: ErrorOptions) {
    super(message, options)
    this.exitCode = exitCode
  }
}

export function createOutput(mode: ProgressMode): Output {
  return {
    line: (text) => void process.stdout.write(`${text}\n`),
    json: (value) => void process.stdout.write(`${JSON.stringify(value)}\n`),
    note: (text) => {
      hideBars()
      process.stderr.write(`${text}\n`)
    },
    progress: (label, options) => new DelayedProgress(mode, label, options),
    fail: (error) => {
      process.exitCode = exitCodeOf(error)
      const text = describeError(error)
      hideBars()
      if (text !== '') process.stderr.write(text)
    },
  }
}

/**
 * Runs what a tool was asked to do. SIGINT and SIGTERM abort `signal`, so that the work can clean up; a second one ends the process at once.
 * An error is printed and becomes the exit code: its own `exitCode`, 130 or 143 for a signal, else 1.
 */
export async function runTool(output: Output, action: (signal: AbortSignal) => Promise<void>): Promise<void> {
  const interrupted = new AbortController()
  let exitCode = 0
  const onSignal = (name: 'SIGINT' | 'SIGTERM'): void => {
    if (exitCode !== 0) return void endNow(exitCode)
    exitCode = name === 'SIGINT' ? 130 : 143
    interrupted.abort(new ExitError(exitCode, `interrupted by ${name}`))
  }
  process.on('SIGINT', onSignal)
  process.on('SIGTERM', onSignal)
  let isOver = false
  onBrokenStdout((error) => {
    interrupted.abort(error)
    if (isOver) output.fail(error)
  })
  try {
    await action(interrupted.signal)
  } catch (error) {
    output.fail(interrupted.signal.aborted ? interrupted.signal.reason : error)
  } finally {
    isOver = true
    process.off('SIGINT', onSignal)
    process.off('SIGTERM', onSignal)
  }
}

/** As the shell calls a program that SIGPIPE ended; Node ignores that signal. */
const BROKEN_PIPE = 141
let tellBrokenStdout: ((error: ExitError) => void) | undefined

/** Results that cannot be written end the work: quietly when their reader has gone (`| head`), else with the reason. A log that cannot be written ends nothing. */
function onBrokenStdout(tell: (error: ExitError) => void): void {
  if (tellBrokenStdout === undefined) {
    process.stdout.on('error', (cause: NodeJS.ErrnoException) => {
      const hasNoReader = cause.code === 'EPIPE'
      tellBrokenStdout?.(
        hasNoReader ? new ExitError(BROKEN_PIPE, '') : new ExitError(1, 'cannot write to stdout', { cause }),
      )
    })
    process.stderr.on('error', () => undefined)
  }
  tellBrokenStdout = tell
}

/** Ends the process though a thread of it may wait in a read or open that never comes back (a FIFO that nobody opens): `process.exit` would wait for that thread. */
export async function endNow(exitCode: number): Promise<void> {
  const { exitNow } = await import('../kernel/index.ts')
  exitNow(exitCode)
}

export function exitCodeOf(error: unknown): number {
  if (typeof error === 'object' && error !== null && 'exitCode' in error && typeof error.exitCode === 'number')
    return error.exitCode
  return 1
}

/** The form of the original tools: `Error: message`, and the chain of causes indented below it. Empty for an error without a message. */
export function describeError(error: unknown): string {
  const messages: string[] = []
  for (
    let at: unknown = error;
    at !== undefined && at !== null && messages.length < 16;
    at = at instanceof Error ? at.cause : undefined
  ) {
    messages.push(at instanceof Error ? at.message : typeof at === 'string' ? at : JSON.stringify(at))
  }
  const [top = '', ...causes] = messages
  // A cause whose words are already in the line above it tells nothing new.
  const isNews = (cause: string, above: string): boolean =>
    !above.includes(cause) && !above.includes(withoutCall(cause))
  const news = causes.filter((cause, index) => isNews(cause, messages[index] ?? ''))
  if (top === '' && news.length === 0) return ''
  const chain =
    news.length === 0
      ? ''
      : `\nCaused by:\n${news.map((cause, i) => `    ${news.length > 1 ? `${i}: ` : ''}${cause}\n`).join('')}`
  return `Error: ${top}\n${chain}`
}

/** The system's words without the call and path that Node adds: `ENOENT: no such file or directory, open 'x'`. */
function withoutCall(message: string): string {
  return message.replace(/^(E[A-Z0-9]+: [^,]+), .*$/, '$1')
}
