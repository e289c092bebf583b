import { execFileSync } from 'node:child_process'
import { lstatSync, readdirSync, readlinkSync, realpathSync, statSync } from 'node:fs'
import { basename, dirname, join } from 'node:path'

/** One entry of a layer: something of this machine at a path of the image, text made here, or the deletion of a path of a lower layer. */
export type LayerEntry =
  | { readonly path: string; readonly from: string }
  | { readonly path: string; readonly text: string }
  | { readonly path: string; readonly directory: true }
  | { readonly path: string; readonly deleted: true }

/** A layer in the order in which it is written: directories before what they hold. */
export interface LayerPlan {
  readonly name: string
  readonly entries: readonly LayerEntry[]
}

const WANTED_FILES = 15_000
const HOST_PROGRAMS = [
  'sh',
  'ls',
  'cat',
  'cp',
  'mkdir',
  'rm',
  'env',
  'id',
  'uname',
  'sleep',
  'tar',
  'gzip',
  'sed',
  'grep',
  'find',
  'stat',
  'date',
]
/** What a base image carries besides programs; whatever of it the host has. */
const HOST_DATA = [
  '/etc/ssl/certs',
  '/usr/share/zoneinfo',
  '/usr/share/perl5',
  '/usr/share/i18n',
  '/usr/lib/x86_64-linux-gnu/gconv',
  '/usr/share/doc',
  '/usr/share/terminfo',
  '/usr/share/locale',
  '/usr/share/perl',
]
const HOST_DATA_FILES = 6000
/** A file larger than this does not belong in a small userland. */
const HOST_FILE_BYTES = 2 * 1024 * 1024

/**
 * The demo image: a userland from the host, the Node runtime of this package with the libraries that it needs, this package's installed
 * dependencies as a first release, and a second release that replaces and deletes files of the first.
 */
export function planLayers(packageRoot: string): LayerPlan[] {
  const node = nodeHome(packageRoot)
  const userland = planUserland()
  const runtime = planRuntime(node)
  const modules = join(packageRoot, 'node_modules')
  const isRuntime = (path: string): boolean => path.startsWith(node) || basename(path).startsWith('.package-lock')
  const first = [{ path: 'app', directory: true } as const, ...tree(modules, 'app/node_modules', isRuntime)]
  first.push(
    { path: 'app/release.mjs', text: "export const release = '1.0.0'\n" },
    { path: 'app/server.mjs', text: '// replaced by the next layer\n' },
  )
  first.push({ path: 'app/old', directory: true }, { path: 'app/old/notes.txt', text: 'deleted by the next layer\n' })
  const second: LayerEntry[] = [
    { path: 'app', directory: true },
    { path: 'app/old', deleted: true },
    { path: 'app/node_modules/typescript/README.md', deleted: true },
    { path: 'app/server.mjs', from: join(import.meta.dirname, 'app/server.mjs') },
    { path: 'app/release.mjs', from: join(import.meta.dirname, 'app/release.mjs') },
  ]
  const layers = [userland, runtime, { name: 'release 1', entries: first }, { name: 'release 2', entries: second }]
  // A host with little to offer still gets an image of a real image's size: older releases stay in it for a rollback, as deployments keep them.
  for (let release = 1, count = countFiles(layers); count < WANTED_FILES && release < 20; release++) {
    const kept = tree(
      modules,
      `srv/releases/${release}`,
      (path) => isRuntime(path) || lstatSync(path).size > HOST_FILE_BYTES,
    )
    layers.splice(2 + release, 0, {
      name: `kept release ${release}`,
      entries: [{ path: 'srv', directory: true }, { path: 'srv/releases', directory: true }, ...kept],
    })
    count = countFiles(layers)
  }
  return layers
}

function nodeHome(packageRoot: string): string {
  const bundled = join(packageRoot, 'node_modules', `node-linux-${process.arch}`)
  return statSync(bundled, { throwIfNoEntry: false }) ? bundled : dirname(dirname(realpathSync(process.execPath)))
}

