/** What a node has on the machine: mounts, processes, loop devices, sockets, control groups. After a test there must be none. */
import { execFileSync } from 'node:child_process'
import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { cgroupsOf } from './cgroups.ts'
import { processesOf } from './launched.ts'

export interface SeenMount {
  readonly at: string
  readonly type: string
}

/** Mounts at or below a folder, the newest one last. */
export function mountsBelow(path: string): SeenMount[] {
  return readFileSync('/proc/self/mounts', 'utf8')
    .split('\n')
    .map((line) => line.split(' '))
    .map(([, at = '', type = '']) => ({ at: at.replaceAll('\\040', ' '), type }))
    .filter(({ at }) => at === path || at.startsWith(`${path}/`))
}

/** Detaches them all. */
export function unmountBelow(path: string): void {
  for (let mounts = mountsBelow(path); mounts.length > 0; ) {
    for (const { at } of mounts.reverse()) execFileSync('umount', ['-l', at])
    const left = mountsBelow(path)
    if (left.length >= mounts.length) throw new Error(`cannot detach ${left[0]?.at}`)
    mounts = left
  }
}

/** Loop devices over files below a folder. */
function loopsBelow(path: string): string[] {
  return readdirSync('/sys/block')
    .filter((name) => name.startsWith('loop') && existsSync(`/sys/block/${name}/loop/backing_file`))
    .map((name) => `${name} ${readFileSync(`/sys/block/${name}/loop/backing_file`, 'utf8').trim()}`)
    .filter((line) => line.includes(` ${path}/`))
}

/** Unix sockets that somebody listens on or is bound to, below a folder. */
function socketsBelow(path: string): string[] {
  const lines = readFileSync('/proc/net/unix', 'utf8').split('\n')
  return [...new Set(lines.map((line) => line.trim().split(/\s+/)[7] ?? '').filter((at) => at.startsWith(`${path}/`)))]
}

/** Everything that a node whose folder is `path` has now, a line each. `shims` are sockets elsewhere that its containers had. */
export function leftOvers(path: string, cgroup: string, shims: readonly string[]): string[] {
  return [
    ...mountsBelow(path).map(({ at, type }) => `mount ${at} (${type})`),
    ...processesOf(path).map(({ pid, command }) => `process ${pid} ${command.slice(0, 160)}`),
    ...loopsBelow(path).map((line) => `loop device ${line}`),
    ...socketsBelow(path).map((at) => `socket ${at}`),
    ...shims.filter((at) => existsSync(at)).map((at) => `socket ${at}`),
    ...cgroupsOf(cgroup).map((at) => `control group ${at}`),
  ]
}

/** Sockets of the shims of all containers that a containerd has now. They are not in its own folder. */
export function shimSockets(state: string): string[] {
  const tasks = join(state, 'io.containerd.runtime.v2.task')
  if (!existsSync(tasks)) return []
  const files = readdirSync(tasks).flatMap((namespace) =>
    readdirSync(join(tasks, namespace)).map((id) => join(tasks, namespace, id, 'address')),
  )
  return files
    .filter((name) => existsSync(name))
    .flatMap((name) => {
      const at = readFileSync(name, 'utf8')
        .trim()
        .replace(/^unix:\/\//, '')
      return at.startsWith('/') ? [at] : []
    })
}
