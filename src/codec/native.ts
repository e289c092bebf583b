import { nativeModule } from '../kernel/native-module/index.ts'

interface Foreign {
  (...args: ReadonlyArray<Uint8Array | number | bigint | string>): number | bigint
  /** The same on a thread of Node's pool; the last argument is told the error or null, and the result. Arguments are to be kept alive until then. */
  async(...args: ReadonlyArray<Uint8Array | number | Answer>): void
}
type Answer = (error: unknown, result: number | bigint) => void
interface Library {
  func(prototype: string): Foreign
}

/**
 * Opens a shared library through koffi, or the node binary itself (which carries and exports zstd) for `undefined`. Undefined when it, or koffi, is not
 * here: every caller has a fallback.
 */
export function openLibrary(...names: ReadonlyArray<string | undefined>): Library | undefined {
  for (const name of names) {
    try {
      const koffi = nativeModule() as { load(path: string | null): Library }
      return koffi.load(name ?? null)
    } catch {
      // Not on this machine: the next name, or the fallback, does the work.
    }
  }
  return undefined
}

/** Looks functions up; undefined when one of them is missing. */
export function functionsOf<Name extends string>(
  library: Library | undefined,
  prototypes: Readonly<Record<Name, string>>,
): Record<Name, Foreign> | undefined {
  if (library === undefined) return undefined
  try {
    const found = Object.entries<string>(prototypes).map(([name, prototype]) => [name, library.func(prototype)])
    return Object.fromEntries(found) as Record<Name, Foreign> // one entry a name
  } catch {
    // A library without the symbol counts as absent.
    return undefined
  }
}

let room = new Uint8Array(0)

/** Room in which `size` bytes compressed by zstd or LZ4 fit however badly they compress. */
export function worstCase(size: number): number {
  return size + (size >>> 7) + 1024
}

/**
 * Compresses into `into` when the worst case fits, else into memory of this thread, used again and again: with less room a library gives up although its result would
 * have fitted, and chunks would be stored raw that the original compresses. Gives the length of a result that is smaller than its source and fits, else -1. `compress` gives the
 * bytes that it wrote, or a number below 1.
 */
export function compressedInto(from: Uint8Array, into: Uint8Array, compress: (into: Uint8Array) => number): number {
  const bound = worstCase(from.length)
  const isDirect = into.length >= bound
  if (!isDirect && room.length < bound) room = new Uint8Array(bound)
  const place = isDirect ? into : room
  const length = compress(place)
  if (length < 1 || length >= from.length || length > into.length) return -1
  if (!isDirect) into.set(place.subarray(0, length))
  return length
}
