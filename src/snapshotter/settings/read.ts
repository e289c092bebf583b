import { accessSync, constants, readFileSync, statSync } from 'node:fs'
import { delimiter, isAbsolute, join, resolve } from 'node:path'
import { SnapshotterError } from '../errors.ts'
import { type Flags, MAX_DOCUMENT_BYTES, parseSettings } from './parse.ts'
import type { Settings } from './settings.ts'

const NOTHING = 'version = 1\n'

/** The settings of a configuration file (undefined = defaults) and flags, checked against what is on this machine. Throws SnapshotterError 'BAD_CONFIG'. */
export function readSettings(file: string | undefined, flags: Flags): Settings {
  const settings =
    file === undefined ? parseSettings(NOTHING, flags, 'the command line') : parseSettings(textOf(file), flags, file)
  checkFiles(settings, file ?? 'the command line')
  return settings
}

function textOf(file: string): string {
  try {
    if (statSync(file).size > MAX_DOCUMENT_BYTES)
      throw new SnapshotterError('BAD_CONFIG', `cannot use ${file}: it has more than ${MAX_DOCUMENT_BYTES} bytes`)
    return readFileSync(file, 'utf8')
  } catch (error) {
    if (error instanceof SnapshotterError) throw error
    const code = (error as NodeJS.ErrnoException).code
    const next = code === 'ENOENT' ? 'it is not there; give another --config, or none for the defaults' : code
    throw new SnapshotterError('BAD_CONFIG', `cannot read the configuration ${file}: ${next}`, { cause: error })
  }
}

/** What a start would fail of later, with worse words. */
function checkFiles({ image, remote }: Settings, name: string): void {
  const isThere = (path: string, kind: 'isFile' | 'isDirectory'): boolean =>
    statSync(path, { throwIfNoEntry: false })?.[kind]() === true
  const claim = (isRight: boolean, key: string, text: string): void => {
    if (!isRight) throw new SnapshotterError('BAD_CONFIG', `cannot use ${name}: "${key}": ${text}`)
  }
  if (image.validateSignature)
    claim(isThere(image.publicKeyFile, 'isFile'), 'image.public_key_file', `there is no file ${image.publicKeyFile}`)
  if (remote.mirrorsDir !== '')
    claim(
      isThere(remote.mirrorsDir, 'isDirectory'),
      'remote.mirrors_config.dir',
      `there is no directory ${remote.mirrorsDir}; make it, or write dir = ""`,
    )
  const { kubelet } = remote.auth
  if (!kubelet.enable) return
  claim(
    isThere(kubelet.config, 'isFile'),
    'remote.auth.credential_provider_config',
    `there is no file ${kubelet.config}`,
  )
  claim(
    isThere(kubelet.binDir, 'isDirectory'),
    'remote.auth.credential_provider_bin_dir',
    `there is no directory ${kubelet.binDir}`,
  )
}

/** Where this package has its own programs: beside the folder of what runs. */
const OWN_PROGRAMS = resolve(import.meta.dirname, import.meta.url.endsWith('.ts') ? '../../../bin' : '../bin')

/**
 * The program that a key of the configuration names: a path, a name in $PATH, or '' for `name` in $PATH, and then the one of this package.
 * Throws SnapshotterError 'BAD_CONFIG', naming the key.
 */
export function findProgram(given: string, name: string, key: string): string {
  const wanted = given === '' ? name : given
  const places = wanted.includes('/')
    ? [resolve(wanted)]
    : [...(process.env['PATH'] ?? '').split(delimiter).filter(isAbsolute), ...(given === '' ? [OWN_PROGRAMS] : [])].map(
        (directory) => join(directory, wanted),
      )
  const found = places.find(isProgram)
  if (found !== undefined) return found
  throw new SnapshotterError(
    'BAD_CONFIG',
    `cannot use "${key}": ${wanted.includes('/') ? `${wanted} is no program that may be run` : `there is no ${wanted} in $PATH`}; write ${key.slice(key.lastIndexOf('.') + 1)} = "/usr/local/bin/${name}" where it is`,
  )
}

function isProgram(path: string): boolean {
  try {
    accessSync(path, constants.X_OK)
    return statSync(path).isFile()
  } catch {
    return false // not here, or not for us
  }
}
