const ESC = '\u001b'
const CTRL_C = '\u0003'
const CTRL_D = '\u0004'

/** The whole terminal: what was on it comes back when it is disposed of. Keys q, Ctrl-C and Ctrl-D abort `quit`. */
export class Screen implements Disposable {
  readonly #quit = new AbortController()
  readonly #onKey = (keys: Buffer): void => {
    if (/[qQ]/.test(keys.toString()) || keys.includes(CTRL_C) || keys.includes(CTRL_D)) this.#quit.abort()
  }
  #lines: readonly string[] = []
  readonly #onResize = (): void => this.draw(this.#lines)

  constructor() {
    process.stdout.write(`${ESC}[?1049h${ESC}[?25l`)
    process.stdout.on('resize', this.#onResize)
    if (!process.stdin.isTTY) return
    process.stdin.setRawMode(true)
    process.stdin.on('data', this.#onKey).resume()
  }

  /** Aborted when the user wants to leave. */
  get quit(): AbortSignal {
    return this.#quit.signal
  }

  get width(): number {
    return process.stdout.columns || 80
  }

  /** Shows lines from the top; what does not fit is left out, and the last line stays the last. */
  draw(lines: readonly string[]): void {
    this.#lines = lines
    const height = process.stdout.rows || 24
    const shown = lines.length <= height ? lines : [...lines.slice(0, height - 1), ...lines.slice(-1)]
    const text = shown.map((line) => `${line.slice(0, this.width)}${ESC}[K`).join('\r\n')
    process.stdout.write(`${ESC}[H${text}${ESC}[J`)
  }

  [Symbol.dispose](): void {
    process.stdout.off('resize', this.#onResize)
    process.stdout.write(`${ESC}[?25h${ESC}[?1049l`)
    if (!process.stdin.isTTY) return
    process.stdin.off('data', this.#onKey).pause()
    process.stdin.setRawMode(false)
  }
}
