import { spawn } from 'node:child_process'
import { closeSync, mkdirSync, openSync } from 'node:fs'
import { request } from 'node:http'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { processesTold, unmount } from '../../kernel/index.ts'
import { IntegrationError } from '../errors.ts'

const READY_MS = 30_000
const CALL_MS = 30_000
const POLL_MS = 50
/** `sun_path` has 108 bytes with the terminating zero. */
const MAX_SOCKET_PATH = 107

interface Answer {
  readonly status: number
  readonly text: string
}

/** What nydusd says of itself. */
interface Info {
  readonly state?: string
  readonly version?: { readonly package_ver?: string }
  readonly backend_collection?: Readonly<Record<string, unknown>>
}

/**
 * The one nydusd that serves all Nydus images of a driver. It is no part of the driver's life: a driver that is killed or upgraded finds it again by its socket, with its mounts, so that containers go
 * on reading. It looks after its own death (docs/nydusd.md, "When it dies").
 */
export class Nydusd {
  readonly #program: string
  readonly #socket: string
  readonly #mountpoint: string
  readonly #log: string
  #starting: Promise<void> | undefined

  constructor(program: string, directory: string) {
    this.#program = program
    this.#socket = join(directory, 'api.sock')
    this.#mountpoint = join(directory, 'mnt')
    this.#log = join(directory, 'nydusd.log')
    if (Buffer.byteLength(this.#socket) > MAX_SOCKET_PATH)
      throw new IntegrationError(
        'BAD_OPTION',
        `cannot use ${directory}: nydusd's socket in it would have a path of more than ${MAX_SOCKET_PATH} bytes; choose a shorter data root of dockerd`,
      )
    mkdirSync(directory, { recursive: true, mode: 0o700 })
  }

  /** Where an image is seen. */
  place(key: string): string {
    return join(this.#mountpoint, key)
  }

  /** Mounts an image, unless it is mounted. `config` is nydusd's document, which may hold logins. */
  async mount(key: string, bootstrap: string, config: string): Promise<void> {
    await this.#started()
    if ((await this.mounted()).includes(`/${key}`)) return
    const body = JSON.stringify({ source: bootstrap, fs_type: 'rafs', config })
    const { status, text } = await this.#call('POST', `/api/v1/mount?mountpoint=/${key}`, body)
    if (status < 300) return
    throw new IntegrationError(
      'FAILED',
      `nydusd cannot mount the image of layer ${key}: ${messageOf(text)}; its log is ${this.#log}`,
    )
  }

  async unmount(key: string): Promise<void> {
    if (!(await this.mounted()).includes(`/${key}`)) return
    const { status, text } = await this.#call('DELETE', `/api/v1/mount?mountpoint=/${key}`)
    if (status >= 300)
      throw new IntegrationError('FAILED', `nydusd cannot unmount the image of layer ${key}: ${messageOf(text)}`)
  }

  /** Mount points of images, as `/<key>`; none while it does not run. */
  async mounted(): Promise<string[]> {
    return Object.keys((await this.#settled())?.backend_collection ?? {})
  }

  /** Its version and how many images it has, at this moment; undefined while it does not run. */
  async summary(): Promise<{ readonly version: string; readonly images: number } | undefined> {
    const info = await this.#info()
    if (info === undefined) return undefined
    return { version: info.version?.package_ver ?? '', images: Object.keys(info.backend_collection ?? {}).length }
  }

  /** Unmounts all and ends it. */
  async stop(): Promise<void> {
    if ((await this.#settled()) !== undefined) {
      for (const at of await this.mounted()) await this.unmount(at.slice(1))
      await this.#call('PUT', '/api/v1/daemon/exit').catch(() => undefined) // it may end before it has answered
      for (const until = Date.now() + READY_MS; Date.now() < until && (await this.#info()) !== undefined; )
        await delay(POLL_MS)
    }
    await unmount(this.#mountpoint, true)
  }

  async #started(): Promise<void> {
    this.#starting ??= this.#start().finally(() => (this.#starting = undefined))
    await this.#starting
  }

  async #start(): Promise<void> {
    if ((await this.#settled())?.state === 'RUNNING') return
    mkdirDead(this.#mountpoint)
    const log = openSync(this.#log, 'a', 0o600)
    const args = ['--mountpoint', this.#mountpoint, '--apisock', this.#socket, '--log-level', 'info']
    const child = spawn(this.#program, args, { stdio: ['ignore', log, log], detached: true })
    closeSync(log)
    child.unref()
    const ends: string[] = []
    child.once('error', (error) => ends.push(error.message))
    child.once('exit', (code, name) => ends.push(`it ended with ${name ?? `exit code ${code}`}`))
    for (const until = Date.now() + READY_MS; Date.now() < until && ends.length === 0; await delay(POLL_MS))
      if ((await this.#info())?.state === 'RUNNING') return
    throw new IntegrationError(
      'FAILED',
      `nydusd does not run: ${ends[0] ?? `it was not ready within ${READY_MS / 1000} s`}; its log is ${this.#log}`,
    )
  }

  /**
   * As `#info`; of one that died a moment ago when it is back. Its keeper has the same words, and the session that containers stand on: another nydusd in its place would either fail or take their files
   * away.
   */
  async #settled(): Promise<Info | undefined> {
    for (const until = Date.now() + READY_MS; ; await delay(POLL_MS)) {
      const info = await this.#info()
      if (info?.state === 'RUNNING' || Date.now() > until) return info
      if (info === undefined && (await processesTold('--apisock', this.#socket)).length === 0) return undefined
    }
  }

  async #info(): Promise<Info | undefined> {
    try {
      const { status, text } = await this.#call('GET', '/api/v1/daemon')
      return status === 200 ? (JSON.parse(text) as Info) : undefined
    } catch {
      return undefined // nobody answers on the socket
    }
  }

  async #call(method: string, path: string, body?: string): Promise<Answer> {
    return await new Promise((resolve, reject) => {
      const headers = body === undefined ? {} : { 'content-length': Buffer.byteLength(body) }
      const call = request({ socketPath: this.#socket, method, path, headers, timeout: CALL_MS, agent: false })
      call.once('timeout', () => call.destroy(new Error(`nydusd did not answer within ${CALL_MS / 1000} s`)))
      call.once('error', reject)
      call.once('response', (response) => {
        const parts: Buffer[] = []
        response.on('data', (part: Buffer) => parts.push(part))
        response.once('error', reject)
        response.once('end', () => resolve({ status: response.statusCode ?? 0, text: Buffer.concat(parts).toString() }))
      })
      call.end(body)
    })
  }
}

/** A killed nydusd leaves a mount that answers nothing; the next one takes it away. */
function mkdirDead(path: string): void {
  try {
    mkdirSync(path, { mode: 0o711 })
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error
  }
}

function messageOf(text: string): string {
  try {
    return (JSON.parse(text) as { readonly message?: string }).message ?? text
  } catch {
    return text.slice(0, 1000) // not what nydusd writes
  }
}
