/** `GET /api/v1/daemon/events`. */
export interface EventsJson {
  readonly max_errors: number
  readonly total_errors: number
  readonly max_size: number
  readonly total_size: number
  readonly errors: readonly string[]
}

const MAX_ERRORS = 500
const MAX_SIZE = 51_200
const MAX_LINE = 1_000

/** The last failures of reads; the oldest goes first. */
export class EventLog {
  readonly #lines: string[] = []
  #size = 0

  add(text: string): void {
    const line = `${new Date().toUTCString()} - ${text.slice(0, MAX_LINE)}`
    this.#lines.push(line)
    this.#size += line.length
    while (this.#lines.length > MAX_ERRORS || this.#size > MAX_SIZE) this.#size -= this.#lines.shift()?.length ?? 0
  }

  toJSON(): EventsJson {
    return {
      max_errors: MAX_ERRORS,
      total_errors: this.#lines.length,
      max_size: MAX_SIZE,
      total_size: this.#size,
      errors: [...this.#lines],
    }
  }
}
