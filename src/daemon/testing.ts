/** For this room's tests and those across rooms: a running nydusd, and what a mounted tree looks like. */
import { type ChildProcess, execFile, spawn } from 'node:child_process'
import { createHash } from 'node:crypto'
import { once } from 'node:events'
import { existsSync, lstatSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, readlinkSync, rmSync } from 'node:fs'
import { request } from 'node:http'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { promisify } from 'node:util'
import { listXattrs, unmount } from '../kernel/index.ts'
import { compareNames, escapePath } from '../rafs/index.ts'

const root = join(import.meta.dirname, '../..')
const START_DEADLINE_MS = 60_000

/** The large set of fixtures beside the repository. */
export const SHARED_FIXTURES = join(root, '../shared/fixtures')
/** Why tests of the large set are skipped, or false. */
export const noSharedFixtures: string | false = existsSync(join(SHARED_FIXTURES, 'manifest.json'))
  ? false
  : 'no ../shared/fixtures beside the repository'

/** An answer of the API. */
export interface ApiAnswer {
  readonly status: number
  readonly headers: Readonly<Record<string, unknown>>
  readonly text: string
}

const testdata = join(import.meta.dirname, 'testdata')
const bootstraps = join(import.meta.dirname, '../rafs/testdata')

/** An image of the original's that the project carries, with its data. */
export interface CarriedImage {
  readonly id: string
  readonly bootstrap: string
  readonly tree: string
  readonly blobs: readonly string[]
  /** The bootstrap lay in its blob, after which it must be named. */
  readonly isInlined: boolean
}

export const CARRIED_BLOBS = join(testdata, 'blobs')

export function carriedImages(): CarriedImage[] {
  const list = JSON.parse(readFileSync(join(testdata, 'images.json'), 'utf8')) as CarriedImage[]
  return list.map((image) => ({
    ...image,
    bootstrap: join(bootstraps, `${image.id}.bootstrap`),
    tree: join(bootstraps, image.tree),
  }))
}

/** Throws when there is no such image. */
export function carriedImage(id: string): CarriedImage {
  const found = carriedImages().find((image) => image.id === id)
  if (found === undefined) throw new Error(`no image ${id} in testdata`)
  return found
}

/** One call on a Unix socket. */
export async function callApi(socketPath: string, method: string, path: string, body?: string): Promise<ApiAnswer> {
  const headers = body === undefined ? {} : { 'content-length': Buffer.byteLength(body) }
  const call = request({ socketPath, method, path, headers, agent: false })
  call.end(body)
  const [response] = (await once(call, 'response')) as [import('node:http').IncomingMessage]
  const parts: Buffer[] = []
  for await (const part of response as AsyncIterable<Buffer>) parts.push(part)
  return { status: response.statusCode ?? 0, headers: response.headers, text: Buffer.concat(parts).toString() }
}

/** A folder for one test, with a mount point `mnt` and a cache `cache` in it. Its mounts and itself are gone when it is disposed of. */
export class Scratch implements AsyncDisposable {
  readonly path = mkdtempSync(join(tmpdir(), 'nydusd test '))
  readonly mnt = this.folder('mnt')
  readonly cache = this.folder('cache')
  readonly #daemons: TestDaemon[] = []

  folder(name: string): string {
    const path = join(this.path, name)
    mkdirSync(path)
    return path
  }

  /** Takes over a daemon that is to end with the test, whatever becomes of that. */
  own(daemon: TestDaemon): TestDaemon {
    this.#daemons.push(daemon)
    return daemon
  }

