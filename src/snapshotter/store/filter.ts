/** containerd's filters of lists: a comma-separated list of selectors `field op value` that must all match. Source: containerd's pkg/filters; docs/formats/snapshot-store.md, "Filters". */
import { SnapshotterError } from '../errors.ts'
import type { Snapshot } from '../snapshot.ts'
import { compileRegularExpression } from './regular-expression.ts'

type Matcher = (snapshot: Snapshot) => boolean
type Operator = '?' | '==' | '!=' | '~='

/** Filters of one call, and characters of one; containerd itself sends 200. */
const MAX_FILTERS = 256
const MAX_FILTER = 65_536

/** Matches what any of the filters matches; without filters, everything. Throws SnapshotterError 'INVALID_ARGUMENT' with the place in the text. */
export function parseFilters(filters: readonly string[]): Matcher {
  if (filters.length > MAX_FILTERS)
    throw new SnapshotterError(
      'INVALID_ARGUMENT',
      `${filters.length} filters, more than ${MAX_FILTERS}: invalid argument`,
    )
  const matchers = filters.map(parseFilter)
  return (snapshot) => matchers.length === 0 || matchers.some((matches) => matches(snapshot))
}

function parseFilter(text: string): Matcher {
  if (text === '') return () => true
  if (text.length > MAX_FILTER)
    throw new SnapshotterError(
      'INVALID_ARGUMENT',
      `a filter of ${text.length} characters, more than ${MAX_FILTER}: invalid argument`,
    )
  const selectors = new Parser(text).parse()
  return (snapshot) => selectors.every((matches) => matches(snapshot))
}

const SPACE = /\s*/y
const FIELD = /[A-Za-z0-9_]+/y
const OPERATOR = /[=!~]+/y
const VALUE = /[^\s,\p{C}]+/uy

const NUMERIC = /\\(?:([0-3][0-7]{2})|x([\dA-Fa-f]{2})|u([\dA-Fa-f]{4})|U([\dA-Fa-f]{8}))/y

/** Reads one filter from left to right. */
class Parser {
  readonly #text: string
  #at = 0

  constructor(text: string) {
    this.#text = text
  }

