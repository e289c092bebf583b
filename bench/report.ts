/** What is asked of a figure: at most (or at least) a share of the peer's, or an absolute limit in the figure's unit. */
export type Target =
  | { readonly ratioAtMost: number }
  | { readonly ratioAtLeast: number }
  | { readonly atMost: number }
  | { readonly atLeast: number }

/** One measured thing. Figures are medians of interleaved runs unless a note says otherwise. */
export interface Figure {
  readonly what: string
  /** `s`, `ms`, `MiB`, `MB/s`, `requests`, … */
  readonly unit: string
  readonly ours: number
  /** The original tool's figure, when there is one. */
  readonly peer?: number | undefined
  /** What `ours` is compared with when there is no peer: the least that is possible, and why, as in `zstd alone`. */
  readonly bound?: { readonly what: string; readonly value: number }
  readonly target?: Target
}

/** Columns of the longest name and its unit. */
const WHAT = 48

/** Prints a benchmark's parts as they come, and remembers which targets were missed. */
export class Report {
  readonly figures: Array<
    Figure & { readonly part: string; readonly ratio: number | undefined; readonly met: boolean | undefined }
  > = []
  readonly #print: (line: string) => void
  #part = ''

  constructor(print: (line: string) => void) {
    this.#print = print
  }

  /** A headline; the figures that follow belong to it. */
  part(title: string): void {
    this.#part = title
    this.#print(`\n${title}`)
    this.#print(
      `  ${'what'.padEnd(WHAT)} ${'ours'.padStart(10)} ${'peer/bound'.padStart(11)} ${'ratio'.padStart(7)}  target`,
    )
  }

  figure(figure: Figure): void {
    const { what, unit, ours, peer, bound, target } = figure
    const against = peer ?? bound?.value
    const ratio = against === undefined ? undefined : ours / against
    const met = target === undefined ? undefined : meets(target, ours, ratio)
    this.figures.push({ ...figure, part: this.#part, ratio, met })
    const columns = [
      `${what}, ${unit}`.padEnd(WHAT),
      number(ours).padStart(10),
      (against === undefined ? '-' : number(against)).padStart(11),
      (ratio === undefined ? '-' : ratio.toFixed(2)).padStart(7),
    ]
    const notes = [
      target === undefined ? '' : describe(target, met),
      peer === undefined && bound ? `(${bound.what})` : '',
    ]
    this.#print(`  ${columns.join(' ')}  ${notes.filter((note) => note !== '').join(' ')}`.trimEnd())
  }

  /** A line about the figures: how they came to be, what was left out and why. */
  note(text: string): void {
    this.#print(`  ${text}`)
  }

  get missed(): number {
    return this.figures.filter(({ met }) => met === false).length
  }
}

/** Undefined when there is nothing to compare with. */
function meets(target: Target, ours: number, ratio: number | undefined): boolean | undefined {
  if ('atMost' in target) return ours <= target.atMost
  if ('atLeast' in target) return ours >= target.atLeast
  if (ratio === undefined) return undefined
  return 'ratioAtMost' in target ? ratio <= target.ratioAtMost : ratio >= target.ratioAtLeast
}

function describe(target: Target, met: boolean | undefined): string {
  const wanted =
    'atMost' in target
      ? `≤ ${number(target.atMost)}`
      : 'atLeast' in target
        ? `≥ ${number(target.atLeast)}`
        : 'ratioAtMost' in target
          ? `≤ ${target.ratioAtMost} ×`
          : `≥ ${target.ratioAtLeast} ×`
  return `${wanted} ${met === undefined ? 'not compared' : met ? 'met' : 'MISSED'}`
}

/** Three significant digits, no exponent. */
function number(value: number): string {
  if (!Number.isFinite(value)) return '-'
  if (Math.abs(value) >= 100) return String(Math.round(value))
  return String(Number(value.toPrecision(3)))
}
