import { readFile } from 'node:fs/promises'
import { SnapshotterError } from '../../errors.ts'
import { askProgram } from '../../ask-program.ts'
import type { ExecLogin, FileOrText, KubeAccess } from './kube-config.ts'

/** What a request to the API server is sent with. */
export interface KubeIdentity {
  /** Value of `Authorization`; undefined for none. */
  readonly authorization: string | undefined
  /** PEM texts of a client certificate. */
  readonly cert: string | undefined
  readonly key: string | undefined
}

const EXEC_TIMEOUT_MS = 60_000
const MAX_ANSWER_BYTES = 1 << 20
/** A token that nearly expires is fetched anew. */
const EXPIRY_MARGIN_MS = 10_000

/** Who we are at the API server, as of now: token files and certificates are read for each request, programs are asked again when what they gave expires or is refused. */
export class KubeLogin {
  readonly #access: KubeAccess
  readonly #env: NodeJS.ProcessEnv
  #given: (KubeIdentity & { readonly untilMs: number }) | undefined

  constructor(access: KubeAccess, env: NodeJS.ProcessEnv) {
    this.#access = access
    this.#env = env
  }

  /** Throws SnapshotterError. */
  async identity(signal: AbortSignal): Promise<KubeIdentity> {
    const { login, certificate } = this.#access
    if (login.kind === 'exec') return await this.#exec(login.exec, signal)
    const cert = certificate && (await contentOf(certificate.cert))
    const key = certificate && (await contentOf(certificate.key))
    return { authorization: await authorizationOf(login), cert, key }
  }

  /** The server did not accept it: a program is asked again. */
  refused(): void {
    this.#given = undefined
  }

  async #exec(exec: ExecLogin, signal: AbortSignal): Promise<KubeIdentity> {
    if (this.#given !== undefined && this.#given.untilMs > Date.now()) return this.#given
    const { apiVersion, command, args } = exec
    const info = { apiVersion, kind: 'ExecCredential', spec: { interactive: false } }
    const text = await askProgram({
      command,
      args,
      env: { ...this.#env, ...exec.env, KUBERNETES_EXEC_INFO: JSON.stringify(info) },
      input: '',
      timeoutMs: EXEC_TIMEOUT_MS,
      maxBytes: MAX_ANSWER_BYTES,
      signal,
    })
    this.#given = parseExecAnswer(text, exec)
    return this.#given
  }
}

async function authorizationOf(login: Exclude<KubeAccess['login'], { kind: 'exec' }>): Promise<string | undefined> {
  switch (login.kind) {
    case 'none':
      return undefined
    case 'token': {
      const token = (await contentOf(login.token)).trim()
      if (!/^[\x21-\x7e]+$/.test(token))
        throw new SnapshotterError('BAD_CONFIG', 'the token for the Kubernetes API is empty, or no token')
      return `Bearer ${token}`
    }
    case 'password':
      return `Basic ${Buffer.from(`${login.username}:${login.password}`).toString('base64')}`
    default:
      return login satisfies never
  }
}

/** Of a certificate, key or token. */
export async function contentOf(of: FileOrText): Promise<string> {
  if ('text' in of) return of.text
  try {
    return await readFile(of.path, 'utf8')
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException
    throw new SnapshotterError('BAD_CONFIG', `cannot read ${of.path} for the Kubernetes API: ${code}`, { cause: error })
  }
}

/** Source: Kubernetes API, `ExecCredential`. None of the text gets into a message. */
function parseExecAnswer(
  text: string,
  { command, apiVersion }: ExecLogin,
): KubeIdentity & { readonly untilMs: number } {
  const bad = (why: string): SnapshotterError =>
    new SnapshotterError('UNAVAILABLE', `cannot use the answer of ${command}: ${why}`)
  let value: unknown
  try {
    value = JSON.parse(text)
  } catch {
    // The text holds a secret: neither it nor the parser's message goes further.
  }
  const answer = value as { apiVersion?: unknown; status?: Readonly<Record<string, unknown>> | null } | null | undefined
  const status = answer?.status
  if (answer?.apiVersion !== apiVersion || typeof status !== 'object' || status === null)
    throw bad(`it is no ExecCredential of ${apiVersion} with a status`)
  const { token, clientCertificateData: cert, clientKeyData: key, expirationTimestamp } = status
  const isToken = typeof token === 'string' && /^[\x21-\x7e]+$/.test(token)
  const isPair = typeof cert === 'string' && typeof key === 'string'
  if (!isToken && !isPair) throw bad('its status has neither a token nor a certificate with its key')
  const expires = typeof expirationTimestamp === 'string' ? Date.parse(expirationTimestamp) : Number.POSITIVE_INFINITY
  if (Number.isNaN(expires)) throw bad('its expirationTimestamp is no time')
  return {
    authorization: isToken ? `Bearer ${token}` : undefined,
    cert: isPair ? cert : undefined,
    key: isPair ? key : undefined,
    untilMs: expires - EXPIRY_MARGIN_MS,
  }
}
