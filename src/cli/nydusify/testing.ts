/** For this room's tests: many command lines in one process, which is far quicker than a process each. */
import { spawn } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import { main } from './main.ts'

export interface Ran {
  readonly status: number
  readonly stdout: string
  readonly stderr: string
}

/** Runs them one after the other, in a folder and an environment of their own. Their stdin is empty. */
export async function runAll(commands: ReadonlyArray<readonly string[]>, cwd: string): Promise<Ran[]> {
  const child = spawn(process.execPath, [fileURLToPath(import.meta.url)], {
    cwd,
    env: { HOME: cwd },
    stdio: ['ignore', 'inherit', 'inherit', 'ipc'],
  })
  child.send(commands)
  try {
    return await new Promise<Ran[]>((resolve, reject) => {
      child.once('message', (message) => resolve(message as Ran[]))
      child.once('exit', (code) => reject(new Error(`the replaying process ended with ${code}`)))
    })
  } finally {
    child.kill()
  }
}

async function replay(commands: ReadonlyArray<readonly string[]>): Promise<Ran[]> {
  const ran: Ran[] = []
  for (const args of commands) {
    const written = { stdout: '', stderr: '' }
    for (const stream of ['stdout', 'stderr'] as const) {
      process[stream].write = (text: string | Uint8Array): boolean => {
        written[stream] += Buffer.from(text as Uint8Array).toString()
        return true
      }
    }
    process.exitCode = 0
    await main(args)
    ran.push({ status: process.exitCode, ...written })
  }
  process.exitCode = 0
  return ran
}

process.once('message', (commands) => {
  void replay(commands as string[][]).then((ran) => process.send?.(ran))
})
