/** Where the kernel's cache keeps a file. Source: docs/formats/cachefiles.md, "Files". */
const GOLDEN_RATIO = 0x61c8_8647

/** The subdirectory of a volume's directory that has a file, and the file's name there. */
export function cachePlace(
  volumeKey: string,
  cookieKey: string,
): { readonly directory: string; readonly name: string } {
  const volume = Buffer.from(volumeKey)
  const padded = Buffer.alloc(roundUp(volume.length + 2))
  padded[0] = volume.length
  padded.set(volume, 1)
  const hash = fscacheHash(
    fscacheHash(0, padded),
    Buffer.concat([Buffer.from(cookieKey)], roundUp(Buffer.byteLength(cookieKey))),
  )
  return { directory: `@${(hash & 0xff).toString(16).padStart(2, '0')}`, name: `D${cookieKey}` }
}

/** The hash of the kernel's fscache over whole words. */
function fscacheHash(salt: number, data: Buffer): number {
  let [x, y] = [0, salt]
  for (let at = 0; at < data.length; at += 4) {
    x ^= data.readUInt32LE(at)
    y ^= x
    x = rotate(x, 7)
    x = (x + y) | 0
    y = rotate(y, 20)
    y = Math.imul(y, 9)
  }
  return hash32(y ^ hash32(x))
}

function hash32(value: number): number {
  return Math.imul(value, GOLDEN_RATIO) >>> 0
}

function rotate(value: number, bits: number): number {
  return (value << bits) | (value >>> (32 - bits))
}

function roundUp(length: number): number {
  return (length + 3) & ~3
}
