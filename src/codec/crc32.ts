import { createRequire } from 'node:module'
import { crc32 as builtin } from 'node:zlib'

let native: ((bytes: Uint8Array, seed: number) => number) | undefined

/** CRC-32 as gzip has it; `seed` continues an earlier call's result. Unsigned. */
export function crc32(bytes: Uint8Array, seed = 0): number {
  native ??= open()
  return native(bytes, seed) >>> 0
}

function open(): (bytes: Uint8Array, seed: number) => number {
  try {
    const library = createRequire(import.meta.url)('@node-rs/crc32') as {
      crc32(bytes: Uint8Array, seed: number): number
    }
    return (bytes, seed) => library.crc32(bytes, seed)
  } catch {
    // No prebuilt library for this platform: Node's own takes three times as long.
    return (bytes, seed) => builtin(bytes, seed)
  }
}
