import { hash } from 'node:crypto'
import { createRequire } from 'node:module'

/** Digest of chunks; both 32 bytes. */
export type DigestName = 'blake3' | 'sha256'

/** Hashes whole buffers. */
export interface Digester {
  readonly name: DigestName
  /** Writes the 32 bytes of the digest into `into`. */
  digest(of: Uint8Array, into: Uint8Array): void
}

const sha256: Digester = { name: 'sha256', digest: (of, into) => into.set(hash('sha256', of, 'buffer')) }

let blake3: Digester | undefined

/** The digester of that name. BLAKE3's library is loaded at its first use. */
export function digester(name: DigestName): Digester {
  switch (name) {
    case 'sha256':
      return sha256
    case 'blake3':
      blake3 ??= openBlake3()
      return blake3
    default:
      return name satisfies never
  }
}

function openBlake3(): Digester {
  const library = createRequire(import.meta.url)('@napi-rs/blake-hash') as {
    blake3UrlSafeBase64(of: Uint8Array): string
  }
  return {
    name: 'blake3',
    digest: (of, into) => {
      // The library refuses views of shared memory; those are copied once. It gives text in half the time that a Buffer takes.
      const text = library.blake3UrlSafeBase64(of.buffer instanceof SharedArrayBuffer ? of.slice() : of)
      Buffer.from(into.buffer, into.byteOffset, into.length).write(text, 'base64url')
    },
  }
}
