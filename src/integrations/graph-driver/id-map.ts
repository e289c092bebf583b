import { IntegrationError } from '../errors.ts'

/** A run of ids of containers, and which ids of the host they are. */
export interface IdRange {
  readonly ContainerID: number
  readonly HostID: number
  readonly Size: number
}

export interface Owner {
  readonly uid: number
  readonly gid: number
}

/** The users of a daemon with `userns-remap`, in both directions; without ranges they are the host's own. */
export class IdMap {
  readonly #uids: readonly IdRange[]
  readonly #gids: readonly IdRange[]

  /** Throws 'BAD_OPTION'. */
  constructor(uids: unknown, gids: unknown) {
    this.#uids = ranges(uids)
    this.#gids = ranges(gids)
  }

  readonly toHost = (uid: number, gid: number): Owner => ({
    uid: mapped(uid, this.#uids, 'ContainerID', 'HostID'),
    gid: mapped(gid, this.#gids, 'ContainerID', 'HostID'),
  })

  readonly toContainer = (uid: number, gid: number): Owner => ({
    uid: mapped(uid, this.#uids, 'HostID', 'ContainerID'),
    gid: mapped(gid, this.#gids, 'HostID', 'ContainerID'),
  })
}

function ranges(given: unknown): readonly IdRange[] {
  if (given === undefined || given === null) return []
  const whole = (value: unknown): boolean => Number.isInteger(value) && (value as number) >= 0
  const isRange = (range: unknown): range is IdRange =>
    typeof range === 'object' &&
    range !== null &&
    'ContainerID' in range &&
    'HostID' in range &&
    'Size' in range &&
    [range.ContainerID, range.HostID, range.Size].every(whole)
  if (Array.isArray(given) && given.every(isRange)) return given
  throw new IntegrationError('BAD_OPTION', 'UIDMaps and GIDMaps must be lists of {ContainerID, HostID, Size}')
}

function mapped(id: number, among: readonly IdRange[], from: keyof IdRange, to: keyof IdRange): number {
  if (among.length === 0) return id
  const range = among.find((one) => id >= one[from] && id < one[from] + one.Size)
  if (range !== undefined) return id - range[from] + range[to]
  throw new IntegrationError('FAILED', `the id ${id} has no counterpart in the daemon's id mappings`)
}
