/** What one daemon leaves to the next: the original's state of a FUSE daemon. Source: docs/formats/daemon-state.md. */
import { MAX_DOCUMENT_BYTES } from '../config/document.ts'
import { damaged, FieldReader, FieldWriter, MAX_TEXT_BYTES, seal, unseal } from './envelope.ts'

/** A mount as it was asked for, and the number that its inodes carry. */
export interface MountRecord {
  readonly path: string
  readonly kind: MountKind
  readonly source: string
  /** The configuration document; with logins. */
  readonly document: string
  readonly prefetchFiles: readonly string[] | undefined
  readonly slot: number
  /** Of an overlay: the name of the file with what is in hand of it. */
  readonly journal?: string | undefined
}

/** The original knows the first two, and refuses a state with another one. */
export type MountKind = 'rafs' | 'passthrough' | 'overlay'

/** What the session's first daemon and the kernel agreed on. Flags by bit, as in FUSE's session start. */
export interface SessionOptions {
  readonly offered: bigint
  readonly agreed: bigint
  readonly noReaddir: boolean
  readonly sealSize: boolean
  readonly idMapping: readonly [inner: number, outer: number, count: number]
  readonly noOpen: boolean
  readonly noOpendir: boolean
  readonly noWriteback: boolean
  readonly killPriv: boolean
}

/** A directory above the mounts; the root, number 1, is not told. */
export interface DirectoryRecord {
  readonly ino: number
  readonly parent: number
  readonly name: string
}

export interface SessionState {
  readonly mounts: readonly MountRecord[]
  /** Names the session below /sys/fs/fuse/connections. */
  readonly connection: bigint
  readonly options: SessionOptions
  readonly directories: readonly DirectoryRecord[]
  readonly nextDirectory: number
  /** The slot that is tried first for the next mount. */
  readonly nextSlot: number
  /** Settings that the API changed. The original neither writes nor reads them. */
  readonly settings: ReadonlyMap<string, string>
}

const KINDS: readonly MountKind[] = ['rafs', 'passthrough', 'overlay']
const MAX_SETTINGS_BYTES = 1 << 20

/** Section "Session". */
export function encodeState(state: SessionState): Buffer {
  const body = new FieldWriter()
    .list(state.mounts, (to, mount) => {
      to.text(mount.path).u32(KINDS.indexOf(mount.kind)).text(mount.source).text(mount.document).text(mount.path)
      to.flag(mount.prefetchFiles !== undefined)
      if (mount.prefetchFiles !== undefined) to.list(mount.prefetchFiles, (list, path) => list.text(path))
      to.u8(mount.slot)
      if (mount.kind === 'overlay') to.text(mount.journal ?? '')
    })
    .data(encodeTree(state))
    .u64(state.connection)
  if (state.settings.size > 0) body.text(JSON.stringify(Object.fromEntries(state.settings)))
  return seal(body.bytes)
}

/** Section "Tree". */
function encodeTree({ options, directories, nextDirectory, nextSlot }: SessionState): Buffer {
  const root = new FieldWriter()
    .u64(nextDirectory)
    .list(directories, (to, directory) => to.u64(directory.ino).u64(directory.parent).text(directory.name))
  const tree = new FieldWriter().u64(options.offered).u64(options.agreed).flag(options.noReaddir).flag(options.sealSize)
  for (const id of options.idMapping) tree.u32(id)
  tree.flag(options.noOpen).flag(options.noOpendir).flag(options.noWriteback).flag(options.killPriv)
  return seal(tree.data(seal(root.bytes)).u8(nextSlot).bytes)
}

/** Throws DaemonError 'HANDOVER' for anything that no daemon writes. */
export function decodeState(bytes: Uint8Array): SessionState {
  const body = unseal(bytes, 'the state')
  const mounts = body.list(38, readMount)
  const tree = readTree(body.data())
  const connection = body.u64()
  const settings = body.left === 0 ? new Map<string, string>() : readSettings(body.text(MAX_SETTINGS_BYTES))
  checkMounts(mounts)
  return { mounts, connection, settings, ...tree }
}

function readMount(from: FieldReader): MountRecord {
  const path = from.text(MAX_TEXT_BYTES)
  const kind = KINDS[from.u32()]
  if (kind === undefined) throw damaged('the state', 'a mount in it is of an unknown kind')
  const source = from.text(MAX_TEXT_BYTES)
  const document = from.text(MAX_DOCUMENT_BYTES)
  if (from.text(MAX_TEXT_BYTES) !== path) throw damaged('the state', `the mount ${path} has two names`)
  const prefetchFiles = from.flag() ? from.list(8, (list) => list.text(MAX_TEXT_BYTES)) : undefined
  const slot = from.u8()
  const journal = kind === 'overlay' ? from.text(MAX_TEXT_BYTES) : undefined
  return { path, kind, source, document, prefetchFiles, slot, ...(journal === undefined ? {} : { journal }) }
}

function checkMounts(mounts: readonly MountRecord[]): void {
  if (new Set(mounts.map(({ path }) => path)).size < mounts.length)
    throw damaged('the state', 'two of its mounts have one path')
  if (new Set(mounts.map(({ slot }) => slot)).size < mounts.length || mounts.some(({ slot }) => slot === 0))
    throw damaged('the state', 'its mounts have no number, or the same one')
}

function readTree(bytes: Uint8Array): Pick<SessionState, 'options' | 'directories' | 'nextDirectory' | 'nextSlot'> {
  const tree = unseal(bytes, 'the tree')
  const options: SessionOptions = {
    offered: tree.u64(),
    agreed: tree.u64(),
    noReaddir: tree.flag(),
    sealSize: tree.flag(),
    idMapping: [tree.u32(), tree.u32(), tree.u32()],
    noOpen: tree.flag(),
    noOpendir: tree.flag(),
    noWriteback: tree.flag(),
    killPriv: tree.flag(),
  }
  if (options.offered === 0n) throw damaged('the tree', 'its session was never started')
  const root = unseal(tree.data(), 'the directories')
  const nextDirectory = root.number()
  const directories = root.list(24, (from) => ({
    ino: from.number(),
    parent: from.number(),
    name: from.text(MAX_TEXT_BYTES),
  }))
  checkDirectories(directories, nextDirectory)
  return { options, directories, nextDirectory, nextSlot: tree.u8() }
}

/** A parent is made before its children, so its number is smaller: there are no circles. */
function checkDirectories(directories: readonly DirectoryRecord[], next: number): void {
  const known = new Set([1, ...directories.map(({ ino }) => ino)])
  if (known.size !== directories.length + 1) throw damaged('the directories', 'two have the same number')
  for (const { ino, parent, name } of directories)
    if (parent >= ino || ino >= next || !known.has(parent) || name === '' || /[/\0]/.test(name))
      throw damaged('the directories', `number ${ino} has no parent, or no name`)
}

function readSettings(text: string): ReadonlyMap<string, string> {
  let value: unknown
  try {
    value = JSON.parse(text)
  } catch {
    value = undefined // told below
  }
  const isTable = typeof value === 'object' && value !== null && !Array.isArray(value)
  const entries = isTable ? Object.entries(value as Record<string, unknown>) : undefined
  if (entries?.every((entry): entry is [string, string] => typeof entry[1] === 'string') !== true)
    throw damaged('the settings', 'they are no table of texts')
  return new Map(entries)
}
