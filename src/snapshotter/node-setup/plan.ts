import {
  chmodSync,
  chownSync,
  existsSync,
  mkdirSync,
  readFileSync,
  realpathSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs'
import { arch } from 'node:os'
import { dirname, join } from 'node:path'
import {
  type Edit,
  editToml,
  missingIn,
  newVersion,
  parsedToml,
  readContainerdConfig,
  valueAt,
  type WantedOptions,
  withoutElement,
  withoutKey,
} from '../containerd-config/index.ts'
import { SnapshotterError } from '../errors.ts'
import { parseSettings } from '../settings/index.ts'
import { withDockerKeys, withoutDockerKeys } from './docker.ts'
import { type EditRecord, type FileRecord, parseRecord, type SetupRecord } from './record.ts'
import { NYDUSD_CONFIG, SERVICE, serviceUnit, snapshotterConfig } from './templates.ts'

export interface SetupOptions {
  /** Folder that stands for `/`: `/` itself, or the files of another system. */
  readonly prefix: string
  /** Below the prefix. */
  readonly containerdConfig: string
  readonly containerd: WantedOptions['containerd']
  /** Configure Docker too. */
  readonly docker: boolean
  /** The program that the unit starts, as it is called on that system. */
  readonly program: string
}

/** A file that becomes another one; undefined: it is not there. */
export interface FileChange {
  /** With the prefix. */
  readonly path: string
  readonly before: string | undefined
  readonly after: string | undefined
}

export interface SetupPlan {
  readonly changes: readonly FileChange[]
  /** What a person should know; a line each. */
  readonly notes: readonly string[]
}

const NAME = 'nydus'
const ARCHITECTURES: Readonly<Record<string, string>> = { x64: 'amd64' }
const CONFIG = '/etc/nydus/snapshotter.toml'
const TEMPLATE = '/etc/nydus/nydusd-config.json'
const UNIT = `/etc/systemd/system/${SERVICE}`
/** Where packages have their units. */
const PACKAGED = ['/lib/systemd/system', '/usr/lib/systemd/system']
const DOCKER = '/etc/docker/daemon.json'
/** Below the prefix. */
export const RECORD = '/etc/nydus/nydus-setup.json'

/** What has to be changed so that containerd uses the snapshotter; nothing when all is there. Throws SnapshotterError. */
export function planSetup(options: SetupOptions): SetupPlan {
  const { prefix } = options
  const at = (path: string): string => join(prefix, path)
  const own = textOf(at(CONFIG))
  const settings = parseSettings(own ?? snapshotterConfig(), {}, at(CONFIG))
  const files: FileRecord[] = []
  const add = (path: string, after: string, edits: readonly EditRecord[] = []): void => {
    const before = textOf(at(path))
    if (before !== after) files.push({ path, before: before ?? null, after, edits: [...edits] })
  }
  if (own === undefined) add(CONFIG, snapshotterConfig())
  if (textOf(at(TEMPLATE)) === undefined) add(TEMPLATE, NYDUSD_CONFIG)
  if (!PACKAGED.some((folder) => existsSync(at(`${folder}/${SERVICE}`))))
    add(UNIT, serviceUnit(options.program, CONFIG))
  const containerd = containerdFile(options, settings.address, settings.root)
  add(options.containerdConfig, containerd.after, containerd.edits)
  if (options.docker) add(DOCKER, withDockerKeys(textOf(at(DOCKER)), at(DOCKER)))
  const changes = files.map(({ path, before, after }) => ({ path: at(path), before: before ?? undefined, after }))
  if (changes.length === 0) return { changes, notes: [] }
  const known = recordOf(prefix)
  const record: SetupRecord = { version: 1, files: joined(known?.files ?? [], files) }
  const text = `${JSON.stringify(record, undefined, 2)}\n`
  return {
    changes: [...changes, { path: at(RECORD), before: textOf(at(RECORD)), after: text }],
    notes: containerd.notes,
  }
}

function containerdFile(
  { prefix, containerdConfig, containerd }: SetupOptions,
  address: string,
  root: string,
): { after: string; edits: EditRecord[]; notes: string[] } {
  const path = join(prefix, containerdConfig)
  const config = readContainerdConfig(path)
  const options = { containerd, address, root, name: NAME, architecture: ARCHITECTURES[arch()] ?? arch() }
  const edits: Edit[] = missingIn(config, options).flatMap((missing) => missing.edits)
  const text = config.text ?? `version = ${newVersion(containerd)}\n`
  const before = parsedToml(text, path)
  const after = edits.length === 0 && config.text !== undefined ? text : editToml(text, edits, path)
  const records = edits.map((edit): EditRecord => {
    if ('array' in edit) return { array: [...edit.array], element: { ...edit.element } }
    const old = valueAt(before, edit.path)
    return {
      path: [...edit.path],
      value: copied(edit.value),
      ...(isScalar(old) ? { before: copied(old) } : {}),
    }
  })
  const notes = config.imported.map((file) => `${path} imports ${file}, which comes over it; it was left as it is`)
  return { after, edits: records, notes }
}

/** What takes back all that was done, as far as nobody changed it since. */
export function planUndo(prefix: string): SetupPlan {
  const record = recordOf(prefix)
  if (record === undefined)
    return { changes: [], notes: [`there is no ${join(prefix, RECORD)}: nydus-setup did nothing here`] }
  const notes: string[] = []
  const changes: FileChange[] = []
  for (const file of [...record.files].reverse()) {
    const path = join(prefix, file.path)
    const now = textOf(path)
    const after = undone(file, now, path, notes)
    if (now !== after) changes.push({ path, before: now, after })
  }
  changes.push({ path: join(prefix, RECORD), before: textOf(join(prefix, RECORD)), after: undefined })
  return { changes, notes }
}

function undone(file: FileRecord, now: string | undefined, path: string, notes: string[]): string | undefined {
  if (now === undefined) return undefined
  if (now === file.after) return file.before ?? undefined
  if (file.path === DOCKER) return withoutDockerKeys(now, path)
  if (file.edits.length === 0) {
    notes.push(`${path} was changed since; it stays`)
    return now
  }
  return [...file.edits].reverse().reduce((text, edit) => {
    if ('array' in edit) return withoutElement(text, edit)
    if (JSON.stringify(valueAt(parsedToml(text, path), edit.path)) !== JSON.stringify(edit.value)) {
      notes.push(`${path}: ${edit.path.join('.')} was changed since; it stays`)
      return text
    }
    return edit.before === undefined
      ? withoutKey(text, edit.path)
      : editToml(text, [{ path: edit.path, value: edit.before }], path)
  }, now)
}

/** A second setup adds to the first; what was there before the first is what is taken back to. */
function joined(old: readonly FileRecord[], fresh: readonly FileRecord[]): FileRecord[] {
  const byPath = new Map(old.map((file) => [file.path, file]))
  for (const file of fresh) {
    const known = byPath.get(file.path)
    const isOurs = known !== undefined && known.after === file.before
    byPath.set(file.path, {
      ...file,
      before: isOurs ? known.before : file.before,
      edits: [...(known?.edits ?? []), ...file.edits],
    })
  }
  return [...byPath.values()]
}

/** Writes all changes; each file whole or not at all. */
export function applyPlan({ changes }: SetupPlan): void {
  for (const { path, after } of changes) {
    if (after === undefined) rmSync(path, { force: true })
    else writeWhole(existsSync(path) ? realpathSync(path) : path, after)
  }
}

/** The record has whole files in it, and containerd's may have logins. */
function modeOf(path: string): number {
  return path.endsWith(RECORD) ? 0o600 : 0o644
}

function writeWhole(path: string, text: string): void {
  const there = statSync(path, { throwIfNoEntry: false })
  mkdirSync(dirname(path), { recursive: true })
  const unfinished = `${path}.nydus-setup.tmp`
  try {
    writeFileSync(unfinished, text, { flush: true, mode: 0o600 })
    chmodSync(unfinished, there === undefined ? modeOf(path) : there.mode & 0o7777)
    if (there !== undefined) chownSync(unfinished, there.uid, there.gid)
    renameSync(unfinished, path)
  } finally {
    rmSync(unfinished, { force: true })
  }
}

function recordOf(prefix: string): SetupRecord | undefined {
  const path = join(prefix, RECORD)
  const text = textOf(path)
  return text === undefined ? undefined : parseRecord(text, path)
}

function textOf(path: string): string | undefined {
  try {
    return readFileSync(path, 'utf8')
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined
    throw new SnapshotterError('BAD_CONFIG', `cannot read ${path}: ${(error as Error).message}`, { cause: error })
  }
}

type Scalar = string | boolean | number | readonly string[]

function isScalar(value: unknown): value is Scalar {
  if (Array.isArray(value)) return value.every((one) => typeof one === 'string')
  return ['string', 'boolean', 'number'].includes(typeof value)
}

function copied(value: Scalar): string | boolean | number | string[] {
  return typeof value === 'object' ? [...value] : value
}
