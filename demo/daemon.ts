/** A nydusd as a node has it: one process, images mounted and unmounted through its API. */
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { request } from 'node:http'
import { setTimeout as sleep } from 'node:timers/promises'
import { unmount } from '../src/kernel/index.ts'

export interface DaemonWanted {
  /** The program; the original takes the same arguments. */
  readonly nydusd: string
  readonly arguments: readonly string[]
  readonly mountPoint: string
  readonly socket: string
  readonly signal: AbortSignal
}

export interface RunningDaemon {
  readonly pid: number
  /** Mounts a bootstrap below the daemon's mount point: `/image`. */
  mount(at: string, bootstrap: string, config: object): Promise<void>
  /** Asks it to end, and ends it if it does not. Nothing is mounted afterwards. */
  stop(): Promise<void>
}

const START_MS = 20_000
const STOP_MS = 10_000
const KEPT_TEXT = 4000

/** Starts the program; resolves when its API answers. Throws with its last words when it ends before. */
export async function startDaemon(wanted: DaemonWanted): Promise<RunningDaemon> {
  const { nydusd, mountPoint, socket, signal } = wanted
  signal.throwIfAborted()
  const args = ['--mountpoint', mountPoint, '--apisock', socket, '--log-level', 'warn', ...wanted.arguments]
  // In a group of its own: Ctrl-C at the terminal must not end it while something is mounted on top of it.
  const env = { ...process.env, NYDUSD_KEEPER: 'off' }
  const child = spawn(nydusd, args, { stdio: ['ignore', 'pipe', 'pipe'], detached: true, env })
  let words = ''
  for (const stream of [child.stdout, child.stderr])
    stream.setEncoding('utf8').on('data', (text: string) => (words = (words + text).slice(-KEPT_TEXT)))
  let failed: Error | undefined
  child.once('error', (error) => (failed = error))
  const stop = (): Promise<void> => stopDaemon(child, mountPoint)
  const call = (method: string, path: string, body?: object): Promise<void> => ask(socket, method, path, body, signal)
  try {
    for (const until = performance.now() + START_MS; ; ) {
      if (failed !== undefined) throw new Error(`cannot start ${nydusd}: ${failed.message}`)
      if (child.exitCode !== null) throw new Error(`${nydusd} ended with ${child.exitCode}: ${words.trim()}`)
      if (await isUp(call)) break
      if (performance.now() > until)
        throw new Error(`${nydusd} did not answer in ${START_MS / 1000} s: ${words.trim()}`)
      await sleep(2, undefined, { signal })
    }
  } catch (error) {
    await stop()
    throw error
  }
  const mount = (at: string, bootstrap: string, config: object): Promise<void> =>
    call('POST', `/api/v1/mount?mountpoint=${at}`, {
      source: bootstrap,
      fs_type: 'rafs',
      config: JSON.stringify(config),
    })
  return { pid: child.pid ?? 0, mount, stop }
}

async function isUp(call: (method: string, path: string) => Promise<void>): Promise<boolean> {
  try {
    await call('GET', '/api/v1/daemon')
    return true
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException
    if (code === 'ENOENT' || code === 'ECONNREFUSED') return false // not listening yet
    throw error
  }
}

async function ask(
  socket: string,
  method: string,
  path: string,
  body: object | undefined,
  signal: AbortSignal,
): Promise<void> {
  const sent = body === undefined ? '' : JSON.stringify(body)
  const headers = { 'content-type': 'application/json', 'content-length': Buffer.byteLength(sent) }
  const asked = request({ socketPath: socket, method, path, headers, agent: false, signal })
  asked.end(sent)
  const [response] = await once(asked, 'response')
  let answer = ''
  for await (const part of response.setEncoding('utf8')) answer += part
  if (response.statusCode >= 300)
    throw new Error(`nydusd answered ${response.statusCode} to ${method} ${path}: ${answer}`)
}

async function stopDaemon(child: ChildProcess, mountPoint: string): Promise<void> {
  if (child.pid !== undefined && child.exitCode === null && child.signalCode === null) {
    const exit = once(child, 'exit')
    child.kill('SIGTERM')
    const late = setTimeout(() => child.kill('SIGKILL'), STOP_MS)
    await exit
    clearTimeout(late)
  }
  await unmount(mountPoint, true)
}
