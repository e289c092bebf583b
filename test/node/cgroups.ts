/** Control groups for containers: what the machine lacks is mounted, and what containers leave is removed. */
import { execFileSync } from 'node:child_process'
import { existsSync, mkdirSync, readdirSync, readFileSync, rmdirSync, statSync } from 'node:fs'
import { join } from 'node:path'

const AT = '/sys/fs/cgroup'
const CONTROLLERS = ['cpu', 'cpuacct', 'cpuset', 'memory', 'devices', 'freezer', 'blkio', 'pids']

/** Mounts the control groups where a machine (a container without an init, mostly) has none. Gives why that is not possible, or undefined. */
export function prepareCgroups(): string | undefined {
  if (hierarchies().length > 0) return undefined
  try {
    // As long as no hierarchy of the first version has a controller, the second version has them all.
    if (controllersOfV1().length === 0) mount('cgroup2', 'none', AT)
    else mountHybrid()
    return undefined
  } catch (error) {
    return `there are no control groups, and they cannot be mounted: ${(error as Error).message.split('\n')[0]}`
  }
}

function mount(type: string, options: string, at: string): void {
  mkdirSync(at, { recursive: true })
  execFileSync('mount', ['-t', type, ...(options === 'none' ? [] : ['-o', options]), type, at], { stdio: 'pipe' })
}

function mountHybrid(): void {
  mount('tmpfs', 'mode=755', AT)
  for (const name of CONTROLLERS) mount('cgroup', name, join(AT, name))
  mount('cgroup', 'none,name=systemd', join(AT, 'systemd'))
  mount('cgroup2', 'none', join(AT, 'unified'))
}

/** Mount points of all hierarchies. */
function hierarchies(): string[] {
  return readFileSync('/proc/self/mounts', 'utf8')
    .split('\n')
    .map((line) => line.split(' '))
    .filter(([, at = '', type = '']) => type.startsWith('cgroup') && at.startsWith(AT))
    .map(([, at = '']) => at)
}

/** Those that are bound to a hierarchy of the first version. */
function controllersOfV1(): string[] {
  return readFileSync('/proc/cgroups', 'utf8')
    .split('\n')
    .filter((line) => /^\w+\s+[1-9]/.test(line))
}

/** Groups that were made below a name, in all hierarchies. */
export function cgroupsOf(name: string): string[] {
  return hierarchies().flatMap((at) => (readdirSync(at).includes(name) ? [join(at, name)] : []))
}

/** Processes in them. */
export function cgroupProcesses(name: string): number[] {
  const lists = cgroupsOf(name).flatMap((at) =>
    ['', ...readdirSync(at, { recursive: true, encoding: 'utf8' }).filter((below) => isFolder(join(at, below)))].map(
      (below) => join(at, below, 'cgroup.procs'),
    ),
  )
  return lists
    .flatMap((list) => (existsSync(list) ? readFileSync(list, 'utf8').split('\n').filter(Boolean) : []))
    .map(Number)
}

function isFolder(at: string): boolean {
  return statSync(at, { throwIfNoEntry: false })?.isDirectory() === true
}

/** Removes them; none may have a process. */
export function removeCgroups(name: string): void {
  for (const at of cgroupsOf(name)) removeTree(at)
}

function removeTree(at: string): void {
  for (const entry of readdirSync(at, { withFileTypes: true }))
    if (entry.isDirectory()) removeTree(join(at, entry.name))
  rmdirSync(at)
}
