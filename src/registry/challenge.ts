/** One way in that a registry offers in WWW-Authenticate (RFC 9110 §11.6.1). Scheme and parameter names are lower-case. */
export interface Challenge {
  readonly scheme: string
  readonly parameters: Readonly<Record<string, string>>
}

/** RFC 9110 §5.6.2. */
const TOKEN = /[!#$%&'*+\-.^_`|~0-9A-Za-z]+/y
const TOKEN68 = /[A-Za-z0-9\-._~+/]+=*(?=\s*(?:,|$))/y
const QUOTED = /"((?:[^"\\]|\\.)*)"/y
const MAX_HEADER = 16_384

/**
 * Parses WWW-Authenticate: several challenges in one header, values with commas and equal signs in quotes. What comes after something unreadable
 * is left out; the challenges before it count.
 */
export function parseChallenges(header: string | readonly string[] | undefined): Challenge[] {
  const text = (typeof header === 'string' ? header : (header ?? []).join(', ')).slice(0, MAX_HEADER)
  return new Scanner(text).challenges()
}

class Scanner {
  readonly #text: string
  #at = 0

  constructor(text: string) {
    this.#text = text
  }

  challenges(): Challenge[] {
    const found: Challenge[] = []
    for (;;) {
      this.#skip(/[\s,]*/y)
      const scheme = this.#take(TOKEN)
      if (scheme === undefined) return found
      this.#skip(/[ \t]*/y)
      const parameters: Record<string, string> = {}
      // A token68 (Negotiate) is nothing that we can use, but the next challenge stands behind it.
      if (this.#take(TOKEN68) === undefined) this.#parameters(parameters)
      found.push({ scheme: scheme.toLowerCase(), parameters })
    }
  }

  /** Reads `name=value, …` and stops before a name that is followed by no `=`: that is the next scheme. */
  #parameters(into: Record<string, string>): void {
    for (;;) {
      const start = this.#at
      this.#skip(/[\s,]*/y)
      const name = this.#take(TOKEN)
      this.#skip(/[ \t]*/y)
      if (name === undefined || this.#text[this.#at] !== '=') {
        this.#at = start
        return
      }
      this.#at += 1
      this.#skip(/[ \t]*/y)
      const value = this.#value()
      if (value === undefined) {
        this.#at = this.#text.length
        return
      }
      const key = name.toLowerCase()
      if (!Object.hasOwn(into, key)) Object.defineProperty(into, key, { value, enumerable: true })
    }
  }

  #value(): string | undefined {
    if (this.#text[this.#at] !== '"') return this.#take(TOKEN)
    const quoted = this.#take(QUOTED)
    return quoted?.slice(1, -1).replace(/\\(.)/g, '$1')
  }

  #take(pattern: RegExp): string | undefined {
    pattern.lastIndex = this.#at
    const match = pattern.exec(this.#text)
    if (match === null || match[0] === '') return undefined
    this.#at = pattern.lastIndex
    return match[0]
  }

  #skip(pattern: RegExp): void {
    this.#take(pattern)
  }
}
