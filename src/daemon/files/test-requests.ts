/** For tests: requests of the kernel for changes in a root directory, of `old` and `new`. */
import {
  CREATE_IN,
  FILE_OPCODE,
  FileRequest,
  LINK_IN,
  MKDIR_IN,
  MKNOD_IN,
  O,
  RENAME2_IN,
  SETXATTR_IN,
} from '../../kernel/index.ts'
import { ROOT_NODE } from './file-server.ts'

const [HEADER, RESENT, UNIQUE] = [40, 0x8000_0000, 16]

/** A message of the kernel; `head` are 32-bit numbers by their place. Source: docs/formats/fuse-wire.md, "Headers". */
export interface Asked {
  readonly opcode: number
  readonly node?: number
  readonly size?: number
  readonly head?: Readonly<Record<number, number>>
  readonly rest?: string
  /** Its number, when there are several. */
  readonly unique?: number
}

export function message(
  { opcode, node = ROOT_NODE, size = 0, head = {}, rest = '', unique = UNIQUE }: Asked,
  isAgain: boolean,
): FileRequest {
  const bytes = Buffer.alloc(HEADER + size)
  bytes.writeUInt32LE(opcode, 4)
  bytes.writeUInt32LE(unique, 8)
  bytes.writeUInt32LE(isAgain ? RESENT : 0, 12)
  bytes.writeBigUInt64LE(BigInt(node), 16)
  for (const [at, value] of Object.entries(head)) bytes.writeUInt32LE(value, HEADER + Number(at))
  return new FileRequest(Buffer.concat([bytes, Buffer.from(rest)]))
}

export const mkdir = { opcode: FILE_OPCODE.MKDIR, size: MKDIR_IN.size, head: { [MKDIR_IN.mode]: 0o755 }, rest: 'new\0' }
export const mknod = {
  opcode: FILE_OPCODE.MKNOD,
  size: MKNOD_IN.size,
  head: { [MKNOD_IN.mode]: 0o010644 },
  rest: 'new\0',
}
export const symlink = { opcode: FILE_OPCODE.SYMLINK, rest: 'new\0target\0' }
export const link = (node: number): Asked => ({
  opcode: FILE_OPCODE.LINK,
  size: LINK_IN.size,
  head: { [LINK_IN.node]: node % 2 ** 32, [LINK_IN.node + 4]: Math.floor(node / 2 ** 32) },
  rest: 'new\0',
})
export const create = (flags: number): Asked => ({
  opcode: FILE_OPCODE.CREATE,
  size: CREATE_IN.size,
  head: { [CREATE_IN.flags]: flags | O.CREAT | O.RDWR, [CREATE_IN.mode]: 0o640 },
  rest: 'new\0',
})
export const unlink = { opcode: FILE_OPCODE.UNLINK, rest: 'old\0' }
export const rmdir = { opcode: FILE_OPCODE.RMDIR, rest: 'old\0' }
export const rename = (flags = 0): Asked => ({
  opcode: FILE_OPCODE.RENAME2,
  size: RENAME2_IN.size,
  head: { [RENAME2_IN.directory]: ROOT_NODE, [RENAME2_IN.flags]: flags },
  rest: 'old\0new\0',
})
export const setxattr = (node: number): Asked => ({
  opcode: FILE_OPCODE.SETXATTR,
  node,
  size: SETXATTR_IN.size,
  head: { [SETXATTR_IN.count]: 5, [SETXATTR_IN.flags]: 1 },
  rest: 'user.note\0value',
})
export const removexattr = (node: number): Asked => ({ opcode: FILE_OPCODE.REMOVEXATTR, node, rest: 'user.note\0' })
