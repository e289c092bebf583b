/** Readers of a container's files that check every byte: one in the container, one on the host, which measures how long each read takes. */
import { type ChildProcess, spawn } from 'node:child_process'
import { mkdirSync, writeFileSync } from 'node:fs'
import { basename, join } from 'node:path'
import { text } from 'node:stream/consumers'
import type { ReaderReport } from '../kill/reader-worker.ts'
import { dataFiles } from './image-content.ts'
import { until } from './launched.ts'
import type { TestNode } from './node.ts'

const READER = join(import.meta.dirname, '../kill/reader-worker.ts')
/** A digest of all files' digests, read past the page cache. */
const ROUND = 'for f in /data/*; do dd if=$f iflag=direct bs=64k 2>/dev/null | sha256sum; done | sha256sum'

/** A container's command: reads all files again and again, notes each round's digest, and sleeps when told to stop. */
export const READ_ON = [
  '/bin/sh',
  '-c',
  `while [ ! -e /stop ]; do ${ROUND} >> /rounds; done; : > /stopped; exec sleep 1000`,
]

/** What was seen while they read. */
export interface Readings {
  /** Rounds of the reader in the container that were unlike the first. */
  readonly wrongRounds: number
  readonly rounds: number
  /** Of the reader on the host: reads that failed, and reads that gave other bytes. */
  readonly errors: readonly string[]
  readonly wrong: readonly string[]
  /** Milliseconds of the longest read, and when it ended, Unix ms. */
  readonly longestMs: number
  readonly longestUntil: number
}

export class Readers implements AsyncDisposable {
  readonly #node: TestNode
  readonly #container: string
  readonly #right: string
  readonly #child: ChildProcess
  readonly #output: Promise<string>

  private constructor(node: TestNode, container: string, right: string, child: ChildProcess) {
    this.#node = node
    this.#container = container
    this.#right = right
    this.#child = child
    if (child.stdout === null) throw new Error('a reader without output')
    this.#output = text(child.stdout)
  }

  /** The container runs READ_ON, and its image has `dataFiles()`. */
  static async start(node: TestNode, container: string): Promise<Readers> {
    const source = join(node.path, 'source')
    mkdirSync(source, { recursive: true })
    for (const [path, content] of dataFiles()) writeFileSync(join(source, basename(path)), content)
    const right = (await node.cri.exec(container, ROUND)).trim()
    const data = join(node.path, 's/io.containerd.runtime.v2.task/k8s.io', container, 'rootfs/data')
    const args = ['--disable-warning=ExperimentalWarning', READER, data, source]
    return new Readers(node, container, right, spawn(process.execPath, args, { stdio: ['ignore', 'pipe', 'inherit'] }))
  }

  async stop(): Promise<Readings> {
    const run = async (script: string): Promise<string> => await this.#node.cri.exec(this.#container, script)
    await run(': > /stop')
    await until(
      'the end of the reader in the container',
      async () => (await run('[ -e /stopped ] && echo yes')) || undefined,
    )
    const rounds = (await run('cat /rounds')).trim().split('\n')
    this.#child.kill('SIGTERM')
    const report = JSON.parse(await this.#output) as ReaderReport
    const [startedAt, longestMs] = report.slow.reduce((a, b) => (b[1] > a[1] ? b : a), [0, 0])
    return {
      rounds: rounds.length,
      wrongRounds: rounds.filter((round) => round !== this.#right).length,
      errors: report.errors,
      wrong: report.wrong,
      longestMs,
      longestUntil: startedAt + longestMs,
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#child.kill('SIGKILL')
    await this.#output
  }
}
