/** For tests: changes of an overlay, as the kernel asks for them. */
import assert from 'node:assert/strict'
import { join } from 'node:path'
import {
  FILE_OPCODE,
  LINK_IN,
  MKDIR_IN,
  O,
  OPCODE,
  OPEN_IN,
  RENAME2_IN,
  SETATTR_IN,
  SETXATTR_IN,
  WRITE_IN,
} from '../../kernel/index.ts'
import type { Layers } from './test-layers.ts'
import type { Asked } from './test-requests.ts'

/** A change: what the kernel asks for, after what it has asked for before. */
export type Change = (layers: Layers) => Promise<Asked>

export const within =
  (directory: string, asked: Asked): Change =>
  async (layers) => ({ ...asked, node: await layers.node(directory) })

export const named = (opcode: number, rest: string): Asked => ({ opcode, rest })

export function words(head: Readonly<Record<number, number>>, at: number, value: number): Record<number, number> {
  return { ...head, [at]: value % 2 ** 32, [at + 4]: Math.floor(value / 2 ** 32) }
}

export const renamed =
  (directory: string, name: string, to: string, newName: string, flags = 0): Change =>
  async (layers) => {
    for (const path of [join(directory, name), join(to, newName)]) await layers.node(path).catch(() => undefined)
    return {
      opcode: FILE_OPCODE.RENAME2,
      node: await layers.node(directory),
      size: RENAME2_IN.size,
      head: words({ [RENAME2_IN.flags]: flags }, RENAME2_IN.directory, await layers.node(to)),
      rest: `${name}\0${newName}\0`,
    }
  }

export const removed =
  (directory: string, name: string, opcode: number = FILE_OPCODE.UNLINK): Change =>
  async (layers) => {
    await layers.node(join(directory, name))
    return { opcode, node: await layers.node(directory), rest: `${name}\0` }
  }

export const linked =
  (path: string, directory: string, name: string): Change =>
  async (layers) => ({
    opcode: FILE_OPCODE.LINK,
    node: await layers.node(directory),
    size: LINK_IN.size,
    head: words({}, LINK_IN.node, await layers.node(path)),
    rest: `${name}\0`,
  })

export async function opened(layers: Layers, path: string, flags: number): Promise<number> {
  const asked = { opcode: OPCODE.OPEN, node: await layers.node(path), size: OPEN_IN.size, unique: 6 }
  assert.ok((await layers.ask({ ...asked, head: { [OPEN_IN.flags]: flags } })) > 0)
  return layers.answered(0)
}

export const written =
  (path: string, offset: number, flags: number): Change =>
  async (layers) => ({
    opcode: FILE_OPCODE.WRITE,
    node: await layers.node(path),
    size: WRITE_IN.size,
    head: {
      ...words({}, 0, await opened(layers, path, O.RDWR | flags)),
      [WRITE_IN.offset]: offset,
      [WRITE_IN.count]: 12,
      [WRITE_IN.flags]: flags,
    },
    rest: 'twelve bytes',
  })

export const attributes =
  (path: string, valid: number, head: Readonly<Record<number, number>>): Change =>
  async (layers) => ({
    opcode: FILE_OPCODE.SETATTR,
    node: await layers.node(path),
    size: 88,
    head: { ...head, [SETATTR_IN.valid]: valid },
  })

export const noted =
  (path: string): Change =>
  async (layers) => ({
    opcode: FILE_OPCODE.SETXATTR,
    node: await layers.node(path),
    size: SETXATTR_IN.size,
    head: { [SETXATTR_IN.count]: 5, [SETXATTR_IN.flags]: 1 },
    rest: 'user.note\0value',
  })

/** First others, which nobody interrupts, then the last. */
export const after =
  (...changes: readonly Change[]): Change =>
  async (layers) => {
    for (const [index, change] of changes.slice(0, -1).entries())
      assert.ok((await layers.ask({ ...(await change(layers)), unique: 100 + index * 2 })) >= 0, `step ${index}`)
    return await (changes.at(-1) ?? assert.fail())(layers)
  }

export const mkdir = (directory: string, name: string): Change =>
  within(directory, {
    opcode: FILE_OPCODE.MKDIR,
    size: MKDIR_IN.size,
    head: { [MKDIR_IN.mode]: 0o755 },
    rest: `${name}\0`,
  })
