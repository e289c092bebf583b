/** Daemons that are killed and replaced again and again, under readers that check every byte. */
import { type ChildProcess, spawn, spawnSync } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { linkSync, mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { TestSupervisor } from '../../src/daemon/handover/test-supervisor.ts'
import { processesIn } from '../../src/daemon/keeper/test-processes.ts'
import { callApi, localConfig, Scratch } from '../../src/daemon/testing.ts'
import type { ReaderReport } from './reader-worker.ts'
import type { WriterReport } from './writer-worker.ts'

export interface Storm {
  /** Programs and their first arguments. */
  readonly nydusd: readonly string[]
  readonly nydusImage: readonly string[]
  readonly kills: number
  readonly upgrades: number
  readonly readers: number
  /** With one or more the image has an overlay, and each changes a directory of its own. */
  readonly writers: number
  readonly megabytes: number
  readonly tell: (line: string) => void
}

/** What the readers and writers saw of one kind of interruption. */
export interface StormReport {
  readonly what: 'kills' | 'upgrades'
  readonly interruptions: number
  readonly reports: readonly ReaderReport[]
  readonly writers: readonly WriterReport[]
  /** For each interruption the longest read, ms; 0 when none took longer than 20 ms. */
  readonly pausesMs: readonly number[]
}

const READER = join(import.meta.dirname, 'reader-worker.ts')
const WRITER = join(import.meta.dirname, 'writer-worker.ts')
const DEADLINE_MS = 60_000
const FILE_BYTES = 1 << 20
/** In the image, of each writer. */
const WRITER_FILES = 150

export async function runStorm(storm: Storm): Promise<StormReport[]> {
  await using field = new Field(storm)
  field.build()
  return [await field.kills(), await field.upgrades()]
}

/** A folder with an image, its mount point, and all processes of the test. */
class Field extends Scratch {
  readonly #storm: Storm
  readonly #image = this.folder('image')
  readonly #source = this.folder('image/read')
  readonly #blobs = this.folder('blobs')
  readonly #bootstrap = join(this.path, 'bootstrap')
  readonly #work = this.folder('work')
  #readers: Array<Told<ReaderReport>> = []
  #writers: Array<Told<WriterReport>> = []

  constructor(storm: Storm) {
    super()
    this.#storm = storm
  }

  build(): void {
    const { megabytes, nydusImage } = this.#storm
    for (let index = 0; index < megabytes; index++)
      writeFileSync(join(this.#source, `large-${index}`), randomBytes(FILE_BYTES + 4096 * index + 17))
    for (let index = 0; index < 100; index++)
      writeFileSync(join(this.#source, `small-${index}`), randomBytes(index * 100))
    for (let writer = 0; writer < this.#storm.writers; writer++) this.#buildFor(this.folder(`image/write${writer}`))
    const [program = '', ...first] = nydusImage
    const args = [
      'create',
      '-l',
      'error',
      '-D',
      this.#blobs,
      '-B',
      this.#bootstrap,
      '--chunk-size',
      '0x10000',
      this.#image,
    ]
    const { status, stderr } = spawnSync(program, [...first, ...args], { encoding: 'utf8' })
    if (status !== 0) throw new Error(`the image cannot be built: ${stderr}`)
  }

  #buildFor(folder: string): void {
    for (let index = 0; index < WRITER_FILES; index++) {
      const path = join(folder, `file ${index}`)
      writeFileSync(path, randomBytes(index * 37))
      if (index % 5 === 0) linkSync(path, `${path} too`)
    }
  }

  async kills(): Promise<StormReport> {
    const socket = join(this.path, 'kills.sock')
    this.#start(socket, [])
    let pid = await this.#answering(socket, 0)
    await this.#mount(socket)
    await until(() => processesIn(this.#work, 'keeper').length > 0)
    this.#startUsers()
    const times: number[] = []
    for (let count = 0; count < this.#storm.kills; count++) {
      await sleep(200 + Math.random() * 400)
      times.push(Date.now())
      process.kill(pid, 'SIGKILL')
      pid = await this.#answering(socket, pid)
      this.#progress('kills', count)
    }
    const report = await this.#end('kills', times)
    process.kill(pid, 'SIGTERM')
    await until(() => processesIn(this.#work, 'keeper').length + processesIn(this.#work, 'daemon').length === 0)
    return report
  }

  async upgrades(): Promise<StormReport> {
    using supervisor = new TestSupervisor(join(this.path, 'supervisor.sock'))
    const args = ['--id', 'storm', '--supervisor', supervisor.path]
    const name = (count: number): string => join(this.path, `api${count}.sock`)
    const put = (socket: string, call: string) => callApi(socket, 'PUT', `/api/v1/daemon/${call}`)
    this.#start(name(0), args)
    let pid = await this.#answering(name(0), 0)
    await this.#mount(name(0))
    this.#startUsers()
    const times: number[] = []
    for (let count = 1; count <= this.#storm.upgrades; count++) {
      const [old, fresh] = [name(count - 1), name(count)]
      await supervisor.fetch(() => put(old, 'fuse/sendfd'))
      this.#start(fresh, [...args, '--upgrade'])
      const next = await this.#answering(fresh, pid)
      const answer = await supervisor.offer(() => put(fresh, 'fuse/takeover'))
      if (answer.status !== 204) throw new Error(answer.text)
      times.push(Date.now())
      await put(old, 'exit')
      await until(() => !processesIn(this.#work, 'daemon').includes(pid))
      await put(fresh, 'start')
      pid = next
      this.#progress('upgrades', count - 1)
      await sleep(Math.random() * 300)
    }
    const report = await this.#end('upgrades', times)
    process.kill(pid, 'SIGTERM')
    await until(() => processesIn(this.#work, 'daemon').length === 0)
    return report
  }

  override async [Symbol.asyncDispose](): Promise<void> {
    for (let tries = 0; tries < 5; tries++) {
      for (const pid of [...processesIn(this.#work, 'keeper'), ...processesIn(this.#work, 'daemon')]) end(pid)
      await sleep(20)
    }
    for (const { child } of [...this.#readers, ...this.#writers]) child.kill('SIGKILL')
    await super[Symbol.asyncDispose]()
  }

  #start(socket: string, args: readonly string[]): void {
    const [program = '', ...first] = this.#storm.nydusd
    const writable = this.#storm.writers > 0 ? ['--writable'] : []
    const common = ['--mountpoint', this.mnt, '--apisock', socket, '--log-level', 'error', ...writable]
    const env = { ...process.env, NYDUSD_KEEPER: 'on' }
    spawn(program, [...first, ...common, ...args], { cwd: this.#work, env, stdio: ['ignore', 'inherit', 'inherit'] })
  }

  /** The process that answers there, another one than `before`. */
  async #answering(socket: string, before: number): Promise<number> {
    let found = 0
    await until(async () => {
      found = processesIn(this.#work, 'daemon').find((pid) => pid !== before) ?? 0
      return found !== 0 && (await callApi(socket, 'GET', '/api/v2/daemon').catch(() => undefined)) !== undefined
    })
    return found
  }

  async #mount(socket: string): Promise<void> {
    const phase = socket.endsWith('kills.sock') ? 'kills' : 'upgrades'
    const cache = join(this.cache, phase)
    mkdirSync(cache)
    const config = this.#storm.writers > 0 ? this.#overlay(cache, phase) : localConfig(this.#blobs, cache)
    const body = { fs_type: 'rafs', source: this.#bootstrap, config }
    const { status, text } = await callApi(socket, 'POST', '/api/v1/mount?mountpoint=/', JSON.stringify(body))
    if (status !== 204) throw new Error(text)
  }

  #overlay(cache: string, phase: string): string {
    return JSON.stringify({
      version: 2,
      backend: { type: 'localfs', localfs: { dir: this.#blobs } },
      cache: { type: 'blobcache', filecache: { work_dir: cache } },
      rafs: {},
      overlay: { upper_dir: this.folder(`upper of ${phase}`), work_dir: this.folder(`work of ${phase}`) },
    })
  }

  #startUsers(): void {
    const { readers, writers } = this.#storm
    const told = <T>(length: number, program: string, folder: (index: number) => string): Array<Told<T>> =>
      Array.from({ length }, (_unused, index) => {
        const places = [this.mnt, this.#image].map((root) => join(root, folder(index)))
        const args = ['--disable-warning=ExperimentalWarning', program, ...places]
        const child = spawn(process.execPath, args, { stdio: ['ignore', 'pipe', 'inherit'] })
        const text = Array.fromAsync(child.stdout as AsyncIterable<Buffer>)
        const report = text.then((parts) => JSON.parse(Buffer.concat(parts).toString()) as T)
        report.catch(() => undefined) // told when the reports are collected; before that the first failure counts
        return { child, report }
      })
    this.#readers = told(readers, READER, () => 'read')
    this.#writers = told(writers, WRITER, (index) => `write${index}`)
  }

  async #end(what: StormReport['what'], times: readonly number[]): Promise<StormReport> {
    await sleep(300)
    const users = [...this.#readers, ...this.#writers]
    for (const { child } of users) child.kill('SIGTERM')
    const reports = await Promise.all(this.#readers.map(({ report }) => report))
    const writers = await Promise.all(this.#writers.map(({ report }) => report))
    for (const { child } of users) if (child.exitCode === null) await once(child, 'exit')
    ;[this.#readers, this.#writers] = [[], []]
    const slow = reports.flatMap((report) => report.slow)
    const pausesMs = times.map((time, index) => {
      const next = times[index + 1] ?? Number.POSITIVE_INFINITY
      return slow.reduce((most, [from, ms]) => (from < next && from + ms > time ? Math.max(most, ms) : most), 0)
    })
    return { what, interruptions: times.length, reports, writers, pausesMs }
  }

  #progress(what: string, count: number): void {
    if ((count + 1) % 10 === 0) this.#storm.tell(`${count + 1} ${what}`)
  }
}

/** A process that uses the mount, and what it tells at its end. */
interface Told<T> {
  readonly child: ChildProcess
  readonly report: Promise<T>
}

function end(pid: number): void {
  try {
    process.kill(pid, 'SIGKILL')
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ESRCH') throw error // it has ended meanwhile
  }
}

async function until(look: () => boolean | Promise<boolean>): Promise<void> {
  const deadline = Date.now() + DEADLINE_MS
  while (!(await look())) {
    if (Date.now() > deadline) throw new Error('a daemon does not come, or does not go')
    await sleep(5)
  }
}
