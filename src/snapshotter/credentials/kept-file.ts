import { readPrivateFile, writePrivateFile } from './private-file.ts'
import type { CredentialLog } from './provider.ts'

/** A private file that follows something in memory. Changes that come together are one write; the last one is on disk when `flush` resolves. */
export class KeptFile {
  readonly #path: string
  readonly #log: CredentialLog
  readonly #format: () => string
  #writing: Promise<void> = Promise.resolve()
  #isQueued = false

  /** `format` gives the whole text of now. */
  constructor(path: string, log: CredentialLog, format: () => string) {
    this.#path = path
    this.#log = log
    this.#format = format
  }

  /** The list under `images` as it was written last; empty when there is none. What cannot be used is logged (without its text) and is replaced by the next write. */
  async entries(most: number): Promise<Readonly<Record<string, unknown>>[]> {
    let text: string | undefined
    try {
      text = await readPrivateFile(this.#path)
    } catch (error) {
      this.#log.warn(`kept credentials are not used: ${this.#path}: ${(error as Error).message}`)
    }
    if (text === undefined) return []
    const list = imagesOf(text)
    if (list === undefined) {
      this.#log.warn(`kept credentials are not used: ${this.#path} is not what the snapshotter writes`)
      return []
    }
    return list.slice(0, most).filter((entry) => typeof entry === 'object' && entry !== null)
  }

  /** To be called after each change. */
  changed(): void {
    if (this.#isQueued) return
    this.#isQueued = true
    this.#writing = this.#writing.then(async () => {
      this.#isQueued = false
      try {
        await writePrivateFile(this.#path, this.#format())
      } catch (error) {
        this.#log.warn(
          `credentials are not kept across restarts: cannot write ${this.#path}: ${(error as Error).message}`,
        )
      }
    })
  }

  flush(): Promise<void> {
    return this.#writing
  }
}

function imagesOf(text: string): Record<string, unknown>[] | undefined {
  let value: unknown
  try {
    value = JSON.parse(text)
  } catch {
    return undefined // the text holds secrets: neither it nor the parser's message goes further
  }
  const list = (value as { images?: unknown } | null)?.images
  return Array.isArray(list) ? list : undefined
}