  /** Starts nydusd on `mnt` and waits until its API answers. */
  async nydusd(
    args: readonly string[],
    env: NodeJS.ProcessEnv = {},
    socket: string = join(this.path, 'api.sock'),
  ): Promise<TestDaemon> {
    const [command, rest] = args[0] === 'fuse' ? [['fuse'], args.slice(1)] : [[], args]
    const at = rest.includes('--mountpoint') ? [] : ['--mountpoint', this.mnt]
    const daemon = new TestDaemon([...command, ...at, '--apisock', socket, '--rlimit-nofile', '0', ...rest], socket, {
      cwd: this.path,
      env,
    })
    await this.own(daemon).ready()
    return daemon
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const journals = this.#daemons.flatMap(({ child }) => journalsOf(child.pid ?? 0))
    for (const daemon of this.#daemons) await daemon.kill()
    for (const path of journals) rmSync(path, { force: true }) // whoever is killed leaves it to the next one
    // Who is not root has mounted nothing, and may not unmount either.
    for (let tries = 0; tries < 4 && process.geteuid?.() === 0; tries++) await unmount(this.mnt, true)
    rmSync(this.path, { recursive: true, force: true })
  }
}

/** Where a daemon writes what is in hand of its shared directories; none when it has ended. */
export function journalsOf(pid: number): string[] {
  try {
    return readdirSync(`/proc/${pid}/fd`)
      .map((fd) => readlinkSync(`/proc/${pid}/fd/${fd}`))
      .filter((path) => path.endsWith('.files'))
  } catch {
    return [] // it ends just now
  }
}

/** Runs the program to its end. */
export async function runNydusd(args: readonly string[]): Promise<{ code: number; stdout: string; stderr: string }> {
  const child = launch(args, { cwd: tmpdir(), env: {} })
  const out: Record<'stdout' | 'stderr', string> = { stdout: '', stderr: '' }
  child.stdout?.on('data', (part: Buffer) => (out.stdout += part.toString()))
  child.stderr?.on('data', (part: Buffer) => (out.stderr += part.toString()))
  const [code] = (await once(child, 'close')) as [number]
  return { code, ...out }
}

interface Surroundings {
  readonly cwd: string
  readonly env: NodeJS.ProcessEnv
  /** A built nydusd, in the place of the sources. */
  readonly program?: string
}

function launch(args: readonly string[], { cwd, env, program: built }: Surroundings): ChildProcess {
  const program = ['--disable-warning=ExperimentalWarning', built ?? join(root, 'src/cli/nydusd/index.ts')]
  return spawn(process.execPath, [...program, ...args], {
    stdio: ['ignore', 'pipe', 'pipe'],
    cwd,
    env: { ...process.env, NYDUSD_KEEPER: 'off', ...env },
  })
}

/** A nydusd that runs, from its sources. */
export class TestDaemon {
  readonly child: ChildProcess
  readonly socket: string
  log = ''
  readonly #ended: Promise<[number | null, NodeJS.Signals | null]>

  constructor(args: readonly string[], socket: string, around: Surroundings) {
    this.socket = socket
    this.child = launch(args, around)
    this.child.stderr?.on('data', (part: Buffer) => (this.log += part.toString()))
    this.#ended = once(this.child, 'close') as Promise<[number | null, NodeJS.Signals | null]>
  }

  /** Throws with the log when it ends before. */
  async ready(): Promise<void> {
    const deadline = Date.now() + START_DEADLINE_MS
    for (;;) {
      if (this.child.exitCode !== null || Date.now() > deadline) throw new Error(`nydusd does not run:\n${this.log}`)
      try {
        const { status } = await this.api('GET', '/api/v2/daemon')
        if (status === 200) return
      } catch {
        await sleep(10) // the socket is not there yet
      }
    }
  }

  api(method: string, path: string, body?: unknown): Promise<ApiAnswer> {
    return callApi(
      this.socket,
      method,
      path,
      body === undefined || typeof body === 'string' ? body : JSON.stringify(body),
    )
  }

  async json(path: string): Promise<Record<string, unknown>> {
    return JSON.parse((await this.api('GET', path)).text) as Record<string, unknown>
  }

