/** The files of an installation, as packages and images have them. */
import { existsSync, lstatSync, readdirSync, readFileSync, readlinkSync, statSync } from 'node:fs'
import { arch } from 'node:os'
import { dirname, join } from 'node:path'

export interface TreeEntry {
  /** Absolute, in the installed system. */
  readonly path: string
  readonly mode: number
  readonly content: { readonly file: string } | { readonly text: string } | { readonly link: string } | 'directory'
}

export interface Manifest {
  readonly version: string
  readonly description: string
  readonly license: string
  readonly bin: Readonly<Record<string, string>>
}

export const HOME = '/usr/lib/nydus-node'
/** What bundles load by name. */
const MODULES = ['koffi', '@napi-rs/blake-hash', '@node-rs/crc32'] as const
/** Parts of them for this machine, and the runtime. */
const NATIVE: Readonly<Record<string, readonly string[]>> = {
  x64: ['@koromix/koffi-linux-x64', '@napi-rs/blake-hash-linux-x64-gnu', '@node-rs/crc32-linux-x64-gnu'],
  arm64: ['@koromix/koffi-linux-arm64', '@napi-rs/blake-hash-linux-arm64-gnu', '@node-rs/crc32-linux-arm64-gnu'],
}
/** Sources, tests and declarations that nothing loads. What is loaded may be in folders of such names. */
const UNUSED = /\.(?:d\.[cm]?ts|map|md|cc|h|hh|c|inc|def|S|asm|cmake)$|\/(?:doc|docs|vendor|scripts)\//

export function readManifest(root: string): Manifest {
  return JSON.parse(readFileSync(join(root, 'package.json'), 'utf8')) as Manifest
}

/** The name of this machine in packages and images. */
export function architecture(): string {
  return arch() === 'x64' ? 'amd64' : arch()
}

/** Everything below {@link HOME}, and links to the tools in `/usr/bin`. Throws when something is missing. */
export function installedTree(root: string): TreeEntry[] {
  const manifest = readManifest(root)
  const native = NATIVE[arch()]
  if (native === undefined) throw new Error(`there is no package for ${arch()}`)
  const entries: TreeEntry[] = []
  for (const name of ['package.json', 'LICENSE', 'README.md', 'CHANGELOG.md'])
    entries.push(fileAt(join(root, name), `${HOME}/${name}`))
  entries.push(...below(join(root, 'bin'), `${HOME}/bin`))
  const bundles = below(join(root, 'dist'), `${HOME}/dist`).filter(({ path }) => /\.cjs$|-NOTICES$/.test(path))
  if (bundles.length < 2) throw new Error('dist/ is empty: npm run build')
  entries.push(...bundles)
  for (const name of [...MODULES, ...native])
    entries.push(
      ...below(moduleAt(root, name), `${HOME}/node_modules/${name}`).filter(({ path }) => !UNUSED.test(path)),
    )
  const runtime = `node-linux-${arch()}`
  const node = moduleAt(root, runtime)
  for (const name of ['bin/node', 'package.json', 'LICENSE'])
    if (existsSync(join(node, name))) entries.push(fileAt(join(node, name), `${HOME}/node_modules/${runtime}/${name}`))
  for (const [tool, path] of Object.entries(manifest.bin))
    entries.push({ path: `/usr/bin/${tool}`, mode: 0o777, content: { link: `../lib/nydus-node/${path}` } })
  return entries
}

function moduleAt(root: string, name: string): string {
  const path = join(root, 'node_modules', name)
  if (!existsSync(path)) throw new Error(`${name} is not installed: npm run setup`)
  return path
}

/** All files of a folder, links as links. */
function below(folder: string, at: string): TreeEntry[] {
  return readdirSync(folder, { withFileTypes: true })
    .sort((a, b) => (a.name < b.name ? -1 : 1))
    .flatMap((entry) => {
      const from = join(folder, entry.name)
      const to = `${at}/${entry.name}`
      if (entry.name === '.cache' || entry.name === '.bin') return []
      if (entry.isDirectory()) return below(from, to)
      return entry.isSymbolicLink() && !statSync(from, { throwIfNoEntry: false })?.isFile() ? [] : [fileAt(from, to)]
    })
}

/** Permissions are those of packages, whatever the umask was here. */
export function fileAt(from: string, path: string): TreeEntry {
  const mode = (statSync(from).mode & 0o111) === 0 ? 0o644 : 0o755
  return lstatSync(from).isSymbolicLink() && !readlinkSync(from).includes('/')
    ? { path, mode: 0o777, content: { link: readlinkSync(from) } }
    : { path, mode, content: { file: from } }
}

/** With every folder above, each before what is in it, each path once. */
export function withFolders(entries: readonly TreeEntry[]): TreeEntry[] {
  const all = new Map<string, TreeEntry>()
  const folder = (path: string): void => {
    if (path === '/' || all.has(path)) return
    folder(dirname(path))
    all.set(path, { path, mode: 0o755, content: 'directory' })
  }
  for (const entry of [...entries].sort((a, b) => (a.path < b.path ? -1 : 1))) {
    folder(dirname(entry.path))
    all.set(entry.path, entry)
  }
  return [...all.values()]
}
