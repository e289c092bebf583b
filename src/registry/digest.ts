import { createHash } from 'node:crypto'
import { RegistryError } from './errors.ts'

declare const digest: unique symbol
/** A content digest that was parsed: `sha256:` and 64 hex digits, or `sha512:` and 128. Safe in URLs and file names. */
export type Digest = string & { readonly [digest]: true }

const HEX_LENGTH: Readonly<Record<string, number>> = { sha256: 64, sha512: 128 }
export type DigestAlgorithm = 'sha256' | 'sha512'

/** Gives the digest, or throws RegistryError 'BAD_DIGEST' that shows the offending part. Upper-case hex is refused, as the specification asks. */
export function parseDigest(text: string): Digest {
  const colon = text.indexOf(':')
  const algorithm = text.slice(0, Math.max(colon, 0))
  const wanted = HEX_LENGTH[algorithm]
  if (colon < 1 || wanted === undefined || !Object.hasOwn(HEX_LENGTH, algorithm)) {
    throw new RegistryError('BAD_DIGEST', `cannot use digest ${quote(text)}: it must start with "sha256:" or "sha512:"`)
  }
  const hex = text.slice(colon + 1)
  if (hex.length !== wanted) {
    throw new RegistryError(
      'BAD_DIGEST',
      `cannot use digest ${quote(text)}: ${hex.length} hex digits, ${algorithm} has ${wanted}`,
    )
  }
  if (!/^[0-9a-f]+$/.test(hex)) {
    throw new RegistryError('BAD_DIGEST', `cannot use digest ${quote(text)}: ${quote(hex)} is not lower-case hex`)
  }
  return text as Digest // checked above
}

/** `sha256:` + hex, from the 64 hex digits that Nydus calls a blob id. */
export function sha256Digest(hex: string): Digest {
  return parseDigest(`sha256:${hex}`)
}

export function digestAlgorithm(of: Digest): DigestAlgorithm {
  return of.startsWith('sha512:') ? 'sha512' : 'sha256'
}

/** The hex digits alone. */
export function digestHex(of: Digest): string {
  return of.slice(of.indexOf(':') + 1)
}

/** The digest of these bytes. */
export function digestOf(bytes: Uint8Array, algorithm: DigestAlgorithm = 'sha256'): Digest {
  return `${algorithm}:${createHash(algorithm).update(bytes).digest('hex')}` as Digest // made by the hash itself
}

/** Hashes what flows by; `digest` ends it. */
export class RunningDigest {
  readonly #algorithm: DigestAlgorithm
  readonly #hash: ReturnType<typeof createHash>
  size = 0

  constructor(algorithm: DigestAlgorithm = 'sha256') {
    this.#algorithm = algorithm
    this.#hash = createHash(algorithm)
  }

  update(bytes: Uint8Array): void {
    this.#hash.update(bytes)
    this.size += bytes.length
  }

  /** Call once. */
  digest(): Digest {
    return `${this.#algorithm}:${this.#hash.digest('hex')}` as Digest // made by the hash itself
  }
}

function quote(text: string): string {
  return JSON.stringify(text.length > 100 ? `${text.slice(0, 100)}…` : text)
}
