import { spawn } from 'node:child_process'
import { SnapshotterError } from './errors.ts'

/** One call of a program whose answer is what it prints. */
export interface ProgramCall {
  readonly command: string
  readonly args: readonly string[]
  readonly env: NodeJS.ProcessEnv
  /** For its standard input. */
  readonly input: string
  readonly timeoutMs: number
  /** More on its standard output is an error. */
  readonly maxBytes: number
  readonly signal: AbortSignal
}

/**
 * Runs it to its end and gives what it printed. What it printed goes into no message: it may be a secret. Throws SnapshotterError 'UNAVAILABLE' when it
 * fails, prints too much or takes too long, 'BAD_CONFIG' when it cannot be started, 'CANCELLED'; it and its children are ended then.
 */
export function askProgram(call: ProgramCall): Promise<string> {
  return new Promise((resolve, reject) => {
    const { command, timeoutMs, maxBytes, signal } = call
    if (signal.aborted) return reject(cancelled(command))
    const child = spawn(command, call.args, { stdio: ['pipe', 'pipe', 'ignore'], env: call.env, detached: true })
    const parts: Buffer[] = []
    let size = 0
    const timer = setTimeout(() => fail(`did not answer within ${timeoutMs} ms`), timeoutMs)
    const onAbort = (): void => stop(cancelled(command))
    signal.addEventListener('abort', onAbort, { once: true })
    const settle = (): void => {
      clearTimeout(timer)
      signal.removeEventListener('abort', onAbort)
    }
    const stop = (error: SnapshotterError): void => {
      settle()
      stopGroup(child.pid)
      child.stdout.destroy() // a child that left the group may hold the other end
      reject(error)
    }
    const fail = (why: string): void => stop(new SnapshotterError('UNAVAILABLE', `${command} ${why}`))
    child.stdout.on('data', (part: Buffer) => {
      size += part.length
      if (size > maxBytes) fail(`printed more than ${maxBytes} bytes`)
      else parts.push(part)
    })
    child.stdin.on('error', () => {}) // EPIPE of a program that does not read: its exit code tells.
    child.on('error', (error: NodeJS.ErrnoException) => {
      settle()
      const why = error.code === 'ENOENT' ? 'there is no such file' : (error.code ?? error.message)
      reject(new SnapshotterError('BAD_CONFIG', `cannot start ${command}: ${why}`, { cause: error }))
    })
    child.on('close', (exitCode, killedBy) => {
      settle()
      const why = exitCode === null ? `was ended by ${killedBy}` : `failed with exit code ${exitCode}`
      if (exitCode === 0) resolve(Buffer.concat(parts).toString('utf8'))
      else reject(new SnapshotterError('UNAVAILABLE', `${command} ${why}`))
    })
    child.stdin.end(call.input)
  })
}

function cancelled(command: string): SnapshotterError {
  return new SnapshotterError('CANCELLED', `nobody waits for ${command} any more`)
}

/** It may be a script with children of its own, which hold the pipe: the whole group goes. */
function stopGroup(pid: number | undefined): void {
  if (pid === undefined) return
  try {
    process.kill(-pid, 'SIGKILL')
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ESRCH') throw error // ESRCH: it has ended already
  }
}
