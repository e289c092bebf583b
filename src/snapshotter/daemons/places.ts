/** Where things are below the snapshotter's directory. Source: docs/containerd-nydus-grpc.md, "Files". */
import { readdir, rm, rmdir } from 'node:fs/promises'
import { basename, dirname, join } from 'node:path'
import { readMountInfo, unmount } from '../../kernel/index.ts'
import type { DaemonRecord, InstanceRecord } from './records.ts'
import { sourceSnapshot } from './records.ts'
import type { DaemonSettings } from './settings.ts'

const MAX_LAYERS_OF_MOUNTS = 16

/** The record of a daemon that is to be, with the settings of today. `mountpoint` is where its session is mounted. */
export function newDaemon(
  settings: DaemonSettings,
  of: { readonly id: string; readonly mode: 'shared' | 'dedicated'; readonly mountpoint: string },
): DaemonRecord {
  const { root, daemon, log } = settings
  return {
    ID: of.id,
    ProcessID: 0,
    APISocket: join(root, 'socket', of.id, 'api.sock'),
    DaemonMode: of.mode,
    FsDriver: 'fusedev',
    LogDir: join(log.dir, of.id),
    LogLevel: log.level,
    LogRotationSize: daemon.logRotationMib,
    LogToStdout: log.toStdout,
    Mountpoint: of.mountpoint,
    SupervisorPath: supervisorPath(settings, of.id),
    ThreadNum: daemon.threads,
    FailoverPolicy: daemon.failoverPolicy,
    ConfigDir: join(root, 'config', of.id),
  }
}

/** '' when the policy needs none: nydusd's own keeper brings it back then. */
export function supervisorPath({ root, daemon }: DaemonSettings, id: string): string {
  return daemon.recoverPolicy === 'failover' ? join(root, 'supervisor', `${id}.sock`) : ''
}

export function snapshotDirectory(root: string, id: number | string): string {
  return join(root, 'snapshots', String(id))
}

/** The directory that has the image's bootstrap. */
export function sourceDirectory(root: string, of: InstanceRecord): string {
  return snapshotDirectory(root, sourceSnapshot(of))
}

/** Shared daemons have a configuration an image, dedicated ones have one. */
export function configPath(of: DaemonRecord, key: string): string {
  return of.DaemonMode === 'shared' ? join(of.ConfigDir, key, 'config.json') : join(of.ConfigDir, 'config.json')
}

/** The path of an image in its daemon's session, which also is its name in metrics and logins. */
export function sessionPath(of: DaemonRecord, key: string): string {
  return of.DaemonMode === 'shared' ? `/${key}` : '/'
}

/** `api.sock`, then `api1.sock`, `api2.sock`, …: the daemon that is there and the one that follows are both asked. */
export function nextSocket(path: string): string {
  const number = Number(/^api(\d*)\.sock$/.exec(basename(path))?.[1] || 0)
  return join(dirname(path), `api${number + 1}.sock`)
}

/** All sockets of a daemon, that of its record first. */
export async function socketsOf({ APISocket }: Pick<DaemonRecord, 'APISocket'>): Promise<string[]> {
  const names = await readdir(dirname(APISocket)).catch(() => [])
  const others = names.filter((name) => /^api\d*\.sock$/.test(name) && name !== basename(APISocket))
  return [APISocket, ...others.map((name) => join(dirname(APISocket), name))]
}

/** Takes away what is mounted there, also when it is in use: users of a session that is gone see errors until they end. */
export async function detach(at: string): Promise<void> {
  for (let count = 0; count < MAX_LAYERS_OF_MOUNTS && (await isMountPoint(at)); count++) await unmount(at, true)
}

export async function isMountPoint(at: string): Promise<boolean> {
  return (await readMountInfo()).some((mount) => mount.at === at)
}

/** What a daemon has in directories. Its mount point stays when something is mounted there, or somebody put something in. */
export async function removeFiles(of: DaemonRecord): Promise<void> {
  for (const directory of [of.ConfigDir, dirname(of.APISocket), of.LogDir])
    if (basename(directory) === of.ID) await rm(directory, { recursive: true, force: true })
  await rmdir(of.Mountpoint).catch(() => undefined)
}
