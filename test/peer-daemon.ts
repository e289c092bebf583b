/** For tests: the original's nydusd. NYDUS_PEER_DIR names the folder with its programs. */
import assert from 'node:assert/strict'
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { chmodSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { callApi, type Scratch } from '../src/daemon/testing.ts'

/** Empty where there is none. */
export const peers = process.env['NYDUS_PEER_DIR'] ?? ''
/** Why tests with it cannot run. */
export const noPeer: string | undefined = peers === '' ? 'NYDUS_PEER_DIR is not set' : undefined

const START_MS = 60_000

/** Writes a program that starts it with fewer open files than it wants: a machine may not allow them. Gives its path. */
export function modestPeer(nydusd: string, folder: string): string {
  const path = join(folder, 'nydusd')
  writeFileSync(path, `#!/bin/sh\nexec ${nydusd} "$@" --rlimit-nofile 0\n`)
  chmodSync(path, 0o755)
  return path
}

/** The original's nydusd on `scratch.mnt`, until it is disposed of. */
export class PeerDaemon implements AsyncDisposable {
  readonly socket: string
  log = ''
  readonly #child: ChildProcess
  readonly #ended: Promise<unknown>

  private constructor(scratch: Scratch, options: readonly string[]) {
    this.socket = join(scratch.path, 'peer.sock')
    const common = ['--mountpoint', scratch.mnt, '--apisock', this.socket, '--rlimit-nofile', '0']
    this.#child = spawn(join(peers, 'nydusd'), [...common, ...options], { cwd: scratch.path })
    this.#ended = once(this.#child, 'close')
    for (const stream of [this.#child.stdout, this.#child.stderr])
      stream?.on('data', (part: Buffer) => (this.log += part.toString()))
  }

  /** Resolves when it serves; throws with its log when it does not. */
  static async start(scratch: Scratch, options: readonly string[]): Promise<PeerDaemon> {
    const peer = new PeerDaemon(scratch, options)
    try {
      await peer.#ready()
      return peer
    } catch (error) {
      await peer[Symbol.asyncDispose]()
      throw error
    }
  }

  async json(path: string): Promise<Record<string, unknown>> {
    return JSON.parse((await callApi(this.socket, 'GET', path)).text) as Record<string, unknown>
  }

  async #ready(): Promise<void> {
    const deadline = Date.now() + START_MS
    while (Date.now() < deadline && this.#child.exitCode === null && this.#child.signalCode === null) {
      try {
        if ((await this.json('/api/v1/daemon'))['state'] === 'RUNNING') return
      } catch {
        // the socket is not there yet
      }
      await sleep(10)
    }
    assert.fail(`the original does not run:\n${this.log}`)
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#child.kill('SIGTERM')
    await this.#ended
  }
}
