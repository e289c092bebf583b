/**
 * Upstream's API words errors of JSON bodies as its parser does, with line and column, and clients' tests compare them. This finds out what is wrong with a text
 * that `JSON.parse` refused, or with one whose members have the wrong type.
 */

/** What is wrong, and where: columns count from 1, and a column is the number of characters of its line that were read. */
export interface JsonFault {
  readonly what: string
  readonly line: number
  readonly column: number
}

/** `ParseBody(Error("…", line: 1, column: 2))`. */
export function faultText(fault: JsonFault): string {
  return `ParseBody(Error(${JSON.stringify(fault.what)}, line: ${fault.line}, column: ${fault.column}))`
}

/** A fault at the end of a text. */
export function faultAtEnd(what: string, text: string): JsonFault {
  return faultAt(what, text, text.trimEnd().length)
}

/** The first fault of a text that is no JSON. */
export function findFault(text: string): JsonFault {
  const scanner = new Scanner(text)
  try {
    scanner.value()
    scanner.space()
    if (scanner.at < text.length) scanner.fail('trailing characters', 1)
  } catch (error) {
    if (error instanceof Fault) return faultAt(error.what, text, error.at)
    throw error
  }
  return faultAtEnd('invalid JSON', text)
}

function faultAt(what: string, text: string, at: number): JsonFault {
  const before = text.slice(0, at)
  const newline = before.lastIndexOf('\n')
  return { what, line: before.split('\n').length, column: at - newline - 1 }
}

class Fault extends Error {
  readonly what: string
  readonly at: number
  constructor(what: string, at: number) {
    super(what)
    this.what = what
    this.at = at
  }
}

const MAX_DEPTH = 128

class Scanner {
  readonly text: string
  at = 0
  #depth = 0

  constructor(text: string) {
    this.text = text
  }

  fail(what: string, ahead = 0): never {
    throw new Fault(what, Math.min(this.at + ahead, this.text.length))
  }

  space(): void {
    while (/[ \t\n\r]/.test(this.text[this.at] ?? '')) this.at++
  }

  value(): void {
    this.space()
    const char = this.text[this.at]
    if (char === undefined) this.fail('EOF while parsing a value')
    if (char === '{') return this.#members('}')
    if (char === '[') return this.#members(']')
    if (char === '"') return this.#string()
    const word = /^(?:true|false|null|-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?)/.exec(this.text.slice(this.at, this.at + 400))
    if (word === null) this.fail(/[tfn]/.test(char) ? 'expected ident' : 'expected value', 1)
    this.at += word[0].length
  }

  #members(end: '}' | ']'): void {
    if (++this.#depth > MAX_DEPTH) this.fail('recursion limit exceeded', 1)
    const kind = end === '}' ? 'an object' : 'a list'
    this.at++
    for (let count = 0; ; count++) {
      this.space()
      const char = this.text[this.at]
      if (char === undefined) this.fail(`EOF while parsing ${kind}`)
      if (char === end && count === 0) break
      if (end === '}') this.#key(char)
      this.value()
      this.space()
      const next = this.text[this.at]
      if (next === undefined) this.fail(`EOF while parsing ${kind}`)
      if (next === end) break
      if (next !== ',') this.fail(`expected \`,\` or \`${end}\``, 1)
      this.at++
    }
    this.#depth--
    this.at++
  }

  #key(char: string): void {
    if (char !== '"') this.fail(char === '}' ? 'trailing comma' : 'key must be a string', 1)
    this.#string()
    this.space()
    const colon = this.text[this.at]
    if (colon === undefined) this.fail('EOF while parsing an object')
    if (colon !== ':') this.fail('expected `:`', 1)
    this.at++
  }

  #string(): void {
    for (this.at++; ; this.at++) {
      const char = this.text[this.at]
      if (char === undefined) this.fail('EOF while parsing a string')
      if (char === '"') break
      if (char < ' ') this.fail('control character (\\u0000-\\u001F) found while parsing a string', 1)
      if (char === '\\') this.at++
    }
    this.at++
  }
}
