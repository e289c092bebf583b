import { spawn } from 'node:child_process'
import { readFile } from 'node:fs/promises'
import { homedir } from 'node:os'
import { join } from 'node:path'
import type { Credentials, CredentialSource } from './credentials.ts'
import { ANONYMOUS, decodeBasic } from './credentials.ts'
import { RegistryError } from './errors.ts'
import { isRecord } from './json.ts'
import { Secret } from './secret.ts'

/** Where the Docker client keeps its logins, and how long a credential helper may take. */
export interface DockerConfigOptions {
  /** Folder of `config.json`; by default `$DOCKER_CONFIG`, else `~/.docker`. */
  readonly directory?: string
  /** Default 30,000. */
  readonly helperTimeoutMs?: number
  readonly env?: NodeJS.ProcessEnv
}

interface HelperCall {
  readonly name: string
  readonly server: string
  readonly timeoutMs: number
  readonly env: NodeJS.ProcessEnv
}

/** The name under which the Docker client files Docker Hub. */
const DOCKER_HUB_KEY = 'https://index.docker.io/v1/'
const MAX_CONFIG_BYTES = 4 << 20
const MAX_HELPER_BYTES = 1 << 20
const MAX_HELPER_MS = 30_000
/** What the helpers of Docker print when they have no entry (docker-credential-helpers, `credentials/error.go`). */
const HELPER_HAS_NONE = /credentials not found in native keychain|no credentials server URL/i

/**
 * Logins of the Docker client: `credHelpers`, then `credsStore`, then `auths` of `config.json`, as Docker itself looks them up (but an entry in
 * `auths` is also found when the helper has none). Read anew at each question, so that `docker login` takes effect at once. No file means
 * anonymous; a file that cannot be used is RegistryError 'BAD_CONFIG'.
 */
export function fromDockerConfig(options: DockerConfigOptions = {}): CredentialSource {
  const env = options.env ?? process.env
  const directory = options.directory ?? env['DOCKER_CONFIG'] ?? join(env['HOME'] ?? homedir(), '.docker')
  const path = join(directory, 'config.json')
  return async (host) => {
    const config = await readConfig(path)
    if (config === undefined) return ANONYMOUS
    const name = helperFor(config, host)
    if (name !== undefined) {
      const server = host === 'docker.io' ? DOCKER_HUB_KEY : host
      const found = await askHelper({ name, server, timeoutMs: options.helperTimeoutMs ?? MAX_HELPER_MS, env })
      if (found.kind !== 'anonymous') return found
    }
    return fromAuths(config['auths'], host, path)
  }
}

async function readConfig(path: string): Promise<Record<string, unknown> | undefined> {
  let text: string
  try {
    text = await readFile(path, 'utf8')
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException
    if (code === 'ENOENT' || code === 'ENOTDIR') return undefined // never logged in: anonymous
    throw new RegistryError('BAD_CONFIG', `cannot read ${path}: ${code ?? 'unknown error'}; check its owner and mode`, {
      cause: error,
    })
  }
  if (text.length > MAX_CONFIG_BYTES)
    throw new RegistryError('BAD_CONFIG', `cannot use ${path}: larger than ${MAX_CONFIG_BYTES} bytes`)
  try {
    const config: unknown = JSON.parse(text)
    if (isRecord(config)) return config
  } catch {
    // The parser's message quotes the text, which holds secrets: it goes no further.
  }
  throw new RegistryError('BAD_CONFIG', `cannot use ${path}: it is not a JSON object; repair it or move it away`)
}

/** All names under which a registry may be filed. */
function keysOf(host: string): string[] {
  return host === 'docker.io' ? [DOCKER_HUB_KEY, 'docker.io', 'index.docker.io', 'registry-1.docker.io'] : [host]
}

function helperFor(config: Readonly<Record<string, unknown>>, host: string): string | undefined {
  const helpers = isRecord(config['credHelpers']) ? config['credHelpers'] : {}
  for (const key of keysOf(host)) {
    const helper = Object.hasOwn(helpers, key) ? helpers[key] : undefined
    if (typeof helper === 'string' && helper !== '') return helper
  }
  const store = config['credsStore']
  return typeof store === 'string' && store !== '' ? store : undefined
}

