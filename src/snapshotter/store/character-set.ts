/** Sets of characters that regular expressions name. Source: https://github.com/google/re2/wiki/Syntax. */

/** Whether a code point is in it. */
export type CharacterSet = (point: number) => boolean

const ASCII: ReadonlyMap<string, RegExp> = new Map([
  ['alnum', /^[0-9A-Za-z]$/],
  ['alpha', /^[A-Za-z]$/],
  ['blank', /^[\t ]$/],
  ['digit', /^\d$/],
  ['graph', /^[!-~]$/],
  ['lower', /^[a-z]$/],
  ['print', /^[ -~]$/],
  ['punct', /^[!-/:-@[-`{-~]$/],
  ['space', /^[\t\n\v\f\r ]$/],
  ['upper', /^[A-Z]$/],
  ['word', /^\w$/],
  ['xdigit', /^[\dA-Fa-f]$/],
])

/** `[:name:]`; undefined when there is none of that name. */
export function posixSet(name: string): CharacterSet | undefined {
  if (name === 'ascii') return (point) => point < 0x80
  if (name === 'cntrl') return (point) => point < 0x20 || point === 0x7f
  const pattern = ASCII.get(name)
  return pattern === undefined ? undefined : matching(pattern)
}

/** `\d`, `\s`, `\w` and their opposites; of ASCII, and without the vertical tab. */
export function namedSet(letter: string): CharacterSet {
  const pattern = { d: /^\d$/, s: /^[\t\n\f\r ]$/, w: /^\w$/ }[letter.toLowerCase()] ?? /^$/
  return letter === letter.toLowerCase() ? matching(pattern) : negated(matching(pattern))
}

/** A general category or a script of Unicode; undefined when there is none of that name. */
export function unicodeSet(name: string): CharacterSet | undefined {
  if (name === 'Any') return () => true
  for (const property of ['General_Category', 'Script'])
    try {
      return matching(new RegExp(`^\\p{${property}=${name}}$`, 'u'))
    } catch {
      // There is no such name in this property.
    }
  return undefined
}

export function union(sets: readonly CharacterSet[]): CharacterSet {
  return (point) => sets.some((has) => has(point))
}

export function negated(set: CharacterSet): CharacterSet {
  return (point) => !set(point)
}

/** Upper and lower case alike. */
export function folded(set: CharacterSet): CharacterSet {
  return (point) => {
    if (set(point)) return true
    const character = String.fromCodePoint(point)
    const [upper, lower] = [character.toUpperCase(), character.toLowerCase()]
    return [upper, lower, upper.toLowerCase(), lower.toUpperCase()].some((other) => {
      const folds = other.codePointAt(0) ?? point
      return String.fromCodePoint(folds) === other && set(folds)
    })
  }
}

function matching(pattern: RegExp): CharacterSet {
  return (point) => pattern.test(String.fromCodePoint(point))
}
