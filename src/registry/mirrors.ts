import type { CredentialSource } from './credentials.ts'
import { anonymous } from './credentials.ts'
import { RegistryError } from './errors.ts'
import type { Clock } from './retry.ts'
import { Endpoint } from './endpoint.ts'

/** Another place with the same blobs. */
export interface Mirror {
  /** `http://` or `https://`, host, port; a path is put before `/v2/`. */
  readonly url: string
  readonly headers?: Readonly<Record<string, string>>
  /** Logins for the mirror; by default none: the registry's are not shown to it. */
  readonly credentials?: CredentialSource
  /** Failures in a row after which it rests; default 5. */
  readonly failureLimit?: number
  /** How long it rests; default 5,000. */
  readonly cooldownMs?: number
}

/** A mirror and how well it did lately. */
export class MirrorState {
  readonly endpoint: Endpoint
  readonly #mirror: Mirror
  readonly #clock: Clock
  #failures = 0
  #restsUntil = 0

  constructor(mirror: Mirror, clock: Clock) {
    this.endpoint = Endpoint.at(mirror.url, {
      headers: mirror.headers ?? {},
      credentials: mirror.credentials ?? anonymous(),
    })
    this.#mirror = mirror
    this.#clock = clock
  }

  /** False while it rests. After that one failure sends it to rest again, one success makes it well. */
  get healthy(): boolean {
    const leftMs = this.#restsUntil - this.#clock.now()
    return leftMs <= 0 || leftMs > this.#cooldownMs // somebody set the clock back: it must not rest for as long as that
  }

  get #cooldownMs(): number {
    return this.#mirror.cooldownMs ?? 5_000
  }

  succeeded(): void {
    this.#failures = 0
    this.#restsUntil = 0
  }

  /** Not to have a blob is no illness, nor is a caller who went away. */
  failed(error: unknown): void {
    if (
      error instanceof RegistryError &&
      (error.code === 'NOT_FOUND' || error.code === 'ABORTED' || error.code === 'CLOSED')
    )
      return
    this.#failures += 1
    if (this.#failures >= (this.#mirror.failureLimit ?? 5)) this.#restsUntil = this.#clock.now() + this.#cooldownMs
  }
}
