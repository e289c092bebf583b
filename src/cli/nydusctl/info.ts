import { type Json, isObject, member } from './json.ts'

/** What `info` prints of `GET /api/v1/daemon`, in the original's form. */
export function infoText(info: Json): string {
  const version = member(info, 'version')
  const lines = [
    '',
    `Version:                ${shown(member(version, 'package_ver'))}`,
    `Status:                 ${shown(member(info, 'state'))}`,
    `Profile:                ${shown(member(version, 'profile'))}`,
    `Commit:                 ${shown(member(version, 'git_commit'))}`,
  ]
  const collection = member(info, 'backend_collection')
  const mounts = isObject(collection) ? Object.entries(collection) : []
  if (mounts.length > 0) lines.push('Instances:')
  for (const [path, mount] of mounts.sort(([a], [b]) => Buffer.compare(Buffer.from(a), Buffer.from(b))))
    lines.push(...mountLines(path, mount))
  return `${lines.join('\n')}\n`
}

function mountLines(path: string, mount: Json): string[] {
  const type = plain(member(mount, 'backend_type'))
  const lines = [
    `\tInstance Mountpoint:  ${path}`,
    `\tType:  ${type}`,
    `\tMounted Time:  ${timeText(plain(member(mount, 'mounted_time')))}`,
  ]
  if (type !== 'Rafs') return lines
  const prefetch = member(mount, 'config', 'cache', 'prefetch')
  return [
    ...lines,
    `\tMode:  ${plain(member(mount, 'config', 'rafs', 'mode'))}`,
    `\tPrefetch:  ${plain(member(prefetch, 'enable'))}`,
    `\tPrefetch Merging Size:  ${plain(member(prefetch, 'batch_size'))}`,
    '',
  ]
}

/** A value as JSON writes it: strings in quotes. */
export function shown(value: Json): string {
  return typeof value === 'bigint' ? String(value) : JSON.stringify(value)
}

function plain(value: Json): string {
  return typeof value === 'string' ? value : shown(value)
}

/** The original prints times without a leading zero of the hour, and without trailing ones of the fraction. */
function timeText(time: string): string {
  const parts = /^(\S+) 0?(\d+):(\d\d):(\d\d)\.(\d+?)0* (.*)$/.exec(time)
  if (parts === null) return time
  const [, day, hour, minute, second, fraction, offset] = parts
  return `${day} ${hour}:${minute}:${second}.${fraction} ${offset}`
}
