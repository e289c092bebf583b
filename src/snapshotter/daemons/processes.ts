/** Other processes, as /proc shows them. They are not our children after a restart of ours: nobody tells when they end, and a number may be another one's. */
import { readFileSync, readdirSync } from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'

const POLL_MS = 20
/** Of the kernel's clock that counts processor time; the same on all Linux machines. */
const TICKS_A_SECOND = 100

/** Was it told to serve this socket? A nydusd was, and its keeper has the same words. One that ended, or is a zombie, has no command line. */
export function servesSocket(pid: number, socket: string): boolean {
  const words = commandLine(pid)
  return words.some((word, index) => word === '--apisock' && words[index + 1] === socket)
}

/** Everybody who was told to serve this socket. */
export function processesServing(socket: string): number[] {
  return readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name))
    .map(Number)
    .filter((pid) => pid !== process.pid && servesSocket(pid, socket))
}

function commandLine(pid: number): string[] {
  try {
    return readFileSync(`/proc/${pid}/cmdline`, 'utf8').split('\0')
  } catch {
    return [] // ENOENT, ESRCH: it has ended
  }
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
export async function waitUntil(holds: () => boolean, timeoutMs: number): Promise<boolean> {
  const deadline = performance.now() + timeoutMs
  while (!holds()) {
    if (performance.now() > deadline) return false
    await sleep(POLL_MS)
  }
  return true
}

/** Resident memory, KiB; 0 when it has ended. */
export function memoryKib(pid: number): number {
  const pages = field(pid, 'statm', 1)
  return pages * 4
}

/** Processor time that it has used, seconds; 0 when it has ended. */
export function processorSeconds(pid: number): number {
  // after the name, which may have blanks in it: state 0, …, utime 11, stime 12 (proc(5), fields 3, 14 and 15)
  return (field(pid, 'stat', 11) + field(pid, 'stat', 12)) / TICKS_A_SECOND
}

function field(pid: number, file: 'stat' | 'statm', index: number): number {
  if (pid <= 0) return 0
  try {
    const text = readFileSync(`/proc/${pid}/${file}`, 'latin1')
    const words = text
      .slice(text.lastIndexOf(')') + 1)
      .trim()
      .split(' ')
    return Number(words[index] ?? 0)
  } catch {
    return 0
  }
}
