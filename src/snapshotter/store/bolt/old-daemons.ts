/** Daemons of the original's databases before version 1, which had one record for a daemon and its image. Source: docs/formats/bolt.md, "nydus.db". */
import { chmodSync, copyFileSync, mkdirSync } from 'node:fs'
import { dirname, join, resolve, sep } from 'node:path'
import type { GoRecord } from './import-records.ts'

const SHARED = 'shared_daemon'
const CONFIG = 'config.json'

interface Translated {
  readonly daemons: Map<string, GoRecord>
  readonly instances: Map<string, GoRecord>
}

/** Records as they are today. Configurations are copied to where they are looked for today; those that are gone are made anew when they are needed. */
export function translateOldDaemons(old: ReadonlyMap<string, GoRecord>, root: string): Translated {
  const translated: Translated = { daemons: new Map(), instances: new Map() }
  const isShared = [...old.values()].some((daemon) => text(daemon, 'ID') === SHARED)
  for (const daemon of old.values()) {
    if (text(daemon, 'ID') === SHARED) addShared(translated, daemon, old, root)
    else if (isShared) addToShared(translated, daemon, root)
    else addDedicated(translated, daemon)
  }
  return translated
}

function addDedicated({ daemons, instances }: Translated, daemon: GoRecord): void {
  const [id, snapshot] = [text(daemon, 'ID'), text(daemon, 'SnapshotID')]
  const directory = join(text(daemon, 'SnapshotDir'), snapshot)
  const mode = { DaemonMode: 'dedicated', Mountpoint: text(daemon, 'CustomMountPoint') }
  const places = { APISocket: join(text(daemon, 'SocketDir'), 'api.sock'), ConfigDir: text(daemon, 'ConfigDir') }
  daemons.set(id, { ...process(daemon), ...mode, ...places })
  instances.set(snapshot, { ...instance(daemon, id, directory), Mountpoint: join(directory, 'mnt') })
}

function addShared({ daemons }: Translated, daemon: GoRecord, all: ReadonlyMap<string, GoRecord>, root: string): void {
  const others = [...all.values()].find((other) => text(other, 'ID') !== SHARED && text(other, 'ConfigDir') !== '')
  const from = others === undefined ? '' : text(others, 'ConfigDir')
  const directory = from === '' ? join(root, 'config', SHARED) : join(dirname(from), SHARED)
  if (from !== '') copyConfig(root, join(from, CONFIG), join(directory, CONFIG))
  const mode = { DaemonMode: 'shared', Mountpoint: text(daemon, 'RootMountPoint') }
  const places = { APISocket: join(text(daemon, 'SnapshotDir'), 'api.sock'), ConfigDir: directory }
  daemons.set(SHARED, { ...process(daemon), ...mode, ...places })
}

function addToShared({ instances }: Translated, daemon: GoRecord, root: string): void {
  const snapshot = text(daemon, 'SnapshotID')
  const from = text(daemon, 'ConfigDir')
  copyConfig(root, join(from, CONFIG), join(dirname(from), SHARED, snapshot, CONFIG))
  const mountpoint = join(text(daemon, 'RootMountPoint'), snapshot)
  const directory = join(text(daemon, 'SnapshotDir'), snapshot)
  instances.set(snapshot, { ...instance(daemon, SHARED, directory), Mountpoint: mountpoint })
}

function process(daemon: GoRecord): GoRecord {
  const { ID, Pid: ProcessID, FsDriver, LogDir, LogLevel, LogToStdout } = daemon
  return { ID, ProcessID, FsDriver, LogDir, LogLevel, LogToStdout }
}

function instance(daemon: GoRecord, daemonId: string, directory: string): GoRecord {
  const { ImageID, SnapshotID, FsDriver } = daemon
  return { ImageID, DaemonID: daemonId, FsDriver, SnapshotID, SnapshotDir: directory }
}

function text(record: GoRecord, field: string): string {
  const value = record[field]
  return typeof value === 'string' ? value : ''
}

/** Only inside the root, wherever the record says. */
function copyConfig(root: string, from: string, to: string): void {
  const isInside = [from, to].every((path) => resolve(path).startsWith(root + sep))
  if (!isInside) return
  try {
    mkdirSync(dirname(to), { recursive: true, mode: 0o700 })
    copyFileSync(from, to)
    chmodSync(to, 0o600)
  } catch {
    // It is gone: it is rendered again from the template.
  }
}
