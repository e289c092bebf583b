import {
  fromDockerConfig,
  parseReference,
  type Reference,
  RegistryClient,
  RegistryError,
  type Repository,
} from '../../registry/index.ts'
import { ExitError } from '../output.ts'

/** Connections of one run; closed together. */
export class Connections implements AsyncDisposable {
  readonly #clients: RegistryClient[] = []

  /** `plainHttp`: 'fallback' tries HTTPS, then HTTP where nobody speaks TLS, as the original does. */
  open(
    reference: Reference,
    options: { readonly insecure: boolean; readonly plainHttp: 'fallback' | 'always' },
  ): Repository {
    const { insecure, plainHttp } = options
    return this.#repository(
      new RegistryClient({ credentials: fromDockerConfig(), skipVerify: insecure, plainHttp }),
      reference,
    )
  }

  /** HTTPS and nothing else, and one try of each request. */
  openOnce(reference: Reference, insecure: boolean): Repository {
    return this.#repository(
      new RegistryClient({
        credentials: fromDockerConfig(),
        skipVerify: insecure,
        plainHttp: 'never',
        retry: { attempts: 1 },
      }),
      reference,
    )
  }

  #repository(client: RegistryClient, reference: Reference): Repository {
    this.#clients.push(client)
    return client.repository(reference)
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await Promise.all(this.#clients.map((client) => client.close()))
  }
}

/** Parses an image's name; `what` is for the message: source, target. */
export function imageName(text: string, what: string): Reference {
  try {
    return parseReference(text)
  } catch (error) {
    if (!(error instanceof RegistryError)) throw error
    throw new ExitError(1, `parse ${what} reference: invalid reference format: ${error.message}`, { cause: error })
  }
}