  /** Its exit code; waits for its end. */
  async ended(): Promise<number | null> {
    return (await this.#ended)[0]
  }

  async stop(): Promise<number | null> {
    this.child.kill('SIGTERM')
    return await this.ended()
  }

  async kill(): Promise<void> {
    this.child.kill('SIGKILL')
    await this.ended()
  }
}

/** Waits until the contexts of so many blobs are kept in a cache: they are fetched beside what is read, so that requests may come until then. */
export async function contextsIn(cache: string, blobs = 1): Promise<void> {
  while (readdirSync(cache).filter((name) => name.endsWith('.blob.meta')).length < blobs) await sleep(20)
}

/** A configuration document of version 1: blobs in a folder, cache in another. */
export function localConfig(blobs: string, cache: string, more: Record<string, unknown> = {}): string {
  return JSON.stringify({
    device: {
      backend: { type: 'localfs', config: { dir: blobs } },
      cache: { type: 'blobcache', config: { work_dir: cache } },
    },
    mode: 'direct',
    ...more,
  })
}

type Entry = Readonly<Record<string, unknown>>

/** Everything below a directory, in the form of the fixtures' trees: every attribute, every xattr, the digest of every byte. */
export function mountedTree(at: string): Entry[] {
  const entries: Entry[] = []
  const firsts = new Map<bigint, string>()
  const base = Buffer.from(at)
  const visit = (path: Buffer): void => {
    const full = Buffer.concat([base, path])
    const info = lstatSync(full, { bigint: true })
    const shown = path.length === 0 ? '/' : escapePath(path)
    entries.push({ path: shown, ...describe(full, info), ...linked(shown, info) })
    if (!info.isDirectory()) return
    const names = readdirSync(full, { encoding: 'buffer' })
    for (const name of names) visit(Buffer.concat([path, Buffer.from('/'), name]))
  }
  const linked = (shown: string, info: import('node:fs').BigIntStats): Entry => {
    if (info.isDirectory() || info.nlink < 2n) return {}
    const first = firsts.get(info.ino)
    if (first === undefined || compareNames(rawPath(shown), rawPath(first)) < 0) firsts.set(info.ino, shown)
    return { ino: info.ino }
  }
  visit(Buffer.alloc(0))
  return entries
    .map(({ ino, ...entry }) => {
      const first = typeof ino === 'bigint' ? firsts.get(ino) : undefined
      return first === undefined ? entry : { ...entry, hardlink: first }
    })
    .sort((a, b) => compareNames(rawPath(String(a['path'])), rawPath(String(b['path']))))
}

function rawPath(escaped: string): Buffer {
  return Buffer.from(
    escaped.replaceAll(/%([0-9A-F]{2})/g, (_all, hex: string) => String.fromCharCode(Number.parseInt(hex, 16))),
    'latin1',
  )
}

function describe(full: Buffer, info: import('node:fs').BigIntStats): Entry {
  const seconds =
    info.mtimeNs >= 0n ? info.mtimeNs / 1_000_000_000n : -((-info.mtimeNs + 999_999_999n) / 1_000_000_000n)
  const xattrs = listXattrs(full)
  const base = {
    type: typeOf(info),
    mode: (info.mode & 0o7777n).toString(8).padStart(4, '0'),
    uid: Number(info.uid),
    gid: Number(info.gid),
    mtime: Number(seconds),
    mtime_nsec: Number(info.mtimeNs - seconds * 1_000_000_000n),
    nlink: Number(info.nlink),
    ...(xattrs.length === 0 ? {} : { xattrs: Object.fromEntries(xattrs.map(xattrPair)) }),
  }
  if (info.isFile())
    return { ...base, size: Number(info.size), sha256: createHash('sha256').update(readFileSync(full)).digest('hex') }
  if (info.isDirectory()) return { ...base, size: Number(info.size) }
  if (info.isSymbolicLink())
    return { ...base, size: Number(info.size), target: escapePath(readlinkSync(full, { encoding: 'buffer' })) }
  if (!info.isCharacterDevice() && !info.isBlockDevice()) return base
  const device = info.rdev
  const major = ((device >> 8n) & 0xfffn) | ((device >> 32n) & ~0xfffn)
  const minor = (device & 0xffn) | ((device >> 12n) & ~0xffn)
  return { ...base, rdev: `${major}:${minor}` }
}

function xattrPair({ name, value }: { readonly name: Uint8Array; readonly value: Uint8Array }): [string, string] {
  return [Buffer.from(name).toString('latin1'), Buffer.from(value).toString('base64')]
}

function typeOf(info: import('node:fs').BigIntStats): string {
  if (info.isDirectory()) return 'dir'
  if (info.isSymbolicLink()) return 'symlink'
  if (info.isCharacterDevice()) return 'char'
  if (info.isBlockDevice()) return 'block'
  if (info.isFIFO()) return 'fifo'
  return info.isSocket() ? 'socket' : 'file'
}

/** Differences between a mounted tree and a fixture's, at most twenty; empty when there are none. */
export function treeDifferences(at: string, treeFile: string): string[] {
  const wanted = readFileSync(treeFile, 'utf8')
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line) as Entry)
  const found = new Map(mountedTree(at).map((entry) => [String(entry['path']), entry]))
  const differences: string[] = []
  for (const want of wanted) {
    const path = String(want['path'])
    const entry = found.get(path)
    found.delete(path)
    if (entry === undefined) differences.push(`${path} is missing`)
    else
      for (const key of new Set([...Object.keys(want), ...Object.keys(entry)])) {
        const [a, b] = [canonical(want[key]), canonical(entry[key])]
        if (a !== b) differences.push(`${path}: ${key} is ${b}, wanted ${a}`)
      }
  }
  for (const path of found.keys()) differences.push(`${path} should not be there`)
  return differences.slice(0, 20)
}

/** The same, looked at by another process: this one stays free to serve what is read. Rejects when something cannot be read. */
export async function differencesSeenApart(at: string, treeFile: string): Promise<unknown> {
  const program = ['--disable-warning=ExperimentalWarning', join(testdata, 'compare-tree.ts')]
  const { stdout } = await promisify(execFile)(process.execPath, [...program, at, treeFile])
  return JSON.parse(stdout)
}

function canonical(value: unknown): string {
  if (typeof value !== 'object' || value === null) return JSON.stringify(value) ?? 'absent'
  return JSON.stringify(Object.entries(value).sort(([a], [b]) => (a < b ? -1 : 1)))
}
