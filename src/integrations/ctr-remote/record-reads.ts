import { randomBytes } from 'node:crypto'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { ContainerdError } from '../../containerd/index.ts'
import { OpenWatch } from '../../kernel/index.ts'
import {
  hostPlatform,
  type ImageConfig,
  parseImageConfig,
  parseReference,
  selectPlatform,
} from '../../registry/index.ts'
import { IntegrationError } from '../errors.ts'
import { chainIds } from './chain-id.ts'
import { ContainerOutput } from './container-output.ts'
import { runtimeSpec, type ProcessChanges } from './runtime-spec.ts'
import type { Session } from './session.ts'
import { StoreRepository } from './store-repository.ts'

/** A run of an image whose reads are recorded. */
export interface Recording extends ProcessChanges {
  /** The image's record. */
  readonly image: string
  /** It has the image's layers. */
  readonly snapshotter: string
  /** How long it runs at most, unless it ends by itself. */
  readonly periodMs: number
  /** Ends it when a line of its output has this text. */
  readonly waitLine: string | undefined
  /** Gets the container's output as it comes. */
  readonly onOutput: (text: string) => void
}

const CONFIG_LIMIT = 8 * 1024 * 1024
const POLL_MS = 50
const SIGKILL = 9
const SPEC_TYPE = 'types.containerd.io/opencontainers/runtime-spec/1/Spec'
const RUNTIME = 'io.containerd.runc.v2'

/**
 * Runs a container of an image and gives the paths of the files that were opened in it, each once, in the order in which they were first. The container, its snapshot and its output are gone
 * afterwards, whatever happens. Needs root on containerd's own machine. Throws 'NOT_FOUND', 'BAD_IMAGE', ContainerdError, KernelError or the signal's reason.
 */
export async function recordReads(session: Session, recording: Recording): Promise<string[]> {
  const config = await configOf(session, recording.image)
  const id = `ctr-remote-optimize-${randomBytes(6).toString('hex')}`
  const folder = mkdtempSync(join(tmpdir(), 'ctr-remote-'))
  try {
    await using container = new RecordedContainer(session, recording, id, join(folder, 'output'))
    await container.create(config)
    return await container.record()
  } finally {
    rmSync(folder, { recursive: true, force: true })
  }
}

async function configOf(session: Session, name: string): Promise<ImageConfig> {
  const store = new StoreRepository(session, parseReference(name), name)
  let found = await store.manifest('latest')
  if (found.parsed.kind === 'index') {
    const entry = selectPlatform(found.parsed.index, hostPlatform())
    if (entry !== undefined) found = await store.manifest(entry.digest)
  }
  if (found.parsed.kind === 'index')
    throw new IntegrationError('NOT_FOUND', `${name} has no image for this machine, so that it cannot be run here`)
  return parseImageConfig(await store.blob(found.parsed.image.config.digest, CONFIG_LIMIT))
}

class RecordedContainer implements AsyncDisposable {
  readonly #session: Session
  readonly #recording: Recording
  readonly #id: string
  readonly #output: string
  #pid = 0

  constructor(session: Session, recording: Recording, id: string, output: string) {
    this.#session = session
    this.#recording = recording
    this.#id = id
    this.#output = output
  }

  async create(config: ImageConfig): Promise<void> {
    const { snapshotter } = this.#recording
    const { containers, tasks, soon } = this.#session
    const spec = runtimeSpec(this.#id, config, this.#recording, '/ctr-remote')
    const { mounts } = await this.#prepared(config)
    await containers.create(
      {
        container: {
          id: this.#id,
          image: this.#recording.image,
          runtime: { name: RUNTIME },
          spec: { typeUrl: SPEC_TYPE, value: Buffer.from(JSON.stringify(spec)) },
          snapshotter,
          snapshotKey: this.#id,
        },
      },
      soon,
    )
    const output = `file://${this.#output}`
    const wanted = { containerId: this.#id, rootfs: mounts, stdout: output, stderr: output }
    this.#pid = (await tasks.create(wanted, this.#session.endless())).pid
  }

  /** Starts the container with its file system watched, until it ends or has run long enough. */
  async record(): Promise<string[]> {
    const { tasks, signal } = this.#session
    const endless = this.#session.endless()
    // The task's first process has the container's root already, and waits for its start.
    using watch = new OpenWatch(`/proc/${this.#pid}/root`)
    using output = new ContainerOutput(this.#output, this.#recording.waitLine, this.#recording.onOutput)
    const opened = new Set<string>()
    const take = (): void => {
      for (const path of watch.drain()) opened.add(path)
    }
    const ended = new AbortController()
    const end = (): void => ended.abort() // an error is told by the calls that follow
    const waiting = tasks.wait({ containerId: this.#id }, endless).then(end, end)
    watch.drain()
    await tasks.start({ containerId: this.#id }, endless)
    for (const until = Date.now() + this.#recording.periodMs; Date.now() < until && !ended.signal.aborted; take()) {
      await Promise.race([waiting, delay(POLL_MS, undefined, { signal })])
      if (output.read()) break
    }
    signal.throwIfAborted()
    take()
    output.read()
    return [...opened].filter((path) => path.startsWith('/') && !/^\/(?:proc|sys|dev)\//.test(path))
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const { tasks, containers, snapshots, last } = this.#session
    const containerId = this.#id
    await quietly(tasks.kill({ containerId, signal: SIGKILL, all: true }, last))
    await quietly(tasks.wait({ containerId }, last))
    await quietly(tasks.delete({ containerId }, last))
    await quietly(containers.delete({ id: containerId }, last))
    await quietly(snapshots.remove({ snapshotter: this.#recording.snapshotter, key: containerId }, last))
  }

  async #prepared(config: ImageConfig) {
    const { image, snapshotter } = this.#recording
    const parent = chainIds(config.rootfs.diff_ids).at(-1) ?? ''
    try {
      return await this.#session.snapshots.prepare({ snapshotter, key: this.#id, parent }, this.#session.endless())
    } catch (cause) {
      if (!(cause instanceof ContainerdError) || cause.code !== 'NOT_FOUND') throw cause
      throw new IntegrationError(
        'NOT_FOUND',
        `${image} is not unpacked for the snapshotter ${snapshotter}; pull it with --snapshotter ${snapshotter}, or name the one that has it`,
        { cause },
      )
    }
  }
}

/** What is already gone needs no removal; what is left is told by containerd. */
async function quietly(call: Promise<unknown>): Promise<void> {
  try {
    await call
  } catch (error) {
    if (!(error instanceof ContainerdError)) throw error
  }
}
