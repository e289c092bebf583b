/** What a look at one thing of the node found. */
export interface Finding {
  /** Of the check; stays the same for ever, for programs. */
  readonly check: string
  /** `failed` keeps images from starting; `warning` may, later or sometimes; `skipped`: could not be looked at, and why. */
  readonly status: 'ok' | 'warning' | 'failed' | 'skipped'
  readonly what: string
  /** What to do; commands and lines to paste. */
  readonly fix?: string
}

export interface Problem {
  readonly what: string
  readonly fix: string
}

/** Findings of one check. */
export class Findings {
  readonly all: Finding[] = []
  readonly #check: string

  constructor(check: string) {
    this.#check = check
  }

  ok(what: string): void {
    this.all.push({ check: this.#check, status: 'ok', what })
  }
  skip(what: string): void {
    this.all.push({ check: this.#check, status: 'skipped', what })
  }
  warn({ what, fix }: Problem): void {
    this.all.push({ check: this.#check, status: 'warning', what, fix })
  }
  fail({ what, fix }: Problem): void {
    this.all.push({ check: this.#check, status: 'failed', what, fix })
  }
}
