/**
 * Answers of calls that a node makes for every container and layer, as bytes. The general encoder makes a message of the object first, and looks its fields up one by one: it takes longer than the snapshot's own part of the
 * call. Source: protocol buffers' "Encoding"; `mount.proto` and `snapshots.proto`.
 */
import type { Encoded } from './methods.ts'

/** `containerd.types.Mount`. */
export interface MountFields {
  readonly type: string
  readonly source: string
  readonly target: string
  readonly options: readonly string[]
}

/** Tags of fields that have a length: number << 3 | 2. */
const MOUNTS = (1 << 3) | 2
const [TYPE, SOURCE, TARGET, OPTION] = [1, 2, 3, 4].map((field) => (field << 3) | 2) as [number, number, number, number]

/** A message without fields: what `Commit`, `Remove` and `Cleanup` answer. */
export const NOTHING: Encoded = Buffer.alloc(0)

/** What `Prepare`, `View` and `Mounts` answer. */
export function encodeMounts(mounts: readonly MountFields[]): Encoded {
  const sizes = mounts.map(sizeOf)
  const answer = Buffer.allocUnsafe(sizes.reduce((sum, size) => sum + 1 + varintSize(size) + size, 0))
  let at = 0
  for (const [i, mount] of mounts.entries()) {
    at = writeVarint(answer, writeVarint(answer, at, MOUNTS), sizes[i] ?? 0)
    at = writeMount(answer, at, mount)
  }
  return answer
}

function writeMount(into: Buffer, start: number, { type, source, target, options }: MountFields): number {
  let at = writeText(into, start, TYPE, type)
  at = writeText(into, at, SOURCE, source)
  at = writeText(into, at, TARGET, target)
  for (const option of options) at = writeField(into, at, OPTION, option)
  return at
}

function sizeOf({ type, source, target, options }: MountFields): number {
  let size = textSize(type) + textSize(source) + textSize(target)
  for (const option of options) size += fieldSize(option)
  return size
}

/** A field by itself is left out when it is empty; one of a list is not. */
function textSize(text: string): number {
  return text === '' ? 0 : fieldSize(text)
}

function writeText(into: Buffer, at: number, tag: number, text: string): number {
  return text === '' ? at : writeField(into, at, tag, text)
}

function fieldSize(text: string): number {
  const size = Buffer.byteLength(text)
  return 1 + varintSize(size) + size
}

function writeField(into: Buffer, at: number, tag: number, text: string): number {
  const begin = writeVarint(into, writeVarint(into, at, tag), Buffer.byteLength(text))
  return begin + into.write(text, begin)
}

function varintSize(value: number): number {
  let size = 1
  for (let rest = value; rest >= 0x80; rest = Math.floor(rest / 0x80)) size += 1
  return size
}

function writeVarint(into: Buffer, start: number, value: number): number {
  let [at, rest] = [start, value]
  for (; rest >= 0x80; rest = Math.floor(rest / 0x80)) into[at++] = (rest % 0x80) + 0x80
  into[at++] = rest
  return at
}