function planUserland(): LayerPlan {
  const files = new Map<string, string>()
  const programs = HOST_PROGRAMS.flatMap((name) => ['/usr/bin', '/bin'].map((folder) => join(folder, name)))
  for (const program of programs.filter(exists)) addProgram(files, program)
  const entries: LayerEntry[] = withParents(files)
  for (const folder of ['tmp', 'proc', 'sys', 'dev', 'run', 'root']) entries.push({ path: folder, directory: true })
  entries.push(
    { path: 'etc/passwd', text: 'root:x:0:0:root:/root:/bin/sh\n' },
    { path: 'etc/hosts', text: '127.0.0.1 localhost\n' },
  )
  const known = new Set(entries.map(({ path }) => path))
  let data = 0
  for (const root of HOST_DATA.filter(exists)) {
    if (data >= HOST_DATA_FILES) break
    const found = tree(root, root.slice(1), (path) => lstatSync(path).size > HOST_FILE_BYTES).slice(
      0,
      HOST_DATA_FILES - data,
    )
    for (const parent of parents(root.slice(1))) if (!known.has(parent)) entries.push({ path: parent, directory: true })
    for (const parent of parents(root.slice(1))) known.add(parent)
    for (const entry of found) if (!known.has(entry.path)) entries.push(entry)
    for (const entry of found) known.add(entry.path)
    data += found.length
  }
  return { name: 'userland', entries }
}

function planRuntime(node: string): LayerPlan {
  const files = new Map<string, string>()
  for (const library of libraries(join(node, 'bin/node'))) files.set(library.slice(1), library)
  const entries = [...withParents(files), { path: 'usr/local', directory: true } as const]
  const known = new Set(entries.map(({ path }) => path))
  if (!known.has('usr')) entries.unshift({ path: 'usr', directory: true })
  return {
    name: 'node',
    entries: [...entries, ...tree(node, 'usr/local', () => false).filter(({ path }) => path !== 'usr/local')],
  }
}

/** Adds a program at its own path and the libraries that it loads; what is a link on the host is a plain file here. */
function addProgram(files: Map<string, string>, program: string): void {
  files.set(program.slice(1), realpathSync(program))
  for (const library of libraries(program)) files.set(library.slice(1), realpathSync(library))
}

/** Paths of the shared libraries of a program, the loader included. */
function libraries(program: string): string[] {
  try {
    const text = execFileSync('ldd', [program], { encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] })
    return [...text.matchAll(/(?:=> )?(\/[^\s]+) \(0x/g)].flatMap((match) => (match[1] ? [match[1]] : []))
  } catch {
    // Not a dynamic program (ldd exits 1): it needs none.
    return []
  }
}

function withParents(files: ReadonlyMap<string, string>): LayerEntry[] {
  const folders = new Set([...files.keys()].flatMap(parents))
  const directories = [...folders].sort().map((path) => ({ path, directory: true }) as const)
  return [...directories, ...[...files].map(([path, from]) => ({ path, from: realpathSync(from) }))]
}

function parents(path: string): string[] {
  const parts = path.split('/').slice(0, -1)
  return parts.map((_part, index) => parts.slice(0, index + 1).join('/'))
}

/** A folder of the host and all that is in it, at `to` in the image. Sockets, devices and what `skip` names are left out. */
function tree(from: string, to: string, skip: (path: string) => boolean): LayerEntry[] {
  const entries: LayerEntry[] = [{ path: to, directory: true }]
  for (const entry of readdirSync(from, { withFileTypes: true }).sort((a, b) => (a.name < b.name ? -1 : 1))) {
    const path = join(from, entry.name)
    const target = `${to}/${entry.name}`
    if (skip(path)) continue
    if (entry.isDirectory()) entries.push(...tree(path, target, skip))
    else if (entry.isFile() || (entry.isSymbolicLink() && !readlinkSync(path).startsWith('/')))
      entries.push({ path: target, from: path })
  }
  return entries
}

function countFiles(layers: readonly LayerPlan[]): number {
  return layers.reduce(
    (sum, { entries }) => sum + entries.filter((entry) => !('deleted' in entry) && !('directory' in entry)).length,
    0,
  )
}

function exists(path: string): boolean {
  return statSync(path, { throwIfNoEntry: false }) !== undefined
}
