import { globSync, readFileSync } from 'node:fs'
import { dirname, resolve } from 'node:path'
import { SnapshotterError } from '../errors.ts'
import { isTable, parsedToml, valueAt } from './edit-toml.ts'

export const CONTAINERD_CONFIG = '/etc/containerd/config.toml'
const MAX_FILES = 64
const MAX_BYTES = 4 << 20

/** What containerd is configured with: its file, and those that it imports. */
export interface ContainerdConfig {
  readonly path: string
  /** undefined: the file is not there, and containerd takes its defaults. */
  readonly text: string | undefined
  /** Of the form of the file, 1 to 4. */
  readonly version: number
  /** All of it; imported files come over it. */
  readonly merged: Readonly<Record<string, unknown>>
  readonly imported: readonly string[]
}

/** Reads it as containerd does. Throws SnapshotterError 'BAD_CONFIG'. */
export function readContainerdConfig(path: string): ContainerdConfig {
  const text = textOf(path)
  if (text === undefined) return { path, text, version: 0, merged: {}, imported: [] }
  const merged: Record<string, unknown> = {}
  const seen: string[] = []
  merge(merged, path, text, seen)
  const version = valueAt(merged, ['version'])
  return { path, text, version: typeof version === 'number' ? version : 1, merged, imported: seen.slice(1) }
}

function merge(into: Record<string, unknown>, path: string, text: string, seen: string[]): void {
  if (seen.includes(path) || seen.length >= MAX_FILES) return
  seen.push(path)
  const table = parsedToml(text, path)
  mergeTables(into, table)
  const { imports } = table
  if (!Array.isArray(imports)) return
  for (const pattern of imports) {
    if (typeof pattern !== 'string') continue
    for (const file of globSync(resolve(dirname(path), pattern)).sort()) {
      const own = textOf(file)
      if (own !== undefined) merge(into, file, own, seen)
    }
  }
}

function mergeTables(into: Record<string, unknown>, from: Readonly<Record<string, unknown>>): void {
  for (const [key, value] of Object.entries(from)) {
    const known = into[key]
    if (isTable(known) && isTable(value)) mergeTables(known, value)
    else into[key] = isTable(value) ? structuredClone(value) : value
  }
}

function textOf(path: string): string | undefined {
  try {
    const bytes = readFileSync(path)
    if (bytes.length > MAX_BYTES)
      throw new SnapshotterError('BAD_CONFIG', `cannot use ${path}: it has more than ${MAX_BYTES} bytes`)
    return bytes.toString()
  } catch (error) {
    if (error instanceof SnapshotterError) throw error
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined
    throw new SnapshotterError('BAD_CONFIG', `cannot read ${path}: ${(error as Error).message}`, { cause: error })
  }
}

/** Where CRI's keys about images are: it depends on the form of the file. */
export function imagesTable(version: number): readonly string[] {
  if (version >= 3) return ['plugins', 'io.containerd.cri.v1.images']
  return version === 2 ? ['plugins', 'io.containerd.grpc.v1.cri', 'containerd'] : ['plugins', 'cri', 'containerd']
}

/** And about runtimes. */
export function runtimesTable(version: number): readonly string[] {
  if (version >= 3) return ['plugins', 'io.containerd.cri.v1.runtime', 'containerd', 'runtimes']
  return [...imagesTable(version), 'runtimes']
}

/** Where it listens. */
export function containerdAddress({ version, merged }: ContainerdConfig): string {
  const places =
    version >= 4
      ? [
          ['plugins', 'io.containerd.server.v1.grpc', 'address'],
          ['grpc', 'address'],
        ]
      : [['grpc', 'address']]
  for (const place of places) {
    const address = valueAt(merged, place)
    if (typeof address === 'string' && address !== '') return address
  }
  return '/run/containerd/containerd.sock'
}

export function containerdRoot({ merged }: ContainerdConfig): string {
  const root = valueAt(merged, ['root'])
  return typeof root === 'string' && root !== '' ? root : '/var/lib/containerd'
}
