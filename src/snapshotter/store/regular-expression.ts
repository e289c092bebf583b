/**
 * Regular expressions of filters, with the syntax and meaning of Go's (RE2). They come from clients, so no engine that tries one way after the other can run them: with JavaScript's, `(a*)*b` takes for ever, also on
 * short texts. Here all ways are followed at once, one character after the other (Thompson's construction): time is at most program times text, both are bounded, and the sum over all texts is too.
 */
import { SnapshotterError } from '../errors.ts'
import { type Assertion, type Expression, parseExpression } from './expression-syntax.ts'

/** Longest program, in instructions, and most instructions that are visited for all texts of one expression: half a second. */
const MAX_PROGRAM = 10_000
const MAX_STEPS = 10_000_000

type Instruction =
  | Extract<Expression, { kind: 'character' }>
  | { readonly kind: 'assert'; readonly what: Assertion }
  | { readonly kind: 'split'; readonly targets: number[] }
  | { readonly kind: 'match' }

/** Tells whether any part of a text matches. Throws SnapshotterError 'INVALID_ARGUMENT' for what is no expression, and from the function it gives when the texts take too long. */
export function compileRegularExpression(pattern: string): (text: string) => boolean {
  const program: Instruction[] = []
  emit(parseExpression(pattern), program, pattern)
  program.push({ kind: 'match' })
  return new Machine(program, pattern).matches
}

function emit(expression: Expression, program: Instruction[], pattern: string): void {
  if (program.length > MAX_PROGRAM) throw tooLarge(pattern)
  switch (expression.kind) {
    case 'character':
    case 'assert':
      program.push(expression)
      return
    case 'sequence':
      for (const part of expression.parts) emit(part, program, pattern)
      return
    case 'choice':
      emitChoice(expression.parts, program, pattern)
      return
    case 'repeat':
      emitRepeat(expression, program, pattern)
      return
    default:
      expression satisfies never
  }
}

function emitChoice(parts: readonly Expression[], program: Instruction[], pattern: string): void {
  const entry: number[] = []
  program.push({ kind: 'split', targets: entry })
  const exits: number[][] = []
  for (const part of parts) {
    entry.push(program.length)
    emit(part, program, pattern)
    const exit: number[] = []
    exits.push(exit)
    program.push({ kind: 'split', targets: exit })
  }
  for (const exit of exits) exit.push(program.length)
}

/** `x{2,4}` is xx(x(x)?)?, `x{2,}` is xxx*. */
function emitRepeat(repeat: Extract<Expression, { kind: 'repeat' }>, program: Instruction[], pattern: string): void {
  const { of, least, most } = repeat
  for (let i = 0; i < least; i += 1) {
    const before = program.length
    emit(of, program, pattern)
    if (program.length === before) break // nothing, so often; in a few levels that would be without end
  }
  if (most === undefined) {
    const start = program.length
    const loop = [start + 1]
    program.push({ kind: 'split', targets: loop })
    emit(of, program, pattern)
    program.push({ kind: 'split', targets: [start] })
    loop.push(program.length)
    return
  }
  const skips: number[][] = []
  for (let i = least; i < most; i += 1) {
    const skip = [program.length + 1]
    skips.push(skip)
    program.push({ kind: 'split', targets: skip })
    emit(of, program, pattern)
  }
  for (const skip of skips) skip.push(program.length)
}

/** Runs a program. One at a time: its lists are used again for each text. */
class Machine {
  readonly #program: readonly Instruction[]
  readonly #pattern: string
  readonly #seen: Uint32Array
  #mark = 0
  #steps = 0

  constructor(program: readonly Instruction[], pattern: string) {
    this.#program = program
    this.#pattern = pattern
    this.#seen = new Uint32Array(program.length)
  }

  readonly matches = (text: string): boolean => {
    let waiting: number[] = []
    let before = -1
    for (const character of text) {
      const point = character.codePointAt(0) ?? -1
      const here = this.#enter([...waiting, 0], before, point)
      if (here === undefined) return true
      waiting = here.flatMap((at) => {
        const instruction = this.#program[at]
        return instruction?.kind === 'character' && instruction.has(point) ? [at + 1] : []
      })
      before = point
    }
    return this.#enter([...waiting, 0], before, -1) === undefined
  }

  /** The characters that may follow, between two others (-1: none); undefined when the match is complete. */
  #enter(stack: number[], before: number, after: number): number[] | undefined {
    const waiting: number[] = []
    this.#mark += 1
    for (let at = stack.pop(); at !== undefined; at = stack.pop()) {
      if (this.#seen[at] === this.#mark) continue
      this.#seen[at] = this.#mark
      this.#steps += 1
      const instruction = this.#program[at]
      switch (instruction?.kind) {
        case 'character':
          this.#steps += instruction.parts
          waiting.push(at)
          break
        case 'assert':
          if (holds(instruction.what, before, after)) stack.push(at + 1)
          break
        case 'split':
          stack.push(...instruction.targets)
          break
        case 'match':
        case undefined:
          return undefined
        default:
          instruction satisfies never
      }
    }
    if (this.#steps > MAX_STEPS) throw tooLarge(this.#pattern)
    return waiting
  }
}

const NEWLINE = 10

function holds(what: Assertion, before: number, after: number): boolean {
  switch (what) {
    case 'text-start':
      return before === -1
    case 'text-end':
      return after === -1
    case 'line-start':
      return before === -1 || before === NEWLINE
    case 'line-end':
      return after === -1 || after === NEWLINE
    case 'word-boundary':
      return isWord(before) !== isWord(after)
    case 'no-word-boundary':
      return isWord(before) === isWord(after)
    default:
      return what satisfies never
  }
}

function isWord(point: number): boolean {
  return point >= 0 && /^\w$/.test(String.fromCodePoint(point))
}

function tooLarge(pattern: string): SnapshotterError {
  const shown = JSON.stringify(pattern.slice(0, 80))
  return new SnapshotterError(
    'INVALID_ARGUMENT',
    `the regular expression ${shown} takes too long; write a simpler one: invalid argument`,
  )
}
