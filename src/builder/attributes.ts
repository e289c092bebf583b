import { BuilderError } from './errors.ts'
import { imagePath, shown, toKey } from './image-path.ts'

/** What is said of one path. */
export type PathAttributes = ReadonlyMap<string, string>

const SIZE = /^(\d[\d_ ]*(?:\.[\d_ ]+)?)\s*(?:([kmgtpe])(i?))?b?$/i
const UNITS = 'kmgtpe'

/**
 * What a `.nydusattributes` file says of paths, in the syntax of gitattributes: a path (with C-style quotes where it has spaces), then `key=value` words. Paths are no patterns: each names one file of the image.
 */
export class Attributes {
  readonly #items: ReadonlyMap<string, PathAttributes>
  /** External paths, and directories that lead to them. */
  readonly #external = new Set<string>()

  private constructor(items: ReadonlyMap<string, PathAttributes>) {
    this.#items = items
    for (const [path, values] of items) {
      if (values.get('type') !== 'external') continue
      for (let at = path; at !== ''; at = at.slice(0, at.lastIndexOf('/'))) this.#external.add(at)
    }
  }

  static readonly NONE = new Attributes(new Map())

  /** Throws BuilderError 'BAD_OPTION' that names the line. */
  static parse(file: Uint8Array): Attributes {
    const items = new Map<string, PathAttributes>()
    for (const [number, line] of toKey(file).split(/\r?\n/).entries()) {
      const text = line.trim()
      // Macros of git mean nothing here.
      if (text === '' || text.startsWith('#') || text.startsWith('[attr]')) continue
      const names = pathOf(text, number + 1)
      items.set(
        `/${names.path.join('/')}`,
        new Map(
          names.rest
            .split(/[ \t]+/)
            .filter(Boolean)
            .map(pairOf),
        ),
      )
    }
    return new Attributes(items)
  }

  /** `path` as text that keeps its bytes. */
  of(path: string): PathAttributes | undefined {
    return this.#items.get(path)
  }

  /** Whether it, or something below it, is marked as external. */
  isExternal(path: string): boolean {
    return this.#external.has(path)
  }
}

/** Bytes of `4096`, `4KiB`, `4 kB` (4000), `1.5MiB`; undefined for what is no size. */
export function parseSize(text: string): number | undefined {
  const [, digits, unit, binary] = SIZE.exec(text.trim()) ?? []
  if (digits === undefined) return undefined
  const base = unit === undefined ? 1 : (binary === '' ? 1000 : 1024) ** (UNITS.indexOf(unit.toLowerCase()) + 1)
  const size = Math.round(Number(digits.replace(/[_ ]/g, '')) * base)
  return Number.isSafeInteger(size) ? size : undefined
}

function pairOf(word: string): readonly [string, string] {
  const at = word.indexOf('=')
  return at < 0 ? [word, ''] : [word.slice(0, at), word.slice(at + 1)]
}

function pathOf(text: string, line: number): { readonly path: readonly string[]; readonly rest: string } {
  const bad = (why: string): BuilderError => new BuilderError('BAD_OPTION', `line ${line} of the attributes: ${why}`)
  if (text.startsWith('!')) throw bad('a path cannot begin with "!", which git takes for a negation')
  const quoted = /^"((?:[^"\\]|\\.)*)"(?=[ \t]|$)/.exec(text)
  if (text.startsWith('"') && quoted === null) throw bad('a quoted path has no end')
  const word = quoted?.[0] ?? /^[^ \t]+/.exec(text)?.[0] ?? ''
  const names = imagePath(Buffer.from(quoted === null ? word : unquoted(quoted[1] ?? ''), 'latin1'))
  if (names.length === 0) throw bad(`${shown(word)} names the root, which every image has`)
  return { path: names, rest: text.slice(word.length) }
}

const ESCAPES: Readonly<Record<string, string>> = { a: '\x07', b: '\b', f: '\f', n: '\n', r: '\r', t: '\t', v: '\v' }

function unquoted(text: string): string {
  return text.replace(/\\([0-3][0-7]{2}|.)/g, (_whole, escape: string) =>
    escape.length === 3 ? String.fromCharCode(Number.parseInt(escape, 8)) : (ESCAPES[escape] ?? escape),
  )
}
