import { createInterface } from 'node:readline'
import { Writable } from 'node:stream'
import { ExitError } from '../output.ts'

/** Asks on the terminal, without showing what is typed; a pipe's first line will do too. */
export async function askSecret(prompt: string): Promise<string> {
  process.stdout.write(prompt)
  const silent = new Writable({ write: (_bytes, _encoding, done) => done() })
  const lines = createInterface({ input: process.stdin, output: silent, terminal: process.stdin.isTTY === true })
  try {
    return await new Promise<string>((resolve, reject) => {
      lines.once('line', resolve)
      lines.once('close', () => reject(new ExitError(1, 'failed to read line: there was none')))
      lines.once('SIGINT', () => reject(new ExitError(130, 'interrupted')))
    })
  } finally {
    lines.close()
    process.stdout.write('\n')
  }
}
