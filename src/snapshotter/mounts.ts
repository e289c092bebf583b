/** Mounts as containerd gets them. The order of options is seen by clients and stays as it is. Source: docs/containerd-nydus-grpc.md, "Mounts". */
import type { IdMapping } from './id-mapping.ts'
import type { Mount } from './snapshot.ts'

/** A snapshot that shall be mounted. */
export interface Mounted {
  readonly kind: 'active' | 'view'
  /** `snapshots/<id>`. */
  readonly directory: string
  /** What is written may be lost with the machine. */
  readonly volatile: boolean
  readonly mapping: IdMapping | undefined
}

/** The directory with a snapshot's own files. */
export function filesOf(directory: string): string {
  return `${directory}/fs` // `join` would look at every letter: of many layers, for every call
}

/** On layers that are unpacked; `parents` are their directories, nearest first. */
export function nativeMounts(of: Mounted, parents: readonly string[]): readonly Mount[] {
  const mapping = mappingOptions(of.mapping)
  const [first, ...more] = parents
  if (first === undefined)
    return [bind(filesOf(of.directory), [of.kind === 'active' ? 'rw' : 'ro', 'rbind', ...mapping])]
  if (of.kind === 'view' && more.length === 0) return [bind(filesOf(first), ['ro', 'rbind', ...mapping])]
  const options = of.kind === 'active' ? [...writable(of.directory), ...(of.volatile ? ['volatile'] : [])] : []
  return [overlay([...options, ...mapping, lowerdir(parents.map(filesOf))])]
}

/** Options of an overlay on an image that is mounted at `image`, with the directories of the layers in between. A view's own directory, which is empty, is there because an overlay of one layer cannot be. `mapping`: of ids, for containerd to map. */
export function imageOptions(
  of: Mounted,
  above: readonly string[],
  image: string,
  mapping: IdMapping | undefined,
): string[] {
  const own = of.kind === 'view' ? [filesOf(of.directory)] : []
  return [
    ...(of.volatile ? ['volatile'] : []),
    ...(of.kind === 'active' ? writable(of.directory) : []),
    ...mappingOptions(mapping),
    lowerdir([...above.map(filesOf), image, ...own]),
  ]
}

/** Options of a mount that only a virtual machine makes anything of. Without parents some directory must be named. */
export function proxyOptions(of: Mounted, parents: readonly string[], placeholder: string): string[] {
  const lower = parents.length === 0 ? [placeholder] : parents.map(filesOf)
  return [...(of.kind === 'active' ? writable(of.directory) : []), lowerdir(lower)]
}

export function overlay(options: readonly string[]): Mount {
  return { type: 'overlay', source: 'overlay', target: '', options }
}

/** A mount that the program `helper` makes, which knows options that the kernel does not. */
export function helperMount(helper: string, options: readonly string[]): Mount {
  return { type: `fuse.${helper}`, source: 'overlay', target: '', options }
}

/** What Kata needs to serve the image itself. `config` is nydusd's, with logins: the option must not be logged. */
export function extraOption(of: {
  readonly bootstrap: string
  readonly config: string
  readonly directory: string
  readonly version: 'v5' | 'v6'
}): string {
  const { bootstrap: source, config, directory: snapshotdir, version: fs_version } = of
  const text = JSON.stringify({ source, config, snapshotdir, fs_version })
  return `extraoption=${Buffer.from(text).toString('base64')}`
}

function bind(source: string, options: readonly string[]): Mount {
  return { type: 'bind', source, target: '', options }
}

function writable(directory: string): string[] {
  return [`workdir=${directory}/work`, `upperdir=${filesOf(directory)}`]
}

function lowerdir(paths: readonly string[]): string {
  return `lowerdir=${paths.join(':')}`
}

/** containerd's own code maps the ids of each layer: the kernel does not know these options. */
function mappingOptions(mapping: IdMapping | undefined): string[] {
  if (mapping === undefined) return []
  const { container, host, size } = mapping
  return [`uidmap=${container}:${host}:${size}`, `gidmap=${container}:${host}:${size}`]
}
