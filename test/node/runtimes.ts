/** The containerds that the test can run: the machine's own, those of newer Debian suites, or one in a folder. */
import { execFile } from 'node:child_process'
import { copyFileSync, existsSync, mkdirSync, readdirSync, renameSync, rmSync, symlinkSync } from 'node:fs'
import { basename, delimiter, join } from 'node:path'
import { promisify } from 'node:util'
import { type DebianPackages, whyNoDebian } from './debian.ts'

const run = promisify(execFile)
const ANSWER_MS = 20_000

export interface Runtime {
  /** `1.6.20`. */
  readonly version: string
  /** Its programs are the first of this PATH. */
  readonly path: string
  /** Of its configuration. */
  readonly configVersion: 2 | 3
  /** Its runc and it can run pods in user namespaces. */
  readonly hasUserNamespaces: boolean
}

/** `system`, a suite, or a folder with `containerd`, `ctr`, `containerd-shim-runc-v2` and, perhaps, `runc`. */
export type RuntimeName = string
export const RUNTIMES: readonly RuntimeName[] = ['system', 'trixie', 'sid']

/** A containerd, or why it is not here. */
export async function findRuntime(name: RuntimeName, packages: DebianPackages): Promise<Runtime | string> {
  try {
    const system = `${process.env['PATH'] ?? ''}${delimiter}/usr/sbin${delimiter}/usr/bin`
    if (name === 'system') return await described(system)
    if (name.startsWith('/') && !existsSync(join(name, 'containerd'))) return `there is no containerd in ${name}`
    if (name.startsWith('/')) return await described(`${name}${delimiter}${system}`)
    const reason = whyNoDebian()
    if (reason !== false) return reason
    const folder = await suitePrograms(name, packages, {
      containerd: ['containerd'],
      runc: ['runc'],
      docker: ['docker.io'],
    })
    return await described(`${folder}${delimiter}${system}`)
  } catch (error) {
    return `no containerd of ${name}: ${firstLine(error)}`
  }
}

/** The last line is what apt says of the reason. */
function firstLine(error: unknown): string {
  const { message, code } = error as NodeJS.ErrnoException
  if (code === 'ENOENT') return `${(error as NodeJS.ErrnoException).path ?? 'a program'} is not installed`
  const lines = message.split('\n').filter((line) => line.trim() !== '')
  return (lines.find((line) => line.startsWith('E:')) ?? lines[0] ?? 'unknown').slice(0, 200)
}

async function described(path: string): Promise<Runtime> {
  const version = await versionOf('containerd', path)
  const runc = await versionOf('runc', path)
  const isNew = !version.startsWith('1.')
  return { version, path, configVersion: isNew ? 3 : 2, hasUserNamespaces: isNew && !/^1\.[01]\./.test(runc) }
}

async function versionOf(program: string, path: string): Promise<string> {
  const { stdout } = await run(program, ['--version'], { env: { ...process.env, PATH: path }, timeout: ANSWER_MS })
  return stdout.match(/\bv?(\d+\.\d+\.\d+)/)?.[1] ?? stdout.trim()
}

/** A folder with links to all programs of a suite's packages; those that need a newer C library than the machine's get it. */
export async function suitePrograms(
  suite: string,
  packages: DebianPackages,
  sets: Readonly<Record<string, readonly string[]>>,
): Promise<string> {
  const folders = await inTurn(Object.values(sets), async (names) => await packages.unpacked(suite, names))
  const ready = join(packages.folder, `${suite}-programs-${Object.keys(sets).join('-')}`)
  if (existsSync(ready)) return ready
  const work = `${ready}.new`
  rmSync(work, { recursive: true, force: true })
  mkdirSync(work)
  for (const folder of folders) {
    for (const program of programsIn(folder)) {
      const to = join(work, basename(program))
      if (await starts(program)) symlinkSync(program, to)
      else await withNewLibrary(program, to, suite, packages)
    }
  }
  renameSync(work, ready)
  return ready
}

function programsIn(folder: string): string[] {
  return ['usr/bin', 'usr/sbin', 'bin', 'sbin']
    .map((name) => join(folder, name))
    .filter((at) => existsSync(at))
    .flatMap((at) => readdirSync(at).map((name) => join(at, name)))
}

/** Nothing but the loader is asked: it fails before the program begins. */
async function starts(program: string): Promise<boolean> {
  try {
    await run(program, ['--version'], { timeout: ANSWER_MS })
    return true
  } catch (error) {
    return !/version `GLIBC|error while loading shared libraries/.test((error as { stderr?: string }).stderr ?? '')
  }
}

async function withNewLibrary(program: string, to: string, suite: string, packages: DebianPackages): Promise<void> {
  const [own] = await packages.machineSuite()
  const patchelf = await packages.unpacked(own, ['patchelf'])
  const libraries = await packages.unpacked(suite, ['libc6', 'libseccomp2'])
  const lib = readdirSync(join(libraries, 'usr/lib'), { withFileTypes: true }).find(
    (entry) => entry.isDirectory() && entry.name.endsWith('-linux-gnu'),
  )?.name
  const at = join(libraries, 'usr/lib', lib ?? '')
  const loader = readdirSync(at).find((name) => name.startsWith('ld-linux'))
  copyFileSync(program, to)
  await run(join(patchelf, 'usr/bin/patchelf'), ['--set-interpreter', join(at, loader ?? ''), '--set-rpath', at, to])
}

async function inTurn<T, U>(items: readonly T[], step: (item: T) => Promise<U>): Promise<U[]> {
  const results: U[] = []
  for (const item of items) results.push(await step(item))
  return results
}
