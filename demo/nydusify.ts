import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { join } from 'node:path'

const NYDUSIFY = join(import.meta.dirname, '../bin/nydusify')
const STOP_MS = 10_000
const KEPT_TEXT = 4000

/** Runs the tool as a user would; its progress is shown. Throws with its last words when it fails. An abort ends it and waits for its end. */
export async function nydusify(args: readonly string[], signal: AbortSignal): Promise<void> {
  signal.throwIfAborted()
  const progress = process.stderr.isTTY ? 'auto' : 'none'
  const child = spawn(NYDUSIFY, ['--log-level', 'warn', ...args, '--progress', progress], {
    stdio: ['ignore', 'pipe', process.stderr.isTTY ? 'inherit' : 'pipe'],
  })
  let words = ''
  for (const stream of [child.stdout, child.stderr])
    stream?.setEncoding('utf8').on('data', (text: string) => (words = (words + text).slice(-KEPT_TEXT)))
  let late: NodeJS.Timeout | undefined
  const stop = (): void => {
    child.kill('SIGTERM')
    late = setTimeout(() => child.kill('SIGKILL'), STOP_MS)
  }
  signal.addEventListener('abort', stop, { once: true })
  try {
    const [code, killedBy] = await once(child, 'close')
    signal.throwIfAborted()
    if (code !== 0) throw new Error(`nydusify ${args[0]} ended with ${code ?? killedBy}: ${lastLine(words)}`)
  } finally {
    clearTimeout(late)
    signal.removeEventListener('abort', stop)
  }
}

/** The tool ends its log with the reason; usage and hints stand above it. */
function lastLine(text: string): string {
  const line = text.trim().split('\n').at(-1) ?? ''
  return /level=fatal msg="(.*)"/.exec(line)?.[1] ?? line
}
