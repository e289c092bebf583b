/** Which ids of the host the ids of a container are. Source: docs/formats/snapshot-store.md, "Directories". */
import { SnapshotterError } from './errors.ts'
import { GID_MAPPING, UID_MAPPING } from './labels.ts'
import type { Labels } from './snapshot.ts'

/** `size` ids from `container` on are those from `host` on. Users and groups are mapped alike. */
export interface IdMapping {
  readonly container: number
  readonly host: number
  readonly size: number
}

const MAX_U32 = 0xffff_ffff
const FORM = /^(\d{1,10}):(\d{1,10}):(\d{1,10})$/

/** The mapping that the labels ask for; undefined for none. Throws SnapshotterError 'INVALID_ARGUMENT'. */
export function parseIdMapping(labels: Labels): IdMapping | undefined {
  const [uid, gid] = [labels.get(UID_MAPPING) ?? '', labels.get(GID_MAPPING) ?? '']
  if (uid === '' && gid === '') return undefined
  if (uid === '' || gid === '') throw wrong('both must be given')
  if (uid !== gid) throw wrong(`${JSON.stringify(uid)} and ${JSON.stringify(gid)} differ, and they must be the same`)
  const [container, host, size] = (FORM.exec(uid.trim()) ?? []).slice(1).map(Number)
  if (container === undefined || host === undefined || size === undefined)
    throw wrong(`${JSON.stringify(uid)} is not of the form containerID:hostID:size`)
  if (size === 0) throw wrong(`${JSON.stringify(uid)} maps nothing`)
  if (container + size > MAX_U32 || host + size > MAX_U32)
    throw wrong(`${JSON.stringify(uid)} goes past the largest id`)
  return { container, host, size }
}

function wrong(what: string): SnapshotterError {
  return new SnapshotterError('INVALID_ARGUMENT', `labels ${UID_MAPPING} and ${GID_MAPPING}: ${what}`)
}
