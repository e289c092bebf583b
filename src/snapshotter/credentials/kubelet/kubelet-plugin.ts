import { join } from 'node:path'
import { JoinedWork } from '../../joined-work.ts'
import { askProgram } from '../../ask-program.ts'
import type { Credential } from '../credential.ts'
import { matchesImage } from '../image-globs.ts'
import { type AnswerScope, parsePluginAnswer } from './plugin-answer.ts'
import { EXCHANGE_VERSION, type PluginConfig } from './plugin-config.ts'

export interface PluginLogins {
  readonly logins: ReadonlyMap<string, Credential>
  /** Milliseconds since 1970; 0 when it is not to be kept. */
  readonly expiresAtMs: number
}

export interface PluginOptions {
  readonly directory: string
  /** The kubelet waits a minute. */
  readonly timeoutMs: number
  readonly env: NodeJS.ProcessEnv
}

const MAX_ANSWER_BYTES = 4 << 20
const MAX_KEPT = 500
const EVERYTHING = '<global>'

/** A plugin of the kubelet and what it answered lately. One process a plugin and image at a time, however many ask. */
export class KubeletPlugin {
  readonly #config: PluginConfig
  readonly #options: PluginOptions
  /** By image, registry or {@link EVERYTHING}; the oldest first. */
  readonly #kept = new Map<string, PluginLogins>()
  readonly #asked = new JoinedWork<PluginLogins | undefined>()

  constructor(config: PluginConfig, options: PluginOptions) {
    this.#config = config
    this.#options = options
  }

  get name(): string {
    return this.#config.name
  }

  serves(image: string): boolean {
    return this.#config.matchImages.some((pattern) => matchesImage(pattern, image))
  }

  /** `image` has no tag, as the kubelet asks. An answer that lasts until `validUntilMs` is taken from what is kept. Undefined when the plugin has none. */
  async logins(image: string, validUntilMs: number, signal: AbortSignal): Promise<PluginLogins | undefined> {
    const kept = this.#keptFor(image)
    if (kept !== undefined && kept.expiresAtMs > validUntilMs) return kept
    try {
      return (await this.#asked.do(image, (all) => this.#ask(image, all), signal)) ?? kept
    } catch (error) {
      if (kept !== undefined && !signal.aborted) return kept // it holds for a while yet
      throw error
    }
  }

  #keptFor(image: string): PluginLogins | undefined {
    for (const key of [image, registryOf(image), EVERYTHING]) {
      const kept = this.#kept.get(key)
      if (kept === undefined) continue
      if (kept.expiresAtMs > Date.now()) return kept
      this.#kept.delete(key)
    }
    return undefined
  }

  async #ask(image: string, signal: AbortSignal): Promise<PluginLogins | undefined> {
    const { name, args, env, defaultCacheMs } = this.#config
    const text = await askProgram({
      command: join(this.#options.directory, name),
      args,
      env: { ...this.#options.env, ...Object.fromEntries(env.map((entry) => [entry.name, entry.value])) },
      input: JSON.stringify({ kind: 'CredentialProviderRequest', apiVersion: EXCHANGE_VERSION, image }),
      timeoutMs: this.#options.timeoutMs,
      maxBytes: MAX_ANSWER_BYTES,
      signal,
    })
    const answer = parsePluginAnswer(text, name)
    if (answer.logins === undefined) return undefined
    const lifeMs = answer.cacheMs ?? defaultCacheMs
    const found = { logins: answer.logins, expiresAtMs: lifeMs === 0 ? 0 : Date.now() + lifeMs }
    if (lifeMs > 0) this.#keep(keyOf(answer.scope, image), found)
    return found
  }

  #keep(key: string, found: PluginLogins): void {
    this.#kept.delete(key)
    this.#kept.set(key, found)
    const [oldest] = this.#kept.keys()
    if (this.#kept.size > MAX_KEPT && oldest !== undefined) this.#kept.delete(oldest)
  }
}

function keyOf(scope: AnswerScope, image: string): string {
  switch (scope) {
    case 'Image':
      return image
    case 'Registry':
      return registryOf(image)
    case 'Global':
      return EVERYTHING
    default:
      return scope satisfies never
  }
}

function registryOf(image: string): string {
  return image.split('/', 1)[0] ?? ''
}
