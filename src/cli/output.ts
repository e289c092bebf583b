import process from 'node:process'

/** How progress is shown: `auto` is a bar on a terminal and lines elsewhere. */
export type ProgressMode = 'auto' | 'plain' | 'json' | 'none'
export const PROGRESS_MODES: readonly ProgressMode[] = ['auto', 'plain', 'json', 'none']

/** Work that takes less than this shows no progress. */
const QUIET_MS = 2000
/** Lines (plain, json) come this often; a bar is redrawn by its library. */
const LINE_EVERY_MS = 2000

/** One piece of work that a person may wait for. */
export interface Progress {
  /** Adds to what is done. */
  advance(amount: number): void
  /** The total became known, or changed; 0 = unknown. */
  setTotal(total: number): void
  /** The work is over; the bar goes away. May be called twice. */
  done(): void
}

export interface ProgressOptions {
  /** 0 = unknown. */
  readonly total: number
  readonly unit: 'bytes' | 'items'
}

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
    note: (text) => void process.stderr.write(`${text}\n`),
    progress: (label, options) => new DelayedProgress(mode, label, options),
    fail: (error) => {
      process.exitCode = exitCodeOf(error)
      const text = describeError(error)
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

/** MiB or GiB with one decimal for people; KiB and bytes below. */
export function formatBytes(bytes: number): string {
  if (bytes < 1024) return `${bytes} B`
  if (bytes < 1024 ** 2) return `${(bytes / 1024).toFixed(1)} KiB`
  if (bytes < 1024 ** 3) return `${(bytes / 1024 ** 2).toFixed(1)} MiB`
  return `${(bytes / 1024 ** 3).toFixed(2)} GiB`
}

/** Milliseconds below a second, seconds above. */
export function formatDuration(milliseconds: number): string {
  return milliseconds < 1000 ? `${Math.round(milliseconds)} ms` : `${(milliseconds / 1000).toFixed(1)} s`
}

/** Shows nothing for two seconds, then a bar, lines or JSON lines on stderr. */
class DelayedProgress implements Progress {
  readonly #label: string
  readonly #unit: 'bytes' | 'items'
  readonly #started = Date.now()
  #timer: NodeJS.Timeout | undefined
  #bar: { update(value: number): void; setTotal(total: number): void; stop(): void } | undefined
  #value = 0
  #total: number

  constructor(mode: ProgressMode, label: string, options: ProgressOptions) {
    this.#label = label
    this.#unit = options.unit
    this.#total = options.total
    if (mode === 'none') return
    const isBar = mode === 'auto' && process.stderr.isTTY
    const show = isBar ? () => void this.#showBar() : () => this.#showLines(mode === 'json')
    this.#timer = setTimeout(show, QUIET_MS).unref()
  }

  advance(amount: number): void {
    this.#value += amount
    this.#bar?.update(this.#value)
  }

  setTotal(total: number): void {
    this.#total = total
    this.#bar?.setTotal(total)
  }

  done(): void {
    clearTimeout(this.#timer)
    clearInterval(this.#timer)
    this.#timer = undefined
    this.#bar?.stop()
    this.#bar = undefined
  }

  async #showBar(): Promise<void> {
    const { default: cliProgress } = await import('cli-progress')
    if (this.#timer === undefined) return
    const amount = (value: number): string => this.#amount(value)
    const bar = new cliProgress.SingleBar({
      stream: process.stderr,
      clearOnComplete: true,
      hideCursor: true,
      fps: 5,
      format: (_options, state) => {
        const share = state.total > 0 ? Math.min(1, state.value / state.total) : 0
        const drawn = '='.repeat(Math.round(share * 30)).padEnd(30, ' ')
        return state.total > 0
          ? `${this.#label} [${drawn}] ${Math.floor(share * 100)}% ${amount(state.value)} of ${amount(state.total)}`
          : `${this.#label} ${amount(state.value)}`
      },
    })
    bar.start(this.#total, this.#value)
    this.#bar = bar
  }

  #showLines(json: boolean): void {
    const show = (): void => {
      const line = json
        ? JSON.stringify({
            progress: this.#label,
            done: this.#value,
            total: this.#total,
            unit: this.#unit,
            elapsed_s: (Date.now() - this.#started) / 1000,
          })
        : `${this.#label}: ${this.#amount(this.#value)}${this.#total > 0 ? ` of ${this.#amount(this.#total)}` : ''} in ${formatDuration(Date.now() - this.#started)}`
      process.stderr.write(`${line}\n`)
    }
    show()
    this.#timer = setInterval(show, LINE_EVERY_MS).unref()
  }

  #amount(value: number): string {
    return this.#unit === 'bytes' ? formatBytes(value) : String(value)
  }
}
