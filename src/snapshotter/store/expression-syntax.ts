/** The syntax of Go's regular expressions (RE2), without what only matters for where a match lies. Source: https://github.com/google/re2/wiki/Syntax. */
import { SnapshotterError } from '../errors.ts'
import { type CharacterSet, folded, namedSet, negated, posixSet, union, unicodeSet } from './character-set.ts'

export type Assertion = 'text-start' | 'text-end' | 'line-start' | 'line-end' | 'word-boundary' | 'no-word-boundary'
export type Expression =
  /** `parts`: characters and ranges that asking it looks at, at most. */
  | { readonly kind: 'character'; readonly has: CharacterSet; readonly parts: number }
  | { readonly kind: 'assert'; readonly what: Assertion }
  | { readonly kind: 'sequence'; readonly parts: readonly Expression[] }
  | { readonly kind: 'choice'; readonly parts: readonly Expression[] }
  | { readonly kind: 'repeat'; readonly of: Expression; readonly least: number; readonly most: number | undefined }

/** RE2's own bounds: of a counted repetition, and of groups in groups. */
const MAX_COUNT = 1000
const MAX_DEPTH = 1000
const MAX_PATTERN = 4096
const EMPTY: Expression = { kind: 'sequence', parts: [] }
const NEWLINE = 10

/** Throws SnapshotterError 'INVALID_ARGUMENT'. */
export function parseExpression(pattern: string): Expression {
  if (pattern.length > MAX_PATTERN)
    throw new SnapshotterError(
      'INVALID_ARGUMENT',
      `a regular expression of ${pattern.length} characters, more than ${MAX_PATTERN}: invalid argument`,
    )
  return new Parser(pattern).whole()
}

interface Flags {
  readonly i: boolean
  readonly m: boolean
  readonly s: boolean
}

class Parser {
  readonly #text: string
  #at = 0
  #depth = 0
  #flags: Flags = { i: false, m: false, s: false }

  constructor(text: string) {
    this.#text = text
  }

