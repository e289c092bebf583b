import { readFileSync, readdirSync } from 'node:fs'
import { setImmediate } from 'node:timers/promises'

const PIDS_AT_ONCE = 200

/** Has the process this option with this value on its command line? One that ended, or is a zombie, has no command line. */
export function wasTold(pid: number, option: string, value: string): boolean {
  const words = commandLine(pid)
  return words.some((word, index) => word === option && words[index + 1] === value)
}

/** All others that have the option with this value, as process ids. A machine with thousands of processes is looked at in parts. */
export async function processesTold(option: string, value: string): Promise<number[]> {
  const pids = readdirSync('/proc').filter((name) => /^\d+$/.test(name))
  const found: number[] = []
  for (const [index, name] of pids.entries()) {
    const pid = Number(name)
    if (pid !== process.pid && wasTold(pid, option, value)) found.push(pid)
    if (index % PIDS_AT_ONCE === PIDS_AT_ONCE - 1) await setImmediate()
  }
  return found
}

function commandLine(pid: number): string[] {
  try {
    return readFileSync(`/proc/${pid}/cmdline`, 'utf8').split('\0')
  } catch {
    return [] // ENOENT, ESRCH: it has ended
  }
}
