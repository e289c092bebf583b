import { spawn } from 'node:child_process'
import { constants } from 'node:os'
import { ExitError } from '../output.ts'

/** Runs `ctr` in this program's place; gives its exit code. Throws ExitError when there is none. */
export async function passOn(argv: readonly string[]): Promise<number> {
  const child = spawn('ctr', argv, { stdio: 'inherit' })
  // They reach ctr too when a terminal sends them; it decides what becomes of them.
  const forward = (name: NodeJS.Signals) => () => void child.kill(name)
  const signals = (['SIGTERM', 'SIGHUP'] as const).map((name) => [name, forward(name)] as const)
  for (const [name, act] of signals) process.on(name, act)
  try {
    return await new Promise<number>((resolve, reject) => {
      child.once('error', (cause: NodeJS.ErrnoException) =>
        reject(
          new ExitError(
            1,
            cause.code === 'ENOENT'
              ? `"${argv.join(' ')}" is a command of containerd's ctr, which is not installed (not in PATH); ctr-remote itself has: images rpull, images convert, images optimize`
              : `cannot run ctr: ${cause.message}`,
          ),
        ),
      )
      child.once('close', (code, signal) => resolve(code ?? 128 + (signal === null ? 0 : constants.signals[signal])))
    })
  } finally {
    for (const [name, act] of signals) process.off(name, act)
  }
}
