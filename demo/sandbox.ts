import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync } from 'node:fs'
import { get } from 'node:http'
import type { Workload } from './workload.ts'

/** How a run went; seconds from the spawn of the process. */
export interface Run {
  readonly readySeconds: number
  /** What it answered or printed first. */
  readonly said: string
}

/** Ends the workload after this time and calls the run failed. */
const DEADLINE_MS = 10 * 60_000
const KEPT_TEXT = 4000

/** Mounts what programs expect to find; then this machine's environment is left, and last its root. */
const ENTER = `
root=$1
mkdir -p "$root/proc" "$root/dev" "$root/tmp" "$root$2"
shift 2
mount -t proc proc "$root/proc"
mount -t tmpfs -o mode=755 dev "$root/dev"
for name in null zero full random urandom tty; do
  : >"$root/dev/$name"
  mount --bind "/dev/$name" "$root/dev/$name"
done
mkdir -m 1777 "$root/dev/shm"
ln -s /proc/self/fd "$root/dev/fd"
ln -s /proc/self/fd/1 "$root/dev/stdout"
ln -s /proc/self/fd/2 "$root/dev/stderr"
exec env -i "$@"
`

/**
 * Runs the workload with `root` as its root, in a mount namespace and a PID namespace of its own, until it is ready; then ends it. What is mounted in there
 * goes with the namespace, and all its processes with their init, however this process ends. Nothing of it is left when the promise settles.
 */
export async function runWorkload(root: string, workload: Workload, signal: AbortSignal): Promise<Run> {
  signal.throwIfAborted()
  const from = performance.now()
  const child = spawn('unshare', argumentsOf(root, workload), {
    stdio: ['ignore', 'pipe', 'pipe'],
    signal,
    killSignal: 'SIGKILL',
    timeout: DEADLINE_MS,
    detached: true,
  })
  // "close" comes when nobody holds the output any more: the last process in there is gone.
  const gone = once(child, 'close')
  gone.catch(() => undefined)
  try {
    const line = await firstLine(child, workload)
    const said = workload.ready === 'http' ? await request(Number(/listening on (\d+)/.exec(line)?.[1]), signal) : line
    return { readySeconds: (performance.now() - from) / 1000, said }
  } finally {
    child.kill('SIGKILL')
    await gone.catch(() => undefined) // an abort, or no program of this name: `firstLine` has told it
  }
}

function argumentsOf(root: string, { command, env, directory }: Workload): string[] {
  // The image's PATH holds from `env` on, so this program needs its whole name.
  const unshare = ['/usr/bin/unshare', '/bin/unshare'].find(existsSync) ?? 'unshare'
  const enter = [unshare, `--root=${root}`, `--wd=${directory}`, ...command]
  const apart = ['--mount', '--pid', '--fork', '--kill-child=KILL', '--propagation', 'private']
  return [...apart, 'sh', '-ec', ENTER, 'sh', root, directory, ...env, ...enter]
}

async function firstLine(child: ChildProcess, { command, ready }: Workload): Promise<string> {
  return await new Promise((resolve, reject) => {
    let output = ''
    let errors = ''
    const take = (text: string): void => {
      output = (output + text).slice(0, KEPT_TEXT)
      const end = output.indexOf('\n')
      if (end >= 0) resolve(output.slice(0, end))
    }
    child.stdout?.setEncoding('utf8').on('data', take)
    child.stderr?.setEncoding('utf8').on('data', (text: string) => {
      errors = (errors + text).slice(-KEPT_TEXT)
      // Many servers say that they are up on stderr.
      if (ready === 'line') take(text)
    })
    child.once('error', reject)
    child.once('close', (code, killedBy) => {
      if (code === 0) return resolve(output)
      const words = errors.trim() || output.trim() || 'it said nothing'
      reject(new Error(`${command.join(' ')} ended with ${code ?? killedBy} before it was ready: ${words}`))
    })
  })
}

async function request(port: number, signal: AbortSignal): Promise<string> {
  const [response] = await once(get({ host: '127.0.0.1', port, path: '/', agent: false, signal }), 'response')
  let body = ''
  for await (const part of response.setEncoding('utf8')) body += part
  if (response.statusCode !== 200) throw new Error(`the workload answered ${response.statusCode}: ${body}`)
  return body
}
