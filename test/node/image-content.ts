/** What is in the images: programs of this machine, and files whose bytes are checked. */
import { execFileSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import { existsSync, readFileSync, realpathSync } from 'node:fs'
import { join } from 'node:path'
import { type EntryText, pushImage, tarOf } from '../../src/convert/testing.ts'
import { hostPlatform, type Repository } from '../../src/registry/index.ts'

const PROGRAMS = ['sh', 'cat', 'dd', 'cp', 'id', 'ls', 'mkdir', 'rm', 'sha256sum', 'sleep', 'stat', 'touch', 'true']
const DIRECTORIES = ['bin', 'data', 'dev', 'etc', 'proc', 'run', 'sys', 'tmp']
const FILES = 24

/** Path, and content. */
export type DataFile = readonly [path: string, content: Uint8Array]

/** Files of many sizes, up to a megabyte, whose bytes look random. `seed` makes others. */
export function dataFiles(seed = 1): DataFile[] {
  return Array.from({ length: FILES }, (_, index) => {
    const words = new Uint32Array(1 + index * index * index * 25)
    let word = index + seed
    for (let at = 0; at < words.length; at += 1) words[at] = word = Math.imul(word, 0x9e37_79b1) ^ (word >>> 13)
    return [`data/${String(index).padStart(2, '0')}`, new Uint8Array(words.buffer)]
  })
}

/** What `sha256sum /data/*` prints. */
export function sumsOf(files: readonly DataFile[]): string {
  const sorted = [...files].sort(([a], [b]) => (a < b ? -1 : 1))
  return sorted.map(([path, content]) => `${createHash('sha256').update(content).digest('hex')}  /${path}\n`).join('')
}

export function dataEntries(files: readonly DataFile[]): EntryText[] {
  return files.map(([path, content]) => ({ path, type: 'file', content }))
}

/** Directories, users and programs: busybox where it needs no libraries, else programs with theirs. */
export function baseEntries(): EntryText[] {
  return [
    ...DIRECTORIES.map((path): EntryText => ({ path: `${path}/`, type: 'directory' })),
    { path: 'etc/passwd', type: 'file', content: 'root:x:0:0:root:/:/bin/sh\n' },
    ...(busybox() ?? programs()),
  ]
}

export async function layerOf(entries: readonly EntryText[]): Promise<Buffer> {
  return await tarOf(entries)
}

/** Pushes an image of layers with programs of this machine, which runs on no other kind of processor. */
export async function pushRunnable(repository: Repository, layers: readonly Buffer[]): Promise<void> {
  await pushImage(repository, layers, { architecture: hostPlatform().architecture })
}

function busybox(): EntryText[] | undefined {
  const path = pathOf('busybox')
  if (path === undefined || librariesOf(path).length > 0) return undefined
  return [
    { path: 'bin/busybox', type: 'file', mode: 0o755, content: readFileSync(path) },
    ...PROGRAMS.map((name): EntryText => ({ path: `bin/${name}`, type: 'symlink', link: 'busybox', mode: 0o777 })),
  ]
}

function programs(): EntryText[] {
  const files = new Map<string, string>()
  for (const name of PROGRAMS) {
    const path = pathOf(name)
    if (path === undefined) throw new Error(`this machine has no ${name}, which goes into the images`)
    files.set(`bin/${name}`, path)
    for (const library of librariesOf(path)) files.set(library.slice(1), library)
  }
  return [...files].map(([path, from]) => ({
    path,
    type: 'file',
    mode: 0o755,
    content: readFileSync(realpathSync(from)),
  }))
}

/** Of a program's file: `command -v` would name what is built into the shell by its bare name. */
function pathOf(name: string): string | undefined {
  return ['/usr/bin', '/bin'].map((folder) => join(folder, name)).find((path) => existsSync(path))
}

function librariesOf(path: string): string[] {
  try {
    const text = execFileSync('ldd', [path], { encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] })
    return [...text.matchAll(/(\/\S+) \(0x/g)].map(([, library = '']) => library)
  } catch {
    return [] // it is no dynamic executable
  }
}
