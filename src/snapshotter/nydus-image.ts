import { execFile } from 'node:child_process'
import { SnapshotterError } from './errors.ts'

const TIMEOUT_MS = 30 * 60_000
const MAX_OUTPUT_BYTES = 1024 * 1024
/** Of what it printed last, for messages. */
const TAIL_LINES = 3

/** Runs it to its end and gives what it printed. Throws SnapshotterError 'INTERNAL' with its last words, 'BAD_CONFIG' when it cannot be started, or the reason of the signal. */
export async function runNydusImage(program: string, args: readonly string[], signal: AbortSignal): Promise<string> {
  signal.throwIfAborted()
  return await new Promise((resolve, reject) => {
    const options = { signal, timeout: TIMEOUT_MS, maxBuffer: MAX_OUTPUT_BYTES, killSignal: 'SIGKILL' } as const
    execFile(program, args, options, (error, stdout, stderr) => {
      if (error === null) return resolve(`${stdout}\n${stderr}`)
      if (signal.aborted) return reject(signal.reason)
      if (error.code === 'ENOENT' || error.code === 'EACCES')
        return reject(
          new SnapshotterError('BAD_CONFIG', `cannot start ${program}: ${error.message}; set daemon.nydusimage_path`, {
            cause: error,
          }),
        )
      const words = `${stdout}\n${stderr}`.trim().split('\n').slice(-TAIL_LINES).join(' | ')
      reject(
        new SnapshotterError('INTERNAL', `${program} ${args[0] ?? ''} failed: ${words || error.message}`, {
          cause: error,
        }),
      )
    })
  })
}
