import { BuilderError } from '../errors.ts'

/** No real entry is longer: its attributes may have 64 KiB each. */
const MAX_VALUE_BYTES = 4 * 1024 * 1024
const MAX_DEPTH = 16
const UTF8 = new TextDecoder('utf-8', { fatal: true })
const [QUOTE, BACKSLASH, COMMA, COLON] = [0x22, 0x5c, 0x2c, 0x3a]
const [OPEN_LIST, CLOSE_LIST, OPEN_OBJECT, CLOSE_OBJECT] = [0x5b, 0x5d, 0x7b, 0x7d]

/**
 * The entries of an eStargz table of contents, `{"version": 1, "entries": […]}`, one by one: such a table may have a million, and only the one at hand is in memory. What an entry holds is up to the caller to check.
 * Source: docs/formats/estargz.md, "Table of contents". Throws BuilderError 'BAD_SOURCE' for anything else than JSON of that form and version, with the byte where it goes wrong.
 */
export async function* readTocEntries(stream: AsyncIterable<Uint8Array>): AsyncGenerator {
  const json = new JsonStream(stream)
  let [hasVersion, hasEntries] = [false, false]
  try {
    await json.expect(OPEN_OBJECT)
    for (let isFirst = true; !(await json.skips(CLOSE_OBJECT)); isFirst = false) {
      if (!isFirst) await json.expect(COMMA)
      const key = await json.value()
      await json.expect(COLON)
      if (key === 'version') {
        hasVersion = true
        checkVersion(await json.value())
      } else if (key === 'entries' && !hasEntries) {
        hasEntries = true
        yield* elements(json)
      } else if (typeof key !== 'string' || key === 'entries') throw json.bad('not a table of contents')
      else await json.value()
    }
    await json.expectEnd()
    if (!hasVersion || !hasEntries) throw json.bad(`it has no "${hasVersion ? 'entries' : 'version'}"`)
  } finally {
    await json.close()
  }
}

async function* elements(json: JsonStream): AsyncGenerator {
  await json.expect(OPEN_LIST)
  for (let isFirst = true; !(await json.skips(CLOSE_LIST)); isFirst = false) {
    if (!isFirst) await json.expect(COMMA)
    yield await json.value()
  }
}

function checkVersion(version: unknown): void {
  if (version === 1) return
  throw new BuilderError('BAD_SOURCE', `stargz: unsupported index version ${JSON.stringify(version).slice(0, 80)}`)
}

/** JSON taken value by value. */
class JsonStream {
  readonly #pieces: AsyncIterator<Uint8Array>
  #bytes = Buffer.alloc(0x1_0000)
  #length = 0
  #at = 0
  /** Of the bytes in the stream before those at hand. */
  #before = 0

  constructor(stream: AsyncIterable<Uint8Array>) {
    this.#pieces = stream[Symbol.asyncIterator]()
  }

  bad(why: string): BuilderError {
    return new BuilderError(
      'BAD_SOURCE',
      `the table of contents is no valid eStargz index: at byte ${this.#before + this.#at}: ${why}`,
    )
  }

  async expect(byte: number): Promise<void> {
    if (!(await this.skips(byte))) throw this.bad(`${JSON.stringify(String.fromCharCode(byte))} is missing`)
  }

  /** Passes over that byte, if it is the next one that is no space. */
  async skips(byte: number): Promise<boolean> {
    if ((await this.#peek()) !== byte) return false
    this.#at += 1
    return true
  }

  async expectEnd(): Promise<void> {
    if ((await this.#peek()) !== undefined) throw this.bad('there is more after its end')
  }

  /** The next value, whatever it is. */
  async value(): Promise<unknown> {
    await this.#peek()
    const length = await this.#valueLength()
    const bytes = this.#bytes.subarray(this.#at, this.#at + length)
    let value: unknown
    try {
      value = JSON.parse(UTF8.decode(bytes))
    } catch (cause) {
      throw this.bad(cause instanceof SyntaxError ? cause.message.slice(0, 120) : 'it is not UTF-8')
    }
    this.#at += length
    return value
  }

  async close(): Promise<void> {
    await this.#pieces.return?.()
  }

  async #peek(): Promise<number | undefined> {
    for (;;) {
      for (; this.#at < this.#length; this.#at++) {
        const byte = this.#bytes[this.#at]
        if (byte !== 0x20 && byte !== 0x0a && byte !== 0x0d && byte !== 0x09) return byte
      }
      if (!(await this.#pull())) return undefined
    }
  }

  /** Bytes from here to where the value ends: at its closing bracket or quote, or before what cannot be in a number or word. */
  async #valueLength(): Promise<number> {
    let [depth, isText, isEscaped] = [0, false, false]
    for (let length = 0; ; length++) {
      if (length > MAX_VALUE_BYTES) throw this.bad(`a value of more than ${MAX_VALUE_BYTES} bytes`)
      if (this.#at + length === this.#length && !(await this.#pull())) {
        if (depth > 0 || isText) throw this.bad('it ends in mid-value')
        return length
      }
      const byte = this.#bytes[this.#at + length] ?? 0
      if (isText) {
        if (isEscaped) isEscaped = false
        else if (byte === BACKSLASH) isEscaped = true
        else if (byte === QUOTE) {
          isText = false
          if (depth === 0) return length + 1
        }
      } else if (byte === QUOTE) {
        if (depth === 0 && length > 0) return length
        isText = true
      } else if (byte === OPEN_OBJECT || byte === OPEN_LIST) {
        if (++depth > MAX_DEPTH) throw this.bad(`values ${MAX_DEPTH} deep in each other`)
      } else if (byte === CLOSE_OBJECT || byte === CLOSE_LIST) {
        if (depth === 0) return length
        if (--depth === 0) return length + 1
      } else if (depth === 0 && (byte === COMMA || byte === COLON || byte <= 0x20)) return length
    }
  }

  async #pull(): Promise<boolean> {
    const { done, value } = await this.#pieces.next()
    if (done === true) return false
    const left = this.#length - this.#at
    const from = this.#bytes
    // Grows by doubling: a value may come in many pieces.
    if (left + value.length > from.length) this.#bytes = Buffer.alloc(Math.max(left + value.length, 2 * from.length))
    from.copy(this.#bytes, 0, this.#at, this.#length)
    this.#bytes.set(value, left)
    this.#length = left + value.length
    this.#before += this.#at
    this.#at = 0
    return true
  }
}
