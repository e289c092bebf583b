import { type Credential, credentialOf, fieldsOf } from './credential.ts'
import { imageNameOf } from './image-name.ts'
import { KeptFile } from './kept-file.ts'
import type { CredentialLog, CredentialProvider, CredentialRequest, FoundCredential } from './provider.ts'

/** A pull under way. One of its two methods is called, once. */
export interface Pull {
  /** `imageId` is what the runtime calls the image from now on. */
  succeeded(imageId: string): void
  failed(): void
}

const MAX_ENTRIES = 4096

/**
 * What images were pulled with through our socket, by image, kept in a file: after a restart private images can still be mounted. Forgotten when the runtime removes
 * the image.
 */
export class PullCredentials implements CredentialProvider {
  readonly name = 'cri'
  readonly isRenewable = false
  /** The one pulled longest ago first. */
  readonly #entries = new Map<string, Credential>()
  /** What the runtime calls them, of those whose pull has ended. */
  readonly #ids = new Map<string, string>()
  readonly #file: KeptFile

  private constructor(path: string, log: CredentialLog) {
    this.#file = new KeptFile(path, log, () => this.#format())
  }

  static async open(path: string, log: CredentialLog): Promise<PullCredentials> {
    const opened = new PullCredentials(path, log)
    for (const { image, image_id, username, password } of await opened.#file.entries(MAX_ENTRIES)) {
      const credential =
        typeof username === 'string' && typeof password === 'string' ? credentialOf(username, password) : undefined
      if (typeof image !== 'string' || credential === undefined) continue
      opened.#entries.set(image, credential)
      if (typeof image_id === 'string') opened.#ids.set(image, image_id)
    }
    return opened
  }

  async find({ image }: CredentialRequest): Promise<FoundCredential | undefined> {
    const credential = this.#entries.get(image)
    return credential && { credential }
  }

  /**
   * A pull begins: its credentials serve from now on, as its layers are looked at meanwhile. When it fails, what was known before serves again; when it
   * succeeds without any, the image needs none.
   */
  begin(reference: string, credential: Credential | undefined): Pull {
    const image = imageNameOf(reference)
    if (image === undefined) return { succeeded: () => {}, failed: () => {} }
    const before = this.#entries.get(image)
    if (credential !== undefined) this.#set(image, credential)
    return {
      succeeded: (imageId) => {
        // Perhaps another pull of it began since: then that one's count.
        if (this.#entries.get(image) === (credential ?? before)) this.#set(image, credential)
        if (!this.#entries.has(image)) return
        this.#ids.set(image, imageId)
        this.#file.changed()
      },
      failed: () => {
        if (credential !== undefined && this.#entries.get(image) === credential) this.#set(image, before)
      },
    }
  }

  /** `name` is a reference, or what the runtime calls the image. */
  removed(name: string): void {
    const image = imageNameOf(name)
    for (const known of this.#entries.keys())
      if (known === image || (name !== '' && this.#ids.get(known) === name)) this.#set(known, undefined)
  }

  /** Resolves when the file is as the memory. */
  close(): Promise<void> {
    return this.#file.flush()
  }

  #set(image: string, credential: Credential | undefined): void {
    const had = this.#entries.delete(image)
    if (credential !== undefined) this.#entries.set(image, credential)
    else if (!had) return
    else this.#ids.delete(image)
    const [oldest] = this.#entries.keys()
    if (this.#entries.size > MAX_ENTRIES && oldest !== undefined) {
      this.#entries.delete(oldest)
      this.#ids.delete(oldest)
    }
    this.#file.changed()
  }

  /** The file: `{"version":1,"images":[{"image","image_id","username","password"}]}`; a token has an empty user name. */
  #format(): string {
    const images = [...this.#entries].map(([image, credential]) => ({
      image,
      image_id: this.#ids.get(image) ?? '',
      ...fieldsOf(credential),
    }))
    return `${JSON.stringify({ version: 1, images })}\n`
  }
}
