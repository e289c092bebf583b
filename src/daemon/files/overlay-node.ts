import type { HostFile } from '../../kernel/index.ts'
import type { Ino } from '../../rafs/index.ts'

/** A file or directory of an overlay that somebody knows. */
export interface OverlayNode {
  readonly id: number
  readonly type: number
  /** A place of it; undefined for the root. A file with several names may have others. */
  parent: OverlayNode | undefined
  name: Uint8Array
  /** What is written to; undefined as long as only the image has it. */
  upper: HostFile | undefined
  /** In the image: a file that has not been copied, or the directory that this one is merged with. */
  lower: Ino | undefined
  /** The image's file that this is, or is a copy of: its number is what users see. */
  origin: Ino | undefined
  lookups: number
  /** Nodes that have this one as their parent. */
  children: number
  /** Its last name was removed. */
  isGone: boolean
  /** What was copied of it and has no name yet. */
  copy: { readonly fd: number; readonly name: Uint8Array } | undefined
  copying: Promise<void> | undefined
  /** The journal has it. */
  isWritten: boolean
  /** Handle of a copy that is about to get several names, or has some of them. */
  placing: Uint8Array | undefined
}

const NO_NAME = new Uint8Array(1)

/** A node of which nothing is known yet. */
export function blank(id: number, type: number): OverlayNode {
  return {
    id,
    type,
    parent: undefined,
    name: NO_NAME,
    upper: undefined,
    lower: undefined,
    origin: undefined,
    lookups: 0,
    children: 0,
    isGone: false,
    copy: undefined,
    copying: undefined,
    isWritten: false,
    placing: undefined,
  }
}
