/** The loop of the fuzzer, and the rules that it holds readers to. */
import { getHeapStatistics } from 'node:v8'
import { type Random, randomOf } from '../random.ts'
import { Coverage } from './coverage.ts'
import { mutated } from './mutate.ts'
import type { Seed, Target } from './target.ts'

const MAX_MS = 1000
const TRIES = 3
const MAX_BYTES = 64 * 2 ** 20
const BATCH = 200
/** Inputs between two looks at the heap; the first of them is read twice. */
const GROUP = 20
/** Share of the time in which inputs that reach something new are kept. */
const LEARNING = 0.25
const MAX_LEARNED = 500

/** An input that a reader must not answer in that way. */
export class Find extends Error {
  override readonly name = 'Find'
  readonly input: Uint8Array

  constructor(what: string, input: Uint8Array, options?: ErrorOptions) {
    super(what, options)
    this.input = input
  }
}

export interface FuzzLimits {
  readonly seconds: number
  readonly runs: number
  /** Of the first batch. */
  readonly seed: number
  /** Told of each input before it is read: a reader that never ends, or takes the process with it, cannot tell. */
  readonly onInput: (input: Uint8Array) => void
}

export interface FuzzResult {
  readonly runs: number
  readonly seconds: number
  readonly refused: number
  /** Inputs that were kept, because they reached something new. */
  readonly learned: number
  /** Of the program: functions that were reached, and blocks in them that were not. */
  readonly functions: number
  readonly unreachedBlocks: number
}

/** Reads damaged inputs until the time is over or so many were read; a batch in any case. Throws a Find for the first that gets through. */
export async function fuzz(fuzzed: Target, limits: FuzzLimits): Promise<FuzzResult> {
  const target = announced(fuzzed, limits.onInput)
  const started = performance.now()
  const elapsed = (): number => (performance.now() - started) / 1000
  // Before any of the readers has run: V8 counts blocks of functions that it compiles from now on.
  const guide = new Guide(target)
  const seeds = [...(await target.seeds())]
  const known = seeds.length
  const unread = await judgedAll(
    target,
    seeds.map(({ bytes }) => bytes),
  )
  if (unread === known) throw new Error('it refuses all of its seeds')
  guide.start()
  let [runs, refused] = [0, 0]
  try {
    for (let seed = limits.seed; runs === 0 || (runs < limits.runs && elapsed() < limits.seconds); seed++) {
      const random = randomOf(seed)
      // What was learned is mostly refused early, and would soon be all there is.
      const inputs = batchOf(target, random(3) === 0 ? seeds : seeds.slice(0, known), random)
      refused += await judgedAll(target, inputs)
      runs += inputs.length
      if (elapsed() > limits.seconds * LEARNING || runs > limits.runs * LEARNING) guide.close()
      else if (seeds.length < known + MAX_LEARNED) seeds.push(...(await guide.worthKeeping(inputs)))
    }
  } finally {
    guide.close()
  }
  return { runs, seconds: elapsed(), refused, learned: seeds.length - known, ...guide.size }
}

function announced(target: Target, onInput: (input: Uint8Array) => void): Target {
  return {
    ...target,
    read: (bytes) => {
      onInput(bytes)
      return target.read(bytes)
    },
  }
}

/** Finds the inputs that reach what none before has reached. */
class Guide {
  readonly #target: Target
  readonly #coverage = new Coverage()
  #size = this.#coverage.size
  #isOpen = true

  constructor(target: Target) {
    this.#target = target
  }

  /** What was reached so far, by valid inputs, is not new. */
  start(): void {
    this.#coverage.learn()
  }

  get size(): Coverage['size'] {
    return this.#size
  }

  async worthKeeping(inputs: readonly Uint8Array[]): Promise<Seed[]> {
    const news = this.#isOpen ? this.#coverage.learn() : undefined
    if (news === undefined) return []
    let candidates = inputs
    while (candidates.length > 1) {
      const half = candidates.slice(0, candidates.length >> 1)
      for (const input of half) await judgedTime(this.#target, input, false)
      candidates = this.#coverage.saw(news) ? half : candidates.slice(half.length)
    }
    return candidates.map((bytes) => ({ bytes, fields: [] }))
  }

  close(): void {
    if (!this.#isOpen) return
    this.#isOpen = false
    this.#coverage.learn()
    this.#size = this.#coverage.size
    this.#coverage.close()
  }
}

function batchOf(target: Target, seeds: readonly Seed[], random: Random): Uint8Array[] {
  return Array.from({ length: BATCH }, () => {
    const bytes = mutated(seeds, random)
    target.repair?.(bytes)
    return bytes
  })
}

/** Reads inputs under the rules; gives how many were refused. Asking for the heap's size takes longer than most readers do, so it is asked once a group. */
async function judgedAll(target: Target, inputs: readonly Uint8Array[]): Promise<number> {
  let refused = 0
  for (let at = 0; at < inputs.length; at += GROUP) {
    const group = inputs.slice(at, at + GROUP)
    const before = memory()
    for (const [index, input] of group.entries())
      if ((await judgedTime(target, input, index === 0)).isRefused) refused += 1
    if (memory() - before > MAX_BYTES) for (const input of group) await judged(target, input)
  }
  return refused
}

/** Reads one input under all of the rules. */
export async function judged(target: Target, input: Uint8Array): Promise<{ readonly isRefused: boolean }> {
  const before = memory()
  const answer = await judgedTime(target, input, false)
  const grown = memory() - before
  if (grown > MAX_BYTES + input.length) throw new Find(`took ${Math.round(grown / 2 ** 20)} MiB of memory`, input)
  return answer
}

async function judgedTime(target: Target, input: Uint8Array, isTwice: boolean): Promise<Answer> {
  const started = performance.now()
  const first = await answerOf(target, input)
  if (performance.now() - started > MAX_MS) await judgeSlow(target, input)
  if (!isTwice) return first
  const second = await answerOf(target, input)
  if (second.text !== first.text) throw new Find(`answers ${first.text}, then ${second.text}`, input)
  return first
}

/** Others may have had the processor: an input is slow when it is so every time. */
async function judgeSlow(target: Target, input: Uint8Array): Promise<void> {
  let shortest = Number.POSITIVE_INFINITY
  for (let tries = 0; tries < TRIES; tries++) {
    const started = performance.now()
    await answerOf(target, input)
    shortest = Math.min(shortest, performance.now() - started)
  }
  if (shortest > MAX_MS) throw new Find(`took ${Math.round(shortest)} ms`, input)
}

interface Answer {
  readonly text: string
  readonly isRefused: boolean
}

function memory(): number {
  const { used_heap_size: heap, external_memory: external } = getHeapStatistics()
  return heap + external
}

async function answerOf(target: Target, input: Uint8Array): Promise<Answer> {
  try {
    const answer = target.read(input)
    return { text: typeof answer === 'string' ? answer : await answer, isRefused: false }
  } catch (error) {
    if (!target.refusals.some((refusal) => error instanceof refusal))
      throw new Find(error instanceof Error ? `${error.name}: ${error.message}` : String(error), input, {
        cause: error,
      })
    return { text: (error as Error).message, isRefused: true }
  }
}
