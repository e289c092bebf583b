import { type Profiler, Session } from 'node:inspector'

/** Something that no input had reached before: a function, or a block in it. */
export interface Reached {
  readonly function: string
  /** Undefined for the function itself. */
  readonly block: Block | undefined
}

type Block = readonly [start: number, end: number]

/** Parts of the program that inputs reach, as V8 counts them between two calls. Counting makes the program slower, so it is ended after a while. */
export class Coverage {
  readonly #session = new Session()
  /** By function: the blocks that nothing has reached yet. */
  readonly #unreached = new Map<string, readonly Block[]>()

  constructor() {
    this.#session.connect()
    this.#session.post('Profiler.enable')
    this.#session.post('Profiler.startPreciseCoverage', { callCount: true, detailed: true })
  }

  /** Functions that were reached, and blocks in them that were not. */
  get size(): { readonly functions: number; readonly unreachedBlocks: number } {
    let unreachedBlocks = 0
    for (const blocks of this.#unreached.values()) unreachedBlocks += blocks.length
    return { functions: this.#unreached.size, unreachedBlocks }
  }

  /** Remembers what was reached since the last call; gives one thing that is new, if any. */
  learn(): Reached | undefined {
    let news: Reached | undefined
    for (const [name, skipped] of this.#take()) {
      const before = this.#unreached.get(name)
      if (before === undefined) {
        this.#unreached.set(name, skipped)
        news = { function: name, block: undefined }
        continue
      }
      const still = before.filter((block) => isIn(block, skipped))
      if (still.length === before.length) continue
      const reached = before.find((block) => !isIn(block, skipped))
      news ??= { function: name, block: reached }
      const parts = skipped.filter((part) => isIn(part, before) && !isIn(part, still))
      this.#unreached.set(name, [...still, ...parts])
    }
    return news
  }

  /** Was that reached since the last call? */
  saw({ function: name, block }: Reached): boolean {
    const skipped = this.#take().get(name)
    return skipped !== undefined && (block === undefined || !isIn(block, skipped))
  }

  close(): void {
    this.#session.post('Profiler.stopPreciseCoverage')
    this.#session.disconnect()
  }

  /** Functions that ran, with their blocks that did not. */
  #take(): Map<string, Block[]> {
    let scripts: readonly Profiler.ScriptCoverage[] = []
    this.#session.post('Profiler.takePreciseCoverage', (_error, answer) => {
      scripts = answer?.result ?? []
    })
    const ran = new Map<string, Block[]>()
    for (const { url, scriptId, functions } of scripts) {
      if (!url.includes('/src/')) continue
      for (const { ranges } of functions) {
        const [whole, ...blocks] = ranges
        if (whole === undefined || whole.count === 0) continue
        ran.set(
          `${scriptId}:${whole.startOffset}`,
          blocks.filter(({ count }) => count === 0).map(({ startOffset, endOffset }) => [startOffset, endOffset]),
        )
      }
    }
    return ran
  }
}

function isIn([start, end]: Block, blocks: readonly Block[]): boolean {
  return blocks.some(([from, to]) => from <= start && end <= to)
}
