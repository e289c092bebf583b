const ESCAPES: Readonly<Record<string, string>> = {
  '\0': '\\0',
  '\t': '\\t',
  '\n': '\\n',
  '\r': '\\r',
  '"': '\\"',
  '\\': '\\\\',
}

/** A name in quotes, as Rust shows it: text as it is, control characters and what is not UTF-8 as escapes. */
export function quoted(name: Uint8Array): string {
  let text = '"'
  for (let at = 0; at < name.length; ) {
    const [character, length] = characterAt(name, at)
    at += length
    if (character === undefined) text += `\\x${(name[at - 1] ?? 0).toString(16).toUpperCase().padStart(2, '0')}`
    else if (ESCAPES[character] !== undefined) text += ESCAPES[character]
    else if (character !== ' ' && /[\p{C}\p{Z}\p{Grapheme_Extend}]/u.test(character))
      text += `\\u{${character.codePointAt(0)?.toString(16)}}`
    else text += character
  }
  return `${text}"`
}

/** The UTF-8 character at a place, and its length; undefined and 1 for a byte that begins none. */
function characterAt(bytes: Uint8Array, at: number): readonly [string | undefined, number] {
  const first = bytes[at] ?? 0
  const length = first < 0x80 ? 1 : first < 0xe0 ? 2 : first < 0xf0 ? 3 : 4
  try {
    return [STRICT.decode(bytes.subarray(at, at + length)), length]
  } catch {
    // Not UTF-8: names are bytes.
    return [undefined, 1]
  }
}

const STRICT = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true })

const UNESCAPED: Readonly<Record<string, string>> = Object.fromEntries(
  Object.entries(ESCAPES).map(([character, escape]) => [escape.slice(1), character]),
)

/** The name that stands in quotes as {@link quoted} writes it; undefined for anything else. */
export function unquoted(text: string): Buffer | undefined {
  const inside = /^"((?:[^"\\]|\\.)*)"$/s.exec(text)?.[1]
  if (inside === undefined) return undefined
  const parts: Buffer[] = []
  for (const [, plain, hex, point, escape] of inside.matchAll(
    /([^\\]+)|\\(?:x([0-9A-Fa-f]{2})|u\{([0-9a-fA-F]{1,6})\}|(.))/gs,
  )) {
    if (hex !== undefined) parts.push(Buffer.from(hex, 'hex'))
    else if (point !== undefined) {
      const code = Number.parseInt(point, 16)
      if (code > 0x10_ffff) return undefined
      parts.push(Buffer.from(String.fromCodePoint(code)))
    } else {
      const character = plain ?? UNESCAPED[escape ?? '']
      if (character === undefined) return undefined
      parts.push(Buffer.from(character))
    }
  }
  return Buffer.concat(parts)
}