  whole(): Expression {
    const expression = this.#choice()
    if (this.#at < this.#text.length) this.#fail('unexpected )')
    return expression
  }

  #choice(): Expression {
    this.#depth += 1
    if (this.#depth > MAX_DEPTH) this.#fail('expression nests too deeply')
    const parts = [this.#sequence()]
    while (this.#eat('|')) parts.push(this.#sequence())
    this.#depth -= 1
    return parts.length === 1 ? (parts[0] ?? EMPTY) : { kind: 'choice', parts }
  }

  #sequence(): Expression {
    const parts: Expression[] = []
    while (this.#at < this.#text.length && this.#text[this.#at] !== '|' && this.#text[this.#at] !== ')') {
      if (this.#eat('\\Q')) {
        const start = this.#at
        const literals = this.#literalText()
        const last = literals.pop()
        parts.push(...literals, last === undefined ? EMPTY : this.#repeated(last, start))
        continue
      }
      const start = this.#at
      const atom = this.#atom()
      parts.push(atom === undefined ? EMPTY : this.#repeated(atom, start))
    }
    return { kind: 'sequence', parts }
  }

  #literalText(): Expression[] {
    const end = this.#text.indexOf('\\E', this.#at)
    const literal = this.#text.slice(this.#at, end === -1 ? undefined : end)
    this.#at = end === -1 ? this.#text.length : end + 2
    return Array.from(literal, (character) => this.#literal(character.codePointAt(0) ?? 0))
  }

  #repeated(atom: Expression, start: number): Expression {
    const counts = this.#counts()
    if (counts === undefined) return atom
    this.#eat('?') // lazy or not: whether something matches is the same
    if (this.#counts() !== undefined)
      this.#fail(`invalid nested repetition operator after ${this.#text.slice(start, this.#at)}`)
    return { kind: 'repeat', of: atom, ...counts }
  }

  #counts(): { least: number; most: number | undefined } | undefined {
    if (this.#eat('*')) return { least: 0, most: undefined }
    if (this.#eat('+')) return { least: 1, most: undefined }
    if (this.#eat('?')) return { least: 0, most: 1 }
    const [whole, first, comma, last] = this.#match(/\{(\d{1,9})(?:(,)(\d{1,9})?)?\}/y)
    if (whole === undefined) return undefined
    const least = Number(first)
    const most = comma === undefined ? least : last === undefined ? undefined : Number(last)
    if (least > MAX_COUNT || (most ?? 0) > MAX_COUNT || (most ?? least) < least)
      this.#fail(`invalid repeat count ${whole}`)
    return { least, most }
  }

  /** One thing that can be repeated; undefined for flags, which are none. */
  #atom(): Expression | undefined {
    const character = this.#next()
    switch (character) {
      case '(':
        return this.#group()
      case '[':
        return this.#set()
      case '.':
        return { kind: 'character', has: this.#flags.s ? () => true : (point) => point !== NEWLINE, parts: 1 }
      case '^':
        return { kind: 'assert', what: this.#flags.m ? 'line-start' : 'text-start' }
      case '$':
        return { kind: 'assert', what: this.#flags.m ? 'line-end' : 'text-end' }
      case '\\':
        return this.#escaped()
      case '*':
      case '+':
      case '?':
        return this.#fail(`missing argument to repetition operator ${character}`)
      default:
        return this.#literal(character.codePointAt(0) ?? 0)
    }
  }

  #group(): Expression | undefined {
    const outer = this.#flags
    if (this.#text[this.#at] === '?' && this.#match(/\?P?<\w{1,1000}>/y)[0] === undefined) {
      const [form, on, off, end] = this.#match(/\?([imsU]*)(-[imsU]+)?([:)])/y)
      if (form === undefined) this.#fail('invalid or unsupported Perl syntax: no lookaround, no references')
      this.#setFlags(on ?? '', off ?? '')
      if (end === ')') return undefined
    }
    const expression = this.#choice()
    if (!this.#eat(')')) this.#fail('missing closing )')
    this.#flags = outer
    return expression
  }

  #setFlags(on: string, off: string): void {
    const value = (flag: keyof Flags) => (this.#flags[flag] || on.includes(flag)) && !off.includes(flag)
    this.#flags = { i: value('i'), m: value('m'), s: value('s') }
  }

  #escaped(): Expression {
    if (this.#eat('A')) return { kind: 'assert', what: 'text-start' }
    if (this.#eat('z')) return { kind: 'assert', what: 'text-end' }
    if (this.#eat('b')) return { kind: 'assert', what: 'word-boundary' }
    if (this.#eat('B')) return { kind: 'assert', what: 'no-word-boundary' }
    const set = this.#escapedSet()
    return set === undefined ? this.#literal(this.#escapedPoint()) : this.#character(set)
  }

  /** `\d`, `\pL` and the like, after the backslash; undefined for another escape. */
  #escapedSet(): CharacterSet | undefined {
    const [letter] = this.#match(/[dDsSwW]/y)
    if (letter !== undefined) return namedSet(letter)
    const [whole, sign, short, not, long] = this.#match(/([pP])(?:([A-Za-z])|\{(\^?)(\w{1,64})\})/y)
    if (whole === undefined) return undefined
    const set = unicodeSet(short ?? long ?? '') ?? this.#fail(`invalid character class range: \\${whole}`)
    return (sign === 'P') !== (not === '^') ? negated(set) : set
  }

  #escapedPoint(): number {
    const [, octal, hex, long] = this.#match(
      /(?:(0[0-7]{0,2}|[1-7][0-7]{1,2})|x([\dA-Fa-f]{2})|x\{([\dA-Fa-f]{1,8})\})/y,
    )
    if (octal !== undefined) return Number.parseInt(octal, 8)
    const digits = hex ?? long
    if (digits !== undefined) {
      const point = Number.parseInt(digits, 16)
      return point > 0x10_ffff ? this.#fail('invalid escape sequence') : point
    }
    if (this.#at === this.#text.length) this.#fail('trailing backslash at end of expression')
    const character = this.#next()
    const control = CONTROLS.get(character)
    if (control !== undefined) return control
    if (!/^[!-/:-@[-`{-~]$/.test(character)) this.#fail(`invalid escape sequence: \\${character}`)
    return character.codePointAt(0) ?? 0
  }

  /** After the bracket that opens it. */
  #set(): Expression {
    const isNegated = this.#eat('^')
    const parts: CharacterSet[] = []
    for (let isFirst = true; isFirst || this.#text[this.#at] !== ']'; isFirst = false) {
      if (this.#at >= this.#text.length) this.#fail('missing closing ]')
      parts.push(this.#setPart())
    }
    this.#at += 1
    const set = this.#flags.i ? folded(union(parts)) : union(parts)
    return { kind: 'character', has: isNegated ? negated(set) : set, parts: parts.length }
  }

  #setPart(): CharacterSet {
    const [whole, not, name] = this.#match(/\[:(\^?)(\w{1,16}):\]/y)
    if (whole !== undefined) {
      const set = posixSet(name ?? '') ?? this.#fail(`invalid character class range: ${whole}`)
      return not === '^' ? negated(set) : set
    }
    const start = this.#at
    const set = this.#eat('\\') ? this.#escapedSet() : undefined
    if (set !== undefined) return set
    this.#at = start
    const from = this.#setPoint()
    if (this.#text[this.#at] !== '-' || this.#text[this.#at + 1] === ']') return (point) => point === from
    this.#at += 1
    const to = this.#setPoint()
    if (to < from) this.#fail(`invalid character class range: ${this.#text.slice(start, this.#at)}`)
    return (point) => point >= from && point <= to
  }

  #setPoint(): number {
    if (this.#at >= this.#text.length) this.#fail('missing closing ]')
    return this.#eat('\\') ? this.#escapedPoint() : (this.#next().codePointAt(0) ?? 0)
  }

  #literal(point: number): Expression {
    return this.#character((other) => other === point)
  }

  #character(set: CharacterSet): Expression {
    return { kind: 'character', has: this.#flags.i ? folded(set) : set, parts: 1 }
  }

  #next(): string {
    const character = String.fromCodePoint(this.#text.codePointAt(this.#at) ?? 0)
    this.#at += character.length
    return character
  }

  #eat(text: string): boolean {
    if (!this.#text.startsWith(text, this.#at)) return false
    this.#at += text.length
    return true
  }

  #match(pattern: RegExp): readonly (string | undefined)[] {
    pattern.lastIndex = this.#at
    const found = pattern.exec(this.#text)
    if (found !== null) this.#at += found[0].length
    return found ?? []
  }

  #fail(why: string): never {
    const shown = JSON.stringify(this.#text.slice(0, 80))
    throw new SnapshotterError('INVALID_ARGUMENT', `error parsing regexp ${shown}: ${why}: invalid argument`)
  }
}

const CONTROLS: ReadonlyMap<string, number> = new Map([
  ['a', 7],
  ['t', 9],
  ['n', 10],
  ['v', 11],
  ['f', 12],
  ['r', 13],
])
