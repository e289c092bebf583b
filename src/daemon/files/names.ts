import { FILE_OPCODE, type FileRequest, RENAME2_IN, RENAME_IN } from '../../kernel/index.ts'

/** What RENAME and RENAME2 ask for; names end in NUL. */
export interface RenameRequest {
  readonly name: Uint8Array
  /** Node of the directory that gets it. */
  readonly to: number
  readonly newName: Uint8Array
  /** As of renameat2(2). */
  readonly flags: number
}

/** Undefined: a name is none. */
export function renameOf(request: FileRequest): RenameRequest | undefined {
  const hasFlags = request.opcode === FILE_OPCODE.RENAME2
  const at = hasFlags ? RENAME2_IN.size : RENAME_IN.size
  const name = request.name(at)
  const newName = name === undefined ? undefined : request.name(at + name.length)
  if (name === undefined || newName === undefined) return undefined
  return {
    name,
    to: request.nodeAt(RENAME_IN.directory),
    newName,
    flags: hasFlags ? request.word(RENAME2_IN.flags) : 0,
  }
}

/** Does LOOKUP ask for the directory itself? NFS servers do. They ask for `..` too, for which there is no way up. */
export function isSelf(request: FileRequest): boolean {
  return Buffer.from(request.text(0)).toString() === '.\0'
}