function fromAuths(auths: unknown, host: string, path: string): Credentials {
  if (!isRecord(auths)) return ANONYMOUS
  const keys = keysOf(host)
  const exact = keys.find((key) => Object.hasOwn(auths, key))
  // Old clients filed registries as URLs: https://host/v1/.
  const key =
    exact ?? Object.keys(auths).find((name) => keys.includes(name.replace(/^https?:\/\//, '').replace(/\/.*$/, '')))
  const entry = key === undefined ? undefined : auths[key]
  if (!isRecord(entry)) return ANONYMOUS
  try {
    return fromEntry(entry)
  } catch (error) {
    throw new RegistryError('BAD_CONFIG', `cannot use the entry of ${host} in ${path}: ${(error as Error).message}`, {
      cause: error,
    })
  }
}

function fromEntry(entry: Readonly<Record<string, unknown>>): Credentials {
  const text = (key: string): string => (typeof entry[key] === 'string' ? entry[key] : '')
  if (text('registrytoken') !== '') return { kind: 'registry-token', token: new Secret(text('registrytoken')) }
  const basic = text('auth') === '' ? undefined : decodeBasic(text('auth'))
  const username = basic?.kind === 'basic' ? basic.username : text('username')
  if (text('identitytoken') !== '')
    return { kind: 'identity-token', username, token: new Secret(text('identitytoken')) }
  if (basic !== undefined) return basic
  if (username !== '' && text('password') !== '')
    return { kind: 'basic', username, password: new Secret(text('password')) }
  return ANONYMOUS
}

async function askHelper(call: HelperCall): Promise<Credentials> {
  const program = `docker-credential-${call.name}`
  if (!/^[A-Za-z0-9._-]+$/.test(call.name)) {
    throw new RegistryError(
      'BAD_CONFIG',
      `cannot use credential helper ${JSON.stringify(call.name)}: only letters, digits, ".", "_" and "-" are allowed`,
    )
  }
  const { exitCode, output } = await runHelper(program, call)
  if (exitCode !== 0) {
    if (HELPER_HAS_NONE.test(output)) return ANONYMOUS
    throw new RegistryError(
      'BAD_CONFIG',
      `credential helper ${program} failed for ${call.server} with exit code ${exitCode}; try: echo ${call.server} | ${program} get`,
    )
  }
  return parseHelperOutput(program, output)
}

function parseHelperOutput(program: string, output: string): Credentials {
  let answer: unknown
  try {
    answer = JSON.parse(output)
  } catch {
    // The text holds a secret: neither it nor the parser's message goes further.
  }
  if (!isRecord(answer) || typeof answer['Username'] !== 'string' || typeof answer['Secret'] !== 'string') {
    throw new RegistryError('BAD_CONFIG', `credential helper ${program} gave no JSON object with Username and Secret`)
  }
  const { Username: username, Secret: secret } = answer
  if (username === '' && secret === '') return ANONYMOUS
  // docker-credential-helpers: this user name says that the secret is an identity token.
  if (username === '<token>') return { kind: 'identity-token', username, token: new Secret(secret) }
  return { kind: 'basic', username, password: new Secret(secret) }
}

function runHelper(program: string, call: HelperCall): Promise<{ exitCode: number; output: string }> {
  return new Promise((resolve, reject) => {
    const child = spawn(program, ['get'], { stdio: ['pipe', 'pipe', 'ignore'], env: call.env, detached: true })
    const fail = (why: string, cause?: unknown): void => {
      clearTimeout(timer)
      stopGroup(child.pid)
      child.stdout.destroy() // a child that left the group may hold the other end
      reject(new RegistryError('BAD_CONFIG', `credential helper ${program} ${why}`, { cause }))
    }
    const timer = setTimeout(() => fail(`did not answer within ${call.timeoutMs} ms`), call.timeoutMs)
    const parts: Buffer[] = []
    let size = 0
    child.stdout.on('data', (part: Buffer) => {
      size += part.length
      if (size > MAX_HELPER_BYTES) fail(`printed more than ${MAX_HELPER_BYTES} bytes`)
      else parts.push(part)
    })
    child.on('error', (error: NodeJS.ErrnoException) => {
      fail(
        error.code === 'ENOENT'
          ? 'is not in the PATH; install it, or remove it from config.json'
          : `cannot be started: ${error.code}`,
        error,
      )
    })
    child.on('close', (exitCode) => {
      clearTimeout(timer)
      resolve({ exitCode: exitCode ?? -1, output: Buffer.concat(parts).toString('utf8') })
    })
    child.stdin.on('error', () => {}) // EPIPE of a helper that does not read: its exit code tells.
    child.stdin.end(call.server)
  })
}

/** A helper may be a script with children of its own, which hold the pipe: the whole group goes. */
function stopGroup(pid: number | undefined): void {
  if (pid === undefined) return
  try {
    process.kill(-pid, 'SIGKILL')
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ESRCH') throw error // ESRCH: it has ended already
  }
}
