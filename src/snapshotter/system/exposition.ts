/** Numbers by name and labels, as Prometheus reads them: https://prometheus.io/docs/instrumenting/exposition_formats/ */
export const PROMETHEUS_TYPE = 'text/plain; version=0.0.4; charset=utf-8'

interface Sample {
  readonly labels: readonly string[]
  value: number
  /** Of {@link Registry.now}. */
  setAtMs: number
}

/** One name: a counter or a gauge. */
export class Numbers {
  readonly #samples = new Map<string, Sample>()
  readonly #labels: readonly string[]
  readonly #now: () => number
  readonly #ttlMs: number

  constructor(labels: readonly string[], now: () => number, ttlMs: number) {
    this.#labels = labels
    this.#now = now
    this.#ttlMs = ttlMs
    if (labels.length === 0) this.set(0)
  }

  set(value: number, ...labels: string[]): void {
    const key = JSON.stringify(labels)
    const sample = this.#samples.get(key)
    if (sample === undefined) this.#samples.set(key, { labels, value, setAtMs: this.#now() })
    else Object.assign(sample, { value, setAtMs: this.#now() })
  }

  add(value: number, ...labels: string[]): void {
    this.set((this.#samples.get(JSON.stringify(labels))?.value ?? 0) + value, ...labels)
  }

  /** Leaves only samples of the last `set`s. */
  clear(): void {
    this.#samples.clear()
  }

  *lines(name: string): Generator<string> {
    const oldest = this.#now() - this.#ttlMs
    for (const [key, sample] of [...this.#samples].sort(([a], [b]) => (a < b ? -1 : 1))) {
      if (sample.setAtMs < oldest) this.#samples.delete(key)
      else yield `${name}${labelText(this.#labels, sample.labels)} ${numberText(sample.value)}`
    }
  }
}

/** What was counted in buckets: `counts` has one more element than there are bounds, of what is beyond. */
export interface Distribution {
  readonly counts: readonly number[]
  readonly sum: number
}

/** One name: a histogram. */
export class Histogram {
  readonly #bounds: readonly number[]
  readonly #labels: readonly string[]
  readonly #found = new Map<string, { readonly labels: readonly string[]; counts: number[]; sum: number }>()

  constructor(labels: readonly string[], bounds: readonly number[]) {
    this.#labels = labels
    this.#bounds = bounds
  }

  observe(value: number, ...labels: string[]): void {
    const of = this.#of(labels)
    const bucket = this.#bounds.findIndex((bound) => value <= bound)
    const index = bucket < 0 ? this.#bounds.length : bucket
    of.counts[index] = (of.counts[index] ?? 0) + 1
    of.sum += value
  }

  set({ counts, sum }: Distribution, ...labels: string[]): void {
    Object.assign(this.#of(labels), { counts: [...counts], sum })
  }

  clear(): void {
    this.#found.clear()
  }

  *lines(name: string): Generator<string> {
    for (const [, { labels, counts, sum }] of [...this.#found].sort(([a], [b]) => (a < b ? -1 : 1))) {
      let total = 0
      for (let index = 0; index <= this.#bounds.length; index++) {
        total += counts[index] ?? 0
        const bound = this.#bounds[index]
        const le = bound === undefined ? '+Inf' : numberText(bound)
        yield `${name}_bucket${labelText([...this.#labels, 'le'], [...labels, le])} ${total}`
      }
      const shown = labelText(this.#labels, labels)
      yield `${name}_sum${shown} ${numberText(sum)}`
      yield `${name}_count${shown} ${total}`
    }
  }

  #of(labels: readonly string[]): { counts: number[]; sum: number } {
    const key = JSON.stringify(labels)
    const known = this.#found.get(key)
    if (known !== undefined) return known
    const of = { labels, counts: Array.from({ length: this.#bounds.length + 1 }, () => 0), sum: 0 }
    this.#found.set(key, of)
    return of
  }
}

interface Family {
  readonly type: 'counter' | 'gauge' | 'histogram'
  readonly help: string
  readonly of: Numbers | Histogram
}

/** All names of a process. */
export class Registry {
  /** Milliseconds that never go back. */
  readonly now: () => number
  readonly #families = new Map<string, Family>()

  constructor(now: () => number = () => performance.now()) {
    this.now = now
  }

  counter(name: string, help: string, labels: readonly string[] = []): Numbers {
    return this.#add(name, 'counter', help, new Numbers(labels, this.now, Number.POSITIVE_INFINITY))
  }

  /** A sample that nobody set for `ttlMs` is gone. */
  gauge(name: string, help: string, labels: readonly string[] = [], ttlMs = Number.POSITIVE_INFINITY): Numbers {
    return this.#add(name, 'gauge', help, new Numbers(labels, this.now, ttlMs))
  }

  histogram(name: string, help: string, labels: readonly string[], bounds: readonly number[]): Histogram {
    return this.#add(name, 'histogram', help, new Histogram(labels, bounds))
  }

  /** Names in alphabetical order; those without a sample are left out. */
  text(): string {
    const parts = [...this.#families]
      .sort(([a], [b]) => (a < b ? -1 : 1))
      .flatMap(([name, { type, help, of }]) => {
        const lines = [...of.lines(name)]
        return lines.length === 0 ? [] : [`# HELP ${name} ${escapedHelp(help)}`, `# TYPE ${name} ${type}`, ...lines]
      })
    return `${parts.join('\n')}\n`
  }

  #add<F extends Numbers | Histogram>(name: string, type: Family['type'], help: string, of: F): F {
    this.#families.set(name, { type, help, of })
    return of
  }
}

function labelText(names: readonly string[], values: readonly string[]): string {
  if (names.length === 0) return ''
  return `{${names.map((name, index) => `${name}="${escapedLabel(values[index] ?? '')}"`).join(',')}}`
}

function escapedLabel(text: string): string {
  return text.replaceAll('\\', '\\\\').replaceAll('"', '\\"').replaceAll('\n', '\\n')
}

function escapedHelp(text: string): string {
  return text.replaceAll('\\', '\\\\').replaceAll('\n', '\\n')
}

function numberText(value: number): string {
  if (value === Number.POSITIVE_INFINITY) return '+Inf'
  return value === Number.NEGATIVE_INFINITY ? '-Inf' : String(value)
}
