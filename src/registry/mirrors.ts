/** Another place with the same blobs. */
export interface Mirror {
  /** `http://` or `https://`, host, port; a path is put before `/v2/`. */
  readonly url: string
  readonly headers?: Readonly<Record<string, string>>
  /** Failures in a row after which it rests; default 5. */
  readonly failureLimit?: number
  /** How long it rests; default 5,000. */
  readonly cooldownMs?: number
}
