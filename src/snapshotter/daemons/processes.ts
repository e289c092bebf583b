/** Other processes, as /proc shows them. They are not our children after a restart of ours: nobody tells when they end, and a number may be another one's. */
import { readFileSync } from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'
import { processesTold, wasTold } from '../../kernel/index.ts'

const POLL_MS = 20
/** Of the kernel's clock that counts processor time; the same on all Linux machines. */
const TICKS_A_SECOND = 100

const SOCKET = '--apisock'

/** Was it told to serve this socket? A nydusd was, and its keeper has the same words. */
export function servesSocket(pid: number, socket: string): boolean {
  return wasTold(pid, SOCKET, socket)
}

/** Everybody who was told to serve this socket. */
export async function processesServing(socket: string): Promise<number[]> {
  return await processesTold(SOCKET, socket)
}

/** Sends a signal; one that has ended already is no error. */
export function signalProcess(pid: number, signal: NodeJS.Signals): void {
  try {
    process.kill(pid, signal)
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ESRCH') throw error
  }
}

/** Waits until the condition holds; false when it did not in time. */
export async function waitUntil(holds: () => boolean | Promise<boolean>, timeoutMs: number): Promise<boolean> {
  const deadline = performance.now() + timeoutMs
  while (!(await holds())) {
    if (performance.now() > deadline) return false
    await sleep(POLL_MS)
  }
  return true
}

/** Resident memory, KiB; 0 when it has ended. */
export function memoryKib(pid: number): number {
  return Number(/^VmRSS:\s*(\d+) kB$/m.exec(read(pid, 'status'))?.[1] ?? 0)
}

/** Processor time that it has used, seconds; 0 when it has ended. */
export function processorSeconds(pid: number): number {
  const text = read(pid, 'stat')
  // after the name, which may have blanks in it: state 0, …, utime 11, stime 12 (proc(5), fields 3, 14 and 15)
  const words = text
    .slice(text.lastIndexOf(')') + 1)
    .trim()
    .split(' ')
  return (Number(words[11] ?? 0) + Number(words[12] ?? 0)) / TICKS_A_SECOND
}

function read(pid: number, file: 'stat' | 'status'): string {
  if (pid <= 0) return ''
  try {
    return readFileSync(`/proc/${pid}/${file}`, 'latin1')
  } catch {
    return '' // it has ended
  }
}
