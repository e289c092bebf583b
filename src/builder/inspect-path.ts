import { Attributes, type Bootstrap, compareNames, type Ino, isType, MODE } from '../rafs/index.ts'

/** Where a path leads. */
export interface FoundPath {
  /** From the root to the directory that holds the entry; to the entry itself when the path ends with `.`, `..` or is the root. */
  readonly directories: readonly Ino[]
  readonly ino: Ino
  /** Empty when the path has no name of it. */
  readonly name: Uint8Array
}

const SLASH = 0x2f

/** Follows a path from the root when it begins with a slash, else from the last of `start`. Symlinks are not followed. Undefined when it leads nowhere. */
export function resolvePath(image: Bootstrap, start: readonly Ino[], path: Uint8Array): FoundPath | undefined {
  const attributes = new Attributes()
  const directories = path[0] === SLASH ? [image.root] : [...start]
  const here = (): Ino => directories.at(-1) ?? image.root
  let last: Pick<FoundPath, 'ino' | 'name'> | undefined
  for (const name of namesOf(path)) {
    if (last !== undefined) {
      image.attributes(last.ino, attributes)
      if (!isType(attributes.mode, MODE.DIRECTORY)) return undefined
      directories.push(last.ino)
      last = undefined
    }
    if (name === '.') continue
    if (name === '..') {
      if (directories.length > 1) directories.pop()
      continue
    }
    const bytes = Buffer.from(name, 'latin1')
    const ino = image.lookup(here(), bytes) ?? listed(image, here(), bytes)
    if (ino === undefined) return undefined
    last = { ino, name: bytes }
  }
  return { directories, ...(last ?? { ino: here(), name: new Uint8Array(0) }) }
}

/** By looking at every entry: the original's chunk dictionaries are found in no other way. */
function listed(image: Bootstrap, directory: Ino, wanted: Uint8Array): Ino | undefined {
  let found: Ino | undefined
  image.list(directory, 0, (name, ino) => {
    if (compareNames(name, wanted) === 0) found = ino
    return found === undefined
  })
  return found
}

/** The names of a path, a character a byte; none for slashes alone. */
function namesOf(path: Uint8Array): string[] {
  return Buffer.from(path)
    .toString('latin1')
    .split('/')
    .filter((name) => name !== '')
}
