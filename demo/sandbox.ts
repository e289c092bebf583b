import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { get } from 'node:http'

/** What to run in a root file system, and how it says that it is ready. */
export interface Workload {
  readonly command: readonly string[]
  readonly env: Readonly<Record<string, string>>
  readonly directory: string
  /** `http`: it prints `listening on PORT`, and is ready when a request there is answered; `line`: when it prints anything, or ends. */
  readonly ready: 'http' | 'line'
}

/** How a run went; times from the spawn of the process. */
export interface Run {
  readonly readySeconds: number
  /** What it answered or printed first. */
  readonly said: string
}

/** Kills the workload after this time and calls the run failed. */
const DEADLINE_MS = 10 * 60_000

/**
 * Runs the workload with `root` as its root, in a mount namespace and a PID namespace of its own, until it is ready; then ends it. What is mounted in there
 * goes with the namespace, and all its processes with their init, however this process ends.
 */
export async function runWorkload(root: string, workload: Workload, signal: AbortSignal): Promise<Run> {
  const from = performance.now()
  const script =
    'mount -t proc proc "$1/proc" && mount -t tmpfs -o mode=755 dev "$1/dev" && for n in null zero full random urandom tty; do : >"$1/dev/$n" && mount --bind "/dev/$n" "$1/dev/$n"; done && shift && exec chroot "$@"'
  const inside = ['/bin/sh', '-c', 'cd "$0" && exec "$@"', workload.directory, ...workload.command]
  const child = spawn(
    'unshare',
    [
      '--mount',
      '--pid',
      '--fork',
      '--kill-child=KILL',
      '--propagation',
      'private',
      'sh',
      '-ec',
      script,
      'sh',
      root,
      root,
      ...inside,
    ],
    {
      env: { ...workload.env },
      stdio: ['ignore', 'pipe', 'pipe'],
      signal,
      killSignal: 'SIGKILL',
      timeout: DEADLINE_MS,
    },
  )
  child.on('error', () => undefined) // An abort; told by `firstLine`'s rejection.
  try {
    const line = await firstLine(child, workload)
    const said = workload.ready === 'http' ? await request(Number(/listening on (\d+)/.exec(line)?.[1])) : line
    return { readySeconds: (performance.now() - from) / 1000, said }
  } finally {
    if (child.exitCode === null && child.signalCode === null) {
      child.kill('SIGKILL')
      await once(child, 'exit')
    }
  }
}

async function firstLine(child: ChildProcess, workload: Workload): Promise<string> {
  let output = ''
  let errors = ''
  child.stderr?.setEncoding('utf8').on('data', (text: string) => (errors = (errors + text).slice(-2000)))
  return await new Promise((resolve, reject) => {
    child.stdout?.setEncoding('utf8').on('data', (text: string) => {
      output += text
      const end = output.indexOf('\n')
      if (end >= 0) resolve(output.slice(0, end))
    })
    child.on('close', (code, killedBy) => {
      if (code === 0) resolve(output)
      else
        reject(
          new Error(
            `${workload.command.join(' ')} ended with ${code ?? killedBy} before it was ready: ${errors.trim() || output.trim()}`,
          ),
        )
    })
  })
}

async function request(port: number): Promise<string> {
  const [response] = await once(get({ host: '127.0.0.1', port, path: '/', agent: false }), 'response')
  let body = ''
  for await (const part of response.setEncoding('utf8')) body += part
  if (response.statusCode !== 200) throw new Error(`the workload answered ${response.statusCode}: ${body}`)
  return body
}
