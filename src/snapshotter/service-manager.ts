/**
 * The service manager that started us, if one did: what it is told, and the descriptors that it keeps beyond our life, also when all processes of the service are killed at once.
 * Sources: sd_notify(3), sd_listen_fds(3), `FileDescriptorStoreMax` in systemd.service(5).
 */
import { closeSync, readlinkSync } from 'node:fs'
import { closeOnExec, sendDatagram, takeDescriptor } from '../kernel/index.ts'

interface ManagerLog {
  warn(text: string): void
}

/** The first descriptor that it gives. */
const FIRST = 3
const MAX_DESCRIPTORS = 1 << 16
const FUSE_DEVICE = '/dev/fuse'

let socket: string | undefined
/** What it kept for an earlier process of ours. */
const given = new Map<string, number>()

/** Takes what the service manager says from the environment, so that no child tells it anything in our name, or takes our descriptors for its own. */
export function takeServiceManager(): void {
  const { NOTIFY_SOCKET, LISTEN_PID, LISTEN_FDS = '', LISTEN_FDNAMES = '' } = process.env
  for (const name of ['NOTIFY_SOCKET', 'LISTEN_PID', 'LISTEN_FDS', 'LISTEN_FDNAMES']) delete process.env[name]
  socket = NOTIFY_SOCKET === '' ? undefined : NOTIFY_SOCKET
  if (LISTEN_PID !== String(process.pid) || !/^\d{1,6}$/.test(LISTEN_FDS)) return
  const names = LISTEN_FDNAMES.split(':').slice(0, Math.min(Number(LISTEN_FDS), MAX_DESCRIPTORS))
  for (const [index, name] of names.entries()) take(name, FIRST + index)
}

/** Only sessions are kept; anything else is none of ours. */
function take(name: string, fd: number): void {
  if (deviceOf(fd) !== FUSE_DEVICE) return
  closeOnExec(fd)
  const former = given.get(name)
  if (former !== undefined) closeSync(former) // the last one is the newest
  given.set(name, fd)
}

function deviceOf(fd: number): string | undefined {
  try {
    return readlinkSync(`/proc/self/fd/${fd}`)
  } catch {
    return undefined // it gave less than it said
  }
}

/** Tells the service manager, if there is one, what becomes of us. */
export function notifyManager(state: 'READY=1' | 'STOPPING=1', status: string, log: ManagerLog): void {
  tell(`${state}\nSTATUS=${status}\n`, [], log)
}

/** Has a descriptor kept, under a name without colons. It stays ours too. Gives whether there is a manager that was asked; whether it keeps any it does not tell. */
export function keepDescriptor(name: string, fd: number, log: ManagerLog): boolean {
  return tell(`FDSTORE=1\nFDNAME=${name}\n`, [fd], log)
}

/** A copy of what was kept for an earlier process of ours, which the caller closes. Throws KernelError. */
export function keptDescriptor(name: string): number | undefined {
  const fd = given.get(name)
  return fd === undefined ? undefined : takeDescriptor(process.pid, fd)
}

/** It is needed no more. */
export function forgetDescriptor(name: string, log: ManagerLog): void {
  const fd = given.get(name)
  if (fd !== undefined) closeSync(fd)
  given.delete(name)
  tell(`FDSTOREREMOVE=1\nFDNAME=${name}\n`, [], log)
}

/** Names of all that was kept for an earlier process of ours. */
export function keptNames(): readonly string[] {
  return [...given.keys()]
}

function tell(text: string, descriptors: readonly number[], log: ManagerLog): boolean {
  if (socket === undefined) return false
  try {
    sendDatagram(socket, Buffer.from(text), descriptors)
    return true
  } catch (error) {
    log.warn(`cannot tell the service manager ${text.slice(0, text.indexOf('\n'))}: ${(error as Error).message}`)
    return false
  }
}
