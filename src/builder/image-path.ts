import { BuilderError } from './errors.ts'

/** Longest name that Linux and every reader take, bytes. */
const MAX_NAME_BYTES = 255

/** Bytes as text that keeps each of them: names of a tree, and digests, are compared and looked up as this. */
export function toKey(bytes: Uint8Array): string {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length).toString('latin1')
}

export function fromKey(key: string): Buffer {
  return Buffer.from(key, 'latin1')
}

/** A name or path for people. */
export function shown(key: string): string {
  return JSON.stringify(fromKey(key).toString('utf8'))
}

/**
 * The components of a path of an archive, below the image's root: `/`, `.` and empty ones fall away. Throws BuilderError 'BAD_SOURCE' for `..` (which a
 * reader of the archive could take for a way out of the image) and for names that no file system takes.
 */
export function imagePath(path: Uint8Array): string[] {
  const names = toKey(path)
    .split('/')
    .filter((name) => name !== '' && name !== '.')
  for (const name of names) {
    if (name === '..')
      throw new BuilderError(
        'BAD_SOURCE',
        `the entry ${shown(toKey(path))} has a ".." in its path; such archives are refused`,
      )
    if (name.length > MAX_NAME_BYTES)
      throw new BuilderError(
        'BAD_SOURCE',
        `the entry ${shown(toKey(path)).slice(0, 120)}… has a name of ${name.length} bytes; ${MAX_NAME_BYTES} are the limit of Linux`,
      )
    if (name.includes('\0'))
      throw new BuilderError('BAD_SOURCE', `the entry ${shown(toKey(path))} has a NUL in its name`)
  }
  return names
}

/** As {@link imagePath}, for paths of an archive one after the other: most archives list siblings together, and what leads to them is taken apart once. */
export class ImagePaths {
  /** How the path before began, up to its last slash, and the components of that. */
  #start = ''
  #directory: readonly string[] = []

  names(path: Uint8Array): readonly string[] {
    const key = toKey(path)
    const nameAt = key.lastIndexOf('/') + 1
    if (nameAt === this.#start.length && key.startsWith(this.#start)) {
      const name = key.slice(nameAt)
      if (isPlain(name)) return [...this.#directory, name]
    }
    const names = imagePath(path)
    if (isPlain(key.slice(nameAt))) {
      this.#start = key.slice(0, nameAt)
      this.#directory = names.slice(0, -1)
    }
    return names
  }
}

/** A component that is taken as it is. */
function isPlain(name: string): boolean {
  return name !== '' && name !== '.' && name !== '..' && name.length <= MAX_NAME_BYTES && !name.includes('\0')
}
