/** For tests: runs ctr-remote from its source. */
import { spawn } from 'node:child_process'
import { join } from 'node:path'

const SOURCE = join(import.meta.dirname, '../../src/cli/ctr-remote/index.ts')

export interface Ended {
  readonly code: number | null
  readonly stdout: string
  readonly stderr: string
}

export async function ctrRemote(
  args: readonly string[],
  options: {
    readonly env?: NodeJS.ProcessEnv
    readonly input?: string
    readonly onStarted?: (pid: number) => void
  } = {},
): Promise<Ended> {
  const child = spawn(process.execPath, ['--disable-warning=ExperimentalWarning', SOURCE, ...args], {
    env: { ...process.env, ...options.env },
    stdio: ['pipe', 'pipe', 'pipe'],
  })
  options.onStarted?.(child.pid ?? 0)
  child.stdin.on('error', () => undefined) // it may end without reading
  child.stdin.end(options.input ?? '')
  const out = { stdout: '', stderr: '' }
  child.stdout.on('data', (part: Buffer) => (out.stdout += part.toString()))
  child.stderr.on('data', (part: Buffer) => (out.stderr += part.toString()))
  const code = await new Promise<number | null>((resolve) => child.once('close', resolve))
  return { code, ...out }
}
