/** For tests of this room and others: a snapshotter's directory with layers of images that the project carries, and daemons that serve them. */
import assert from 'node:assert/strict'
import { type ChildProcess, fork, spawn } from 'node:child_process'
import { once } from 'node:events'
import {
  chmodSync,
  copyFileSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { CARRIED_BLOBS, type CarriedImage, carriedImage } from '../../src/daemon/testing.ts'
import { readMountInfoNow, whyNoFuse } from '../../src/kernel/index.ts'
import { NYDUS_BOOTSTRAP } from '../../src/snapshotter/labels.ts'
import type { Labels, Snapshot } from '../../src/snapshotter/snapshot.ts'
import { SnapshotStore } from '../../src/snapshotter/store/index.ts'
import {
  type CredentialLookup,
  type DaemonSettings,
  type ImageRequest,
  Images,
  type MountedImage,
} from '../../src/snapshotter/daemons/index.ts'
import { detach } from '../../src/snapshotter/daemons/places.ts'

const project = join(import.meta.dirname, '../..')
/** Why tests with daemons cannot run, or false. */
export const skip: string | false =
  whyNoFuse() ?? (existsSync(join(project, 'dist/nydusd.cjs')) ? false : 'dist/ is not built (npm run build)')
export const PLENTY_MS = 120_000
const peers = process.env['NYDUS_PEER_DIR'] ?? ''
/** nydusd of this project, and the original. */
export const OURS = join(project, 'bin/nydusd')
export const PEER = join(peers, 'nydusd')
export const skipPeer: string | false = skip || (peers === '' ? 'NYDUS_PEER_DIR is not set' : false)

/** Images without logins. */
export const NOBODY: CredentialLookup = { find: async () => undefined }

export interface FieldOptions {
  readonly mode: 'shared' | 'dedicated' | 'none'
  readonly recover?: DaemonSettings['daemon']['recoverPolicy']
  /** A nydusd; ours by default. */
  readonly nydusd?: string
  readonly root?: string
  readonly startupTimeoutMs?: number
  readonly hangTimeoutMs?: number
  readonly template?: object
}

/** Asks until there is an answer; throws with `what`, which may tell how things are then, after the deadline. */
export async function until<T>(
  what: string | (() => string),
  ask: () => Promise<T | undefined> | T | undefined,
): Promise<T> {
  const deadline = performance.now() + PLENTY_MS
  while (performance.now() < deadline) {
    const answer = await ask()
    if (answer !== undefined) return answer
    await sleep(20)
  }
  throw new Error(`${typeof what === 'string' ? what : what()} did not come to be`)
}

export class Field implements AsyncDisposable {
  readonly path: string
  readonly lines: string[] = []
  readonly settings: DaemonSettings
  store: SnapshotStore | undefined
  images: Images | undefined
  credentials: CredentialLookup = NOBODY
  readonly #children: ChildProcess[] = []

  constructor(options: FieldOptions) {
    this.path = mkdtempSync(join(tmpdir(), 'daemons-'))
    const root = options.root ?? join(this.path, 'r')
    mkdirSync(root, { recursive: true })
    this.settings = settingsIn(this.path, root, options)
    writeFileSync(this.settings.daemon.configPath, JSON.stringify(options.template ?? LOCAL_TEMPLATE))
    if (options.nydusd === undefined) this.program('nydusd', OURS)
  }

  /** A program of the field. */
  script(name: string, body: string): string {
    const path = join(this.path, name)
    writeFileSync(path, `#!/bin/sh\n${body}\n`)
    chmodSync(path, 0o755)
    return path
  }

  /** A nydusd under another name. */
  program(name: string, nydusd: string): string {
    return this.script(name, `exec '${nydusd}' "$@" $(test "$1" = --version || echo --rlimit-nofile 0)`)
  }

  spawn(program: string, args: readonly string[]): void {
    this.#children.push(spawn(program, args, { stdio: 'ignore' }))
  }

  /** As the snapshotter starts, on what is there. */
  async start(changes: Partial<DaemonSettings> = {}): Promise<Images> {
    this.store = SnapshotStore.open(this.settings.root)
    const line = (level: string) => (message: string) => void this.lines.push(`${level} ${message}`)
    const log = { error: line('error'), warn: line('warn'), info: line('info'), debug: line('debug') }
    const records = { daemons: this.store.records('daemons'), instances: this.store.records('instances') }
    this.images = await Images.start({
      settings: { ...this.settings, ...changes },
      records,
      credentials: this.credentials,
      isThere: (snapshot) => this.store?.find(snapshot.key)?.id === snapshot.id,
      log,
    })
    return this.images
  }

  /** In order; daemons go on. */
  async stop(): Promise<void> {
    await this.images?.stop()
    this.store?.close()
    this.images = undefined
    this.store = undefined
  }

  async restart(changes: Partial<DaemonSettings> = {}): Promise<Images> {
    await this.stop()
    return await this.start(changes)
  }

  /** A layer with an image's bootstrap, as a client unpacks and commits it. */
  layer(image: CarriedImage, name = image.id, labels: Labels = new Map([[NYDUS_BOOTSTRAP, 'true']])): Snapshot {
    assert.ok(this.store)
    const active = this.store.create('active', `extract ${name}`, '', labels)
    const directory = join(this.store.directory(active), 'fs/image')
    mkdirSync(directory, { recursive: true })
    copyFileSync(image.bootstrap, join(directory, 'image.boot'))
    return this.store.commit(name, active.key, labels, { bytes: 0, inodes: 0 })
  }

  request(snapshot: Snapshot, more: Partial<ImageRequest> = {}): ImageRequest {
    assert.ok(this.store)
    return { snapshot, directory: this.store.directory(snapshot), reference: '', labels: snapshot.labels, ...more }
  }

  async ensure(snapshot: Snapshot, more: Partial<ImageRequest> = {}): Promise<MountedImage> {
    assert.ok(this.images)
    return await this.images.ensure(this.request(snapshot, more), AbortSignal.timeout(PLENTY_MS))
  }

  /** Mounts below the field, with the number that the kernel gave each. */
  mounts(): string[] {
    return readMountInfoNow()
      .filter(({ at }) => at.startsWith(`${this.path}/`))
      .map(({ at, device }) => `${at} ${device}`)
  }

  pids(): number[] {
    return (this.images?.list() ?? []).map(({ pid }) => pid).sort((a, b) => a - b)
  }

  /** Reads files past the kernel's memory again and again, in another process. */
  reader(...files: readonly string[]): Reader {
    return this.slowReader(0, ...files)
  }

  /** The same with a pause after each time: what it reads from has next to nothing to do. */
  slowReader(pauseMs: number, ...files: readonly string[]): Reader {
    const child = fork(join(import.meta.dirname, 'read-on-worker.ts'), [String(pauseMs), ...files], {
      execArgv: ['--disable-warning=ExperimentalWarning'],
      stdio: ['ignore', 'inherit', 'inherit', 'ipc'],
    })
    this.#children.push(child)
    return new Reader(child)
  }

  /** A snapshotter in a process of its own, which can be killed. */
  async process(): Promise<ChildProcess> {
    const child = fork(join(import.meta.dirname, 'images-worker.ts'), [JSON.stringify(this.settings)], {
      execArgv: ['--disable-warning=ExperimentalWarning'],
      stdio: ['ignore', 'inherit', 'inherit', 'ipc'],
    })
    this.#children.push(child)
    const [message] = (await once(child, 'message')) as [unknown]
    assert.equal(message, 'started')
    return child
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.stop()
    for (const child of this.#children) child.kill('SIGKILL')
    for (let tries = 0; tries < 100 && this.processes().length > 0; tries++) {
      for (const pid of this.processes())
        try {
          process.kill(pid, 'SIGKILL')
        } catch {
          // it ended
        }
      await sleep(20)
    }
    await this.detachAll()
    rmSync(this.path, { recursive: true, force: true })
  }

  /** nydusd processes and their keepers. */
  daemonProcesses(): number[] {
    return this.processes().filter((pid) => factOf(pid, 'cmdline').split('\0').includes('--apisock'))
  }

  folder(name: string): string {
    const path = join(this.path, name)
    mkdirSync(path)
    return path
  }

  async detachAll(): Promise<void> {
    for (const { at } of readMountInfoNow().reverse()) if (at.startsWith(`${this.path}/`)) await detach(at)
  }

  /** Everybody who was started for this field, those included that only hold something. */
  processes(): number[] {
    const names = (text: string): boolean => text.includes(`${this.path}/`)
    return readdirSync('/proc')
      .filter((name) => /^\d+$/.test(name))
      .map(Number)
      .filter((pid) => pid !== process.pid && (names(factOf(pid, 'cmdline')) || names(factOf(pid, 'environ'))))
  }
}

/** '' when it has ended. */
function factOf(pid: number, file: string): string {
  try {
    return readFileSync(`/proc/${pid}/${file}`, 'utf8')
  } catch {
    return ''
  }
}

/** What reads in another process. */
export class Reader {
  readonly #child: ChildProcess
  readonly #ended: Promise<unknown>
  rounds = 0
  errors: readonly string[] = []

  constructor(child: ChildProcess) {
    this.#child = child
    this.#ended = once(child, 'exit')
    child.on('message', (message: { readonly rounds: number; readonly errors: readonly string[] }) => {
      this.rounds = message.rounds
      this.errors = message.errors
    })
  }

  /** Waits until it has read all files so many times more. */
  async more(rounds: number): Promise<void> {
    const from = this.rounds
    await until('reads', () => (this.rounds >= from + rounds ? true : undefined))
  }

  /** What it saw that it had not seen before: errors, and other bytes. */
  async stop(): Promise<readonly string[]> {
    this.#child.send('stop')
    await this.#ended
    return this.errors
  }
}

const LOCAL_TEMPLATE = {
  device: {
    backend: { type: 'localfs', config: { dir: CARRIED_BLOBS } },
    cache: { type: 'blobcache', config: { work_dir: '/nowhere' } },
  },
  mode: 'direct',
  enable_xattr: true,
  unknown_key: { stays: [1, 2] },
}

function settingsIn(path: string, root: string, options: FieldOptions): DaemonSettings {
  return {
    root,
    daemonMode: options.mode,
    cleanupOnClose: false,
    system: { cpuProfileSeconds: 0 },
    daemon: {
      nydusdPath: options.nydusd ?? join(path, 'nydusd'),
      configPath: join(path, 'nydusd.json'),
      recoverPolicy: options.recover ?? 'restart',
      threads: 0,
      logRotationMib: 100,
      failoverPolicy: 'resend',
      startupTimeoutMs: options.startupTimeoutMs ?? PLENTY_MS,
      hangTimeoutMs: options.hangTimeoutMs ?? 0,
    },
    cgroup: { enable: false, memoryLimitBytes: Number.POSITIVE_INFINITY },
    log: { toStdout: false, level: 'info', dir: join(root, 'logs') },
    cache: { dir: join(root, 'cache'), quotaBytes: Number.POSITIVE_INFINITY },
    image: { publicKeyFile: '', validateSignature: false },
  }
}

/** The image that most tests use, and a file in it that is large enough to take several reads. */
export const IMAGE = carriedImage('v6-tar-none-c64k')
export const OTHER_IMAGE = carriedImage('v5-tar-lz4-sha256')
export const FILE = 'sizes/65536'
