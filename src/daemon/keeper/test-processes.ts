/** For tests: which processes of a daemon there are. They are known by their folder, which is the daemon's working directory. */
import { readdirSync, readFileSync, readlinkSync } from 'node:fs'

/** Keepers, or daemons, that run in a folder now. */
export function processesIn(folder: string, what: 'keeper' | 'daemon'): number[] {
  return readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name) && linkOf(name, 'cwd') === folder)
    .filter((name) => (linkOf(name, 'exe') === process.execPath) === (what === 'daemon') && !isZombie(name))
    .map(Number)
}

function linkOf(pid: string, what: 'cwd' | 'exe'): string {
  try {
    return readlinkSync(`/proc/${pid}/${what}`)
  } catch {
    return '' // it has ended
  }
}

function isZombie(pid: string): boolean {
  try {
    return readFileSync(`/proc/${pid}/stat`, 'latin1').includes(') Z ')
  } catch {
    return true // it has ended
  }
}
