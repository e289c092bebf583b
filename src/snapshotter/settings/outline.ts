/**
 * Where the statements of a TOML document stand in its text: for messages with line numbers, and for edits that leave comments and
 * layout alone. The document must be valid: a parser has read it before.
 */
export interface Statement {
  readonly kind: 'table' | 'array-table' | 'key'
  /** The whole path from the root of the document; elements of arrays of tables are counted from 0. */
  readonly path: ReadonlyArray<string | number>
  /** From 1. */
  readonly line: number
  /** Offsets in the text: of the first character, and of the end of the last value or bracket. */
  readonly start: number
  readonly end: number
  /** Of a key: where its value begins; else `end`. */
  readonly valueStart: number
}

/** Every statement, in the order of the text. */
export function outlineToml(text: string): Statement[] {
  return new Outline(text).read()
}

class Outline {
  readonly #text: string
  readonly #statements: Statement[] = []
  /** How many elements an array of tables has so far. */
  readonly #counts = new Map<string, number>()
  #table: ReadonlyArray<string | number> = []
  #at = 0
  #line = 1

  constructor(text: string) {
    this.#text = text
  }

  read(): Statement[] {
    for (this.#skipBlank(); this.#at < this.#text.length; this.#skipBlank()) {
      const start = this.#at
      const line = this.#line
      if (this.#text[this.#at] === '[') this.#header(start, line)
      else this.#key(start, line)
      if (this.#at === start) break // no TOML: what was found so far must do
    }
    return this.#statements
  }

  #header(start: number, line: number): void {
    const isArray = this.#text.startsWith('[[', start)
    this.#at += isArray ? 2 : 1
    const names = this.#names()
    this.#at += isArray ? 2 : 1
    this.#table = this.#located(names, isArray)
    const kind = isArray ? 'array-table' : 'table'
    this.#statements.push({ kind, path: this.#table, line, start, end: this.#at, valueStart: this.#at })
  }

  /** The path of a header, with the numbers of the elements that it is in. */
  #located(names: readonly string[], isArray: boolean): Array<string | number> {
    const path: Array<string | number> = []
    for (const [index, name] of names.entries()) {
      path.push(name)
      const id = JSON.stringify(path)
      const count = this.#counts.get(id)
      if (isArray && index === names.length - 1) {
        this.#counts.set(id, (count ?? 0) + 1)
        path.push(count ?? 0)
      } else if (count !== undefined) path.push(count - 1)
    }
    return path
  }

  #key(start: number, line: number): void {
    const path = [...this.#table, ...this.#names()]
    this.#skipSpaces()
    this.#at++ // the equals sign
    this.#skipSpaces()
    const valueStart = this.#at
    const end = this.#skipValue()
    this.#statements.push({ kind: 'key', path, line, start, end, valueStart })
  }

  /** `a . "b c".'d'` */
  #names(): string[] {
    const names: string[] = []
    for (;;) {
      this.#skipSpaces()
      names.push(this.#name())
      this.#skipSpaces()
      if (this.#text[this.#at] !== '.') return names
      this.#at++
    }
  }

  #name(): string {
    const quote = this.#text[this.#at]
    const from = this.#at
    if (quote !== '"' && quote !== "'") {
      while (/[A-Za-z0-9_-]/.test(this.#text[this.#at] ?? '')) this.#at++
      return this.#text.slice(from, this.#at)
    }
    this.#skipString()
    const inner = this.#text.slice(from + 1, this.#at - 1)
    return quote === "'" ? inner : unescaped(inner)
  }

  /** To the end of a value, which is given: brackets and strings hide line ends. */
  #skipValue(): number {
    let depth = 0
    let end = this.#at
    while (this.#at < this.#text.length) {
      const letter = this.#text[this.#at] ?? ''
      if (letter === '"' || letter === "'") this.#skipString()
      else if (letter === '#') {
        this.#skipComment()
        continue
      } else if (letter === '\n') {
        if (depth === 0) return end
        this.#line++
        this.#at++
        continue
      } else {
        if (letter === '[' || letter === '{') depth++
        if (letter === ']' || letter === '}') depth--
        this.#at++
      }
      if (letter !== ' ' && letter !== '\t' && letter !== '\r') end = this.#at
    }
    return end
  }

  #skipString(): void {
    const quote = this.#text[this.#at] ?? ''
    const isLong = this.#text.startsWith(quote.repeat(3), this.#at)
    const fence = isLong ? quote.repeat(3) : quote
    this.#at += fence.length
    while (this.#at < this.#text.length && !this.#text.startsWith(fence, this.#at)) {
      const length = quote === '"' && this.#text[this.#at] === '\\' ? 2 : 1
      if (this.#text.slice(this.#at, this.#at + length).includes('\n')) this.#line++
      this.#at += length
    }
    this.#at += fence.length
    // Two more quotes may belong to the string itself.
    if (isLong) for (let more = 0; more < 2 && this.#text[this.#at] === quote; more++) this.#at++
  }

  #skipBlank(): void {
    for (; this.#at < this.#text.length; this.#at++) {
      const letter = this.#text[this.#at]
      if (letter === '#') this.#skipComment()
      if (this.#text[this.#at] === '\n') this.#line++
      else if (!/[\s\uFEFF]/.test(this.#text[this.#at] ?? '')) return
    }
  }

  #skipSpaces(): void {
    while (this.#text[this.#at] === ' ' || this.#text[this.#at] === '\t') this.#at++
  }

  #skipComment(): void {
    const end = this.#text.indexOf('\n', this.#at)
    this.#at = end < 0 ? this.#text.length : end
  }
}

/** JSON has all escapes of TOML's one-line strings but these. */
function unescaped(inner: string): string {
  const json = inner
    .replace(/\\U([0-9A-Fa-f]{8})/g, (_all, hex: string) =>
      String.fromCodePoint(Math.min(Number.parseInt(hex, 16), 0x10ffff)),
    )
    .replace(/\\e/g, '\\u001b')
    .replaceAll('\t', '\\t')
  try {
    return String(JSON.parse(`"${json}"`))
  } catch {
    return inner // no TOML after all: the name as it is written
  }
}
