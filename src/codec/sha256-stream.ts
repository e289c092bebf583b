import { createHash, type Hash } from 'node:crypto'
import { functionsOf, openLibrary } from './native.ts'

/** Pieces from here on are hashed by a thread of Node's pool; smaller ones cost less than the way there. */
const POOL_BYTES = 64 * 1024
/** SHA256_CTX of OpenSSL: 8 words of state, 2 of the length, 16 of data, 2 more; 28 × 4 bytes. */
const CONTEXT_BYTES = 112
const DIGEST_BYTES = 32

/** SHA-256 of bytes that come piece by piece; large ones are hashed beside the calling thread. */
export interface Sha256Stream {
  /** Takes the next bytes. One call at a time; they are to stay as they are until the promise settles. Nothing comes back when they are hashed already. */
  update(bytes: Uint8Array): Promise<void> | void
  /** The digest of all bytes so far; more may follow. Not during a call of `update`. */
  digest(): Buffer
}

/** A new stream: in the OpenSSL of the node binary, else in node:crypto, which hashes on the calling thread. */
export function sha256Stream(): Sha256Stream {
  functions ??= open() ?? 'absent'
  return functions === 'absent' ? new PortableStream() : new NativeStream(functions)
}

type Functions = NonNullable<ReturnType<typeof open>>
let functions: Functions | 'absent' | undefined

/** The node binary exports its OpenSSL. */
function open() {
  return functionsOf(openLibrary(undefined), {
    init: 'int SHA256_Init(uint8_t *context)',
    update: 'int SHA256_Update(uint8_t *context, const uint8_t *data, size_t size)',
    final: 'int SHA256_Final(uint8_t *digest, uint8_t *context)',
  })
}

class NativeStream implements Sha256Stream {
  readonly #functions: Functions
  readonly #context = new Uint8Array(CONTEXT_BYTES)

  constructor(native: Functions) {
    this.#functions = native
    native.init(this.#context)
  }

  update(bytes: Uint8Array): Promise<void> | void {
    const { update } = this.#functions
    if (bytes.length < POOL_BYTES) {
      update(this.#context, bytes, bytes.length)
      return
    }
    return new Promise((resolve, reject) => {
      // What the thread works on: koffi passes addresses on, and keeps nothing alive.
      const kept = [this.#context, bytes]
      update.async(this.#context, bytes, bytes.length, (error: unknown) => {
        kept.length = 0
        if (error === null) resolve()
        else reject(new Error('cannot hash on another thread', { cause: error }))
      })
    })
  }

  digest(): Buffer {
    const digest = Buffer.alloc(DIGEST_BYTES)
    this.#functions.final(digest, this.#context.slice())
    return digest
  }
}

/** Without koffi. */
export class PortableStream implements Sha256Stream {
  readonly #hash: Hash = createHash('sha256')

  update(bytes: Uint8Array): void {
    this.#hash.update(bytes)
  }

  digest(): Buffer {
    return this.#hash.copy().digest()
  }
}
