import { runProgram } from '../run-program.ts'
import { createProgram } from './program.ts'

/** Does what a command line (without the tool's own name) says. Throws ExitError with code 2 for one that cannot be understood, which was told then. */
export async function runCommand(argv: readonly string[], signal: AbortSignal): Promise<void> {
  await untilStuck(runProgram(createProgram(signal), argv), signal)
}

/** After a signal the work has this long to clean up; then it is taken to wait for a pipe that never comes. */
const CLEANUP_MS = 3000

async function untilStuck(work: Promise<unknown>, signal: AbortSignal): Promise<void> {
  let timer: NodeJS.Timeout | undefined
  const stuck = new Promise<never>((_, reject) => {
    const give = (): void => reject(signal.reason as Error)
    signal.addEventListener('abort', () => (timer = setTimeout(give, CLEANUP_MS)), { once: true })
  })
  try {
    await Promise.race([work, stuck])
  } finally {
    clearTimeout(timer)
  }
}