  parse(): Matcher[] {
    const selectors = [this.#selector()]
    while (this.#skipSpace() < this.#text.length) {
      if (this.#text[this.#at] !== ',') this.#fail('unexpected input')
      this.#at += 1
      selectors.push(this.#selector())
    }
    return selectors
  }

  #selector(): Matcher {
    const field = fieldOf(this.#fieldPath())
    this.#skipSpace()
    if (this.#at === this.#text.length || this.#text[this.#at] === ',')
      return (snapshot) => field(snapshot) !== undefined
    const operator = this.#operator()
    return matcher(field, operator, this.#value(operator))
  }

  #fieldPath(): string[] {
    const path = [this.#field()]
    while (this.#text[this.#skipSpace()] === '.') {
      this.#at += 1
      path.push(this.#field())
    }
    return path
  }

  #field(): string {
    this.#skipSpace()
    if (this.#text[this.#at] === '"') return this.#quoted()
    return this.#take(FIELD) ?? this.#fail('expected field or quoted')
  }

  #operator(): Exclude<Operator, '?'> {
    const start = this.#at
    const found = this.#take(OPERATOR) ?? this.#fail('expected an operator ("=="|"!="|"~=")')
    if (found === '==' || found === '!=' || found === '~=') return found
    this.#at = start
    return this.#fail(`unsupported operator ${JSON.stringify(found)}`)
  }

  #value(operator: Operator): string {
    const quote = this.#text[this.#skipSpace()]
    if (quote === '"' || (operator === '~=' && (quote === '/' || quote === '|'))) return this.#quoted()
    if (quote === '/' || quote === '|') return this.#fail('invalid quote encountered')
    return this.#take(VALUE) ?? this.#fail('expected value or quoted')
  }

  /** A text in quotes, with Go's escapes. Bytes of `\x` and octal escapes make UTF-8 together. */
  #quoted(): string {
    const quote = this.#text[this.#at] ?? ''
    const start = this.#at
    const bytes: Buffer[] = []
    this.#at += 1
    for (;;) {
      const next = this.#text[this.#at]
      if (next === undefined || next === '\n') {
        this.#at = start
        return this.#fail('quoted literal not terminated')
      }
      if (next === quote) break
      bytes.push(next === '\\' ? this.#escape(quote) : this.#plain(quote))
    }
    this.#at += 1
    return Buffer.concat(bytes).toString()
  }

  #plain(quote: string): Buffer {
    const start = this.#at
    while (!['\\', '\n', quote, undefined].includes(this.#text[this.#at])) this.#at += 1
    return Buffer.from(this.#text.slice(start, this.#at))
  }

  #escape(quote: string): Buffer {
    const [, octal, hex, short, long] = this.#match(NUMERIC)
    if (octal !== undefined) return Buffer.from([Number.parseInt(octal, 8)])
    if (hex !== undefined) return Buffer.from([Number.parseInt(hex, 16)])
    const unicode = short ?? long
    if (unicode !== undefined) {
      const point = Number.parseInt(unicode, 16)
      return point > 0x10_ffff ? this.#fail('illegal escape sequence') : Buffer.from(String.fromCodePoint(point))
    }
    const letter = this.#text[this.#at + 1] ?? ''
    const plain = letter === quote ? quote : ESCAPES.get(letter)
    if (plain === undefined) return this.#fail('illegal escape sequence')
    this.#at += 2
    return Buffer.from(plain)
  }

  #skipSpace(): number {
    this.#match(SPACE)
    return this.#at
  }

  #take(pattern: RegExp): string | undefined {
    return this.#match(pattern)[0]
  }

  #match(pattern: RegExp): readonly (string | undefined)[] {
    pattern.lastIndex = this.#at
    const found = pattern.exec(this.#text)
    if (found !== null) this.#at += found[0].length
    return found ?? []
  }

  /** As containerd shows it: the character between marks. */
  #fail(why: string): never {
    const before = this.#text.slice(0, this.#at)
    const point = this.#text.codePointAt(this.#at)
    const here = point === undefined ? '' : String.fromCodePoint(point)
    const place = here === '' ? `[${before}]` : `[${before} >|${here}|< ${this.#text.slice(this.#at + here.length)}]`
    throw new SnapshotterError('INVALID_ARGUMENT', `filters: parse error: ${place}: ${why}: invalid argument`)
  }
}

const ESCAPES: ReadonlyMap<string, string> = new Map([
  ['a', '\u0007'],
  ['b', '\b'],
  ['f', '\f'],
  ['n', '\n'],
  ['r', '\r'],
  ['t', '\t'],
  ['v', '\v'],
  ['\\', '\\'],
])

/** The value that a path names in a snapshot; undefined where there is none. */
function fieldOf([first, ...rest]: readonly string[]): (snapshot: Snapshot) => string | undefined {
  const label = rest.join('.')
  switch (first) {
    case 'kind':
      return ({ kind }) => kind
    case 'name':
      return ({ key }) => key
    case 'parent':
      return ({ parent }) => parent
    case 'labels':
      return ({ labels }) => labels.get(label)
    default:
      return () => undefined
  }
}

function matcher(field: (snapshot: Snapshot) => string | undefined, operator: Operator, value: string): Matcher {
  switch (operator) {
    case '?':
      return (snapshot) => field(snapshot) !== undefined
    case '==':
      return (snapshot) => field(snapshot) === value
    case '!=':
      return (snapshot) => field(snapshot) !== value
    case '~=': {
      const expression = compileRegularExpression(value)
      return (snapshot) => expression(field(snapshot) ?? '')
    }
    default:
      return operator satisfies never
  }
}
