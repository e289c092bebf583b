import { type Credential, credentialOf, fieldsOf } from './credential.ts'
import { imageNameOf } from './image-name.ts'
import { KeptFile } from './kept-file.ts'
import type { CredentialLog, CredentialProvider, CredentialRequest, FoundCredential } from './provider.ts'

interface Entry {
  readonly credential: Credential
  /** What the runtime calls the image; '' until its pull has ended. */
  readonly imageId: string
}

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
  readonly #entries = new Map<string, Entry>()
  readonly #file: KeptFile

  private constructor(path: string, log: CredentialLog) {
    this.#file = new KeptFile(path, log, () => formatEntries(this.#entries))
  }

  static async open(path: string, log: CredentialLog): Promise<PullCredentials> {
    const opened = new PullCredentials(path, log)
    for (const { image, image_id, username, password } of await opened.#file.entries(MAX_ENTRIES)) {
      const credential =
        typeof username === 'string' && typeof password === 'string' ? credentialOf(username, password) : undefined
      if (typeof image === 'string' && credential !== undefined)
        opened.#entries.set(image, { credential, imageId: typeof image_id === 'string' ? image_id : '' })
    }
    return opened
  }

  async find({ image }: CredentialRequest): Promise<FoundCredential | undefined> {
    const entry = this.#entries.get(image)
    return entry && { credential: entry.credential }
  }

  /**
   * A pull begins: its credentials serve from now on, as its layers are looked at meanwhile. When it fails, what was known before serves again; when it
   * succeeds without any, the image needs none.
   */
  begin(reference: string, credential: Credential | undefined): Pull {
    const image = imageNameOf(reference)
    if (image === undefined) return { succeeded: () => {}, failed: () => {} }
    const before = this.#entries.get(image)
    const begun = credential && { credential, imageId: before?.imageId ?? '' }
    if (begun !== undefined) this.#set(image, begun)
    return {
      succeeded: (imageId) => {
        // Perhaps another pull of it began since: then that one's count.
        if (this.#entries.get(image) !== (begun ?? before)) return
        this.#set(image, begun && { ...begun, imageId })
      },
      failed: () => {
        if (begun !== undefined && this.#entries.get(image) === begun) this.#set(image, before)
      },
    }
  }

  /** `name` is a reference, or what the runtime calls the image. */
  removed(name: string): void {
    const image = imageNameOf(name)
    for (const [known, { imageId }] of this.#entries)
      if (known === image || (name !== '' && imageId === name)) this.#set(known, undefined)
  }

  /** Resolves when the file is as the memory. */
  close(): Promise<void> {
    return this.#file.flush()
  }

  #set(image: string, entry: Entry | undefined): void {
    const had = this.#entries.delete(image)
    if (entry !== undefined) this.#entries.set(image, entry)
    else if (!had) return
    const [oldest] = this.#entries.keys()
    if (this.#entries.size > MAX_ENTRIES && oldest !== undefined) this.#entries.delete(oldest)
    this.#file.changed()
  }
}

/** The file: `{"version":1,"images":[{"image","image_id","username","password"}]}`; a token has an empty user name. */
function formatEntries(entries: ReadonlyMap<string, Entry>): string {
  const images = [...entries].map(([image, { credential, imageId }]) => ({
    image,
    image_id: imageId,
    ...fieldsOf(credential),
  }))
  return `${JSON.stringify({ version: 1, images })}\n`
}
