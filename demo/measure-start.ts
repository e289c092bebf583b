/** Runs one way of starting a container and measures it. */
import { spawnSync } from 'node:child_process'
import { createReadStream, writeFileSync } from 'node:fs'
import { readdir } from 'node:fs/promises'
import { join } from 'node:path'
import type { ImageConfig } from '../src/registry/index.ts'
import type { Network } from './network.ts'
import type { StartResult } from './result.ts'
import { runWorkload } from './sandbox.ts'
import type { Workload } from './workload.ts'

/** A root file system, and how long each step to it took; seconds. */
export interface StartedRoot {
  readonly root: string
  readonly config: ImageConfig
  readonly mountedSeconds: number
  readonly phases: Readonly<Record<string, number>>
}

export interface MeasureWanted {
  readonly network: Network
  /** Folder of the registry's store: what it sends lies in its memory, as a busy registry has it. */
  readonly store: string
  readonly imageBytes: number
  readonly start: () => Promise<StartedRoot>
  readonly workload: (config: ImageConfig) => Workload
  readonly signal: AbortSignal
}

export interface MeasuredStart {
  readonly result: StartResult
  readonly said: string
  readonly root: string
  readonly workload: Workload
  readonly cachesDropped: boolean
}

export async function measureStart(wanted: MeasureWanted): Promise<MeasuredStart> {
  const { network, imageBytes, signal } = wanted
  const cachesDropped = await prepareCaches(wanted.store)
  await network.count()
  const { root, config, mountedSeconds, phases } = await wanted.start()
  const workload = wanted.workload(config)
  const run = await runWorkload(root, workload, signal)
  const { bytes, requests, connections } = await network.count()
  const result: StartResult = {
    mounted_s: mountedSeconds,
    ready_s: mountedSeconds + run.readySeconds,
    bytes,
    requests,
    connections,
    share: bytes / imageBytes,
    phases: { ...phases, program: run.readySeconds },
  }
  return { result, said: run.said, root, workload, cachesDropped }
}

/** The kernel forgets all files but the registry's. False where it may not be told to, as in most containers. */
export async function prepareCaches(store: string): Promise<boolean> {
  const isDropped = dropCaches()
  await readAll(store)
  return isDropped
}

function dropCaches(): boolean {
  spawnSync('sync')
  try {
    writeFileSync('/proc/sys/vm/drop_caches', '3')
    return true
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException
    if (code === 'EACCES' || code === 'EPERM' || code === 'EROFS') return false
    throw error
  }
}

async function readAll(folder: string): Promise<void> {
  for (const entry of await readdir(folder, { recursive: true, withFileTypes: true }))
    if (entry.isFile())
      for await (const _piece of createReadStream(join(entry.parentPath, entry.name), { highWaterMark: 1 << 20 }));
}
